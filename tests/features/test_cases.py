"""Small logs that once went wrong, each with what is right; skips where they are not: beside the checkout, as the data
of the specs that ship, or where MULTIGATE_CASES says.

The rules behind each are tested without them, in tests/features/logs and beside what they are rules of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from features import sources
from features.pipeline import build
from pipelines.cli import commands, output
from rec.errors import DataError, SpecError
from rec.progress import Silent
from rec.spec import parse
from tests import ROOT

CASES = Path(os.environ.get("MULTIGATE_CASES", ROOT.parent / "shared" / "cases"))
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"the small logs are not at {CASES}")
MODEL = '[model]\nname = "shared_bottom"\nbottom_widths = [8]\ntower_widths = [4]\n'
Edit = tuple[str, str]
LATE, NAN = "00-late-outcome-as-number", "00-nan-is-a-positive"
OF_OBJECTS = "expected lists of ids, got List(Struct("


def written(case: str, spec: str, edits: Iterable[Edit]) -> str:
    """A case's spec with some words replaced, and with a model that this version knows."""
    text = (CASES / case / f"{spec}.toml").read_text()
    text = re.sub(r"\[model\]\n.*?(?=\n\[)", MODEL, text, flags=re.DOTALL)
    for old, new in edits:
        assert old in text, f"{case}: the spec has no {old!r}"
        text = text.replace(old, new)
    return text


def tables(case: str, spec: str, *edits: Edit, out: Path) -> pl.DataFrame:
    """The candidates of a case's spec, built with some words replaced."""
    described = parse(written(case, spec, edits))
    build.build(described, sources.read(described, CASES / case), out, progress=Silent())
    rows = pl.concat(pl.read_ipc(path) for path in sorted(out.glob("*/part-*.arrow")))
    return rows.explode("candidates").unnest("context").unnest("candidates")


def clicks(rows: pl.DataFrame) -> int:
    """How many candidates were clicked on."""
    return int((rows["click"] == 1).sum())


def labels(rows: pl.DataFrame) -> dict[int, int]:
    """How often the last task's label has each value."""
    return dict(sorted(rows[rows.columns[-1]].value_counts().iter_rows()))


def ids(column: str) -> Callable[[pl.DataFrame], list]:
    """The different values of a column, of lists those of their elements."""

    def different(rows: pl.DataFrame) -> list:
        values = rows[column]
        return (values.explode() if values.dtype == pl.List else values).drop_nulls().unique().sort().to_list()

    return different


def nobody(rows: pl.DataFrame) -> tuple:
    """Rows without a user, and the most that is known of one of them."""
    of = rows.filter(pl.col("user_id").is_null())
    return (
        len(of),
        of["shown"].max() if "shown" in of else None,
        of["clicked"].list.len().max() if "clicked" in of else 0,
    )


def items(rows: pl.DataFrame) -> tuple[int, int]:
    """Different items, and candidates."""
    return rows["item_id"].n_unique(), len(rows)


def scored(rows: pl.DataFrame) -> tuple[int, int]:
    """Candidates, and how many of them have no label."""
    return len(rows), int((rows["click"] == -1).sum())


