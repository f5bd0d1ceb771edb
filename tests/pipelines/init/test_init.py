"""A look at some logs becomes a spec that can be read, checked and built."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.cli import main
from pipelines.init.draft import write
from pipelines.init.log_names import expanded
from rec.errors import DataError, SpecError
from rec.spec import Spec, load

START = datetime(2026, 3, 2, tzinfo=UTC)
CITIES = ["Bergen", "Cork", "Delft"]


def shop(rows: int = 600) -> pl.DataFrame:
    """Impressions of twenty days with a click, a purchase after some clicks, and attributes of all sorts."""
    rng = np.random.default_rng(3)
    click = rng.random(rows) < 0.3
    time = pl.Series(np.sort(rng.integers(0, 20 * 86_400, rows)) * 1000 + int(START.timestamp()) * 1000)
    return pl.DataFrame(
        {
            "": range(rows),
            "uid": rng.integers(1, 30, rows),
            "sku": pl.Series(rng.integers(1, 40, rows)).cast(pl.String) + "x",
            "ts": time,
            "device": rng.choice(["phone", "tablet"], rows),
            "position": rng.integers(1, 9, rows),
            "is_click": click.astype(int),
            "bought": click & (rng.random(rows) < 0.4),
            "dwell": np.where(click, rng.exponential(20, rows), 0.0).round(1),
            "like": np.zeros(rows, int),
        }
    )


def sides(folder: Path) -> None:
    """A table of users, and one of items."""
    rng = np.random.default_rng(4)
    users = {"uid": range(1, 30), "city": rng.choice(CITIES, 29), "age": rng.integers(18, 80, 29)}
    pl.DataFrame(users).write_csv(folder / "people.csv")
    items = {
        "sku": [f"{number}x" for number in range(1, 40)],
        "price": rng.lognormal(1, 2, 39),
        "listed": [START - timedelta(days=int(day)) for day in rng.integers(1, 90, 39)],
        "tags": ["a|b", "b|c", "c"] * 13,
        "title": ["a red and large thing", "something blue for the home", "one more of those things"] * 13,
    }
    pl.DataFrame(items).write_parquet(folder / "things.parquet")


def started(folder: Path, *, labels: tuple[str, ...] = (), known=None, **roles: str) -> tuple[Spec, str, dict]:
    """The spec drafted from a folder's logs, its text, and the notes on it."""
    notes = write([str(folder)], folder / "mine.toml", roles=roles, labels=labels, force=True, known=known)
    return load(folder / "mine.toml"), (folder / "mine.toml").read_text(), notes


def left(*arguments: object) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as error:
        main.main([str(argument) for argument in arguments])
    return error.value.code


def runs(folder: Path, capsys: pytest.CaptureFixture) -> str:
    """What `multigate check` prints of the spec, which passes; session tables can be made of it too."""
    assert left("features", folder / "mine.toml", "--out", folder / "data", "--engine", "serial") == 0
    capsys.readouterr()
    code = left("check", folder / "mine.toml")
    printed = capsys.readouterr().out
    assert code == 0, printed
    return printed


def test_one_row_per_impression(tmp_path, capsys):
    """Keys, a unit, labels with their parent, side tables, and what is no feature."""
    rows = shop()
    rows[:300].write_csv(tmp_path / "log-1.csv")
    rows[300:].write_csv(tmp_path / "log-2.csv")
    sides(tmp_path)
    spec, text, notes = started(tmp_path)
    assert spec.source["files"] == ["log-1.csv", "log-2.csv"]
    assert (spec.source["users"], spec.source["items"]) == ("people.csv", "things.parquet")
    assert (spec.keys.user, spec.keys.item, spec.keys.time, spec.keys.time_unit) == ("uid", "sku", "ts", "ms")
    assert {name: (task.label, task.given) for name, task in spec.tasks.items()} == {
        "click": ("is_click = 1", None),
        "bought": ("is_click = 1 AND bought", "click"),
    }
    assert {"uid", "city", "age", "hour", "click_before", "user_click"} <= set(spec.context)
    assert {"sku", "price", "listed", "tags", "title", "position", "item_bought"} <= set(spec.candidates)
    assert not {"dwell", "like", ""} & {*spec.context, *spec.candidates}
    assert spec.candidates["position"].kind == "kept"
    assert getattr(spec.candidates["listed"], "make", "") == "age"
    assert getattr(spec.candidates["title"], "make", "") == "tokens"
    assert notes["look at"]["dwell"] == "left out: looks like an outcome, known only afterwards"
    assert notes["look at"]["like"] == "left out: never 1 in the rows looked at"
    assert "# dwell" in text
    runs(tmp_path, capsys)


