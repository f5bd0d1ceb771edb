"""An evaluation over processes has the figures of one process, however requests lie over them."""

from __future__ import annotations

import json
import socket
from datetime import timedelta

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from rec.errors import DataError
from rec.evaluation.accumulator import ROW
from rec.evaluation.evaluate import Evaluation
from rec.request import RequestBatch
from rec.spec import Evaluate, Task
from rec.spec import parse as parse_spec
from rec.training.process_group import ProcessGroupRanks
from tests.conftest import SHOP

HELD = 400  # rows: far fewer than there are
TASKS = {
    "click": Task(label="c"),
    "buy": Task(label="b", given="click"),
    "watch": Task(label="w", given="click", predict="log"),
    "pull": Task(label="p", predict="quantile", quantile=0.7),
}
# requests of each rank: evenly, all on one, most on the last, and one rank without any
SHARES = {1: [[1.0]], 2: [[0.5, 0.5], [0.0, 1.0]], 4: [[0.25] * 4, [0.0, 0.1, 0.0, 0.9]]}


def spec_of(group):
    """The tiny shop's spec with tasks of all kinds, evaluated inside users or requests."""
    return parse_spec(SHOP).model_copy(update={"tasks": TASKS, "evaluate": Evaluate(group=group)})


def requests():
    """(batch, scores, users) of 300 requests with 0 to 15 candidates; many scores are tied, and one user is in half."""
    random = np.random.default_rng(5)
    for _ in range(300):
        count = int(random.integers(0, 16))
        score = {name: np.round(random.random(count), 2).astype(np.float32) for name in TASKS}
        click = (random.random(count) < score["click"]).astype(np.int8)
        labels = {
            "click": click,
            "buy": click * (random.random(count) < 0.4).astype(np.int8) - (random.random(count) < 0.05),
            "watch": (click * random.integers(0, 60, count) / 2).astype(np.float32),
            "pull": random.random(count, np.float32),
        }
        scores = score | {"buy|click": score["buy"], "watch|click": score["watch"]}
        batch = RequestBatch(1, {}, {}, np.zeros(count, np.int64), labels)
        yield batch, scores, np.array([7 if random.random() < 0.5 else random.integers(-40, 40)])


def evaluation(group, requests_of_rank):
    """What one rank has of it."""
    actual = Evaluation(spec_of(group), memory=2 * HELD * ROW)
    for number, (batch, scores, user) in requests_of_rank:
        actual.add(batch, scores, np.array([number]) if group is None else user)
    return actual


def work(rank, size, port, folder):
    """One process: its share of the requests by each way to share them out, with groups whole and spread."""
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    ranks = ProcessGroupRanks()
    for way, shares in enumerate(SHARES[size]):
        owner = np.random.default_rng(way).choice(size, 300, p=shares)
        mine = [(number, request) for number, request in enumerate(requests()) if owner[number] == rank]
        for group in (None, "user_id"):
            report = evaluation(group, mine).report(ranks)
            (folder / f"{way}-{group}-{rank}.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match="not one candidate"):
        evaluation(None, []).report(ranks)
    dist.destroy_process_group()


def flat(value, path=""):
    """{path: number, or whatever else} of a report."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {p: v for key, part in items for p, v in flat(part, f"{path}/{key}").items()}
    return {path: value}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_figures_are_those_of_one_process(size, tmp_path):
    """To 1e-12, on every rank the same to the bit: requests evenly on ranks, or nearly all on one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (size, port, tmp_path), nprocs=size)
    for group in (None, "user_id"):
        alone = flat(evaluation(group, enumerate(requests())).report())
        for way in range(len(SHARES[size])):
            texts = [(tmp_path / f"{way}-{group}-{rank}.json").read_text() for rank in range(size)]
            assert len(set(texts)) == 1
            actual = flat(json.loads(texts[0]))
            assert list(actual) == list(alone)
            for path, value in alone.items():
                expected = pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value
                assert actual[path] == expected, path


def test_a_group_that_is_not_of_the_cpu_is_refused(monkeypatch):
    """Arrays of metrics are exchanged between CPUs."""
    monkeypatch.setattr(dist, "get_backend", lambda _: "nccl")
    with pytest.raises(ValueError, match="expected a process group of gloo, got nccl"):
        ProcessGroupRanks()
