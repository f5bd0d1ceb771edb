"""What a new model begins with: fresh weights, pretrained vectors of tables, and the weights of a trained run.

In that order, each over the one before it: an id that the run knows starts from its row there, one that is new to it
from its pretrained vector, and one that has neither is freshly drawn.

    MODEL/warm_start.json   {"pretrained": {table: ...}, "from": ..., "tables": {...}, "biases": {...},
                             "dense": {...}, "lines": [...]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rec import world
from rec.atomic import sha256, write_json
from rec.output_folder import digest
from rec.spec import Spec
from rec.training import pretrained_vectors, warm_start
from rec.training.state import Run

PAGE = "warm_start.json"
_SHOWN = 3  # names in a line of the log; warm_start.json has all


@dataclass(frozen=True)
class Beginning:
    """What a new model begins with: a trained run, or none; `base` is where relative paths of the spec start."""

    run: Path | None = None
    base: Path = Path()

    def made_of(self, spec: Spec) -> dict[str, str]:
        """What decides the first weights, beside the seed; BundleError and DataError where it is not there."""
        vectors = pretrained_vectors.files(spec, self.base)
        of_vectors = {"pretrained vectors": digest(*(sha256(path) for path in vectors.values()))} if vectors else {}
        return of_vectors | ({} if self.run is None else {"--from": digest(warm_start.digest(self.run))})

    def inputs(self, spec: Spec) -> tuple[Path, ...]:
        """What is read, and must not be written."""
        return (*pretrained_vectors.files(spec, self.base).values(), *([] if self.run is None else [self.run]))


FRESH = Beginning()


def fill(run: Run, start: Beginning) -> None:
    """Fill a fresh model, and say of every group of weights what it begins with; all ranks call together."""
    report: dict[str, Any] = {"format": 1, "pretrained": pretrained_vectors.fill(run, start.base)}
    if start.run is not None:
        report |= warm_start.fill(run, warm_start.opened(start.run))
    elif not report["pretrained"]:
        return
    report["lines"] = list(_lines(report))
    for line in report["lines"]:
        run.progress.say(line)
    if world.rank() == 0:
        write_json(run.folder / PAGE, report)


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """One line per group."""
    for table, x in report["pretrained"].items():
        rest = f"; {x['unused']:,} vectors there are of no id here" if x["unused"] else ""
        yield f"table {table}: {x['known']:,} of {x['ids']:,} ids have a vector in {x['file']}{rest}"
    if "from" not in report:
        return
    of, dense = report["from"], report["dense"]
    yield f"starting from {of['path']} ({of['name']}, the weights of step {of['step']:,})"
    states = f" of step {of['optimizer_step']:,}" if of["optimizer_step"] is not None else ""
    for table, x in report["tables"].items():
        yield f"table {table}: {_of_rows(x, _along(x, states))}"
    for feature, x in report["biases"].items():
        yield f"bias {feature}: {_of_rows(x)}"
    moments = f", with the AdamW moments{states} of {dense['moments']:,} of them" if dense["moments"] else ""
    yield f"dense: {len(dense['copied']):,} weights ({dense['numbers']:,} numbers) copied{moments}"
    if dense["fresh"]:
        yield f"dense: {len(dense['fresh'])} fresh: {_some([f'{k} ({why})' for k, why in dense['fresh'].items()])}"
    if dense["left_out"]:
        yield f"dense: {len(dense['left_out'])} left out, not in this model: {_some(dense['left_out'])}"
    yield "scales of numbers, edges of buckets, base rates and label bins are those of the new session tables"
    if report["inputs"]:
        sides = " and ".join(f"[{side}]" for side in report["inputs"])
        yield (
            f"the features of {sides} are not those of the other spec, in its order: "
            "a first layer that was copied all the same reads other inputs"
        )


def _of_rows(x: Mapping[str, Any], along: str = "") -> str:
    if "left_out" in x:
        return f"left out, {x['left_out']}"
    if "fresh" in x:
        return f"{x['rows']:,} rows fresh: {x['fresh']}"
    return f"{x['copied']:,} of {x['rows']:,} rows copied by {x['by']}, {x['new']:,} new, {x['gone']:,} gone{along}"


def _along(x: Mapping[str, Any], states: str) -> str:
    return f", with the optimizer's states{states}" if x.get("states") else ", without optimizer states"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
