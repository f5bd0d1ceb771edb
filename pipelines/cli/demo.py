"""`multigate demo`: from a synthetic shop's logs to a model, and to an endpoint that ranks a test request."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import FOLDER, SET
from rec.errors import BundleError

if TYPE_CHECKING:
    from rec.spec import Spec

SHOP = Path(__file__).with_name("shop.toml")
PATIENCE = 60.0  # seconds the endpoint may take to be ready
TOP = 10


@click.command()
@click.option(
    "--out", type=FOLDER, metavar="DIR", default=Path("runs/demo"), show_default=True, help="Where everything goes."
)
@SET
@click.option("--force", is_flag=True, help="Make again what the spec or a new version changed, and only that.")
def demo(out: Path, overrides: Sequence[str], *, force: bool) -> None:
    """A synthetic shop, from raw logs to a ranked answer over HTTP.

    Runs every step, serves the bundle, ranks one request of the test split, and stops the server. Needs no download.
    """
    from pipelines.cli import output, progress_bars, run
    from rec import spec as specs
    from rec.atomic import write_json

    with progress_bars.progress() as progress:
        report = run.run(SHOP, overrides, out, progress, force=force)
    click.echo()
    output.metrics(report, as_json=False)
    body = request_of(specs.load(SHOP, overrides), out / "data")
    write_json(out / "request.json", body)
    with endpoint(out / "bundle") as url:
        click.echo(f"\nPOST {url}/v1/rank\n{_shortened(body)}\n")
        answer = ask(f"{url}/v1/rank", body)
    answer["candidates"] = answer["candidates"][:TOP]
    output.ranked(answer, as_json=False)
    click.echo(f"\nthe endpoint is stopped; start it again with: {_program()} serve {out / 'bundle'}")
    click.echo(f"run     {out}\nreport  {out / 'report.html'}")


def _program() -> str:
    """The command that runs this environment's multigate: its name if that is on the PATH."""
    beside = Path(sys.executable).with_name("multigate")
    program = shutil.which("multigate")
    return "multigate" if program and Path(program) == beside else os.path.relpath(beside)


def request_of(spec: Spec, data: Path) -> dict[str, Any]:
    """A request as a client would send it, from the test split: the user's id and the ids of what was shown."""
    from rec.data import splits

    row = next(splits.read(data, "test", spec)).slice(0, 1).to_pylist()[0]
    context = {name: row["context"][name] for name in (spec.key_feature("user"),) if name}
    candidates = [{name: shown[name] for name in (spec.key_feature("item"),) if name} for shown in row["candidates"]]
    return {"request_id": "demo", "time": row["time"].isoformat(), "context": context, "candidates": candidates}


@contextmanager
def endpoint(bundle: Path) -> Iterator[str]:
    """Context manager: the address of a ready server of a bundle."""
    port = free_port()
    command = [sys.executable, "-m", "pipelines.cli", "serve", str(bundle), "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as server:  # noqa: S603  our own command
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, server)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


def free_port() -> int:
    """A currently unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON response to a JSON body; BundleError with the server's message when it refuses."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  our own server
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise BundleError(f"{url}: {error.code}: {error.read().decode()}") from None


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310  our own server
                return
        except OSError:
            time.sleep(0.1)
    raise BundleError(f"{url}: the endpoint was not ready within {PATIENCE:.0f} s")


def _shortened(body: Mapping[str, Any]) -> str:
    """A request on one line, with only its first candidates."""
    text = json.dumps({**body, "candidates": body["candidates"][:3]})
    more = len(body["candidates"]) - 3
    return text if more <= 0 else f"{text[:-2]}, ... {more} more]}}"
