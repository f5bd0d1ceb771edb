"""When outcomes happened: named, guessed, or stated to be absent; in any form that the log's own clock may have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features import checks, sources
from features.pipeline import build
from features.transforms import label_sql
from rec.data import splits
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import parse

START = datetime(2026, 3, 1, tzinfo=UTC)
SHOWN = [START + timedelta(hours=hour) for hour in range(8)]
CLICKED = [True, True, False, True, False, True, True, True]
LATE = [False, True, False, False, False, True, False, False]  # two hours after, not five minutes
RIGHT = [1, 0, 0, 1, 0, 0, 1, 1]
MOMENTS = [
    shown + (timedelta(hours=2) if late else timedelta(minutes=5)) if clicked else None
    for shown, clicked, late in zip(SHOWN, CLICKED, LATE, strict=True)
]
SPEC = """
name = "late"
[source]
kind = "impressions"
files = "FILES"
[keys]
user = "user"
item = "item"
time = "time"
UNIT
[split]
validation = 2026-03-02T00:00:00Z
test = 2026-03-03T00:00:00Z
[context]
user = { kind = "id" }
before = { kind = "number", make = "count", per = "user", task = "click" }
[candidates]
item = { kind = "id" }
[tasks.click]
label = LABEL
window = "10m"
TIME
"""


def counts(moments: list, per: int, kind: type = int) -> list:
    """Timestamps as counts since 1970, so many a second."""
    return [None if moment is None else kind(moment.timestamp() * per) for moment in moments]


def texts(moments: list, form: str) -> list:
    """Timestamps in a strftime format."""
    return [None if moment is None else moment.strftime(form) for moment in moments]


FORMS = {
    "datetime": (lambda m: pl.Series(m, dtype=pl.Datetime("us", "UTC")), ""),
    "naive": (lambda m: pl.Series(m, dtype=pl.Datetime("us", "UTC")).dt.replace_time_zone(None), ""),
    "seconds": (lambda m: pl.Series(counts(m, 1)), ""),
    "float seconds": (lambda m: pl.Series(counts(m, 1, float)), ""),
    "milliseconds": (lambda m: pl.Series(counts(m, 1000)), 'time_unit = "ms"'),
    "microseconds": (lambda m: pl.Series(counts(m, 10**6)), 'time_unit = "us"'),
    "nanoseconds": (lambda m: pl.Series(counts(m, 10**9)), 'time_unit = "ns"'),
    "auto": (lambda m: pl.Series(counts(m, 1000)), 'time_unit = "auto"'),
    "iso": (lambda m: pl.Series(texts(m, "%Y-%m-%dT%H:%M:%SZ")), ""),
    "format": (lambda m: pl.Series(texts(m, "%d.%m.%Y %H:%M")), 'time_format = "%d.%m.%Y %H:%M"'),
    "categorical": (lambda m: pl.Series(texts(m, "%Y-%m-%d %H:%M:%S"), dtype=pl.Categorical), ""),
}  # fmt: skip


def log(form: str, column: str = "done") -> tuple[pl.DataFrame, str]:
    """Impressions whose own clock, and that of their clicks in `column`, are of a form; the spec's line for it."""
    made, unit = FORMS[form]
    frame = pl.DataFrame({"user": [1] * 8, "item": range(8), "clicked": [int(c) for c in CLICKED], "time": made(SHOWN)})
    return frame.with_columns(made(MOMENTS).alias(column)), unit


def built(folder: Path, frame: pl.DataFrame, *, unit: str, label: str, time: str, csv: bool = False) -> dict:
    """The labels, the counts of clicks before, and the finding on the task's clock."""
    folder.mkdir(exist_ok=True)
    name = "log.csv" if csv else "log.parquet"
    if csv:
        frame.write_csv(folder / name)
    else:
        frame.write_parquet(folder / name)
    text = SPEC.replace("FILES", name).replace("UNIT", unit).replace("LABEL", f"'{label}'").replace("TIME", time)
    spec = parse(text + "[logs]\nend = 2026-03-02T00:00:00Z")
    how = build.BuildOptions(engine="serial", refusing=False)
    manifest = build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent(), how=how)
    rows = [row for part in splits.read(folder / "data", "train", spec) for row in part.to_pylist()]
    (clock,) = [finding for finding in manifest["findings"] if finding["name"] == "tasks.click.time"]
    labels = [candidate["click"] for row in rows for candidate in row["candidates"]]
    return {"labels": labels, "before": [row["context"]["before"] for row in rows], "clock": clock}


CASES = [
    ("clicked", "done", 'time = "done"', "note"),
    ("clicked", "clicked_time", "", "warn"),
    ("done", "done", 'time = "done"', "note"),
    ("clicked", "clicked_at", "", "warn"),
    ("done IS NOT NULL", "done", 'time = "done"', "note"),
    ("done", "done", "", "warn"),
    ('"done at" IS NOT NULL', "done at", "", "warn"),
]


