from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time

import pytest

from serving.server.event_log import event_lines, log_event, log_failure
from tests.serving.server.conftest import BODY, PATIENCE
from tests.serving.server.processes import control, free_port, get, running, workers_of

HOSTILE = 'r1\n{"event": "forged"}\r\x1b[2J\x00\x7f\x9b\u2028\u202e\ud800 \'end\''


def written(form, log):
    """The bytes of the lines that a function logs."""
    reader, writer = os.pipe()
    with event_lines(form, writer):
        log()
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        return lines.read()


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_strangers_send_is_escaped(form):
    """One line of printable ASCII an event, whatever a string holds; as JSON it comes back whole."""
    line = written(form, lambda: log_event("worker_died", reason=HOSTILE, inner={HOSTILE: HOSTILE}))
    assert line.endswith(b"\n")
    assert set(line[:-1]) <= set(range(32, 127))
    if form == "json":
        event = json.loads(line)
        assert (event["event"], event["level"], event["reason"]) == ("worker_died", "warning", HOSTILE)


def test_text_is_warnings_alone():
    """A person is told what is wrong, with the traceback of a mistake of ours."""

    def log():
        log_event("swapped", digest="d")
        log_event("worker_died", pid=7, cause="SIGKILL")
        log_failure("request_failed", ValueError(HOSTILE), request="r1")

    first, second, *traceback = written("text", log).decode("ascii").splitlines()
    assert first == 'multigate: worker_died pid=7 cause="SIGKILL"'
    assert second == 'multigate: request_failed request="r1"'
    assert traceback[0] == "ValueError: r1"
    assert "\x1b" not in "".join(traceback)


def test_a_line_is_written_in_one_piece():
    """It is at most PIPE_BUF bytes, however long its strings are, so lines of several processes do not mix."""
    line = written("json", lambda: log_event("swap_failed", reason="\U0001f600" * 100_000))
    assert len(line) <= select.PIPE_BUF
    assert json.loads(line)["event"] == "swap_failed"


def test_nobody_waits_for_whoever_reads():
    """Lines for a pipe that is full or closed are dropped."""
    reader, writer = os.pipe()
    with event_lines("json", writer):
        for _ in range(2000):
            log_event("refused", filler="x" * 200)
        os.close(reader)
        log_event("refused")
    os.close(writer)


def test_a_server_tells_what_happens_to_it(bundle, tmp_path):
    """Its start, a death with its cause, a swap in steps, refusals, its stop: JSON, a line each, in their order."""
    second = shutil.copytree(bundle, tmp_path / "second")
    (second / "manifest.json").write_text((second / "manifest.json").read_text() + " ")
    admin_port = free_port()
    with (tmp_path / "log").open("w") as log:
        settings = {"log_format": "json", "access_log": 1.0}
        with running(bundle, 1, admin_port, log, **settings) as (process, port):
            assert get(port, "/v1/rank", BODY)[0] == 200
            assert get(port, "/v1/rank", b"{")[0] == 400
            until(tmp_path / "log", "request", 2)  # a line is written after its answer
            killed = workers_of(process.pid)[0]
            os.kill(killed, signal.SIGKILL)
            until(tmp_path / "log", "worker_died", 1)
            control(admin_port, "/v1/promote", json.dumps({"bundle": str(second)}).encode())
            control(admin_port, "/v1/rollback", b"{}")
            process.terminate()
            assert process.wait(30) == 0
    said = events(tmp_path / "log")
    names = [event["event"] for event in said]
    rest = iter(names)
    steps = (
        "started ready request worker_died promote swap_started swapped swap_done rollback swap_done draining stopped"
    )
    assert all(step in rest for step in steps.split()), names
    assert {event["status"] for event in said if event["event"] == "request"} == {200, 400}
    [death] = [event for event in said if event["event"] == "worker_died"]
    assert (death["pid"], death["cause"], death["level"]) == (killed, "SIGKILL", "warning")
    assert sum(event["status"].get("400", 0) for event in said if event["event"] == "refused") == 1


def events(path):
    """The events of a log, but for a line that is being written."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def until(path, name, count):
    """Wait for so many events of a name."""
    late = time.monotonic() + PATIENCE
    while sum(event["event"] == name for event in events(path)) < count:
        assert time.monotonic() < late
        time.sleep(0.05)
