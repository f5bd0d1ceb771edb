"""`multigate check-model`: the laws of the model contract, tested on any model."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pipelines.cli.options import JSON, SET


@click.command(name="check-model")
@click.argument("model", metavar="NAME|PACKAGE.MODULE:CLASS")
@SET
@JSON
def check_model(model: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Test a model against the laws of the model contract.

    On small random specs and rows, without logs. --set gives settings, such as model.experts=2, and
    objective.name takes another objective. Exit code 4 when a law is broken.
    """
    import logging
    from dataclasses import asdict

    from pipelines.cli import output
    from pipelines.laws import check

    # what torch.export tells its developers is not for ours
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    verdicts = check.check(model, overrides)
    if as_json:
        output.pairs({"model": model, "laws": [asdict(verdict) for verdict in verdicts]}, as_json=True)
    else:
        for verdict in verdicts:
            click.echo(f"{'PASS' if verdict.passed else 'FAIL'}  {verdict.law}")
            if verdict.text:
                click.echo(f"      {verdict.text}")
    raise SystemExit(0 if all(verdict.passed for verdict in verdicts) else 4)
