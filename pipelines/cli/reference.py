"""Verbs that tell what a spec can say."""

from __future__ import annotations

import click

from pipelines.cli.options import JSON


@click.command()
@JSON
def models(*, as_json: bool) -> None:
    """What can be put in [model] and [objective] name, one line each."""
    from pipelines.cli import output
    from rec import models as bodies
    from rec import objectives

    output.groups({"models": bodies.names(), "objectives": objectives.names()}, as_json=as_json)


@click.command()
def schema() -> None:
    """The JSON Schema of a spec, for editors."""
    from pipelines.cli import json_schema as schemas
    from pipelines.cli import output

    output.pairs(schemas.schema(), as_json=True)
