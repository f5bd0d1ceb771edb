"""The verbs, the heading of `--help` each is listed under, and the file that declares it.

A file is imported when its verb is called or listed; until a verb runs, each imports click alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from pipelines.cli import checkout

VERBS: Mapping[str, Mapping[str, str]] = {  # heading: {verb: module:attribute}
    "Start": {
        "init": "pipelines.cli.init:init",
        "check": "pipelines.cli.first_steps:check",
        "doctor": "pipelines.cli.first_steps:doctor",
        "demo": "pipelines.cli.demo:demo",
    },
    "Build": {
        "features": "pipelines.cli.pipeline:features",
        "train": "pipelines.cli.training:train",
        "export": "pipelines.cli.pipeline:export",
        "run": "pipelines.cli.pipeline:run",
    },
    "Evaluate": {
        "evaluate": "pipelines.cli.evaluation:evaluate",
        "bench": "benchmarks.main:bench",
    },
    "Serve": {
        "score": "pipelines.cli.inference:score",
        "serve": "pipelines.cli.inference:serve",
        "rank": "pipelines.cli.inference:rank",
        "promote": "pipelines.cli.control:promote",
        "rollback": "pipelines.cli.control:rollback",
        "status": "pipelines.cli.control:status",
    },
    "Look up": {
        "models": "pipelines.cli.reference:models",
        "check-model": "pipelines.cli.check_model:check_model",
        "schema": "pipelines.cli.reference:schema",
    },
}


class Verbs(click.Group):
    """A click group whose verbs and headings are those of VERBS."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click asks with a context
        """Every available verb, by heading."""
        return [verb for verbs in VERBS.values() for verb in verbs if verb != "bench" or checkout.here()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb of that name, from the file that declares it."""
        if cmd_name == "bench" and not checkout.here():
            return checkout.bench
        places = {verb: place for verbs in VERBS.values() for verb, place in verbs.items()}
        if cmd_name not in places:
            return None
        module, _, attribute = places[cmd_name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The headings, and a line per verb."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names))
        for heading, verbs in VERBS.items():
            commands = [(verb, self.get_command(ctx, verb)) for verb in verbs if verb in names]
            with formatter.section(heading):
                formatter.write_dl([(verb, command.get_short_help_str(width)) for verb, command in commands if command])
