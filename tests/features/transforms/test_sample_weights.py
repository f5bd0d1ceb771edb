"""Sample weights from the logs to the session tables: which columns, which values, and who may read them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.checks import data_card
from features.logs.logs import Logs
from features.pipeline import build
from features.store import ingest, state
from features.transforms import sample_weights
from rec.data import splits
from rec.data.session_table import flat, schema
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import Spec, Task, sections
from rec.training import trainer
from tests.features import tiny

DAYS = (1, 2, 3)


def spec(expression: str = "w", **lines: str) -> Spec:
    """The tiny spec with a weight for clicks."""
    described = tiny.spec(**lines)
    click = described.tasks["click"].model_copy(update={"sample_weight": expression})
    return described.model_copy(update={"tasks": {**described.tasks, "click": click}})


def log() -> pl.DataFrame:
    """Sixty impressions over three days, with weights 0, 1 and 2 in turn."""
    start = 1_772_323_200  # 2026-03-01
    rows = [(n % 7, n, start + (n % 3) * 86_400 + n, n % 2) for n in range(60)]
    return tiny.frame(rows).with_columns(w=pl.Series(np.arange(60) % 3, dtype=pl.Float64))


def built(spec: Spec, rows: pl.DataFrame, out) -> dict:
    """The manifest of the session tables of a log."""
    return build.build(spec, Logs.whole(rows.lazy()), out, progress=Silent())


def weights_of(spec: Spec, out) -> dict[int, float]:
    """The weight of every item in the session tables."""
    found = {}
    for split in splits.SPLITS:
        for rows in splits.read(out, split, spec):
            columns = flat(rows, spec)
            found |= dict(zip(columns.candidates["item"].to_pylist(), columns.labels["@weight.click"], strict=True))
    return found


def test_the_weight_of_a_row_is_in_its_session_table(tmp_path):
    """Beside the labels, by a name that no feature has; the card has the range and the share of zeros."""
    described = spec()
    manifest = built(described, log(), tmp_path / "data")
    assert weights_of(described, tmp_path / "data") == {n: n % 3 for n in range(60)}
    candidate = schema(described).field("candidates").type.value_type
    assert [field.name for field in candidate] == ["item", "click", "@weight.click"]
    assert [field.name for field in schema(described, labels=False).field("candidates").type.value_type] == ["item"]
    (finding,) = [f for f in manifest["findings"] if f["text"].startswith("sample weights of click:")]
    assert finding["text"] == "sample weights of click: 0 to 2, 33.33% of them 0"
    (train, *_), *_ = [row for row in data_card.tables(manifest)[0][2] if row[0] == "click sample weights"]
    assert train == "click sample weights"


def test_tables_of_another_weight_are_not_taken_for_these(tmp_path):
    """By `features`, which would find its folder finished, nor by `train`, which would learn by the old ones."""
    built(spec(), log(), tmp_path / "data")
    other = spec("w * 2")
    with pytest.raises(FileExistsError, match=r"data: holds .*tasks\.click"):
        built(other, log(), tmp_path / "data")
    with pytest.raises(DataError, match=r"was made with another tasks\.click; make it again with `multigate features"):
        trainer.train(other, tmp_path / "data", tmp_path / "model", progress=Silent())
    plain = tiny.spec()
    with pytest.raises(DataError, match=r"was made with another tasks\.click"):
        trainer.train(plain, tmp_path / "data", tmp_path / "model", progress=Silent())


def test_every_setting_of_a_task_is_one_of_its_tables_or_of_its_model():
    """A new one would otherwise be in neither, and tables that were made without it be taken for these."""
    of_model = {"space", "weight", "value"}
    described = spec()
    assert set(sections.of_tables(described)["tasks.click"]) == set(Task.model_fields) - of_model
    assert set(sections.of_tables(tiny.spec())["tasks.click"]) == set(Task.model_fields) - of_model - {"sample_weight"}


def test_without_weights_the_tables_are_as_they_were(tmp_path):
    """Not a byte more; weights of 1 only add their column."""
    described = tiny.spec()
    manifest = built(described, log(), tmp_path / "data")
    assert "sample_weights" not in manifest["counts"]["train"]
    assert [f.name for f in schema(described).field("candidates").type.value_type] == ["item", "click"]


def test_an_expression_is_one_of_the_row(tmp_path):
    """Any SQL of the impression; a condition is 0 or 1."""
    described = spec("CASE WHEN w > 1 THEN 10 ELSE 0.5 END")
    built(described, log(), tmp_path / "data")
    assert set(weights_of(described, tmp_path / "data").values()) == {10.0, 0.5}
    condition = sample_weights.read(spec("w > 1"), log(), {"click": np.ones(60, np.int8)})
    assert condition["@weight.click"].tolist() == [float(n % 3 > 1) for n in range(60)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.5, "-0.5"), (float("inf"), "inf"), (None, "null"), (float("nan"), "null"), (1e13, "1e\\+13")],
)
def test_a_weight_that_is_none_is_refused_with_its_row(value, shown, tmp_path):
    """Negative, infinite, missing, NaN or beyond all bounds: the row is named, and what can be written instead."""
    rows = log().with_columns(w=pl.Series([value if n == 5 else 1.0 for n in range(60)], dtype=pl.Float64))
    text = rf"(?s)sample weights of click are numbers from 0 to 1e\+12, got {shown}; .*COALESCE\(w, 1\).*item=5"
    with pytest.raises(DataError, match=text):
        built(spec(), rows, tmp_path / "data")
    built(spec("CASE WHEN w >= 0 AND w < 1000 THEN w ELSE 1 END"), rows, tmp_path / "other")


def test_a_weight_near_nothing_is_none():
    """Of an old row by a decay, say: over a sum of such weights no mean can be taken in float32."""
    label = {"click": np.ones(4, np.int8)}
    rows = pl.DataFrame({"w": [1e-300, 1e-40, 1e-29, 0.5]})
    np.testing.assert_allclose(sample_weights.read(spec(), rows, label)["@weight.click"], [0, 0, 1e-29, 0.5])


def test_a_row_without_a_label_needs_no_weight():
    """Its weight is 0, whatever the log has there."""
    rows = pl.DataFrame({"w": [None, 2.0, -1.0]})
    label = {"click": np.array([-1, 1, -1], np.int8)}
    found = sample_weights.read(spec(), rows, label)
    assert found["@weight.click"].tolist() == [0.0, 2.0, 0.0]
    assert all(finding.passed for finding in sample_weights.findings(spec(), found, label, rows))


def test_rows_to_be_scored_have_neither_label_nor_weight(tmp_path):
    """A log without both columns becomes session tables of unobserved rows."""
    described = spec()
    manifest = built(described, log().drop("w", "clicked").filter(pl.col("time") >= 1_772_496_000), tmp_path / "data")
    assert manifest["counts"]["test"]["observed"] == {"click": 0}
    assert set(weights_of(described, tmp_path / "data").values()) == {0.0}


def test_a_column_that_is_not_there_is_named(tmp_path):
    """A slip of the pen in a weight is no log without labels."""
    with pytest.raises(SpecError, match=r"tasks.click.sample_weight: no column 'ww' in the logs.*'w'"):
        built(spec("ww"), log().with_columns(pl.lit(1).alias("w1")), tmp_path / "data")


def test_text_is_no_weight(tmp_path):
    """The type that was found is named."""
    with pytest.raises(SpecError, match=r"tasks.click.sample_weight: expected a number in 'w', got 'heavy'"):
        built(spec(), log().with_columns(w=pl.lit("heavy")), tmp_path / "data")


def test_what_is_no_sql_is_refused_before_any_data():
    """The key is named."""
    with pytest.raises(SpecError, match=r"tasks.click.sample_weight: not an SQL expression"):
        sample_weights.columns(spec("w +* 2"), "click")


def test_the_column_of_a_weight_is_no_feature(tmp_path):
    """No request has it; an expression of features is a weight like any other."""
    feature = 'w = { kind = "number" }'
    described = spec(candidates=feature)
    (leak,) = sample_weights.leaks(described, {})
    assert leak.startswith("candidates.w: reads 'w', the sample weight of task 'click', which a request does not have")
    with pytest.raises(SpecError, match=r"candidates.w: reads 'w', the sample weight of task 'click'"):
        built(described, log(), tmp_path / "data")
    assert sample_weights.leaks(spec("1 + w", candidates=feature), {}) == []
    (made,) = sample_weights.leaks(spec(candidates='m = { kind = "number" }'), {"m": ("w",)})
    assert made.startswith("candidates.m: reads 'w'")


def test_a_store_takes_impressions_without_weights():
    """What only training reads, a store of features does without."""
    assert ingest.training_columns(spec()) == ["w"]
    assert ingest.training_columns(spec("1 + w", candidates='w = { kind = "number" }')) == []
    rows = log()
    store = state.empty(spec(), Logs.whole(rows.lazy()))
    store.feed(rows.drop("w").head(10))
