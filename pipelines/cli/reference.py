"""Verbs that list what a spec may contain."""

from __future__ import annotations

import click

from pipelines.cli.options import JSON


@click.command()
@JSON
def models(*, as_json: bool) -> None:
    """Models, baselines, objectives, sources and executors, ours and those of installed packages."""
    from features import sources
    from features.pipeline import executors
    from pipelines.cli import output
    from rec import baselines, objectives
    from rec import models as expert_models

    registries = {"models": expert_models, "baselines": baselines, "objectives": objectives, "sources": sources}
    entries = {heading: module.REGISTRY.described() for heading, module in registries.items()}
    output.groups({**entries, "executors": executors.described()}, as_json=as_json)


@click.command()
def schema() -> None:
    """The JSON Schema of a spec, for editors."""
    from pipelines.cli import json_schema as schemas
    from pipelines.cli import output

    output.pairs(schemas.schema(), as_json=True)
