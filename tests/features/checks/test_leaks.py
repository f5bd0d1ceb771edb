"""Features that give the answer away, each planted once; and honest ones, which are left alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.checks import leaks
from features.checks.sample import Sample
from features.logs.logs import Finding
from rec.evaluation import classification
from rec.spec import Spec
from tests.features import tiny

N = 400  # candidates: 100 requests of 4, of 10 users
RNG = np.random.default_rng(7)
CLICK = (RNG.random(N) < 0.3).astype(np.int8)
TIME = np.arange(N // 4) * 60_000_000
OWNER = np.repeat(np.arange(N // 4), 4)
USER = np.arange(N // 4) % 10
ITEM = RNG.integers(0, 20, N)


def sample(*, context: dict | None = None, candidates: dict | None = None, click: np.ndarray = CLICK) -> Sample:
    """100 requests, one a minute, with more columns where a test wants them."""
    sides = [{"user": USER, **(context or {})}, {"item": ITEM, "click": click, **(candidates or {})}]
    columns = [{name: pa.array(values, from_pandas=True) for name, values in side.items()} for side in sides]
    return Sample(columns[0], columns[1], TIME, OWNER)


def of(spec: Spec, drawn: Sample) -> Finding:
    """What is found about clicks."""
    return leaks.separating(spec, drawn)[0]


def number(name: str, values: np.ndarray) -> Finding:
    """What is found of a number per candidate."""
    spec = tiny.spec(candidates=f'{name} = {{ kind = "number" }}')
    return of(spec, sample(candidates={name: values}))


def test_an_honest_number_is_left_alone():
    """It knows something of clicks, as features should."""
    finding = number("price", CLICK + RNG.normal(0, 1, N))
    assert (finding.passed, finding.count, finding.total, finding.level) == (True, 0, 3, "warn")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_written_after_the_click_fails(sign):
    """Larger, or smaller, wherever there is one."""
    finding = number("dwell", sign * (CLICK * 30 + RNG.random(N)))
    assert (finding.passed, finding.name, finding.examples) == (False, "leaks.click", ("candidates.dwell: AUC 1.0000",))
    assert finding.text == "features that alone predict whether click happened; were they recorded after it?"


def test_a_number_that_nearly_tells_is_a_warning():
    """AUC of 0.95 to 0.99: it passes, and is named."""
    finding = number("dwell", CLICK * 2.6 + RNG.normal(0, 1, N))
    assert (finding.passed, finding.level, finding.count) == (True, "warn", 1)
    assert finding.examples[0].startswith("candidates.dwell: AUC 0.9")


def test_a_number_that_is_only_there_after_a_click_fails():
    """What it says does not matter."""
    assert not number("dwell", np.where(CLICK == 1, RNG.random(N), np.nan)).passed


def test_a_number_whose_middle_tells_fails():
    """Neither the more nor the less: a code among numbers."""
    other = np.where(RNG.random(N) < 0.5, 1.0, 5.0)
    assert not number("state", np.where(CLICK == 1, 3.0, other)).passed


def test_the_label_in_other_words_is_named_so():
    """Equal up to recoding: an id in words, a number, and one that is missing."""
    spec = tiny.spec(candidates='state = { kind = "id", values = "string" }')
    words = np.where(CLICK == 1, "done", "open")
    assert of(spec, sample(candidates={"state": words})).examples == (
        "candidates.state: is click in other words, 'done' where it happened",
    )
    assert number("paid", CLICK * 2.5).examples[0].endswith("in other words, 2.5 where it happened")
    unsaid = np.where(CLICK == 1, np.nan, 1.0)
    assert number("open", unsaid).examples[0].endswith("in other words, missing where it happened")


def test_an_id_seen_once_tells_nothing_of_itself():
    """An id is judged by other rows of its value, or every request id would separate."""
    spec = tiny.spec(candidates='once = { kind = "id" }')
    assert of(spec, sample(candidates={"once": np.arange(N)})).passed


def test_a_context_is_judged_over_requests():
    """A number of clicks in the request cannot tell its candidates apart, and is a leak all the same."""
    spec = tiny.spec(context='clicks = { kind = "number" }')
    clicks = np.bincount(OWNER, weights=CLICK)
    assert of(spec, sample(context={"clicks": clicks})).examples == ("context.clicks: AUC 1.0000",)


def running(code: np.ndarray, happened: np.ndarray, *, own: bool) -> np.ndarray:
    """How much happened to every row's key before it, or until it."""
    values = np.zeros(len(code))
    for key in np.unique(code):
        rows = code == key
        values[rows] = np.cumsum(happened[rows]) - (0 if own else happened[rows])
    return values


@pytest.mark.parametrize("own", [False, True])
def test_a_count_that_includes_its_own_moment_fails(own):
    """A tie broken the wrong way, by one microsecond: the count jumps exactly where the label is 1."""
    spec = tiny.spec(
        context='mine = { kind = "number", make = "count", per = "user", task = "click" }',
        candidates='sold = { kind = "number", make = "count", per = "item", task = "click" }',
    )
    of_request = np.bincount(OWNER, weights=CLICK)
    mine = sample(context={"mine": running(USER, of_request, own=own)}, candidates={"sold": np.zeros(N)})
    sold = running(ITEM, CLICK, own=own)
    # item by item and row by row: one request a row, so that no two rows of an item share a timestamp
    alone = Sample(
        {"user": pa.array(np.arange(N)), "mine": pa.array(np.zeros(N))},
        {"item": pa.array(ITEM), "click": pa.array(CLICK), "sold": pa.array(sold)},
        np.arange(N),
        np.arange(N),
    )
    for drawn, name in ((mine, "context.mine"), (alone, "candidates.sold")):
        finding = of(spec, drawn)
        assert finding.passed is not own
        if own:
            assert finding.examples == (f"{name} (change): AUC 1.0000",)


