"""What `multigate check` finds in a slice, how slices are put together, and in built tables: planted faults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from features import checks
from features.logs.logs import Finding, Logs
from features.pipeline import build
from features.sweep.key_group import KeyGroup
from features.transforms.joins import SINCE, SideTable
from rec.atomic import read_json
from rec.progress import Silent
from rec.spec import Spec, parse
from tests.features import tiny

FIRST = 1_772_323_200  # 2026-03-01
DAY = 86_400
ROWS = [(1 + i % 7, 10 + i % 3, FIRST + 60 * i, int(i % 5 == 0)) for i in range(100)]


def findings_of(spec: Spec, rows: pl.DataFrame, **sides: SideTable) -> dict[str, Finding]:
    """What a slice of these rows tells, by name; items are joined as the pipeline does."""
    grouped = tiny.grouped(spec, rows)
    joined = grouped.rows
    if "items" in sides:
        joined = sides["items"].joined(joined, sides["items"].columns, grouped.time[grouped.owner()])
    return {finding.name: finding for finding in checks.of_slice(spec, grouped, joined, sides)}


def failed(spec: Spec, rows: pl.DataFrame, **sides: SideTable) -> dict[str, Finding]:
    """Those that did not pass."""
    return {name: finding for name, finding in findings_of(spec, rows, **sides).items() if not finding.passed}


def test_a_sound_log_has_nothing_to_tell():
    """Every finding passes, and none counts a row."""
    assert all(finding.passed and finding.count == 0 for finding in findings_of(tiny.spec(), tiny.frame(ROWS)).values())


def test_a_label_column_as_a_feature_is_found():
    """By its name, before any row is read."""
    finding = checks.of_spec(tiny.spec(candidates='clicked = { kind = "number" }'))
    assert (finding.name, finding.passed, finding.count, finding.total) == ("labels", False, 1, 3)
    assert finding.examples[0].startswith("candidates.clicked: reads 'clicked'")
    assert checks.of_spec(tiny.spec()).passed


def test_somebody_unknown_is_no_fault():
    """Such impressions are counted and kept."""
    finding = findings_of(tiny.spec(), tiny.frame([*ROWS, (None, 10, FIRST, 0)]))["keys.user"]
    assert (finding.passed, finding.level, finding.count, finding.total) == (True, "note", 1, 101)
    assert finding.examples == (f"user=None item=10 time={FIRST}",)


def test_keys_that_a_side_table_lacks_are_a_warning():
    """With how many and whose; nobody is lacked by no table."""
    users = SideTable(pl.DataFrame({"user": [1, 2, 3, 4, 5, 6]}), "user")
    finding = findings_of(tiny.spec(), tiny.frame([*ROWS, (None, 10, FIRST, 0)]), users=users)["users"]
    assert (finding.passed, finding.level) == (True, "warn")
    assert (finding.count, finding.total) == (sum(user == 7 for user, *_ in ROWS), 100)
    assert finding.examples[0].startswith("user=7 ")


def test_a_row_that_begins_later_is_lacked_until_then():
    """Of a table with several rows per key, the first begins with the third minute: strictly before is seen."""
    began = datetime(2026, 3, 1, 0, 2, tzinfo=UTC)
    items = pl.DataFrame({"item": [10, 11, 12], SINCE: [began] * 3, "price": [1.0] * 3})
    items = items.with_columns(pl.col(SINCE).cast(pl.Datetime("us", "UTC")))
    finding = findings_of(tiny.spec(), tiny.frame(ROWS), items=SideTable(items, "item"))["items"]
    assert (finding.count, finding.total) == (3, 100)


def test_a_side_table_that_has_nobody_fails_when_all_is_put_together():
    """One partition cannot tell; keys written in another way are what it mostly is."""
    users = SideTable(pl.DataFrame({"user": [100, 200]}), "user")
    every = list(findings_of(tiny.spec(), tiny.frame(ROWS), users=users).values())
    assert all(finding.passed for finding in every)
    (whole,) = [finding for finding in checks.merged([every, every]) if not finding.passed]
    assert (whole.name, whole.count, whole.total, whole.level) == ("users", 200, 200, "fail")


def test_moments_after_the_request_are_found():
    """An attribute written later, alone or in a list; one of the same timestamp is no fault."""
    spec = tiny.spec(
        context='seen = { kind = "ids", values = "string" }', candidates='listed = { kind = "number", make = "age" }'
    )
    day = datetime(2026, 3, 1, tzinfo=UTC)
    rows = tiny.frame(ROWS).with_columns(listed=pl.lit(day + timedelta(seconds=60)))
    users = pl.DataFrame({"user": [1, 2], "seen": [[day], [day, day + timedelta(days=9)]]})
    wrong = failed(spec, rows, users=SideTable(users, "user"))
    assert (wrong["candidates.listed"].count, wrong["candidates.listed"].examples) == (
        1,
        (f"user=1 item=10 time={FIRST}",),
    )
    assert wrong["context.seen"].count == sum(user == 2 for user, *_ in ROWS)


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
    (finding,) = failed(spec, rows).values()
    assert (finding.name, finding.count) == ("context column device", 1)
    assert "it belongs to [candidates]" in finding.text


def finding(name: str, count: int, *examples: str, level: str = "fail", text: str = "text") -> Finding:
    """A finding over ten rows."""
    return Finding(name, level != "fail" or not count, count, 10, examples, text, level)  # type: ignore[arg-type]


def test_partitions_are_put_together():
    """Counts add up, the first three examples stay, the worst decides, in the order first met."""
    merged = checks.merged(
        [
            [finding("a", 0), finding("b", 1, "b1", level="note")],
            [finding("a", 2, "a1", "a2"), finding("b", 2, "b2", "b3", level="note"), finding("c", 0)],
            [finding("a", 2, "a3", "a4"), finding("b", 0, level="note", text="another")],
        ]
    )
    assert [(finding.name, finding.passed, finding.count, finding.total) for finding in merged] == [
        ("a", False, 4, 30),
        ("b", True, 3, 20),
        ("c", True, 0, 10),
        ("b", True, 0, 10),
    ]
    assert merged[0].examples == ("a1", "a2", "a3")
    assert merged[1].examples == ("b1", "b2", "b3")


def test_what_one_partition_advises_is_said_of_all():
    """A text that only differs in what is to be done, or in the value found, is one finding, the first of them."""
    plain = finding("a", 0, text="paid is a number")
    wrong = [finding("a", 1, text=f"paid is a number, got {value}") for value in (-1, -2)]
    for order in ([plain, *wrong], [wrong[0], plain, wrong[1]]):
        (merged,) = checks.merged([[each] for each in order])
        assert (merged.text, merged.count, merged.passed) == ("paid is a number, got -1", 2, False)
    child = [finding("b", 0, text="buy without click"), finding("b", 1, text="buy without click; write it so")]
    assert [finding.text for finding in checks.merged([child])] == ["buy without click; write it so"]


def test_a_level_is_the_worst_of_all_partitions():
    """A warning here and a fact there are a warning."""
    (merged,) = checks.merged([[finding("a", 1, level="note")], [finding("a", 1, level="warn")]])
    assert merged.level == "warn"


SPEC = tiny.spec(
    context='mine = { kind = "number", make = "count", per = "user", task = "click" }\n'
    'seen = { kind = "ids", make = "history", task = "click", table = "item" }',
    candidates='n = { kind = "number", make = "rate", per = "item", task = "click" }\nprice = { kind = "number" }',
)


def log(rows: int = 3000, *, users: int = 40) -> pl.DataFrame:
    """Three days of people who are shown things and click some of them, for reasons of their own."""
    rng = np.random.default_rng(3)
    user, item = rng.integers(0, users, rows), rng.integers(100, 160, rows)
    clicked = rng.random(rows) < 0.05 + 0.3 * rng.random(users)[user] * rng.random(60)[item - 100]
    time = FIRST + np.sort(rng.integers(0, 3 * DAY, rows))
    frame = pl.DataFrame({"user": user, "item": item, "time": time, "clicked": clicked.astype(np.int64)})
    return frame.with_columns(price=rng.random(60)[item - 100])


def looked(folder: Path, rows: pl.DataFrame, spec: Spec = SPEC) -> dict[str, Finding]:
    """What the tables built of a log tell, by name."""
    how = build.BuildOptions(refusing=False)
    build.build(spec, Logs.whole(rows.lazy()), folder / "data", progress=Silent(), how=how)
    manifest = read_json(folder / "data" / "manifest.json")
    report = checks.of_tables(spec, folder / "data", unseen=manifest["unseen"], counts=manifest["counts"])
    return {finding.name: finding for finding in report.findings}


def test_honest_tables_pass_everything(tmp_path):
    """Nothing fails; what is made of the past has moved, and says so."""
    findings = looked(tmp_path, log())
    assert [finding.name for finding in findings.values() if not finding.passed] == []
    assert [finding.name for finding in findings.values() if finding.level == "warn" and finding.count] == ["drift"]
    assert {"leaks.click", "target leak.candidates", "empty", "ranges", "unknown ids", "clock", "drift.some"} <= set(
        findings
    )


def test_a_column_written_after_the_click_fails_in_tables(tmp_path):
    """From the log to the finding."""
    rows = log().with_columns(price=pl.col("clicked") * 9 + pl.col("price"))
    assert looked(tmp_path, rows)["leaks.click"].examples == ("candidates.price: AUC 1.0000",)


def test_an_items_click_rate_over_the_log_fails_in_tables(tmp_path):
    """The test period in it: joined as an attribute, as a side table would be."""
    rows = log(16_000).with_columns(price=pl.col("clicked").mean().over("item"))
    finding = looked(tmp_path, rows)["target leak.candidates"]
    assert not finding.passed
    assert "candidates.price: one number per item that follows its mean of click" in finding.examples[0]


EVERYTHING = tiny.spec(
    context='city = { kind = "id", values = "string" }\n'
    'seen = { kind = "ids", make = "history", task = "click", table = "item" }\n'
    'gap = { kind = "ids", make = "gaps", task = "click" }\n'
    'last = { kind = "number", make = "since", task = "click" }\n'
    'asked = { kind = "number", make = "session_requests" }\n'
    'hour = { kind = "id", make = "hour" }',
    candidates='words = { kind = "ids", make = "tokens", values = "string", column = "city" }\n'
    'sold = { kind = "number", make = "count", per = ["user", "item"], windows = ["1d", "ever"] }\n'
    'price = { kind = "number", scale = "quantile" }\n'
    'both = { kind = "id", make = "cross", of = ["city", "item"] }\n'
    'picture = { kind = "vector", size = 2 }\n'
    'position = { kind = "kept" }',
    tasks='paid = { label = "paid", predict = "log", given = "click" }',
)
ROW = st.tuples(
    st.sampled_from([None, 1, 2]),
    st.sampled_from([10, 11]),
    st.integers(FIRST, FIRST + 3 * DAY),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([None, "", "a b"]),
    st.sampled_from([None, 0.0, 1.5]),
    st.sampled_from([None, [0.0, 1.0]]),
)


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=15))
def test_a_few_rows_of_any_sort_are_no_fault(rows):
    """Every kind of feature, splits without a request, nothing known: looked at, and nothing fails."""
    kinds = {
        "user": pl.Int64,
        "item": pl.Int64,
        "time": pl.Int64,
        "clicked": pl.Int64,
        "city": pl.String,
        "price": pl.Float64,
        "picture": pl.List(pl.Float32),
    }
    frame = pl.DataFrame([(1, 10, FIRST, 0, None, None, None), *rows], schema=kinds, orient="row")
    frame = frame.with_columns(position=pl.int_range(pl.len()), paid=pl.col("clicked") * 3)
    with TemporaryDirectory() as folder:
        findings = looked(Path(folder), frame, EVERYTHING)
    assert [finding for finding in findings.values() if not finding.passed] == []


def test_a_leak_of_one_microsecond_in_the_making_fails_in_tables(tmp_path, monkeypatch):
    """If requests saw what is known at their very moment, not only before it, the tables made would tell."""
    plain = KeyGroup.ask

    def seen(group, queue, name, *, time, **more):
        return plain(group, queue, name, time=time + 1, **more)

    monkeypatch.setattr(KeyGroup, "ask", seen)
    finding = looked(tmp_path, log())["leaks.click"]
    assert (finding.passed, finding.examples) == (False, ("context.mine (change): AUC 1.0000",))
