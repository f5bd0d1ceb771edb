"""Arguments and options that several verbs share. Only click is imported here, so that `--help` stays quick.

SPEC    a TOML file             DATA    session tables, as `features` writes them
MODEL   as `train` writes it    BUNDLE  as `export` writes it        SCORES  as `score` writes them
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class Utf8Path(click.Path):
    """A path that records and tables can name: its bytes are UTF-8."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error where it is not UTF-8."""
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{os.fsencode(value)!r} is not UTF-8", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = Utf8Path(path_type=Path)
ADDRESS = Utf8Path()  # as it is given: as a path s3://logs would lose a /
SPEC = click.argument("spec", type=FOLDER)
MODEL = click.argument("model", type=FOLDER)
BUNDLE = click.argument("bundle", type=FOLDER)
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change the spec for this command, e.g. train.lr=1e-3; may be given several times.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
DATA = click.option("--data", type=FOLDER, required=True, metavar="DATA", help="Session tables, from `features`.")
SPLIT = click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="Which requests.",
)
THREADS = click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads per model run.")
FORCE = click.option(
    "--force",
    "overwrite",
    is_flag=True,
    flag_value="always",
    default="never",
    help="Overwrite earlier output of a verb there, from the beginning.",
)


def out(metavar: str, what: str) -> Callable[[Any], Any]:
    """The option for the output folder."""
    return click.option("--out", type=FOLDER, required=True, metavar=metavar, help=f"Where to write {what}.")


def several(name: str, values: tuple[int, ...], what: str) -> Callable[[Any], Any]:
    """An option that may be given several times, each a positive whole number."""
    return click.option(
        name, type=click.IntRange(1), multiple=True, default=values, show_default=True, help=f"{what}; several times."
    )


def repeats(count: int) -> Callable[[Any], Any]:
    """The option for the number of repeats of a measurement."""
    return click.option("--repeats", type=click.IntRange(1), default=count, show_default=True, help="Repeats.")
