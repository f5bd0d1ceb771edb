"""The store against the slow twin: fed as the log arrives, it says of every request what loops over the whole log say."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from features import state
from features.online import FAR
from tests.features import drawn
from tests.features.replayed import answer, feed, questions

quietly = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@quietly
@given(drawn.logs())
def test_every_answer_is_the_twins(one):
    """Whatever features, windows and lags, ties, repeats and gaps: fed up to a request, the store answers its row."""
    store, fed = state.empty(one.spec, one.logs()), -FAR
    for question in questions(one):
        feed(store, one, fed, question.asked.time)
        fed = question.asked.time
        assert answer(store, question) == question.row
