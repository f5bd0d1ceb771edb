"""Names people choose, from logs to an answer: those of ONNX operators, keywords, our own, with dots and spaces."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features import sources
from features.pipeline import build
from pipelines import validate
from pipelines.cli import commands
from rec.data import splits
from rec.errors import SpecError
from rec.progress import Silent
from rec.spec import parse
from tests.features.test_twins import counted

OPERATORS = ("view", "squeeze", "softmax", "clamp", "div", "where", "linear", "relu", "sign", "t", "tmp", "ne", "cat")
OURS = ("owner", "score", "rank", "position", "request_id", "time", "key", "tasks", "status", "candidates", "context")
WORDS = ("class", "for", "None", "select", "items", "keys", "forward", "training", "type", "weight", "data", "B", "N")
COLUMNS = {"user": "user id", "item": "item.id", "time": "seen at (s)", "clicked": "is clicked?", "extra": "key"}


def quoted(word: str) -> str:
    """A word as TOML writes it."""
    return json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")


def text(columns: dict[str, str], *, context: str = "", candidates: str = "", tasks: str = "") -> str:
    """A spec of a log whose columns are called so."""
    named = {
        name: json.dumps(column, ensure_ascii=False).replace("\x7f", "\\u007f") for name, column in columns.items()
    }
    label = json.dumps('"' + columns["clicked"].replace('"', '""') + '" = 1', ensure_ascii=False)
    label = label.replace("\x7f", "\\u007f")
    return f"""
