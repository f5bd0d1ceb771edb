"""The tiny shop's baselines, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rec.spec import Spec
from tests.baselines import trained


@pytest.fixture(scope="session", params=["gbdt", "popularity"])
def baseline(request, spec: Spec, data: Path, tmp_path_factory) -> Path:
    """A trained baseline, in a folder of its name."""
    return trained(request.param, spec, data, tmp_path_factory.mktemp("baseline"))


@pytest.fixture(scope="session")
def popular(spec: Spec, data: Path, tmp_path_factory) -> Path:
    """A trained popularity."""
    return trained("popularity", spec, data, tmp_path_factory.mktemp("baseline"))