GENRES = ["Action", "Children's", "Crime", "Drama", "Film Noir", "Rock & Roll", "Sci-Fi", "Science Fiction"]
ZEROS = [f"{n:04}" for n in range(7)]
UNQUOTED = ("[keys]", '[logs]\nquote = ""\n[keys]')
GIVEN_BOTH = ("both.parquet", "log.parquet")
NAMED = (GIVEN_BOTH, ('"shown"', '"shown.item_id"'), ('"clicked_structs"', '"clicked_structs.item_id"'))
SPLIT = ('genres = { kind = "ids"', 'genres = { kind = "ids", split = "|"')
WEIGHTED = (('weight = "weight"\n', ""), ('label = "clicked",', 'label = "clicked", sample_weight = "weight",'))
RIGHT = [  # case, spec, what is said in it, what is looked at, what is right
    *((LATE, f"spec_{form}", (), clicks, 94) for form in ("datetime", "int_s", "csv_text", "csv_s")),
    (LATE, "spec_date", (("log.parquet", "date.parquet"),), clicks, 94),
    *((LATE, f"leak_{form}", (), lambda t: t["clicks_before"].sum(), 1524.0) for form in ("datetime", "int_s")),
    (NAN, "spec_n_dwell", (), labels, {-1: 412, 0: 93, 1: 95}),
    *((NAN, f"spec_n_{of}", (), labels, {-1: 63, 0: 496, 1: 41}) for of in ("and", "csv")),
    *((NAN, f"spec_n_{of}", (), labels, {-1: 201, 0: 358, 1: 41}) for of in ("eq", "gt", "bare")),
    (NAN, "spec_n_where", (), len, 95),
    ("01-task-named-view", "spec", (), lambda t: t["view"].null_count(), 0),
    ("02-list-text-with-spaces", "spec", (SPLIT,), ids("genres"), GENRES),
    ("03-shown-names-with-spaces", "spec", (('shown = "shown"', 'shown = "shown"\nsplit = "|"'),), items, (15, 561)),
    *(("04-empty-user", spec, (), nobody, (200, None, 0)) for spec in ("spec", "spec_parquet", "spec_plain")),
    ("04-nan-user-and-id", "spec", (), nobody, (100, None, 0)),
    ("04-nan-user-and-id", "spec_ids", (), lambda t: (ids("size")(t)[:2], ids("whole")(t)[:2]),
     (["37", "38.5"], ["1", "2"])),
    ("06-leading-zeros-in-side-tables", "spec_items", (), ids("cat"), [f"{n:03}" for n in range(5)]),
    ("06-leading-zeros-in-side-tables", "spec", (), lambda t: t["zip"].null_count(), 0),
    ("07-where-strips-zeros", "spec_nowhere", (), ids("store"), ZEROS),
    ("07-where-strips-zeros", "spec", (), ids("store"), ZEROS[:6]),
    ("07-where-strips-zeros", "spec_text", (("log.csv", "codes.csv"),), lambda t: len(t) > 0, True),
    ("10-feature-named-key", "spec", (), lambda t: t["key"].null_count(), 0),
    ("11-kept-float", "spec", (), lambda t: t["bid_micro"].max(), 1e30),
    ("11-kept-float", "spec17", (), lambda t: t["bid_micro"].max(), 1.5e17),
    ("11-kept-float", "specinf", (), len, 600),
    ("12-bool-in-csv", "spec", (), ids("is_new"), [0.0, 1.0]),
    ("12-bool-in-csv", "spec_id", (), ids("is_new"), [0, 1]),
    ("13-quote-inside-a-field", "spec", (UNQUOTED,), len, 600),
    ("13-quote-inside-a-field", "spec_tsv", (UNQUOTED,), len, 600),
    ("14-uint64-text", "spec_string", (), lambda t: min(t["user_id"]) > str(2**63), True),
    *(("17-list-of-structs", spec, NAMED, items, (15, 561)) for spec in ("spec", "spec_int")),
    ("18-score-without-labels", "spec", (), scored, (600, 1)),
    *(("18-score-without-labels", f"spec_{new}", (), scored, (200, 200)) for new in ("new", "newnullonly")),
    *(("18-score-without-labels", f"spec_{both}", (), scored, (800, 200)) for both in ("both", "newnull")),
    *(("19-null-tokens", spec, (), nobody, (200, None, 0)) for spec in ("spec", "spec_noage")),
    ("19-null-tokens", "spec_nan", (("log.csv", "nan.csv"),), labels, {-1: 63, 0: 496, 1: 41}),
    ("22-hive-partitions", "spec_dt", (("[keys]", '[logs]\nduplicates = "keep"\n[keys]'),), len, 600),
    ("22-hive-partitions", "spec_folder", (('"log"', '"log/*/*.parquet"'),), len, 600),
    *(("23-request-name-refused", spec, (), len, 536) for spec in ("spec", "spec_rid", "spec_parquet")),
    ("25-local-time", "spec_tz", (), lambda t: t["time"].min(), datetime(2026, 3, 1, 0, 0, 15, tzinfo=UTC)),
    ("26-sample-weight", "spec", WEIGHTED, ids("@weight.click"), [0.0, 0.25, 1.0]),
    *(("27-split-as-toml-date", spec, (), len, 600) for spec in ("spec_date", "spec_text")),
]  # fmt: skip
REFUSED = [  # case, spec, what is said in it, why in one line with an example
    ("03-shown-names-with-spaces", "spec", (), "expected a list, got the text 'blue shirt 10|blue shirt 11|"),
    ("13-quote-inside-a-field", "spec", (), 'log.csv: line 102 has a " that opens and does not close: '),
    ("13-quote-inside-a-field", "spec_tsv", (), 'log.tsv: line 102 has a " that opens and does not close: '),
    ("14-uint64-text", "spec", (), 'user_id: does not fit 64 bits with a sign; say values = "string" to read it'),
    *(("17-list-of-structs", spec, (GIVEN_BOTH,), OF_OBJECTS) for spec in ("spec", "spec_int")),
    ("17-list-of-structs", "spec_mixed", (("log.parquet", "mixed.parquet"),), OF_OBJECTS),
    ("22-hive-partitions", "spec_folder", (), "log is a folder; give its files, such as log/**/*.parquet"),
]
WARNED = [  # case, spec, the warning
    (LATE, "spec_int_s", "when it happened is taken from 'clicked_time', by its name; say time = \"clicked_time\""),
    ("02-list-text-with-spaces", "spec", "say what separates its ids (split): got 'Science Fiction|Drama': user_id=18"),
    ("18-score-without-labels", "spec_both", "files without columns of labels (clicked, bought): what came of their"),
    ("21-only-positives", "spec_all", "click in train: 300 positives, 0 negatives; the model cannot learn"),
    ("22-hive-partitions", "spec_dt", 'the first is kept; duplicates = "keep" keeps them: user_id='),
    (
        "23-request-name-refused",
        "spec_rid",
        "no column 'rid' in the logs; did you mean 'user_id'?: the number",
    ),
]


