"""docs/launchers/nginx.conf: nginx in front of a server, where nginx is installed."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

from serving.server.settings import ServerSettings
from tests import ROOT
from tests.serving.server.conftest import BODY, PATIENCE, asked, head
from tests.serving.server.processes import free_port, get, running

TEXT = (ROOT / "docs/launchers/nginx.conf").read_text()
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
installed = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@contextmanager
def proxy(folder, upstream):
    """Nginx with the configuration of the page, but for ports and its pid file; the port it listens on."""
    port = free_port()
    changes = {"127.0.0.1:8000": f"127.0.0.1:{upstream}", "listen 8080": f"listen 127.0.0.1:{port}"}
    scratch = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in KINDS)
    text = TEXT.replace("server_tokens off;", f"server_tokens off;\n{scratch}")
    for before, after in {**changes, "/run/nginx.pid": str(folder / "pid")}.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / "nginx.conf").write_text(text.replace("worker_processes auto", "worker_processes 1"))
    command = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            late = time.monotonic() + PATIENCE
            while not (folder / "pid").exists():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < late
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()


@installed
def test_requests_come_through_nginx(bundle, tmp_path):
    """Answers of the server, those that refuse too; metrics stay inside; many requests need one connection."""
    with running(bundle, 1) as (_, port), proxy(tmp_path, port) as front:
        direct, through = (json.loads(get(each, "/v1/rank", BODY)[1]) for each in (port, front))
        assert through["candidates"] == direct["candidates"]
        assert (get(front, "/v1/rank", b"{")[0], get(front, "/readyz")[0]) == (400, 200)
        assert get(front, "/metrics")[0] == 404
        client = http.client.HTTPConnection("127.0.0.1", front, timeout=PATIENCE)
        for _ in range(20):
            client.request("POST", "/v1/rank", BODY, {"content-type": "application/json"})
            answer = client.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        client.close()
        open_connections = re.search(r"^multigate_connections (\S+)$", get(port, "/metrics")[1], re.MULTILINE)
        assert open_connections is not None
        assert float(open_connections[1]) <= 3  # of nginx, and of who asks for the metrics
        assert asked(front, head(length=ServerSettings().max_body + 1))[0] == 413


@installed
def test_nginx_answers_for_a_server_that_is_gone(tmp_path):
    """502 at once, where nobody listens."""
    with proxy(tmp_path, free_port()) as front:
        began = time.monotonic()
        assert get(front, "/v1/rank", BODY)[0] == 502
        assert time.monotonic() - began < 5


def test_its_limits_are_those_of_the_server():
    """Of the settings that it names, the defaults; idle connections to the server end at nginx's side first."""
    defaults = ServerSettings()
    named = re.findall(r"(\d+)(s|m); +# (\w+_seconds|max_body)$", TEXT, re.MULTILINE)
    assert {name for *_, name in named} == {"head_seconds", "body_seconds", "write_seconds", "idle_seconds", "max_body"}
    for number, unit, name in named:
        assert int(number) * (1 if unit == "s" else 1 << 20) == getattr(defaults, name)
    upstream = re.search(r"keepalive_timeout (\d+)s; +# less than idle_seconds", TEXT)
    assert upstream is not None
    assert int(upstream[1]) < defaults.idle_seconds
