"""The data card: what it says, and that it is the same in both of its files."""

from __future__ import annotations

import numpy as np
import polars as pl

from features import checks
from features.checks import data_card
from features.logs.logs import Logs
from features.pipeline import build
from rec.atomic import read_json
from rec.progress import Silent
from tests.features import tiny
from tests.features.checks.test_checks import SPEC, log

CARD = {
    "name": "shop",
    "counts": {
        "train": {"requests": 1200, "candidates": 4000, "observed": {"click": 4000}, "positives": {"click": 500}},
        "test": {"requests": 0, "candidates": 0, "observed": {"click": 0}, "positives": {"click": 0}},
    },
    "unseen": {"test": {"user_id": 0.125, "item_id": 0.0}},
    "missing": {"train": {}, "test": {}},
    "drift": {"context.age": 0.25, "context.city": 0.01},
    "looked_at": {"train": 4000, "test": 0},
}


def test_the_tables_of_a_card():
    """A column per split; a table without anything to say is left out, and so is what has not moved."""
    (counts, unseen, moved) = data_card.tables(CARD)
    assert counts == (
        "session tables",
        ["", "train", "test"],
        [
            ["requests", "1,200", "0"],
            ["candidates", "4,000", "0"],
            ["click observed", "4,000", "0"],
            ["click positive", "500", "0"],
            ["click share", "12.50%", "n/a"],
        ],
    )
    assert unseen == (
        "ids not in train", ["", "test"], [["user_id", "12.50%"], ["item_id", "0.00%"]]
    )  # fmt: skip
    assert moved == (
        "features that drift from train to test (PSI of 0.1 or more)",
        ["", "PSI"],
        [["context.age", "0.25"]],
    )


def test_the_page_of_a_card():
    """Tables that a reader of Markdown sees as tables."""
    lines = data_card.markdown(CARD).splitlines()
    assert lines[0] == "# Data card: shop"
    assert lines[2:7] == [
        "## Session tables",
        "",
        "|  | train | test |",
        "| --- | ---: | ---: |",
        "| requests | 1,200 | 0 |",
    ]


def test_a_card_of_built_tables(tmp_path):
    """What was counted while building, and what a look at the tables adds; both files are written."""
    rows = log().with_columns(price=np.where(np.arange(3000) % 10 == 0, np.nan, 1.0))
    manifest = build.build(SPEC, Logs.whole(rows.lazy()), tmp_path / "data", progress=Silent())
    report = checks.of_tables(SPEC, tmp_path / "data", unseen=manifest["unseen"], counts=manifest["counts"])
    card = data_card.make("tiny", counts=manifest["counts"], unseen=manifest["unseen"], report=report)
    assert card["counts"] == manifest["counts"]
    assert card["looked_at"] == {split: counts["candidates"] for split, counts in manifest["counts"].items()}
    shares = [shares_of["price"] for shares_of in card["missing"].values()]
    weights = [counts["candidates"] for counts in manifest["counts"].values()]
    assert abs(np.average(shares, weights=weights) - 0.1) < 1e-6
    assert set(card["drift"]) == {"context.user", "context.mine", "context.seen", "candidates.item", "candidates.n"} | {
        "candidates.price"
    }
    assert list(card["drift"].values()) == sorted(card["drift"].values(), reverse=True)
    data_card.write(tmp_path, card)
    assert read_json(tmp_path / "card.json") == card
    assert (tmp_path / "card.md").read_text() == data_card.markdown(card)


def test_missing_values_are_missing_in_every_kind(tmp_path):
    """A null id, a number that is none, an empty list; labels are none of it."""
    spec = tiny.spec(
        candidates='brand = { kind = "id" }\nwords = { kind = "ids", make = "tokens", values = "string" }',
    )
    rows = log().with_columns(
        brand=pl.when(pl.int_range(pl.len()) % 4 > 0).then(5),
        words=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("")).otherwise(pl.lit("a b")),
    )
    counts = build.build(spec, Logs.whole(rows.lazy()), tmp_path / "data", progress=Silent())["counts"]
    missing = checks.of_tables(spec, tmp_path / "data", unseen={}, counts=counts).missing
    assert set(missing["train"]) == {"brand", "words"}
    assert abs(missing["train"]["brand"] - 0.25) < 0.05
    assert abs(missing["train"]["words"] - 0.5) < 0.05