@pytest.mark.parametrize("own", [False, True])
def test_a_history_that_holds_its_own_request_fails(own):
    """The clicked item is in the list of the very request it was clicked in."""
    spec = tiny.spec(context='seen = { kind = "ids", make = "history", task = "click", table = "item" }')
    rare = np.arange(N)  # an item each: it is in the list only by its own click
    clicked = [[int(i) for i in rare[OWNER == request] if CLICK[i] and own] for request in range(N // 4)]
    lists = [[*items, 1000, 1001, 1002, 1003][:4] for items in clicked]
    drawn = sample(context={"seen": pa.array(lists, pa.list_(pa.int64()))}, candidates={"item": rare})
    finding = of(spec, drawn)
    assert finding.passed is not own
    if own:
        assert "context.seen (holds item): AUC 1.0000" in finding.examples


def test_a_list_that_is_longer_where_it_happened_fails():
    """Words written about a sale."""
    spec = tiny.spec(candidates='words = { kind = "ids", make = "tokens", values = "string" }')
    words = pa.array([["a"] * (1 + 3 * int(click)) for click in CLICK])
    finding = of(spec, sample(candidates={"words": words}))
    assert finding.examples == ("candidates.words (length): AUC 1.0000",)


def test_what_tells_a_child_among_its_parents_events_fails():
    """Among clicks alone; over all candidates it tells less."""
    buy = (CLICK * (RNG.random(N) < 0.5)).astype(np.int8)
    spec = tiny.spec(candidates='basket = { kind = "number" }', tasks='buy = { label = "bought", given = "click" }')
    basket = np.where(CLICK == 1, buy * 5.0, RNG.integers(0, 2, N) * 5.0) + RNG.random(N)
    finding = leaks.separating(spec, sample(candidates={"basket": basket, "buy": buy}))[1]
    assert finding.examples == ("candidates.basket: AUC 1.0000 given click",)


def test_a_number_that_orders_a_quantity_fails():
    """Money spent, in another currency; the number of a row is none of it."""
    spec = tiny.spec(
        candidates='yen = { kind = "number" }\nn = { kind = "number" }',
        tasks='paid = { label = "paid", predict = "log" }',
    )
    paid = RNG.integers(0, 23, N).astype(np.float32)
    drawn = sample(candidates={"paid": paid, "yen": paid * 150, "n": np.arange(N) * 1.0})
    finding = leaks.separating(spec, drawn)[1]
    assert (finding.name, finding.examples) == ("leaks.paid", ("candidates.yen: is paid in other words",))
    assert finding.text.startswith("features that alone predict how large paid is")
    drawn = sample(candidates={"paid": paid, "yen": paid * 150 + RNG.random(N), "n": np.arange(N) * 1.0})
    assert leaks.separating(spec, drawn)[1].examples == ("candidates.yen: concordance 1.0000",)


def test_few_events_are_no_evidence():
    """With 19 of them, what looks like a leak may be chance."""
    click = np.zeros(N, np.int8)
    click[:19] = 1
    spec = tiny.spec(candidates='dwell = { kind = "number" }')
    assert of(spec, sample(candidates={"dwell": click * 30.0}, click=click)).passed
    click[19] = 1
    assert not of(spec, sample(candidates={"dwell": click * 30.0}, click=click)).passed


def test_what_the_model_never_sees_is_no_leak():
    """A column merely kept, and labels that nobody knows."""
    spec = tiny.spec(candidates='dwell = { kind = "kept", values = "float" }')
    assert of(spec, sample(candidates={"dwell": CLICK * 30.0})).passed
    seen = tiny.spec(candidates='dwell = { kind = "number" }')
    assert of(seen, sample(candidates={"dwell": CLICK * 30.0}, click=np.full(N, -1, np.int8))).passed


def test_the_worst_come_first_and_each_feature_once():
    """Three examples at most."""
    lines = "\n".join(f'x{i} = {{ kind = "number" }}' for i in range(4))
    noise = {f"x{i}": CLICK * 10 + RNG.random(N) * i * 3.4 for i in range(4)}
    finding = of(tiny.spec(candidates=lines), sample(candidates=noise))
    assert finding.count == 3 + (finding.count == 4)
    assert len(finding.examples) == 3
    assert [text.split(":")[0] for text in finding.examples][:1] == ["candidates.x0"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_by_counting_is_auc(rows):
    """Ties included, against the one that is tested for metrics."""
    code = np.array([value for value, _ in rows])
    happened = np.array([label for _, label in rows])
    expected = classification.auc(code.astype(np.float64), happened.astype(np.int64))
    if expected is not None:
        assert leaks._auc(code, happened) == pytest.approx(expected)


def test_a_count_of_a_pair_that_includes_its_own_moment_fails():
    """What a user did to an item: the key is in the context and in the candidate."""
    spec = tiny.spec(candidates='again = { kind = "number", make = "count", per = ["user", "item"], task = "click" }')
    user, item = np.arange(N) % 4, np.arange(N) % 5
    counted = [running(user * 5 + item, CLICK, own=own) for own in (False, True)]
    for again, passed in zip(counted, (True, False), strict=True):
        context = {"user": pa.array(user)}
        candidates = {"item": pa.array(item), "click": pa.array(CLICK), "again": pa.array(again)}
        assert of(spec, Sample(context, candidates, np.arange(N), np.arange(N))).passed is passed