name = "odd"
[source]
kind = "impressions"
files = "log.parquet"
[keys]
user = {named["user"]}
item = {named["item"]}
time = {named["time"]}
[split]
validation = 2026-03-04T00:00:00Z
test = 2026-03-05T00:00:00Z
[context]
who = {{ kind = "id", column = {named["user"]}, dim = 4 }}
seen = {{ kind = "ids", make = "history", task = "click", column = {named["extra"]}, last = 3 }}
{context}
[candidates]
what = {{ kind = "id", column = {named["item"]}, dim = 4 }}
extra = {{ kind = "id", column = {named["extra"]}, dim = 4 }}
shown = {{ kind = "number", make = "count", per = [{named["item"]}, {named["extra"]}] }}
{candidates}
[tasks]
click = {{ label = {label}, window = "1m" }}
{tasks.replace("LABEL", label)}
[model]
name = "mmoe"
experts = 2
expert_widths = [4]
tower_widths = [4]
[train]
batch = 512
epochs = 1
device = "cpu"
"""


def write(path: Path, columns: dict[str, str]) -> None:
    """A log of requests of three impressions each, with columns of these names."""
    rng = np.random.default_rng(0)
    request = np.sort(rng.integers(0, 5 * 86_400, 80))
    values = {
        "user": np.repeat(rng.integers(1, 9, 80), 3),
        "item": rng.integers(1, 12, 240),
        "time": 1_772_323_200 + np.repeat(request, 3),
        "clicked": rng.integers(0, 2, 240),
        "extra": rng.integers(1, 5, 240),
    }
    pl.DataFrame({columns[name]: column for name, column in values.items()}).write_parquet(path)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, dict, Path]:
    """Scores, the answer to the first scored request, and the folder, of a spec full of odd names."""
    folder = tmp_path_factory.mktemp("names")
    write(folder / "log.parquet", COLUMNS)
    features = "\n".join(f'{name} = {{ kind = "id", column = "key", dim = 4 }}' for name in (*OURS[:4], *WORDS[:6]))
    others = "\n".join(f'{name} = {{ kind = "id", column = "key", dim = 4 }}' for name in (*OURS[4:], *WORDS[6:]))
    tasks = "\n".join(f'{name} = {{ label = LABEL, window = "1m" }}' for name in (*OPERATORS, *OURS[:4], *WORDS[:2]))
    tasks += '\nunsqueeze = { label = LABEL, given = "view", window = "1m" }'
    spec = folder / "spec.toml"
    spec.write_text(text(COLUMNS, context=features, candidates=others, tasks=tasks))
    commands.features(spec, [], folder / "data", Silent(), how={"engine": "serial", "snapshot": True})
    commands.train(spec, [], folder / "data", folder / "run", Silent())
    commands.export(folder / "run", folder / "data", folder / "bundle", Silent())
    commands.score(folder / "bundle", folder / "data", folder / "scores", Silent())
    scores = pl.read_parquet(folder / "scores" / "*.parquet")
    first = scores.filter(pl.col("request_id") == scores["request_id"][0])
    request = {
        "time": first["time"][0].isoformat(),
        "context": {"who": first["context.who"][0]},
        "candidates": [{"what": item} for item in first["candidates.what"].unique(maintain_order=True)],
    }
    return scores, commands.rank(folder / "bundle", json.dumps(request).encode(), 1), folder


def test_tasks_are_called_as_operators_of_the_graph(answer):
    """Every output has its scores, and an answer has every task, whatever operators the graph is made of."""
    scores, response, _ = answer
    asked = [*OPERATORS, *OURS[:4], *WORDS[:2], "click", "unsqueeze", "unsqueeze|view"]
    assert {f"tasks.{name}" for name in asked} <= set(scores.columns)
    assert set(response["candidates"][0]["tasks"]) == set(asked)


def test_ids_are_called_as_their_features(answer):
    """Key columns with dots and spaces are held by features, and these name the ids in scores and answers."""
    scores, response, _ = answer
    assert scores.columns[:5] == ["request_id", "time", "context.who", "candidates.what", "position"]
    assert scores.columns[-2:] == ["score", "rank"]
    assert sorted(line["what"] for line in response["candidates"]) == sorted(
        scores.filter(pl.col("request_id") == scores["request_id"][0])["candidates.what"].unique()
    )


def test_a_report_has_every_output(answer):
    """Metrics of outputs lie apart from what a report says itself."""
    _, _, folder = answer
    report = commands.report_of(folder / "run", folder / "data", "test", Silent())
    assert set(report["outputs"]) >= {*OPERATORS, *OURS[:4]}
    assert report["requests"] > 0


words = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=6),
    st.sampled_from([*OURS, *WORDS, "@time", "@code", "@key", "@bad", "users.age", "a.b", " ", "^a$", "*"]),
)
ODD = ["@time", "@code", "@line", "@bad", "@extra"]


@settings(max_examples=25)
@example(names=["user id", "item.id", "^x", "is*", "**"])
@example(names=["order", "group", "select", 'a"b', "'"])
@given(names=st.lists(words, min_size=5, max_size=5, unique=True))
def test_columns_may_have_any_name(plain_rows: dict, names: list[str]) -> None:
    """Session tables hold the same whatever the columns of the logs are called; our own names are refused at once."""
    columns = dict(zip(COLUMNS, names, strict=True))
    with TemporaryDirectory() as folder:
        write(Path(folder) / "log.parquet", columns)
        if set(names) & set(ODD) or any(re.fullmatch(r"\*|\^.*\$", name, re.DOTALL) for name in names):
            with pytest.raises(SpecError, match=r"is a name of ours|is a pattern of names"):
                rows(Path(folder), text(columns))
        else:
            assert rows(Path(folder), text(columns)) == plain_rows


def rows(folder: Path, spec_text: str) -> dict[str, list]:
    """The session tables and the store of a spec."""
    (folder / "spec.toml").write_text(spec_text, encoding="utf-8")
    spec = validate.load(folder / "spec.toml")
    how = build.BuildOptions(engine="serial", snapshot=True)
    build.build(spec, sources.read(spec, folder), folder / "data", progress=Silent(), how=how)
    parts = {name: splits.read(folder / "data", name, spec) for name in splits.SPLITS}
    return {name: counted([row for part in several for row in part.to_pylist()]) for name, several in parts.items()}


@pytest.fixture(scope="module")
def plain_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """The session tables of the log whose columns are called by plain words."""
    folder = tmp_path_factory.mktemp("plain")
    columns = {name: name for name in COLUMNS}
    write(folder / "log.parquet", columns)
    return rows(folder, text(columns))


def test_a_key_that_no_feature_holds_is_refused_with_the_line_to_add():
    """The column's name is no name of a feature, so the line says `column`."""
    broken = text(COLUMNS).replace('who = { kind = "id", column = "user id", dim = 4 }', "")
    with pytest.raises(
        SpecError, match=r"keys.user: .user id. is not in \[context\]; add user_id = .*column = .user id"
    ):
        parse(broken)


@pytest.mark.parametrize("name", ["rank", "score", "tasks", "status"])
def test_an_item_that_is_called_as_a_field_of_the_response_is_refused(name):
    """The answer says of a candidate its rank, score, tasks and status beside its id."""
    with pytest.raises(SpecError, match=f"candidates.{name}: a response has a field of this name"):
        parse(text(COLUMNS).replace("what = ", f"{name} = "))


@pytest.mark.parametrize(("key", "other"), [("request", "user"), ("request", "item"), ("session", "time")])
def test_a_column_is_one_key(key, other):
    """Two keys of one column are refused before anything is read."""
    with pytest.raises(SpecError, match=re.escape(f"keys.{key}: '{COLUMNS[other]}' is keys.{other} already")):
        parse(text(COLUMNS).replace("[keys]", f'[keys]\n{key} = "{COLUMNS[other]}"'.replace("'", "")))
