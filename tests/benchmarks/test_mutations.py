from __future__ import annotations

import random

import pytest

from benchmarks import mutations
from rec.data import splits
from rec.errors import BundleError
from rec.progress import Silent


def test_a_mutated_file_is_refused_or_opened(bundle, data):
    """A share of what `multigate bench mutations` tries: no crash, hang or other error."""
    result = mutations.bench(bundle=bundle, data=data, inputs=40, seed=7, progress=Silent())
    for kind in mutations.KINDS:
        assert set(result[kind]) == {"opened", "refused"}
        assert sum(result[kind].values()) == 40


def test_a_trial_that_ends_otherwise_is_named(bundle, tmp_path):
    """Planted: a part that is not there."""
    with pytest.raises(BundleError, match=r"parts, seed 3: ended with 1: (.|\n)*FileNotFoundError"):
        mutations.share(["parts", str(bundle), str(tmp_path / "none.arrow"), "3", "5"])


def test_a_process_that_ends_early_is_named(bundle, data, monkeypatch):
    """Planted: a process that ends without a word."""
    part = splits.files(data, "test")[0]
    monkeypatch.setattr(mutations.sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match=r"bundles, seed 1: ended with 1: $"):
        mutations.share(["bundles", str(bundle), str(part), "1", "3"])


def test_mutations_are_those_of_their_seed():
    """One piece is another; of another seed, another piece."""
    content = bytes(range(256)) * 40
    drawn = [mutations.mutated(content, random.Random(seed)) for seed in range(200)]
    assert drawn == [mutations.mutated(content, random.Random(seed)) for seed in range(200)]
    assert sum(change != content for change in drawn) > 190
    assert len(set(drawn)) > 190
    assert mutations.mutated(b"", random.Random(1)) is not None
