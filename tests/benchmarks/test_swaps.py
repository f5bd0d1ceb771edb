from __future__ import annotations

from benchmarks import swaps
from rec.progress import Silent


def test_swaps_lose_no_request(bundle):
    """A short share of `multigate bench swaps`: two swaps under load, every request answered."""
    result = swaps.bench(bundle=bundle, times=1, rate=0.3, seed=1, progress=Silent(), calm_seconds=0.5)
    assert (result["swaps"], result["failures"]) == (2, 0)
    assert result["requests"] > 20
