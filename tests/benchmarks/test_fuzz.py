from __future__ import annotations

import pytest

from benchmarks.fuzz import Sender, fuzz, metrics
from rec.errors import BundleError
from tests.serving.conftest import opened, scorer, service  # noqa: F401  the tiny shop, served
from tests.serving.server.conftest import running


@pytest.mark.parametrize("seed", [1, 2])
def test_no_input_is_a_fault_of_ours(service, opened, caplog, seed):  # noqa: F811  fixtures
    """A share of what `multigate bench fuzz` sends: no 500, nothing in the log, and good requests are answered."""
    with running(service, head_seconds=0.5, body_seconds=0.5) as shop:
        statuses = fuzz(shop.port, opened, inputs=400, seed=seed, advance=lambda _: None)
        page = metrics(shop.port)
    assert page['multigate_http_requests_total{code="500"}'] == 0
    assert {"200", "400", "422"} <= set(statuses)
    assert "500" not in statuses
    assert caplog.text == ""


def test_a_fault_would_be_seen(service, opened, monkeypatch):  # noqa: F811  fixtures
    """Planted: a server that answers good requests no more."""
    with running(service) as shop:
        monkeypatch.setattr(service, "rank", None)
        with pytest.raises(BundleError, match="a good request was not answered"):
            fuzz(shop.port, opened, inputs=10, seed=1, advance=lambda _: None)


def test_inputs_are_those_of_their_seed(opened):  # noqa: F811  a fixture
    """The same again with the same seed, and others with another."""
    first, again, other = (Sender(opened, seed) for seed in (1, 1, 2))
    drawn = [[one.next() for _ in range(50)] for one in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
