"""The queue of a worker: who is ranked, who is refused, and in what time."""

from __future__ import annotations

import json
import time

import pytest

from serving.server.admission import Admission
from tests.serving.server.conftest import BODY, Client, asked, head, rank, running

COUNTED = ("http_requests", "rank_requests")


class Slow:
    """A rank service that takes its time."""

    def __init__(self, service, seconds):
        self.service, self.bundle, self.seconds, self.ranked = service, service.bundle, seconds, 0

    def rank(self, body, now, **options):
        """As the service does, later."""
        time.sleep(self.seconds)
        self.ranked += 1
        return self.service.rank(body, now, **options)


def test_who_would_wait_too_long_is_refused_at_once(service):
    """By the measured time: some are ranked, others get 503 with Retry-After, and all are counted."""
    with running(Slow(service, 0.2), queue_seconds=0.25, in_flight=3) as shop:
        clients = [Client(shop.port) for _ in range(12)]
        for client in clients:
            client.send(rank())
        answers = [client.answer() for client in clients]
        for client in clients:
            client.socket.close()
        refused = [headers for status, headers, _ in answers if status == 503]
        assert {status for status, _, _ in answers} == {200, 503}
        assert all(1 <= int(headers["retry-after"]) < 60 for headers in refused)
        shop.until('requests_shed_total{reason="queue"}', len(refused))
        shop.until('rank_requests_total{code="503"}', len(refused))


def test_the_queue_learns_from_who_was_ranked(service, monkeypatch):
    """How long each took since it was admitted, beside the estimate; a request that does not fit says nothing."""
    told, honest = [], Admission.answered
    monkeypatch.setattr(Admission, "answered", lambda queue, **said: (told.append(said), honest(queue, **said)))
    with running(Slow(service, 0.05)) as shop:
        clients = [Client(shop.port) for _ in range(3)]
        for client in clients:
            client.send(rank())
        assert [client.answer()[0] for client in clients] == [200, 200, 200]
        assert asked(shop.port, rank(b"[]"))[0] == 422
        for client in clients:
            client.socket.close()
    assert len(told) == 3
    assert all(said["seconds"] >= 0.05 and said["estimate"] > 0 for said in told)


def test_who_comes_does_not_hold_up_who_waits(service, monkeypatch):
    """Where every turn of the loop brings somebody, a request waits for few of them."""
    turns, admitted, ranked, honest = [], [], [], Admission.admit

    def admit(queue, *asked, **how):
        admitted.append(len(turns))
        return honest(queue, *asked, **how)

    class Counted(Slow):
        def rank(self, *asked, **how):
            ranked.append(len(turns))
            return super().rank(*asked, **how)

    monkeypatch.setattr(Admission, "admit", admit)
    with running(Counted(service, 0.0)) as shop:

        def come():
            turns.append(None)
            shop.server.accepted += 1
            time.sleep(0.005)
            if not ranked:
                shop.server.loop.call_soon(come)

        shop.server.loop.call_soon_threadsafe(come)
        assert asked(shop.port, rank())[0] == 200
    assert admitted[0] <= ranked[0] <= admitted[0] + 2


class SlowLog:
    """An access log that takes its time, after the answer."""

    def finished(self, *_):
        """A line was written."""
        time.sleep(0.1)


def test_what_is_done_between_two_answers_is_waited_for_too(service):
    """Ranking takes a millisecond and what follows a hundred: who would wait for that is refused."""
    with running(service, access=SlowLog(), queue_seconds=0.25) as shop:
        statuses = []
        for count in (12, 30):  # the estimate is learnt from those who wait for one another
            clients = [Client(shop.port) for _ in range(count)]
            for client in clients:
                client.send(rank())
            statuses.append({client.answer()[0] for client in clients})
            for client in clients:
                client.socket.close()
    assert statuses[1] == {200, 503}


def test_a_full_queue_refuses_new_connections_before_they_are_any(service):
    """They are counted as other refusals are; whoever has a connection keeps it."""
    with running(Slow(service, 0.5), in_flight=2) as shop, Client(shop.port) as kept:
        kept.send(rank())
        time.sleep(0.1)
        clients = [Client(shop.port) for _ in range(20)]
        for client in clients:
            client.send(rank())
        answers = [client.answer()[:2] for client in clients]
        for client in clients:
            client.socket.close()
        closed = [headers for status, headers in answers if status == 503 and headers.get("connection") == "close"]
        assert len(closed) > 0
        assert shop.server.accepted <= 21 - len(closed)
        refused = [status for status, _ in answers].count(503)
        for name in ('requests_shed_total{reason="queue"}', *(f'{what}_total{{code="503"}}' for what in COUNTED)):
            shop.until(name, refused)
            assert shop.series(name) == refused
        assert shop.series('rank_request_duration_seconds_count{code="503"}') == refused
        assert kept.answer()[0] == 200
        kept.send(head("/readyz", "GET"))
        assert kept.answer()[0] == 200


def test_health_answers_between_requests(service):
    """New connections are accepted between two requests, so a probe does not wait for the queue."""
    with running(Slow(service, 0.1), queue_seconds=60.0) as shop:
        clients = [Client(shop.port) for _ in range(30)]
        for client in clients:
            client.send(rank())
        shop.until('http_requests_total{code="200"}', 1)
        began = time.monotonic()
        assert asked(shop.port, head("/livez", "GET"))[0] == 200
        assert time.monotonic() - began < 1.5  # the queue is 3 s long
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("how", ["header", "body"])
def test_work_past_its_deadline_is_not_done(service, how):
    """504, and the model has not run; who has time is answered."""
    body = json.dumps({**json.loads(BODY), "deadline_ms": 50}).encode() if how == "body" else BODY
    lines = ["x-request-deadline-ms: 50"] if how == "header" else []
    with running(Slow(service, 0.2)) as shop:
        status, _, answer = asked(shop.port, rank(body, *lines))
        assert (status, json.loads(answer)["title"]) == (504, "The request's deadline has passed")
        assert asked(shop.port, rank(BODY, "x-request-deadline-ms: 60000"))[0] == 200
        shop.until("rank_candidates_count", 1)
        assert shop.series('requests_shed_total{reason="deadline"}') == 1
        assert shop.series("rank_candidates_count") == 1


@pytest.mark.parametrize("deadline", ["0", "-5", "soon", "99999999999", "1.5", ""])
def test_a_deadline_that_is_none_is_refused(shop, deadline):
    """422, in the header as in the body."""
    assert asked(shop.port, rank(BODY, f"x-request-deadline-ms: {deadline}"))[0] == 422


def test_nobody_is_ranked_for_a_client_that_has_gone(service):
    """It is looked for just before the model runs; the work is saved and counted."""
    slow = Slow(service, 0.3)
    with running(slow, queue_seconds=60.0) as shop:
        with Client(shop.port) as first, Client(shop.port) as second:
            first.send(rank())
            time.sleep(0.1)
            second.send(rank())
            time.sleep(0.05)
            second.socket.close()
            assert first.answer()[0] == 200
        shop.until('requests_shed_total{reason="gone"}', 1)
        shop.until("rank_candidates_count", 1)
        assert shop.series("rank_candidates_count") == 1
