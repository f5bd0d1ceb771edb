"""What a spec can combine: columns of every type, of every table or made by code, read by features of every kind.

Each is built, or refused with a SpecError or a DataError that names the place in the spec; nothing else is raised.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import sources
from features.pipeline import build
from pipelines import validate
from rec.errors import DataError, SpecError
from rec.progress import Silent

START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 60
CODE = {
    "by_price": "return price * 2",
    "by_age": "return age + 1",
    "by_both": "return age + size",
    "by_word": "return word + '!'",
    "by_home": "return home + word",
    "by_list": "return tags.list.len()",
    "by_likes": "return likes",
    "by_user": "return user + 1",
    "by_time": "return at.dt.hour()",
    "by_flag": "return flag",
}
READS = {
    "by_price": "price", "by_age": "age", "by_both": "age, size", "by_word": "word", "by_home": "home, word",
    "by_list": "tags", "by_likes": "likes", "by_user": "user", "by_time": "at", "by_flag": "flag",
}  # fmt: skip
OF_PAST = ["count", "rate", "since", "since_first", "mean", "expected", "coec"]
COLUMNS = [
    "user", "item", "at", "price", "word", "flag", "tags", "day", "nothing", "whole", "visit", "age", "home", "likes",
    "joined", "size", "category", "picture", "clicked", *CODE,
]  # fmt: skip


def log() -> pl.DataFrame:
    """Impressions of five users, with a column of every type; the first user is nobody at times."""
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(ROWS // 3), 3)
    columns = {
        "user": pl.Series((request % 5).tolist()).set(pl.Series(request % 10 == 0), None),
        "item": rng.integers(0, 8, ROWS),
        "at": [START + timedelta(hours=2 * int(number)) for number in request],
        "request": [f"r{number}" for number in request],
        "visit": request // 4,
        "price": rng.random(ROWS),
        "word": rng.choice(["a", "b"], ROWS),
        "flag": rng.random(ROWS) > 0.5,
        "tags": [[1, 2], [], [3]] * (ROWS // 3),
        "day": [(START + timedelta(hours=2 * int(number))).date() for number in request],
        "nothing": [None] * ROWS,
        "whole": rng.integers(0, 4, ROWS).astype(float),
        "clicked": rng.integers(0, 2, ROWS),
    }
    return pl.DataFrame(columns)


def tables(*, changing: bool) -> dict[str, pl.DataFrame]:
    """Users and items, of some of whom the log knows nothing; `changing` with the timestamp that rows hold from."""
    rng = np.random.default_rng(1)
    users = {
        "user": np.arange(7), "age": rng.random(7), "home": rng.choice(["x", "y"], 7),
        "likes": [[1], [2, 3]] * 3 + [[]],
        "joined": [START - timedelta(days=int(day)) for day in range(7)],
    }  # fmt: skip
    items = {
        "item": np.arange(9), "size": rng.random(9), "category": rng.choice(["p", "q"], 9), "picture": [[0.1, 0.2]] * 9,
    }  # fmt: skip
    frames = {"users": pl.DataFrame(users), "items": pl.DataFrame(items)}
    return {name: rows.with_columns(since=pl.lit(START)) if changing else rows for name, rows in frames.items()}


@st.composite
def features(draw: st.DrawFn, side: str, name: str) -> str:
    """A line of the spec: a feature of any kind of any column."""
    column, kind = draw(st.sampled_from(COLUMNS)), draw(st.sampled_from(["id", "ids", "number", "vector", "kept"]))
    parts = [f'kind = "{kind}"']
    make = {
        "id": ["column", "hour"],
        "ids": ["column", "tokens", "history", "gaps"],
        "number": ["column", "age", *OF_PAST, "session_requests"],
    }.get(kind, ["column"])
    how = draw(st.sampled_from(make))
    parts += [] if how == "column" else [f'make = "{how}"']
    if how in OF_PAST:
        keys = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=2))
        parts += ["per = " + str(keys).replace("'", '"')]
        parts += ['task = "click"'] if how in ("rate", "coec") or (how != "expected" and draw(st.booleans())) else []
        parts += [f'column = "{column}"'] if how == "mean" else []
        parts += ['half_life = "1h"'] if how in ("count", "rate") and draw(st.booleans()) else []
    elif how not in ("hour", "session_requests"):
        parts += [f'column = "{column}"']
        parts += ['task = "click"'] if how in ("history", "gaps") and draw(st.booleans()) else []
    if kind in ("id", "ids", "kept") and how not in ("hour", "gaps"):
        parts += [f'values = "{draw(st.sampled_from(["int", "string"]))}"']
    parts += ["size = 2"] if kind == "vector" else []
    return f"{name} = {{ {', '.join(parts)} }}"


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A whole spec over the log."""
    keys = ['item = "item"', 'time = "at"']
    keys += draw(st.sampled_from([[], ['user = "user"'], ['user = "user"'], ['user = "user"', 'session = "visit"']]))
    keys += draw(st.sampled_from([[], ['request = "request"']]))
    sides = draw(st.sampled_from([[], ["users"], ["items"], ["users", "items"]]))
    changing = draw(st.booleans())
    source = [f'{side} = "{side}.parquet"' for side in sides]
    source += [f'{side}_since = "since"' for side in sides] if changing else []
    context = [draw(features("context", f"c{place}")) for place in range(draw(st.integers(0, 3)))]
    candidates = [draw(features("candidates", f"d{place}")) for place in range(draw(st.integers(0, 3)))]
    who = ['user = { kind = "id" }'] if any(key.startswith("user") for key in keys) else []
    lines = [
        'name = "drawn"', "[source]", 'kind = "impressions"', 'files = "log.parquet"', *source,
        "[logs]", 'columns = "columns"', "[keys]", *keys,
        "[split]", "validation = 2026-03-02T00:00:00Z", "test = 2026-03-02T08:00:00Z",
        "[context]", *who, *context, "[candidates]", 'item = { kind = "id" }', *candidates,
        "[tasks]", 'click = { label = "clicked", window = "1m" }', "[train]", 'device = "cpu"',
    ]  # fmt: skip
    return "\n".join(lines)