def test_one_row_per_request(tmp_path, capsys):
    """The list of what was shown, and a list of what was clicked."""
    by = shop().group_by("uid", pl.col("ts") // 86_400_000, maintain_order=True)
    rows = by.agg(
        pl.col("ts").first().alias("time"),
        pl.col("sku").alias("shown"),
        pl.col("sku").filter(pl.col("is_click") == 1).unique(maintain_order=True).alias("clicked_items"),
        pl.col("device").first(),
    ).drop("ts")
    rows.write_parquet(tmp_path / "requests.parquet")
    sides(tmp_path)
    spec, _, notes = started(tmp_path)
    assert (spec.source["kind"], spec.source["shown"]) == ("requests", "shown")
    assert spec.source["events"] == {"clicked": {"items": "clicked_items"}}
    assert (spec.keys.item, spec.keys.request) == ("sku", "request")
    assert spec.tasks["clicked"].label == "clicked"
    assert "device" in spec.context
    assert notes["taken for"]["clicked"] == "what happened to the items in clicked_items"
    runs(tmp_path, capsys)


def test_one_table_per_kind_of_event(tmp_path, capsys):
    """Impressions are what the others follow; columns may be called otherwise."""
    rows = shop()
    rows.select("uid", "sku", "ts", "device").write_parquet(tmp_path / "impressions.parquet")
    clicks = rows.filter(pl.col("is_click") == 1).select(
        pl.col("uid").alias("user_id"), pl.col("sku").alias("item_id"), pl.from_epoch("ts", "ms").alias("at"), "dwell"
    )
    clicks.write_csv(tmp_path / "clicks.csv")
    rows.filter("bought").select("uid", "sku", pl.col("ts") + 60_000).write_ipc(tmp_path / "orders.arrow")
    spec, _, _ = started(tmp_path)
    assert spec.source["kind"] == "events"
    clicked = {"files": "clicks.csv", "user": "user_id", "item": "item_id", "time": "at", "within": "1h"}
    assert spec.source["events"]["clicks"] == {**clicked, "values": {"dwell": "dwell"}}
    assert spec.source["events"]["orders"] == {"files": "orders.arrow", "within": "7d"}
    assert {name: (task.label, task.given) for name, task in spec.tasks.items()} == {
        "clicks": ("clicks", None),
        "orders": ("clicks AND orders", "clicks"),
    }
    assert left("features", tmp_path / "mine.toml", "--out", tmp_path / "data", "--engine", "serial") == 0


def test_one_table_of_all_behaviours(tmp_path, capsys):
    """A column says which; what is seen most is an impression; days have no year."""
    rows = shop().select(
        "uid",
        "sku",
        pl.from_epoch("ts", "ms").dt.strftime("%m-%d").alias("day"),
        pl.when(pl.col("bought"))
        .then(pl.lit("buy"))
        .when(is_click=1)
        .then(pl.lit("fav"))
        .otherwise(pl.lit("pv"))
        .alias("type"),
    )
    rows.write_parquet(tmp_path / "behaviour.parquet")
    spec, _, _ = started(tmp_path)
    assert spec.keys.time_format == "%m-%d"
    assert spec.source["where"] == "type = 'pv'"
    assert {name: event["where"] for name, event in spec.source["events"].items()} == {
        "buy": "type = 'buy'",
        "fav": "type = 'fav'",
    }
    assert (
        left(
            "features",
            tmp_path / "mine.toml",
            "--out",
            tmp_path / "d",
            "--engine",
            "serial",
            "--set",
            "source.events.buy.unmatched=1.0",
            "--set",
            "source.events.fav.unmatched=1.0",
        )
        == 0
    )


def test_a_person_knows_better(tmp_path):
    """What a column is can be said; a column that is not there is named."""
    shop().rename({"uid": "a", "sku": "b", "ts": "c", "is_click": "d"}).drop("bought").write_csv(tmp_path / "log.csv")
    with pytest.raises(
        DataError, match=r"expected a table with an item, .*--item, --time and --label; .* device, posi"
    ):
        started(tmp_path)
    spec, _, _ = started(tmp_path, labels=("d",), user="a", item="b", time="c")
    assert (spec.keys.user, spec.keys.item, spec.keys.time, spec.tasks["d"].label) == ("a", "b", "c", "d = 1")
    with pytest.raises(DataError, match=r"--item: no column 'devic' in the logs; did you mean 'device'\?"):
        started(tmp_path, item="devic")


def test_words_of_sql_are_quoted(tmp_path):
    """A column may be called `order`."""
    shop().rename({"is_click": "order"}).drop("bought").write_parquet(tmp_path / "log.parquet")
    spec, _, _ = started(tmp_path)
    assert spec.tasks["order"].label == '"order" = 1'


def test_a_split_of_its_own_is_kept(tmp_path):
    """And then no clock is needed."""
    rows = shop().drop("ts").with_columns(part=pl.Series(["train", "validation", "test"] * 200))
    rows.write_parquet(tmp_path / "log.parquet")
    spec, _, _ = started(tmp_path)
    assert (spec.split.column, spec.keys.time) == ("part", None)
    assert "click_before" not in spec.context


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (
            ["is_click", "bought", "like", "dwell"],
            r"no column of 0 and 1 looks like an outcome; .* --label, of: , uid, sku",
        ),
        (["ts"], r"expected a timestamp, or a column of train, validation and test; .* with --time, of: , uid, sku"),
    ],
)
def test_logs_that_teach_nothing_are_refused(tmp_path, dropped, message):
    """With the columns there are."""
    shop().drop(dropped).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        started(tmp_path)


