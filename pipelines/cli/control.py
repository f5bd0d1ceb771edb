"""Verbs that control a running server by its admin pages: what is served, another bundle or label, the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import FOLDER, JSON

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


class Percent(click.ParamType):
    """A share as a percentage, such as 5%, or as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share, from 0 to 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share: expected 0% to 100%, or 0 to 1", param, ctx)
        return share


LABEL = click.option(
    "--label",
    type=click.Choice(["stable", "canary", "shadow"]),
    default="stable",
    show_default=True,
    help="With `serve --models`: which label.",
)


@click.command()
@click.argument("bundle", type=FOLDER, metavar="BUNDLE|VERSION")
@LABEL
@click.option("--share", type=Percent(), metavar="SHARE", help="Share of users that a canary answers, such as 5%.")
@_server
@JSON
def promote(bundle: Path, label: str, share: float | None, admin_port: int, token_file: Path, *, as_json: bool) -> None:
    """Serve another bundle, or give a label to a VERSION of a folder of models, without losing a request.

    It is verified, and warm in new processes, before the old ones leave; where it fails, they stay.
    """
    from pipelines.cli import output

    body = {"bundle": str(bundle.absolute()), "version": str(bundle), "label": label, "share": share}
    output.pairs(_reply(admin_port, token_file, "/v1/promote", body), as_json=as_json)


@click.command()
@LABEL
@click.option("--clear", is_flag=True, help="Take the label away.")
@_server
@JSON
def rollback(label: str, admin_port: int, token_file: Path, *, clear: bool, as_json: bool) -> None:
    """Serve the bundle of before the last promotion again, or undo the last change of a label."""
    from pipelines.cli import output

    body = {"label": label, "clear": clear}
    output.pairs(_reply(admin_port, token_file, "/v1/rollback", body), as_json=as_json)


@click.command()
@_server
def status(admin_port: int, token_file: Path) -> None:
    """What a server serves, as JSON."""
    import json

    click.echo(json.dumps(_reply(admin_port, token_file, "/v1/status", None), indent=2))


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


def _reply(port: int, token_file: Path, page: str, body: dict[str, Any] | None) -> dict[str, Any]:
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