def written(folder: Path, *, changing: bool) -> None:
    """The log, its tables and its columns made by code, as files."""
    log().write_parquet(folder / "log.parquet")
    for name, rows in tables(changing=changing).items():
        rows.write_parquet(folder / f"{name}.parquet")
    (folder / "columns").mkdir(exist_ok=True)
    for name, body in CODE.items():
        (folder / "columns" / f"{name}.py").write_text(f"def {name}({READS[name]}):\n    {body}\n")


def built(folder: Path, text: str, *, snapshot: bool = False, rows: int = 1000) -> dict:
    """The manifest of a spec's session tables."""
    (folder / "spec.toml").write_text(text)
    spec = validate.load(folder / "spec.toml")
    how = build.BuildOptions(engine="serial", snapshot=snapshot, rows=rows, refusing=False)
    return build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent(), how=how)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), st.booleans(), st.sampled_from([20, 1000]))
def test_what_a_spec_combines_is_built_or_refused(text: str, snapshot: bool, rows: int) -> None:
    """Any features of any columns are built, or refused by the place in the spec; nothing else comes of them."""
    with TemporaryDirectory() as folder:
        written(Path(folder), changing="since" in text)
        with suppress(SpecError, DataError):
            assert built(Path(folder), text, snapshot=snapshot, rows=rows)["counts"]["train"]["requests"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'n = { kind = "number", make = "count", per = "item", matching = "word" }',
            "context.n: expected Int64, as 'item' has that it is compared with, in column 'word', got String",
        ),
        ('n = { kind = "number", make = "count", per = "tags" }', "context.n: expected one value per row to count by"),
        ('n = { kind = "id", column = "tags" }', "context.n: expected one value per row .a list is kind = .ids.."),
        ('n = { kind = "number", column = "by_likes" }', "context.n: expected one number per row"),
        ('n = { kind = "number", make = "age", column = "tags" }', "context.n: expected one timestamp per row"),
        (
            'n = { kind = "ids", make = "history", column = "tags" }',
            "context.n: expected one value per row to remember",
        ),
    ],
)
def test_a_column_of_another_type_is_refused_before_any_row_is_read(line, message, tmp_path):
    """What a feature cannot be made of is known from the schemas of the files, and of columns made by code."""
    written(tmp_path, changing=False)
    with pytest.raises(SpecError, match=message):
        built(tmp_path, PLAIN.replace("[candidates]", f"{line}\n[candidates]"))


@pytest.mark.parametrize("side", ["context", "candidates"])
@pytest.mark.parametrize("column", sorted(set(CODE) - {"by_likes", "by_time"}))
def test_columns_made_by_code_go_wherever_columns_go(side, column, tmp_path):
    """As an attribute of either side, and as a part of a counter's key, with tables of users and items, and a store."""
    written(tmp_path, changing=False)
    values = "string" if column in ("by_word", "by_home") else "float"
    lines = f'a = {{ kind = "kept", values = "{values}", column = "{column}" }}\n'
    lines += f'n = {{ kind = "number", make = "count", per = ["item", "{column}"] }}'
    text = PLAIN.replace(f"[{side}]", f"[{side}]\n{lines}")
    assert built(tmp_path, text, snapshot=True)["counts"]["train"]["requests"]


@pytest.mark.parametrize("line", ["n = { kind = 'number' }", "m = { kind = 'number', make = 'count', per = 'n' }"])
def test_a_column_made_by_code_of_a_labels_column_is_a_leak(line, tmp_path):
    """As that column itself is; for the label it may be."""
    written(tmp_path, changing=False)
    (tmp_path / "columns/n.py").write_text("def n(clicked):\n    return clicked + 1\n")
    with pytest.raises(SpecError, match=r"reads 'n', which is made of 'clicked', a column of a label"):
        built(tmp_path, PLAIN.replace("[candidates]", f"[candidates]\n{line}"))
    text = PLAIN.replace('label = "clicked"', 'label = "n = 2"')
    assert built(tmp_path, text)["counts"]["train"]["positives"]["click"]


PLAIN = """
name = "plain"
[source]
kind = "impressions"
files = "log.parquet"
users = "users.parquet"
items = "items.parquet"
[logs]
columns = "columns"
[keys]
user = "user"
item = "item"
time = "at"
[split]
validation = 2026-03-02T00:00:00Z
test = 2026-03-02T08:00:00Z
[context]
user = { kind = "id" }
[candidates]
item = { kind = "id" }
[tasks]
click = { label = "clicked", window = "1m" }
[train]
device = "cpu"
"""
