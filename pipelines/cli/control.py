"""Verbs that control a running server by its admin pages: what is served, another bundle, the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import BUNDLE, FOLDER, JSON

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 600.0  # for a bundle to be copied, verified, and warm in all workers


def _server(command: Callable[..., Any]) -> Callable[..., Any]:
    port = click.option(
        "--admin-port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="Of the server."
    )
    token = click.option(
        "--token-file", type=FOLDER, required=True, metavar="FILE", help="The file that the server was given."
    )
    return port(token(command))


@click.command()
@BUNDLE
@_server
@JSON
def promote(bundle: Path, admin_port: int, token_file: Path, *, as_json: bool) -> None:
    """Serve another bundle, without losing a request.

    It is verified, and warm in new processes, before the old ones leave; where it fails, they stay.
    """
    from pipelines.cli import output

    body = {"bundle": str(bundle.absolute())}
    output.pairs(_asked(admin_port, token_file, "/v1/promote", body), as_json=as_json)


@click.command()
@_server
@JSON
def rollback(admin_port: int, token_file: Path, *, as_json: bool) -> None:
    """Serve the bundle of before the last promotion again."""
    from pipelines.cli import output

    output.pairs(_asked(admin_port, token_file, "/v1/rollback", {}), as_json=as_json)


@click.command()
@_server
def status(admin_port: int, token_file: Path) -> None:
    """What a server serves, as JSON."""
    import json

    click.echo(json.dumps(_asked(admin_port, token_file, "/v1/status", None), indent=2))


def read_token(path: Path) -> str:
    """The token in a file; SpecError where there is none, or it is short."""
    from rec.errors import SpecError

    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: no token: {error}") from None
    if len(token) < 16 or not token.isprintable():
        raise SpecError(f"{path}: expected a token of at least 16 printable characters, got {len(token)}")
    return token


def _asked(port: int, token_file: Path, page: str, body: dict[str, Any] | None) -> dict[str, Any]:
    import http.client
    import json

    from rec.errors import BundleError

    headers = {"authorization": f"Bearer {read_token(token_file)}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET" if body is None else "POST", page, json.dumps(body or {}), headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise BundleError(f"127.0.0.1:{port}: no answer of a server: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise BundleError(f"127.0.0.1:{port}: {answer.status}: {content['detail']}")
    return content
