"""The tables of docs/measured/features.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality import PageContent
from benchmarks.quality.page import table
from benchmarks.speed.features import BuildSpeed, Peer, Stage

SPEED = ["events", "seconds", "events per second", "time of linear", "of the floor", "peak memory, GiB"]
PEERS = ["events", "who", "seconds", "with start-up", "core seconds", "peak memory, GiB", "the pipeline's time of it"]
BESIDE = [
    "events",
    "with start-up, seconds",
    "core seconds",
    "floor, seconds",
    "read, GiB",
    "written, GiB",
    "peak, shared pages once, GiB",
]


def page(result: Mapping[str, Any]) -> PageContent:
    """What `bench features` found: speed, what it is compared with, and where the time went."""
    rows, stages = result["rows"], result["stages"]
    tables = {"speed": _speed(rows), "peers": _peers(result["peers"]), "beside": _beside(rows)}
    return PageContent({**tables, "stages": _stages(stages)})


def _peers(peers: Sequence[Peer]) -> str:
    lines = [
        [
            f"{peer.events:,}",
            peer.who,
            f"{peer.seconds:.1f}",
            f"{peer.process_seconds:.1f}",
            f"{peer.core_seconds:.1f}",
            _figure(peer.peak_gib, ".2f"),
            f"{peer.of_it:.2f}",
        ]
        for peer in peers
    ]
    return table(PEERS, lines)


def _speed(rows: Sequence[BuildSpeed]) -> str:
    lines = [
        [
            f"{row.events:,}",
            f"{row.seconds:.1f}",
            f"{row.events_per_second:,.0f}",
            _figure(row.of_linear, ".2f"),
            f"{row.of_floor:.1f}",
            _figure(row.peak_gib, ".2f"),
        ]
        for row in rows
    ]
    return table(SPEED, lines)


def _beside(rows: Sequence[BuildSpeed]) -> str:
    lines = [
        [
            f"{row.events:,}",
            f"{row.process_seconds:.1f}",
            f"{row.core_seconds:.1f}",
            f"{row.floor_seconds:.2f}",
            f"{row.read_gib:.2f}",
            f"{row.written_gib:.2f}",
            _figure(row.peak_gib_shared_once, ".2f"),
        ]
        for row in rows
    ]
    return table(BESIDE, lines)


def _stages(stages: Sequence[Stage]) -> str:
    """Seconds and share of every stage, a pair of columns per size."""
    sizes = list(dict.fromkeys(stage.events for stage in stages))
    lines = []
    for name in dict.fromkeys(stage.stage for stage in stages):
        of = {stage.events: f"{stage.seconds:.1f} ({stage.share:.0%})" for stage in stages if stage.stage == name}
        lines.append([name, *(of.get(size, "") for size in sizes)])
    return table(["seconds (share)", *(f"{size:,} events" for size in sizes)], lines)


def _figure(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)
