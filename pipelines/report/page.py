"""report.html: one self-contained page about one model, rendered from report.json and the files of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipelines.report import charts
from pipelines.report.tables import card_tables, day_table, health_tables, metric_tables, name_of, remarks_of
from rec.atomic import read_json, write_bytes
from rec.evaluation import remarks
from rec.training import watch_lines

PAGE = Path(__file__).with_name("page.html")


def write(path: Path, report: Mapping[str, Any], *, model: Path, data: Path, bundle: Path | None) -> None:
    """Write the page of a run or a bundle that was evaluated on `data`."""
    write_bytes(path, render(report, model=model, data=data, bundle=bundle).encode())


def render(report: Mapping[str, Any], *, model: Path, data: Path, bundle: Path | None) -> str:
    """The page as text; all content from files is escaped."""
    history = _read(model / "history.json", list) or []
    looks = watch_lines.read(model / watch_lines.NAME)
    daily = _read(model / "progressive.json", list) or []
    exported = _read((bundle or model) / "manifest.json") or {}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        name=(_read(model / "manifest.json") or {}).get("name", model.name),
        report=report,
        metrics=metric_tables(report["outputs"]),
        weighted=any("sample_weight" in values for values in report["outputs"].values()),
        remarks=remarks_of(report["outputs"]),
        # our own drawing; text inside an SVG was escaped by matplotlib
        reliability={
            output: Markup(charts.reliability(values["reliability"]))  # noqa: S704
            for output, values in report["outputs"].items()
            if any(b["count"] for b in values["reliability"])
        },
        health=report.get("health"),
        heat=[(label, Markup(charts.gates(part))) for label, part in _gates(report)],  # noqa: S704
        health_tables=health_tables(report["health"]) if "health" in report else [],
        # of a progressive run the days say more than the one entry at its end
        curves=Markup(charts.curves(history)) if history and not daily else None,  # noqa: S704
        watched=Markup(charts.watched(looks)) if len(looks) > 1 else None,  # noqa: S704
        epochs=len(history),
        days=day_table(daily) if daily else None,
        day_curves=Markup(charts.days(daily)) if daily else None,  # noqa: S704
        curve_remarks=_curve_remarks(model, history),
        parity=exported.get("parity"),
        versions=exported.get("versions", {}),
        card=card_tables(_read(data / "card.json") or read_json(data / "manifest.json", dict)),
        spec=(model / "spec.toml").read_text(encoding="utf-8"),
    )


def _gates(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The gates of every level with a caption."""
    levels = report.get("health", {"levels": []})["levels"]
    numbered = list(enumerate(levels, 1))
    return [(f"level {name_of(n, level, part)}", part) for n, level in numbered for part in level["gates"]]


def _curve_remarks(model: Path, history: Any) -> list[str]:
    """The remarks on the validation metrics of the best epoch."""
    best = (_read(model / "checkpoint" / "best" / "state.json") or {}).get("epoch")
    of_best = [entry["validation"] for entry in history if entry["epoch"] == best]
    return [str(remark) for validation in of_best for remark in remarks.of_outputs(validation)]


def _read(path: Path, kind: type = dict) -> Any:
    return read_json(path, kind) if path.exists() else None
