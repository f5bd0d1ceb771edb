"""Columns made by code: one function in one file, which sees its own row and no other."""

from __future__ import annotations

import polars as pl
import pytest

from features.logs.logs import Logs
from features.pipeline import build
from features.transforms import user_columns
from rec.data import splits
from rec.errors import SpecError
from rec.progress import Silent
from tests.features import tiny

ROWS = pl.DataFrame({"price": [4.0, 6.0, 9.0, None], "list_price": [8.0, 6.0, 10.0, 5.0]})
SAVED = "def saved(list_price, price):\n    return 1 - price / list_price\n"


@pytest.fixture
def folder(tmp_path):
    """A folder for columns; what a test writes there has a name of its own, so nothing is remembered."""
    columns = tmp_path / "columns"
    columns.mkdir()
    return columns


def test_a_function_is_a_column(folder):
    """Its arguments are the columns they are called after; what is missing stays missing."""
    (folder / "saved.py").write_text(SAVED)
    assert user_columns.load(folder)["saved"].reads == ("list_price", "price")
    assert user_columns.evaluate(folder, ["saved"], ROWS)["saved"].to_list() == pytest.approx([0.5, 0.0, 0.1, None])


def test_no_folder_has_no_columns():
    """A spec without `logs.columns`."""
    assert user_columns.load(None) == {}


def test_a_folder_that_is_not_there(folder):
    """With the nearest that is."""
    with pytest.raises(SpecError, match=r"logs.columns: no folder .*colums; did you mean 'columns'\?"):
        user_columns.load(folder.with_name("colums"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def savd(price):\n    return price\n", r"saved.py: expected a function 'saved'; did you mean 'savd'\?"),
        ("import nothing_like_it\n", r"saved.py: cannot be read: ModuleNotFoundError"),
        ("def saved(price:\n", r"saved.py: cannot be read: SyntaxError"),
        ("def saved(price):\n    return 3\n", r"saved.py: expected a polars expression back, got int"),
        ("def saved(price):\n    return price + None.x\n", r"saved.py: cannot be evaluated: 'NoneType'"),
        ("def saved(price):\n    return price.str.len_chars()\n", r"saved.py: cannot be evaluated: "),
        ("def saved(price):\n    return price.sum()\n", r"saved.py: not row-wise: it gives 1 values for 4 rows"),
        ("def saved(price):\n    return price - price.mean()\n", r"saved.py: not row-wise: a part of the log"),
        ("def saved(price):\n    return price.shift(1)\n", r"saved.py: not row-wise: a part of the log"),
        ("def saved(price):\n    return price.cum_sum()\n", r"saved.py: not row-wise: a part of the log"),
    ],
)
def test_what_is_no_column_is_refused(folder, text, message):
    """Where it is, and what is wrong with it; above all, one that looks ahead."""
    (folder / "saved.py").write_text(text)
    with pytest.raises(SpecError, match=message):
        user_columns.evaluate(folder, ["saved"], ROWS)


def test_a_column_made_by_code_is_a_feature(folder, tmp_path):
    """Of impressions and side tables alike; a column it reads that nothing has is told with its file."""
    (folder / "saved.py").write_text(SAVED)
    spec = tiny.spec(candidates='saved = { kind = "number", scale = "none" }')
    rows = tiny.frame([(1, 10, 3, 1), (1, 11, 4, 0)]).with_columns(list_price=pl.Series([8.0, 10.0]))
    items = pl.DataFrame({"item": [10, 11], "price": [4.0, 9.0]})
    logs = Logs.whole(rows.lazy(), items=items.lazy())
    logs = Logs(logs.impressions, items=logs.items, columns=folder)
    build.build(spec, logs, tmp_path / "data", progress=Silent())
    (table,) = splits.read(tmp_path / "data", "train", spec)
    shown = [candidate for request in table.column("candidates").to_pylist() for candidate in request]
    assert {candidate["item"]: candidate["saved"] for candidate in shown} == pytest.approx({10: 0.5, 11: 0.1})
    bare = Logs(Logs.whole(rows.lazy()).impressions, columns=folder)
    with pytest.raises(SpecError, match=r"saved.py: no column 'price' in the logs"):
        build.build(spec, bare, tmp_path / "other", progress=Silent())
