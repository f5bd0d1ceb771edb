"""The verb `train`: in one process, in several of this machine, or in those that a launcher started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.options import DATA, FOLDER, FORCE, JSON, SET, SPEC

if TYPE_CHECKING:
    from rec.output_folder import Overwrite


@click.command()
@SPEC
@DATA
@click.option("--out", type=FOLDER, metavar="MODEL", help="Where to write the trained model.")
@SET
@click.option("--from", "source", type=FOLDER, metavar="RUN", help="Start from the weights of a trained model.")
@click.option("--until", type=click.IntRange(1), metavar="N", help="Train to epoch N: train.epochs, for this command.")
@click.option("--procs", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--plan", is_flag=True, help="Print how tables are sharded, and what a process holds and sends.")
@click.option("--world", type=click.IntRange(1), help="--plan: for so many processes, which need not be here.")
@click.option("--device", metavar="NAME", default="cpu", show_default=True, help="--plan: cpu, a100, h100 or h200.")
@click.option("--per-machine", type=click.IntRange(1), default=8, show_default=True, help="--plan: per machine.")
@click.option("--profile", is_flag=True, help="Trace a few steps: MODEL/trace.json, and a table of the top kernels.")
@FORCE
@JSON
def train(
    spec: Path,
    data: Path,
    out: Path | None,
    overrides: Sequence[str],
    *,
    source: Path | None,
    until: int | None,
    procs: int,
    plan: bool,
    world: int | None,
    device: str,
    per_machine: int,
    profile: bool,
    overwrite: Overwrite,
    as_json: bool,
) -> None:
    """Session tables to a trained model.

    Checkpoints are kept: after an interruption the same command goes on from the last, with any --procs; a finished
    model goes on with a larger --until. On several machines: torchrun -m pipelines.cli train ...
    """
    from pipelines.cli import commands, output, progress_bars

    if procs > 1 or plan or until is not None:
        commands.refuse_options(spec, overrides, procs=procs, plan=plan, until=until is not None)
    if until is not None:
        overrides = [*overrides, f"train.epochs={until}"]
    if plan:
        output.plan(commands.plan(spec, overrides, data, (world or procs, device, per_machine)), as_json=as_json)
        return
    if out is None:
        raise click.UsageError("Missing option '--out'.")
    from rec.training import launch

    if procs > 1 and launch.world_size() == 1:
        changes = [word for override in overrides for word in ("--set", override)]
        flags = ["--force"] * (overwrite == "always") + ["--json"] * as_json + ["--profile"] * profile
        begin = [] if source is None else ["--from", str(source)]
        command = ["train", str(spec), "--data", str(data), "--out", str(out), *begin, *changes, *flags]
        code = launch.spawn(procs, command)
        if code:
            raise SystemExit(code)
        return
    with progress_bars.progress(quiet=launch.rank() > 0) as progress:
        result = commands.train(
            spec, overrides, data, out, progress, overwrite=overwrite, source=source, profiled=profile
        )
    if launch.rank() == 0:
        output.trained(result, as_json=as_json)
