"""Verbs before anything is built: check the installation and the logs; `init` is in init.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipelines.cli.options import JSON, SET, SPEC

ALL = click.option("--all", "everything", is_flag=True, help="List what passed, too.")


@click.command()
@SPEC
@SET
@ALL
@JSON
def check(spec: Path, overrides: Sequence[str], *, everything: bool, as_json: bool) -> None:
    """Validate a spec and its logs.

    Types, ranges, leaks, label chain: failures first, then warnings. Exit code 3 when something fails.
    """
    from pipelines.cli import commands, output, progress_bars

    with progress_bars.progress() as progress:
        findings = commands.check(spec, overrides, progress)
    output.findings(findings, everything=everything, as_json=as_json)
    raise SystemExit(0 if all(finding["passed"] for finding in findings) else 3)


@click.command()
@JSON
def doctor(*, as_json: bool) -> None:
    """Versions, devices, what is missing and how to get it.

    Exit code 1 when something is missing.
    """
    from pipelines.cli import doctor as doctors
    from pipelines.cli import output

    findings = doctors.examine()
    output.findings(findings, everything=True, as_json=as_json)
    raise SystemExit(0 if all(finding["passed"] for finding in findings) else 1)