def test_a_spec_that_exists_is_not_written_over(tmp_path):
    """Unless that is said."""
    shop().write_parquet(tmp_path / "log.parquet")
    (tmp_path / "mine.toml").write_text("mine")
    with pytest.raises(SpecError, match=r"mine.toml: exists; give another --out, or --force to write over it"):
        write([str(tmp_path)], tmp_path / "mine.toml", roles={}, force=False)
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_a_log_and_a_folder_are_no_place_for_a_spec(tmp_path):
    """With --force, too."""
    shop(50).write_csv(tmp_path / "log.csv")
    before = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(SpecError, match=r"log.csv: is one of the logs; give another --out"):
        write([str(tmp_path)], tmp_path / "log.csv", roles={}, force=True)
    with pytest.raises(SpecError, match=r"is a folder; give the name of a file to --out, such as .*spec.toml"):
        write([str(tmp_path)], tmp_path, roles={}, force=True)
    assert (tmp_path / "log.csv").read_bytes() == before


def test_files_are_named(tmp_path):
    """One that is not there, with the nearest; a folder without logs."""
    shop(50).write_parquet(tmp_path / "log.parquet")
    assert expanded([str(tmp_path), str(tmp_path / "log.parquet")]) == [str(tmp_path / "log.parquet")]
    with pytest.raises(DataError, match=r"lag.parquet: no such file; did you mean 'log.parquet'\?"):
        expanded([str(tmp_path / "lag.parquet")])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: no file in it ends with one of .parquet, .csv"):
        expanded([str(tmp_path / "none")])


def test_the_command_says_what_it_took_for_what(tmp_path, capsys):
    """To stdout; what comes next to stderr."""
    shop().write_parquet(tmp_path / "log.parquet")
    assert left("init", tmp_path, "--out", tmp_path / "x.toml", "--user", "uid") == 0
    printed = capsys.readouterr()
    assert "taken for\n" in printed.out
    assert "  keys.user " in printed.out
    assert "look at\n" in printed.out
    assert printed.err == f"\nwritten to {tmp_path / 'x.toml'}; next: multigate check {tmp_path / 'x.toml'}\n"


@pytest.mark.parametrize(
    ("roles", "labels", "message"),
    [
        ({}, ("many",), r"--label many: expected a column of 0 and 1, or of false and true, got \[1, 2\]"),
        ({}, ("ts",), "--label ts: is taken for the time; name another column by --time"),
        ({"user": "many"}, (), "--user many: expected one value per row, got List"),
        ({"time": "device"}, (), "--time device: expected timestamps, got '(phone|tablet)'"),
        ({"user": "uid", "request": "uid"}, (), "--request: 'uid' is --user already; a column is one key"),
    ],
)
def test_a_column_that_cannot_be_what_a_person_says_is_refused(tmp_path, roles, labels, message):
    """Lists are no keys and no labels, a word is no timestamp, and a column is one of them."""
    shop().with_columns(many=pl.Series([[1, 2]] * 600)).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        write([str(tmp_path / "log.parquet")], tmp_path / "mine.toml", roles=roles, labels=labels, force=True)


def test_columns_of_any_name_are_drafted(tmp_path):
    """Each feature and task has a name that a spec takes, of its own, and says from which column it is read."""
    names = {"uid": "user id", "sku": "item id", "device": "a.b", "position": "a b", "is_click": "is click!"}
    shop().rename(names).write_parquet(tmp_path / "log.parquet")
    spec, _, _ = started(tmp_path, labels=("is click!",), user="user id", item="item id")
    assert list(spec.tasks) == ["click"] or list(spec.tasks) == ["is_click"]
    assert (spec.key_feature("user"), spec.key_feature("item")) == ("user_id", "item_id")
    columns = {name: getattr(feature, "column", None) for side in spec.sides() for name, feature in side[1].items()}
    assert {columns[name] for name in ("a_b", "a_b_2")} == {"a.b", "a b"}