@pytest.mark.parametrize("row", RIGHT, ids=[f"{c}-{s}" for c, s, *_ in RIGHT])
def test_what_a_case_says_is_right(row, tmp_path):
    """As it is, or with the setting that the case asks for."""
    case, spec, edits, look, right = row
    assert look(tables(case, spec, *edits, out=tmp_path / "data")) == right


def beside(case: str, spec: str, edits: tuple[Edit, ...], folder: Path) -> Path:
    """The spec of a case with some words replaced, beside the case's files."""
    for path in (CASES / case).iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "said.toml").write_text(written(case, spec, edits))
    return folder / "said.toml"


@pytest.mark.parametrize(("case", "spec", "edits", "why"), REFUSED, ids=[f"{c}-{s}" for c, s, *_ in REFUSED])
def test_check_refuses_what_cannot_be_told(case, spec, edits, why, tmp_path):
    """Or fails: in the line that says why there is an example, of a row or of what to say."""
    path = beside(case, spec, edits, tmp_path)
    try:
        findings = commands.check(path, [], Silent())
    except (DataError, SpecError) as error:
        lines = str(error).splitlines()
    else:
        lines = [said(finding) for finding in findings if output.verdict(finding) == "FAIL"]
    assert [line for line in lines if why in line]


@pytest.mark.parametrize(("case", "spec", "warning"), WARNED, ids=[f"{c}-{s}" for c, s, *_ in WARNED])
def test_check_warns_of_what_may_be_meant_otherwise(case, spec, warning, tmp_path):
    """It is read, by a rule that is documented; an example stands beside it where a row is to blame."""
    findings = commands.check(beside(case, spec, (), tmp_path), [], Silent())
    warned = [finding for finding in findings if output.verdict(finding) == "WARN"]
    assert any(warning in said(finding) for finding in warned), warned


def said(finding: dict) -> str:
    """What `check` says of a finding, with the first example."""
    return ": ".join([finding["text"], *finding["examples"][:1]])


def test_no_case_is_left_out():
    """Each is right, refused or warned of."""
    assert {case for case, *_ in (*RIGHT, *REFUSED, *WARNED)} == {
        path.name for path in CASES.iterdir() if path.is_dir()
    }
