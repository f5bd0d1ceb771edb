"""One tiny shop, built once per test session through the real functions: spec -> data -> run -> bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from rec import spec as specs
from rec.data import preprocessor, splits
from rec.data.session_table import to_batch
from rec.progress import Silent
from rec.request import RequestBatch
from rec.spec import Spec

# `make test` draws the same for everybody; `pytest --hypothesis-profile search` draws anew, and more
# how long an example takes is the machine's affair: a busy one fails no test
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, derandomize=False, deadline=None)
settings.load_profile("same")

SHOP = """
name = "tiny-shop"
[source]
kind = "shop"
users = 120
items = 60
days = 8
candidates = 6
[keys]
user = "user_id"
item = "item_id"
time = "time"
request = "request_id"
[split]
validation = 2026-03-08T00:00:00Z
test = 2026-03-09T00:00:00Z
[context]
user_id = { kind = "id", dim = 4 }
age = { kind = "number" }
city = { kind = "id", values = "string", dim = 4 }
hour = { kind = "id", make = "hour", dim = 4 }
clicked = { kind = "ids", make = "history", task = "click", last = 5, table = "item_id" }
[candidates]
item_id = { kind = "id", dim = 4 }
price = { kind = "number", scale = "log" }
listed = { kind = "number", make = "age", scale = "log" }
item_click = { kind = "number", make = "rate", per = "item_id", task = "click" }
item_shown = { kind = "number", make = "count", per = "item_id", scale = "log" }
position = { kind = "kept" }
[tasks.click]
label = "click"
window = "10m"
[tasks.buy]
label = "buy"
given = "click"
window = "2d"
value = 5.0
[model]
name = "mmoe"
experts = 2
expert_widths = [8]
tower_widths = [4]
[train]
batch = 256
lr = 0.001
epochs = 2
device = "cpu"
"""


@pytest.fixture(scope="session")
def spec() -> Spec:
    """A tiny shop with a click and a purchase, an id, a history, a rate and a number."""
    return specs.parse(SHOP, where="tests/conftest.py")


@pytest.fixture(scope="session")
def data(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its session tables."""
    from features import sources
    from features.pipeline import build

    out = tmp_path_factory.mktemp("shop") / "data"
    build.build(spec, sources.read(spec, Path()), out, progress=Silent())
    return out


@pytest.fixture(scope="session")
def run(spec: Spec, data: Path) -> Path:
    """A model trained on them for one epoch."""
    from rec.training import trainer

    out = data.parent / "run"
    trainer.train(spec, data, out, progress=Silent())
    return out


@pytest.fixture(scope="session")
def bundle(run: Path, data: Path) -> Path:
    """That model, exported."""
    from serving import export

    out = data.parent / "bundle"
    export.export(run, out, data=data, progress=Silent())
    return out


@pytest.fixture(scope="session")
def batch(spec: Spec, data: Path) -> RequestBatch:
    """The first requests of the test split, with their labels."""
    rows = next(splits.read(data, "test", spec)).slice(0, 32)
    return to_batch(rows, spec, preprocessor.load(spec, data / "fitted").encoders)
