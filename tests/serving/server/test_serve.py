from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from rec.errors import BundleError, SpecError
from rec.progress import Silent
from serving.server import serve
from serving.server.settings import ServerSettings
from tests.serving.server.conftest import BODY
from tests.serving.server.processes import free_port, get, running, workers_of


@pytest.fixture(scope="module")
def server(bundle):
    """Two workers behind one port."""
    with running(bundle, 2) as (process, port):
        yield process, port


def raw(port, head):
    """A connection that has sent the head of a request and nothing of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(
        f"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{head}\r\n\r\n".encode()
    )
    return connection


def test_requests_are_answered(server, service):
    """As `multigate rank` answers them."""
    _, port = server
    assert get(port, "/livez") == get(port, "/readyz") == (200, "ok\n")
    status, body = get(port, "/v1/rank", BODY)
    assert status == 200
    assert json.loads(body)["candidates"] == json.loads(service.rank(BODY, 0).body)["candidates"]
    assert get(port, "/v1/rank", b"{")[0] == 400
    assert get(port, "/nothing")[0] == 404


def test_no_worker_holds_torch_or_polars(server):
    """Neither is mapped into any process of the server."""
    process, port = server
    get(port, "/v1/rank", BODY)
    pids = [process.pid, *workers_of(process.pid)]
    mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    assert len(pids) >= 3
    assert "onnxruntime" in mapped
    assert re.search(r"libtorch|polars", mapped) is None


def test_metrics_of_both_workers_are_summed(server):
    """Whichever worker is asked."""
    _, port = server
    counted = re.compile(r'multigate_rank_requests_total\{code="200"\} (\S+)')

    def answered():
        match = counted.search(get(port, "/metrics")[1])
        assert match is not None
        return float(match[1])

    time.sleep(0.5)  # those of other tests are counted
    before = answered()
    for _ in range(20):
        get(port, "/v1/rank", BODY)
    # a request is counted once its answer is out, which its sender may be told a moment before
    late = time.monotonic() + 5
    while answered() - before < 20 and time.monotonic() < late:
        time.sleep(0.01)
    assert {answered() - before for _ in range(6)} == {20.0}


def test_a_slow_body_is_cut_at_the_deadline_and_others_are_not_affected(server):
    """One byte now and then does not keep a connection."""
    _, port = server
    began = time.monotonic()
    with raw(port, "content-length: 100") as slow:
        slow.sendall(b"{")
        assert get(port, "/v1/rank", BODY)[0] == 200
        assert time.monotonic() - began < 0.5
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("head", ["content-length: 100001", "transfer-encoding: chunked"])
def test_a_body_too_large_is_cut(server, head):
    """By its length where it says it, by its bytes where it does not."""
    _, port = server
    with raw(port, head) as connection:
        if "chunked" in head:
            for _ in range(2):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert get(port, "/readyz")[0] == 200


def test_a_worker_that_dies_is_replaced(server):
    """The others answer meanwhile, and counters do not fall."""
    process, port = server
    before = set(workers_of(process.pid))
    os.kill(min(before), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not set(workers_of(process.pid)) - before:
        time.sleep(0.05)
    assert set(workers_of(process.pid)) - before
    assert get(port, "/v1/rank", BODY)[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(bundle, number):
    """Exit 0, the port free again, no process left; SIGINT comes to the whole group, as Ctrl-C does."""
    with running(bundle, 1) as (process, port):
        workers = workers_of(process.pid)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        if number == signal.SIGTERM:
            time.sleep(0.1)
            assert get(port, "/readyz")[0] == 503
            assert get(port, "/v1/rank", BODY)[0] == 200
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_taken_port_is_refused(bundle):
    """Rather than shared in silence with whoever has it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen here: Address already in use"):
            serve.serve(
                bundle, host="127.0.0.1", port=port, workers=1, threads=1, progress=Silent(), settings=ServerSettings()
            )


def test_a_changed_bundle_never_listens(spoilt):
    """It is verified before a port is taken."""
    (spoilt / "spec.toml").write_text("")
    port = free_port()
    with pytest.raises(BundleError, match=r"spec\.toml has 0 bytes, the manifest says"):
        serve.serve(
            spoilt, host="127.0.0.1", port=port, workers=1, threads=1, progress=Silent(), settings=ServerSettings()
        )
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_cannot_be_both(bundle):
    """Nor can there be more workers than counters have rows; both are seen before a worker starts."""
    options = {"host": "127.0.0.1", "threads": 1, "progress": Silent(), "settings": ServerSettings()}
    port = free_port()
    with pytest.raises(OSError, match=f"127.0.0.1:{port}: cannot listen here: Address already in use"):
        serve.serve(bundle, port=port, admin_port=port, workers=1, **options)
    with pytest.raises(SpecError, match="workers: expected at most 127, got 200"):
        serve.serve(bundle, port=port, workers=200, **options)
