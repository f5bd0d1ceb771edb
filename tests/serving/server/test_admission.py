from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from serving.server.admission import Admission, estimated_candidates


def queue(**options):
    """A queue of half a second, where a candidate is said to take a millisecond."""
    return Admission(
        **{
            "queue_seconds": 0.5,
            "in_flight": 100,
            "seconds_per_candidate": 1e-3,
            "most": 2000,
            "names": 5,
            "seed": 1,
            **options,
        }
    )


def body(count):
    """A request for so many candidates."""
    return json.dumps({"candidates": [{"item_id": index} for index in range(count)]}).encode()


def test_candidates_are_counted_without_parsing():
    """About, in rows as in columns."""
    assert estimated_candidates(body(500), most=2000, names=5) == 501
    columns = json.dumps({"candidates": {"item_id": list(range(500))}}).encode()
    assert abs(estimated_candidates(columns, most=2000, names=5) - 500) < 3


def test_text_does_not_pass_for_candidates():
    """Braces in a value keep nobody else out, and hide no more than a candidate has values."""
    admission = queue(seconds_per_candidate=20e-6)
    assert (
        admission.admit(json.dumps({"context": {"city": "{" * 10**6}, "candidates": []}).encode(), within=None) is None
    )
    assert admission.admit(body(500), within=None) is None
    hidden = json.dumps({"context": {"city": "{" * 8}, "candidates": {"item_id": list(range(2000))}}).encode()
    assert estimated_candidates(hidden, most=2000, names=5) >= 2000 / 5
    assert admission.admit(hidden, within=None) is None
    before = admission.waiting_seconds()
    for _ in range(200):
        assert admission.admit(hidden, within=None) is None
        admission.leave(hidden, seconds=2020 * 20e-6, candidates=2000)
    np.testing.assert_allclose(admission.waiting_seconds(), before, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"in_flight": 5}, {"queue_seconds": 0.2}])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_queue_is_full_for_whom_it_would_refuse(options, before):
    """Asked beforehand, of any size, behind others that are yet to come."""
    admission, waiting, answers = queue(**options), [], set()
    for size in np.random.default_rng(before).integers(1, 120, size=60).tolist():
        request, twin = body(size), copy.deepcopy(admission)
        reasons = [twin.admit(request, within=None) for _ in range(before + 1)]
        answers.add(admission.full(request, before=before))
        assert admission.full(request, before=before) == (reasons[-1] == "queue")
        if admission.admit(request, within=None) is None:
            waiting.append(request)
        else:
            admission.leave(waiting.pop(0), seconds=None, candidates=0)
    assert answers == {True, False}


def test_half_a_queue_is_crowded():
    """By its time, or by how many wait; an empty one never is."""
    by_time, by_count = queue(), queue(in_flight=4, queue_seconds=60.0)
    crowds = [(by_time.crowded, by_count.crowded)]
    for _ in range(2):
        assert (by_time.admit(body(200), within=None), by_count.admit(body(2), within=None)) == (None, None)
        crowds.append((by_time.crowded, by_count.crowded))
    assert crowds == [(False, False), (False, False), (True, True)]


def test_the_queue_is_as_long_as_its_time():
    """Few large requests, or many small ones."""
    large, small = queue(), queue()
    assert [large.admit(body(200), within=None) for _ in range(3)] == [None, None, "queue"]
    assert [small.admit(body(10), within=None) for _ in range(20)].count(None) > 10


def test_what_is_measured_counts():
    """A model that is quicker than thought admits more."""
    admission = queue()
    for _ in range(200):
        assert admission.admit(body(200), within=None) is None
        admission.leave(body(200), seconds=200e-6, candidates=200)
    assert [admission.admit(body(200), within=None) for _ in range(50)] == [None] * 50


def test_a_deadline_that_cannot_be_met_is_refused():
    """Before anything is done for it; who is alone is served in any case."""
    admission = queue()
    assert admission.admit(body(200), within=0.01) is None
    assert admission.admit(body(10), within=0.1) == "deadline"
    assert admission.admit(body(10), within=0.4) is None


def late_share(*, learning):
    """How many of a crowd take longer than the queue's half second, on a machine that is slow now and then."""
    admission, draw, waiting, late = queue(in_flight=10_000), np.random.default_rng(2), [], []
    now, ten = 0.0, body(10)
    for arrival in range(20_000):
        while admission.admit(ten, within=None) is None:
            waiting.append((now, admission.estimate()))
        pace = 0.2e-3 * (2.0 if arrival // 20 % 10 == 0 else 0.8)
        seconds = 30 * pace * draw.uniform(0.5, 1.5)
        now += seconds
        since, estimate = waiting.pop(0)
        admission.leave(ten, seconds=seconds, candidates=10)
        if learning:
            admission.answered(estimate=estimate, seconds=now - since)
        late.append(now - since > 0.5)
    return np.mean(late[10_000:])


def test_nearly_all_are_answered_within_the_time_of_the_queue():
    """By the mean alone one in five would take longer."""
    assert late_share(learning=False) > 0.2
    assert late_share(learning=True) < 0.02


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.5])
def test_a_pause_of_the_system_is_forgotten(seconds):
    """A queue of any time gets shorter, to a third at most, and long again by answers that it allows."""

    def room():
        admitted = 0
        while admission.admit(b"{}", within=None) is None:
            admitted += 1
        for _ in range(admitted):
            admission.leave(b"{}", seconds=None, candidates=0)
        return admitted

    admission = queue(queue_seconds=seconds, seconds_per_candidate=1e-5, in_flight=10_000)
    long = room()
    for _ in range(5000):
        admission.answered(estimate=seconds, seconds=100.0)
    short = room()
    assert long / 3 - 1 <= short < long / 2.9
    for _ in range(45_000):
        admission.answered(estimate=seconds / 3.1, seconds=seconds / 3.1)
    assert room() == long
    for _ in range(1000):
        admission.answered(estimate=seconds, seconds=0.0)
        admission.answered(estimate=seconds / 10, seconds=100.0)  # too short to say anything
    assert room() == long


def test_there_is_a_limit_on_the_number_too():
    """Which leaving makes room under."""
    admission = queue(in_flight=2)
    assert [admission.admit(b"{}", within=None) for _ in range(3)] == [None, None, "queue"]
    admission.leave(b"{}", seconds=None, candidates=0)
    assert admission.admit(b"{}", within=None) is None


def test_refused_clients_do_not_come_again_all_at_once():
    """Retry-After is jittered."""
    admission = queue()
    assert len({admission.retry_after() for _ in range(50)}) > 1