@pytest.mark.parametrize(
    ("form", "csv", "case"),
    [(form, csv, CASES[0]) for form in sorted(FORMS) for csv in (False, True)]
    + [(form, False, case) for form in ("datetime", "seconds", "iso") for case in CASES[1:]]
    + [(form, True, case) for form in ("seconds", "format") for case in CASES[1:3]],
)
def test_a_late_event_did_not_happen_whatever_its_clock_is_written_as(form, csv, case, tmp_path):
    """Named or guessed, in any form of keys.time: 0 after the window, and not counted before; a guess is a warning."""
    label, column, time, level = case
    frame, unit = log(form, column)
    result = built(tmp_path, frame, unit=unit, label=label, time=time, csv=csv)
    assert result["labels"] == RIGHT
    assert result["before"] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert (result["clock"]["level"], repr(column) in result["clock"]["text"]) == (level, True)


def test_a_date_is_the_beginning_of_its_day(tmp_path):
    """A click three days later is late, one of the same day is not."""
    days = [None if moment is None else moment.date() for moment in MOMENTS]
    frame, _ = log("datetime")
    days[1] = SHOWN[1].date() + timedelta(days=3)
    frame = frame.with_columns(pl.Series("done", days))
    result = built(tmp_path, frame, unit="", label="clicked", time='time = "done"')
    assert result["labels"] == [1, 0, 0, 1, 0, 1, 1, 1]


def test_a_log_may_say_that_nothing_tells_when(tmp_path):
    """`time = false`: a column of a telling name is not looked at."""
    frame, _ = log("datetime", "clicked_time")
    result = built(tmp_path, frame, unit="", label="clicked", time="time = false")
    assert result["labels"] == [int(clicked) for clicked in CLICKED]
    assert result["clock"]["text"] == "the spec says that no column tells when it happened"


def test_a_duration_beside_a_label_is_no_moment(tmp_path):
    """`watch_time` of `watch` is how long: its numbers are no timestamps."""
    frame, unit = log("seconds")
    frame = frame.drop("done").with_columns(clicked_time=pl.Series([3, 4000, None, 5, None, 9000, 1, 2]))
    result = built(tmp_path, frame, unit=unit, label="clicked", time="")
    assert result["labels"] == [int(clicked) for clicked in CLICKED]
    assert result["clock"]["level"] == "note"


def test_a_clock_that_nothing_reads_is_asked_about(tmp_path):
    """A column of moments that no name ties to the label may be its clock."""
    frame, _ = log("datetime", "conversion_timestamp")
    clock = built(tmp_path, frame, unit="", label="clicked", time="")["clock"]
    assert clock["level"] == "warn"
    assert "is it 'conversion_timestamp'? say time = \"...\", or time = false" in clock["text"]


def test_a_label_may_compare_a_clock_of_numbers_with_numbers(tmp_path):
    """As SQL on the log would: counts of keys.time_unit, compared with 0 or with keys.time."""
    frame, unit = log("milliseconds")
    frame = frame.with_columns(pl.col("done").fill_null(0))
    for place, label in enumerate(["done > 0", "done > time", "COALESCE(done, 0) > 0 AND clicked"]):
        result = built(tmp_path / str(place), frame, unit=unit, label=label, time='time = "done"')
        assert result["labels"] == RIGHT


def test_a_value_that_is_no_timestamp_is_an_unusable_row_where_the_spec_names_the_column(tmp_path):
    """Of a guess it is nothing."""
    frame, _ = log("iso")
    frame = frame.with_columns(done=pl.Series([*texts(MOMENTS, "%Y-%m-%dT%H:%M:%SZ")[:-1], "soon"]))
    with pytest.raises(build.CheckError, match=r"done: expected a timestamp such as .*; such as got 'soon'"):
        built(tmp_path / "named", frame, unit="", label="clicked", time='time = "done"')
    guessed = frame.rename({"done": "clicked_time"})
    assert built(tmp_path / "guessed", guessed, unit="", label="clicked", time="")["labels"] == [
        int(c) for c in CLICKED
    ]


def test_a_clock_that_is_not_there_is_refused(tmp_path):
    """By the place in the spec, with the nearest name."""
    frame, _ = log("datetime", "done")
    with pytest.raises(SpecError, match=r"tasks.click.time: no column 'don' in the logs; did you mean 'done'"):
        built(tmp_path, frame, unit="", label="clicked", time='time = "don"')


def test_a_feature_of_an_outcomes_clock_is_a_leak():
    """The timestamp of a click says that there was one."""
    text = SPEC.replace("LABEL", '"clicked"').replace("UNIT", "").replace("TIME", 'time = "done"')
    spec = parse(text.replace("[candidates]", '[candidates]\ndone = { kind = "number", make = "age" }'))
    assert not checks.of_spec(spec).passed


@pytest.mark.parametrize("word", ["view", "order", "select", "group", "a.b", "like", "end", "case", "table"])
def test_a_label_is_a_column_that_is_called_by_a_keyword(word):
    """A name alone is that column, whatever SQL makes of the word."""
    rows = pl.DataFrame({word: [1, 0]})
    assert label_sql.columns("tasks.x", word) == [word]
    assert label_sql.evaluated(
        parse('name = "x"\ntasks = { a = { label = "a" } }'), "tasks.x", word, rows
    ).to_list() == [1, 0]
