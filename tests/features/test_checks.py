"""What `multigate check` finds, each with a planted fault."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from features import checks
from features.logs import Finding, Logs
from rec.spec import Spec, parse
from tests.features import tiny

FIRST = 1_772_323_200  # 2026-03-01
ROWS = [(1 + i % 7, 10 + i % 3, FIRST + 60 * i, int(i % 5 == 0)) for i in range(100)]


def failed(spec: Spec, rows: pl.DataFrame, users: pl.DataFrame | None = None) -> list[Finding]:
    """Findings that did not pass."""
    logs = Logs(rows.lazy(), None if users is None else users.lazy())
    return [finding for finding in checks.check(spec, logs) if not finding.passed]


def only(findings: list[Finding]) -> Finding:
    """The one and only."""
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_log_passes():
    """Every check, and there are many."""
    spec = tiny.spec(candidates='n = { kind = "number", make = "rate", per = "item", task = "click" }')
    found = checks.check(spec, tiny.logs(ROWS))
    assert all(finding.passed for finding in found)
    assert {"labels", "keys.user", "duplicates", "tasks.click"} <= {finding.name for finding in found}


def test_a_label_column_as_a_feature_is_found():
    """Twice: by its name, and because it separates."""
    found = failed(tiny.spec(candidates='clicked = { kind = "number" }'), tiny.frame(ROWS))
    assert [finding.name for finding in found] == ["labels", "tasks.click"]
    assert found[0].examples[0].startswith("candidates.clicked: reads 'clicked'")


def test_a_column_written_after_the_fact_is_found():
    """A number that is larger exactly where there is a click, whatever it is called."""
    rows = tiny.frame(ROWS).with_columns(dwell=pl.col("clicked") * 30 + pl.int_range(pl.len()) % 7)
    finding = only(failed(tiny.spec(candidates='dwell = { kind = "number" }'), rows))
    assert (finding.name, finding.examples) == ("tasks.click", ("candidates.dwell: AUC 1.0000",))
    assert "were they written after it?" in finding.text


def test_a_column_that_orders_a_quantity_is_found():
    """Money spent, in another currency; the number of a row is none of it."""
    rows = tiny.frame(ROWS).with_columns(paid=pl.int_range(pl.len()) * 37 % 23, n=pl.int_range(pl.len()))
    spec = tiny.spec(
        candidates='yen = { kind = "number" }\nn = { kind = "number" }',
        tasks='paid = { label = "paid", predict = "log" }',
    )
    finding = only(failed(spec, rows.with_columns(yen=pl.col("paid") * 150)))
    assert (finding.name, finding.examples) == ("tasks.paid", ("candidates.yen: concordance 1.0000",))
    assert "how large paid is" in finding.text


def test_a_negative_quantity_is_found():
    """Before anything is learnt from it."""
    spec = tiny.spec(tasks='paid = { label = "paid", predict = "log" }')
    rows = tiny.frame(ROWS).with_columns(paid=pl.int_range(pl.len()) % 7 - 1)
    assert only(failed(spec, rows)).name == "tasks.paid.label"


def test_an_id_that_is_the_label_in_words_is_found_but_a_user_is_not():
    """A value needs 20 rows before its mean label says anything: ids seen once or twice do not trip it."""
    words = 'status = { kind = "id", values = "string" }\nonce = { kind = "id" }'
    word = pl.when(pl.col("clicked") == 1).then(pl.lit("done")).otherwise(pl.lit("open"))
    rows = tiny.frame(ROWS).with_columns(status=word, once=pl.int_range(pl.len()))
    assert only(failed(tiny.spec(candidates=words), rows)).examples == ("candidates.status: AUC 1.0000",)


def test_a_child_without_its_parent_is_found():
    """With how many and who."""
    spec = tiny.spec(tasks='buy = { label = "bought", given = "click" }')
    rows = tiny.frame(ROWS).with_columns(bought=(pl.int_range(pl.len()) == 3).cast(pl.Int8))
    finding = only(failed(spec, rows))
    assert (finding.name, finding.count) == ("tasks.buy", 1)
    assert finding.examples == (f"user=4 item=10 time={FIRST + 180}",)


def test_an_outcome_known_after_its_window_is_found():
    """The latest says which window would do."""
    moment = pl.when(pl.col("clicked") == 1).then(pl.col("time") + 90) * 1_000_000
    rows = tiny.frame(ROWS).with_columns(clicked_time=moment.cast(pl.Datetime("us", "UTC")))
    finding = only(failed(tiny.spec(window=60), rows))
    assert (finding.name, finding.count) == ("tasks.click.window", 20)
    assert "the latest needs 0:01:30" in finding.text
    assert not failed(tiny.spec(window=90), rows)


def test_moments_after_the_request_are_found():
    """An attribute written later, alone or in a list; one of the same moment is no fault."""
    spec = tiny.spec(
        context='seen = { kind = "ids", values = "string" }', candidates='listed = { kind = "number", make = "age" }'
    )
    day = datetime(2026, 3, 1, tzinfo=UTC)
    rows = tiny.frame(ROWS).with_columns(listed=pl.lit(day + timedelta(seconds=60)))
    users = pl.DataFrame({"user": [1, 2], "seen": [[day], [day, day + timedelta(days=9)]]})
    found = {finding.name: finding for finding in failed(spec, rows, users)}
    assert (found["candidates.listed"].count, found["candidates.listed"].examples) == (
        1,
        (f"user=1 item=10 time={FIRST}",),
    )
    assert found["context.seen"].count == sum(user == 2 for user, *_ in ROWS)


def test_repeated_rows_are_found():
    """Equal in every column of the log, also those the spec does not read."""
    rows = tiny.frame([*ROWS, ROWS[0]]).with_columns(note=pl.Series([None] * 100 + ["other"]))
    assert not failed(tiny.spec(), rows)
    finding = only(failed(tiny.spec(), rows.drop("note")))
    assert (finding.name, finding.count, finding.total) == ("duplicates", 1, 101)


@pytest.mark.parametrize(("place", "name"), [(0, "keys.user"), (1, "keys.item"), (2, "keys.time")])
def test_missing_keys_are_found(place, name):
    """Who, what, when."""
    row: list[int | None] = [1, 10, FIRST + 9, 0]
    row[place] = None
    finding = only(failed(tiny.spec(), tiny.frame([*ROWS, tuple(row)])))
    assert (finding.name, finding.count, finding.total) == (name, 1, 101)


def test_ids_of_the_wrong_type_are_found():
    """With the first that is none."""
    rows = tiny.frame(ROWS).with_columns(brand=pl.lit("acme"))
    finding = only(failed(tiny.spec(candidates='brand = { kind = "id" }'), rows))
    assert finding.name == "candidates.brand"
    assert "expected an id (int), got 'acme'" in finding.examples[0]


def test_a_context_that_changes_inside_a_request_is_found():
    """A request has one context: what varies belongs to the candidates."""
    spec = parse(
        """
        name = "x"
        keys = { user = "user", time = "time", request = "rid" }
        split.column = "split"
        context.user.kind = "id"
        context.device = { kind = "id", values = "string" }
        tasks.click.label = "clicked"
        """
    )
    rows = tiny.frame(ROWS[:2]).with_columns(
        user=1, rid=pl.lit("r"), split=pl.lit("train"), device=pl.Series(["a", "b"])
    )
    finding = only(failed(spec, rows))
    assert (finding.name, finding.count) == ("context column device", 1)
    assert "it belongs to [candidates]" in finding.text
