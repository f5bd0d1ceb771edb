"""The data sets whose specs ship: the shop whose truth is known, and real ones where their files are."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features import sources
from features.logs.logs import Logs
from features.pipeline import build
from rec.data import splits
from rec.progress import Silent
from rec.spec import Spec, load
from tests import ROOT

SPECS = ROOT / "specs"


def read(name: str, *overrides: str) -> tuple[Spec, Logs]:
    """A spec that ships, and its logs; skips where the files are not."""
    spec = load(SPECS / f"{name}.toml", list(overrides))
    root = spec.source.get("root") or spec.source.get("impressions") or spec.source.get("files")
    if root is not None and not (SPECS / root).exists():
        pytest.skip(f"{name}: its data is not at {SPECS / root}")
    return spec, sources.read(spec, SPECS)


def shown(logs: Logs) -> pl.DataFrame:
    """All impressions, as the files have them."""
    return pl.concat([piece.frame for piece in logs.impressions]).collect()


@pytest.fixture(scope="module")
def shop() -> pl.DataFrame:
    """A shop of about 100,000 impressions."""
    return shown(read("shop")[1])


@pytest.mark.parametrize(
    ("probability", "event", "among"),
    [("p_click", "click", None), ("p_buy_given_click", "buy", "click"), ("p_buy", "buy", None)],
)
def test_the_shop_draws_what_it_says(shop, probability, event, among):
    """In every tenth of impressions by probability, events are as frequent as it promises, within chance."""
    rows = shop if among is None else shop.filter(pl.col(among) == 1)
    p = rows[probability].to_numpy()
    happened = rows[event].to_numpy()
    for tenth in np.array_split(np.argsort(p), 10):
        error = np.sqrt((p[tenth] * (1 - p[tenth])).sum())
        assert abs(happened[tenth].sum() - p[tenth].sum()) < 4 * error


def test_the_shop_is_the_same_for_the_same_seed(shop):
    """And another for another."""
    assert shown(read("shop")[1]).equals(shop)
    assert not shown(read("shop", "source.seed=8")[1]).equals(shop)


def test_what_is_hidden_in_the_shop_moves_clicks_and_purchases_alike(shop):
    """The same people are shown the same things; what was clicked is bought more than the rest would be."""
    more = shown(read("shop", "source.hidden=1.0")[1])
    same = ["request_id", "user_id", "item_id", "time", "position", "device", "section"]
    assert more.select(same).equals(shop.select(same))

    def of(rows: pl.DataFrame, name: str) -> np.ndarray:
        p = rows[name].to_numpy()
        return np.log(p / (1 - p))

    by_click, by_buy = (of(more, name) - of(shop, name) for name in ("p_click", "p_buy_given_click"))
    np.testing.assert_allclose(by_click, by_buy, atol=1e-9)
    assert abs(by_click.mean()) < 0.02
    assert abs(by_click.std() - 1) < 0.02
    assert by_click[more["click"].to_numpy() == 1].mean() > 0.5


def test_a_purchase_needs_a_click_and_comes_later(shop):
    """Within the windows the spec gives."""
    bought = shop.filter(pl.col("buy") == 1)
    assert bought["click"].min() == 1
    assert (bought["buy_time"] > bought["click_time"]).all()
    assert bought.select((pl.col("buy_time") - pl.col("time")).max()).item().days < 2


def test_a_request_of_the_shop_shows_an_item_once(shop):
    """At its own position."""
    assert not shop.select("request_id", "item_id").is_duplicated().any()
    assert not shop.select("request_id", "position").is_duplicated().any()


def test_the_shop_may_be_small():
    """Two users, two items, one day."""
    _, logs = read("shop", "source.users=2", "source.items=2", "source.days=1", "source.candidates=1")
    assert len(shown(logs)) > 0


@pytest.mark.parametrize("name", ["shop", "census", "open_bandit", "open_bandit_plain", "alibaba"])
def test_every_check_passes(name, tmp_path):
    """On every data set whose spec ships; that of KuaiRand is built below."""
    manifest = build.build(*read(name), tmp_path / "data", progress=Silent())
    assert [finding["name"] for finding in manifest["findings"] if not finding["passed"]] == []


def test_kuairand_is_split_by_days_in_china(tmp_path):
    """Repeats in every column are dropped; 1-8 May tests; a long view only where there is a click."""
    spec, logs = read("kuairand")
    manifest = build.build(spec, logs, tmp_path / "data", progress=Silent())
    counts = manifest["counts"]
    assert sum(split["candidates"] for split in counts.values()) == 228_329 - 5_460
    assert all(finding["passed"] for finding in manifest["findings"])
    rows = shown(logs).filter(pl.col("date") >= 20220501)
    assert len(rows) - counts["test"]["candidates"] == 226  # of requests that began before midnight, never torn
    assert counts["test"]["positives"]["long_view"] < rows["long_view"].sum()


@pytest.mark.slow
def test_pauses_find_the_sessions_of_globo(tmp_path):
    """Of a million native sessions, as polars alone counts those that a pause of 30 minutes makes."""
    spec, logs = read("globo")
    manifest = build.build(spec, logs, tmp_path / "data", progress=Silent())
    findings = [finding for finding in manifest["findings"] if finding["name"] == "sessions"]
    assert {finding["total"] for finding in findings} == {1_048_594}
    user, time = pl.col("user_id"), pl.col("click_timestamp")
    rows = shown(logs).sort("user_id", "click_timestamp")
    pause = ((user != user.shift(1)) | (time - time.shift(1) > 30 * 60_000)).fill_null(True)
    pairs = rows.select("session_id", pause.cum_sum().alias("pause")).unique()
    alone = pl.len().over("session_id") == 1, pl.len().over("pause") == 1
    assert findings[0]["count"] == pairs.filter(*alone).height == 995_472
    assert sum(finding["count"] for finding in findings) == 1_048_594


def test_census_has_the_published_counts(tmp_path):
    """199,523 people train, the others are halved; 12,382 of the first earn more than 50,000 dollars."""
    spec, logs = read("census")
    rows = shown(logs)
    assert dict(rows["split"].value_counts().iter_rows()) == {"train": 199_523, "validation": 49_881, "test": 49_881}
    train = rows.filter(pl.col("split") == "train")
    assert (train["income_50k"] == "50000+.").sum() == 12_382
    read_by = {feature.column or name for name, feature in spec.candidates.items()}
    assert not read_by & {"income_50k", "marital_stat", "instance_weight"}


def test_open_bandit_needs_no_program(tmp_path):
    """A spec alone reads the same impressions, position and propensity too; only the affinity it cannot have."""
    rows = {}
    for name in ("open_bandit", "open_bandit_plain"):
        spec, logs = read(name)
        build.build(spec, logs, tmp_path / name, progress=Silent())
        batches = [rows for split in splits.SPLITS for rows in splits.read(tmp_path / name, split, spec)]
        flat = pl.concat([pl.DataFrame(pl.from_arrow(batch)) for batch in batches])
        rows[name] = flat.explode("candidates").unnest("candidates").drop("affinity", strict=False)
    assert rows["open_bandit_plain"].equals(rows["open_bandit"])
    assert rows["open_bandit"]["propensity_score"].unique().to_list() == [1 / 80]


def test_alibaba_is_a_users_days(tmp_path):
    """Clicks and three other kinds of row in one file; a request is a day of one of 884 people."""
    spec, logs = read("alibaba")
    manifest = build.build(spec, logs, tmp_path / "data", progress=Silent())
    days = shown(logs).select("user_id", "visit_datetime").n_unique()
    assert sum(split["requests"] for split in manifest["counts"].values()) == days
    findings = {(finding["name"], finding["text"].partition(" ")[0]): finding for finding in manifest["findings"]}
    assert findings["source.events.bought", "events"]["total"] == 6_984
    assert findings["impressions", "rows"]["total"] == 174_539
    assert manifest["counts"]["train"]["positives"]["buy"] > 2_000


def test_open_bandit_keeps_what_off_policy_estimates_need():
    """Position, propensity, and the affinity to the item shown."""
    _, logs = read("open_bandit")
    rows = shown(logs)
    assert len(rows) == 10_000
    assert rows["propensity_score"].unique().to_list() == [1 / 80]
    assert set(rows["position"]) == {1, 2, 3}
    assert 0 < rows["affinity"].sum() < 100
