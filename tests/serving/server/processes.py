"""A server in processes of its own, as `multigate serve` starts it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

SERVE = """
import json, sys
from pathlib import Path
from serving.server import serve
from serving.server.settings import ServerSettings
class Lines:
    def start(self, what, total=None, unit=""): pass
    def advance(self, units, **figures): pass
    def say(self, line): print(line, flush=True)
if __name__ == "__main__":
    serve.serve(Path(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), workers=int(sys.argv[3]), threads=1,
                progress=Lines(), admin_port=int(sys.argv[4]) or None, token="t" * 20, models=sys.argv[6] == "models",
                settings=ServerSettings(drain_seconds=0.3, body_seconds=0.5, max_body=100_000,
                                        **json.loads(sys.argv[5])))
"""


def free_port():
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(bundle, workers, admin_port=0, stderr=None, models=False, **settings):
    """A server process that is ready, and its port; with `models`, of a folder of versions."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, *map(str, (bundle, port, workers, admin_port)), json.dumps(settings)]
    command += ["models" if models else "bundle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        try:
            lines = [server.stdout.readline() for _ in range(2)]
            assert "golden scores agree" in lines[0]
            assert lines[1] == f"ready: http://127.0.0.1:{port}/v1/rank ({workers} x 1 threads)\n"
            yield server, port
        finally:
            if server.poll() is None:
                server.terminate()
                server.wait(20)


def get(port, path, body=None):
    """Status and text of an answer on a connection of its own."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def workers_of(pid):
    """The worker processes of a server."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def control(port, page, body):
    """The answer of an admin page."""
    headers = {"authorization": f"Bearer {'t' * 20}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{page}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
