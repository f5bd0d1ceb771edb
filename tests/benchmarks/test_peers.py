from __future__ import annotations

import json
import sys

import numpy as np

from benchmarks import peers
from benchmarks.speed import serving_peers
from serving.bundle import load


class Said(list[str]):
    """Progress that keeps what it was told."""

    def start(self, what, total=None, unit=""):
        """Not kept."""

    def advance(self, units, **figures):
        """Not kept."""

    def say(self, line):
        """Kept."""
        self.append(line)


def test_the_endpoint_is_measured_without_peers(bundle, monkeypatch):
    """No other server is installed here: each is named, and the ratio is left out."""
    monkeypatch.setattr(peers, "SHARES", (0.3,))
    progress = Said()
    result = peers.bench(
        bundle=bundle, pythons=[], candidates=5, workers=[1], seconds=0.5, bound_ms=10_000, progress=progress
    )
    assert [(row.server, row.workers) for row in result["rows"]] == [("multigate", 1)]
    assert result["rows"][0].within_bound_per_second > 0
    assert result["of_the_best_peer"] == [None]
    assert sorted(line.split(" is in none of")[0] for line in progress) == sorted(serving_peers.LIBRARIES)


def test_a_peer_is_found_in_the_first_interpreter_that_has_it(monkeypatch):
    """A library that is there and one that is nowhere."""
    monkeypatch.setattr(serving_peers, "LIBRARIES", {"json": "json", "nothing": "nothing_of_this_name"})
    assert peers._libraries(["/bin/false", sys.executable], Said()) == {"json": sys.executable}


def test_a_request_of_a_peer_gives_the_outputs_of_the_graph(bundle):
    """The inputs as they are fed, through JSON and back: the graph's outputs to the last bit of 32."""
    question = peers._question(bundle, 5)
    answer = serving_peers.Graph(str(load(bundle).model)).answer(json.loads(question.body))
    for output, expected in zip(answer["outputs"], question.outputs, strict=True):
        assert np.abs(np.array(output["data"]) - expected).max() < peers.TOLERANCE
