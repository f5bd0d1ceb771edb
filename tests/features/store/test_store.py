"""The store against the slow twin: fed as a log arrives, it says of every request what loops over the whole log say."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.pipeline import build
from features.pipeline.build import BuildOptions
from features.store import state
from features.store.store import FAR, FeatureStore
from features.sweep.key_group import KeyGroup
from rec.progress import Silent
from tests.features import drawn
from tests.features.replayed import answer, before, cut_at, differences, feed, questions

quietly = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
logged = st.one_of(drawn.logs(), drawn.logs(), drawn.logs(users=False))
unshrunk = settings(quietly, phases=[Phase.generate])


def wrong(store: FeatureStore, log: drawn.Drawn, fed: int = -FAR) -> list[str]:
    """Where a store that is fed up to each request says something else of it than the twin."""
    differing = []
    for question in questions(log):
        if question.request.time >= store.clock:
            feed(store, log, fed, question.request.time)
            fed = max(fed, question.request.time)
            differing += differences(answer(store, question), question.row)
    return differing


@quietly
@given(logged)
def test_every_answer_is_the_twins(log):
    """Whatever features, windows and lags, ties, repeats and gaps: fed up to a request, the store answers its row."""
    assert wrong(state.empty(log.spec, log.logs()), log) == []


@quietly
@given(logged)
def test_what_is_fed_early_waits_for_its_moment(log):
    """Fed with the whole log, future and all, at the beginning, the store answers the same."""
    store = state.empty(log.spec, log.logs())
    feed(store, log, -FAR, FAR)
    assert wrong(store, log, FAR) == []


@quietly
@given(logged, st.data())
def test_a_store_that_was_saved_goes_on_as_if_it_had_not_been(log, data):
    """Saved and loaded before any request, with windows open and events to come."""
    store, fed = state.empty(log.spec, log.logs()), -FAR
    requests = questions(log)
    cut = data.draw(st.integers(0, len(requests) - 1))
    for question in requests[:cut]:
        feed(store, log, fed, question.request.time)
        fed = question.request.time
        answer(store, question)
    with tempfile.TemporaryDirectory() as folder:
        state.save(store, Path(folder) / "state")
        assert wrong(state.load(log.spec, Path(folder) / "state"), log, fed) == []


@quietly
@given(logged, st.data())
def test_a_build_of_the_beginning_and_the_rest_fed_is_the_whole(one, data):
    """The state that a build leaves, in however many slices, then fed with what came after its logs' end."""
    cut = data.draw(st.sampled_from(sorted({row["time"] for row in one.rows})[1:] or [FAR]))
    with tempfile.TemporaryDirectory() as folder:
        how = BuildOptions(engine="serial", snapshot=True, rows=data.draw(st.sampled_from([4, 1000])), refusing=False)
        build.build(one.spec, cut_at(one, cut).logs(), Path(folder) / "data", progress=Silent(), how=how)
        store = state.load(one.spec, Path(folder) / "data" / "state")
    assert wrong(store, one, cut) == []


@quietly
@given(logged, st.data())
def test_what_is_fed_late_counts_from_then_on(log, data):
    """A row that arrives long after its timestamp changes nothing said before, and all that is said after."""
    late = data.draw(st.sampled_from([row for row in log.rows if row["item"] is not None]))
    later = [question for question in questions(log) if question.request.time > late["time"]]
    if not later or log.events or before(log, late):
        return  # of an event that was fed before its impression, or a request that began earlier than anybody said
    store, last = state.empty(log.spec, log.logs()), later[-1]
    feed(store, log, -FAR, FAR, without=late)
    store.advance(last.request.time)
    store.feed(log.frame([late], log.kinds).collect())
    assert differences(answer(store, last), last.row) == []


def test_a_planted_leak_of_one_microsecond_is_noticed(monkeypatch):
    """If outcomes entered at their own moment, the twin would notice: the tests above are not blind."""
    plain = KeyGroup._steps

    def early(group, own):
        return [replace(step, delay=step.delay - 1) for step in plain(group, own)]

    monkeypatch.setattr(KeyGroup, "_steps", early)
    with pytest.raises(AssertionError):
        unshrunk(given(logged)(test_every_answer_is_the_twins.hypothesis.inner_test))()
