"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from pipelines.report.tables import card_tables, health_tables, metric_tables, remarks_of

if TYPE_CHECKING:
    from rec.training.plan_cost import PlanCost

_WIDE = 10_000  # columns: wider than any table, whatever the terminal


def metrics(report: Mapping[str, Any], *, as_json: bool) -> None:
    """One line per output of an evaluated model, then the remarks on its metrics."""
    if as_json:
        _json(report)
        return
    caption = f"{report['split']}: {report['requests']:,} requests, {report['candidates']:,} candidates"
    for titles, rows in metric_tables(report["outputs"]):
        _table(titles, rows, caption)
        caption = ""
    _warnings(remarks_of(report["outputs"]), apart=True)
    if "refit" in report:
        click.echo(f"\nrefit: {report['refit']['text']}")
    if "health" in report:
        _health(report["health"])


def trained(entry: Mapping[str, Any], *, as_json: bool) -> None:
    """A line for the best epoch and its losses, its validation metrics, then the remarks on them."""
    if as_json:
        _json(entry)
        return
    from rec.evaluation import remarks

    losses = ", ".join(f"{name} {value:.4f}" for name, value in entry["train"]["loss"].items())
    click.echo(f"best epoch {entry['epoch']}, step {entry['step']:,}{f': loss {losses}' if losses else ''}")
    for titles, rows in metric_tables(entry["validation"]):
        _table(titles, rows, "\nvalidation")
    _warnings([f"validation: {remark}" for remark in remarks.of_outputs(entry["validation"])], apart=True)
    if "refit" in entry:
        click.echo(f"\nrefit, {entry['refit']['steps']:,} steps: {entry['refit']['text']}")
        click.echo("the figures above are of the training before it, on train alone")


def plan(cost: PlanCost, *, as_json: bool) -> None:
    """How each table is sharded, then what a process holds, and sends in a step."""
    if as_json:
        _json(asdict(cost))
        return
    rows = [
        [t.table, f"{t.rows:,}", f"{t.dim}", t.kind, _ranks(t.ranks), _bytes(t.bytes), _bytes(t.traffic)]
        for t in cost.tables
    ]
    titles = ["table", "rows", "dim", "sharded", "ranks", "size", "sent a step"]
    _table(titles, rows, f"{len(cost.memory)} processes; bytes sent a step are those of one process")
    click.echo()
    most, least = max(cost.memory), min(cost.memory)
    click.echo(f"memory a process  {_bytes(least)} to {_bytes(most)} (weights and optimizer states)")
    if any(cost.host):
        names = ", ".join(t.table for t in cost.tables if t.on_host)
        click.echo(
            f"its host's        {_bytes(min(cost.host))} to {_bytes(max(cost.host))}: {names}, cached on the device"
        )
    click.echo(f"sent a step       {_bytes(cost.traffic)} for tables, {_bytes(cost.dense)} for everything else")


def _ranks(ranks: Sequence[int]) -> str:
    """`0-63`, or a few one by one."""
    whole = len(ranks) > 2 and tuple(ranks) == tuple(range(ranks[0], ranks[-1] + 1))
    return f"{ranks[0]}-{ranks[-1]}" if whole else ",".join(map(str, ranks))


def _bytes(count: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _health(health: Mapping[str, Any]) -> None:
    """Gate weights, anomalies, and which gates have none; the experts are listed in report.html."""
    caption, titles, rows = health_tables(health)[0]
    _table(titles, rows, f"\n{caption}")
    click.echo()
    _warnings([finding["text"] for finding in health["findings"]], apart=False)
    for line in health["passed"]:
        click.echo(line)


def _warnings(texts: Sequence[str], *, apart: bool) -> None:
    """A line each; `apart` puts an empty one before the first."""
    if texts and apart:
        click.echo()
    for text in texts:
        click.echo(f"{click.style('WARN', fg='yellow')}  {text}")


def findings(checks: Sequence[Mapping[str, Any]], *, as_json: bool, everything: bool = False) -> None:
    """Failed checks, then warnings, then what a rule handled, each with counts and examples; the rest is counted."""
    if as_json:
        _json([{"verdict": verdict(finding), **finding} for finding in checks])
        return
    verdicts = [verdict(finding) for finding in checks]
    _listed(checks, ("FAIL", "WARN", "NOTE", "PASS") if everything else ("FAIL", "WARN", "NOTE"))
    passed = f"{verdicts.count('PASS')} checks passed{'' if everything else '; --all shows them'}"
    others = [f"{verdicts.count(mark)} {word}" for mark, word in (("FAIL", "failed"), ("WARN", "warned"))]
    click.echo(f"{', '.join(others)}, {passed}")


def _listed(checks: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> None:
    """The findings of some marks, mark by mark, a line each, with counts and examples."""
    marks = [_mark(finding) for finding in checks]
    listed = [(mark, finding) for mark in shown for finding, got in zip(checks, marks, strict=True) if got == mark]
    width = max((len(finding["name"]) for _, finding in listed), default=0)
    share = max((len(_share(finding)) for _, finding in listed), default=0)
    for mark, finding in listed:
        coloured = click.style(mark, fg={"PASS": "green", "NOTE": "blue", "WARN": "yellow", "FAIL": "red"}[mark])
        count = f"  {_share(finding).rjust(share)}" if share else ""
        click.echo(f"{coloured}  {finding['name']:<{width}}{count}  {finding['text']}")
        for example in finding.get("examples", ())[:3]:
            click.echo(f"        e.g. {example}")


def _mark(finding: Mapping[str, Any]) -> str:
    """The verdict; NOTE for rows that a rule dropped, masked or kept in spite of something."""
    passed = verdict(finding)
    return "NOTE" if passed == "PASS" and finding.get("level") == "note" and finding["count"] else passed


def verdict(finding: Mapping[str, Any]) -> str:
    """FAIL, WARN or PASS; a note passes."""
    if not finding["passed"]:
        return "FAIL"
    return "WARN" if finding.get("level") == "warn" and finding["count"] else "PASS"


def _share(finding: Mapping[str, Any]) -> str:
    """`count / total`; empty for a total of 1."""
    return f"{finding['count']:,} / {finding['total']:,}" if finding["total"] > 1 else ""


def card(data: Mapping[str, Any], *, as_json: bool) -> None:
    """The data card, split by split; then what was warned of, and the rows that a rule dropped, masked or kept."""
    if as_json:
        _json(data)
        return
    for caption, titles, rows in card_tables(data):
        _table(titles, rows, f"\n{caption}")
    checks = data.get("findings", ())
    if any(_mark(finding) in ("WARN", "NOTE") for finding in checks):
        click.echo()
        _listed(checks, ("WARN", "NOTE"))


def manifest(contents: Mapping[str, Any], *, as_json: bool) -> None:
    """The contents of a bundle, and its parity error."""
    if as_json:
        _json(contents)
        return
    parity = contents["parity"]
    click.echo(f"outputs    {', '.join(contents['outputs'])}")
    click.echo(f"inputs     {', '.join(contents['inputs'])}")
    click.echo(f"parity     {parity['max_difference']:.1e} (at most {parity['tolerance']:.0e})")
    click.echo(f"bytes      {sum(entry['bytes'] for entry in contents['files'].values()):,}")


def ranked(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """The candidates of one request, best first: rank, id, every output, the fused score."""
    if as_json:
        _json(answer)
        return
    listed = answer["candidates"]
    if not listed:
        click.echo("no candidates")
        return
    # the id has the name the spec gives it, and comes before the rank
    key, outputs = next(iter(listed[0])), list(listed[0]["tasks"])
    rows = [
        [str(c["rank"]), str(c[key]), *(f"{c['tasks'][name]:.5f}" for name in outputs), f"{c['score']:.5f}"]
        for c in listed
    ]
    titles = ["rank", key, *outputs, "score"]
    reasons = ", ".join(answer["degraded"]["reasons"])
    _table(titles, rows, f"request {answer['request_id']}" + (f" (degraded: {reasons})" if reasons else ""))
    if ages := {view: age for view, age in answer["features_age_s"].items() if age is not None}:
        stale = answer["degraded"]["items_stale"]
        shown = ", ".join(f"{view.replace('_', ' ')} {_age(age)}" for view, age in ages.items())
        shown += " (below 0: newer than the request)" if min(ages.values()) < 0 else ""
        click.echo(f"age of stored features: {shown}" + (f"; too old: those of {stale} candidates" if stale else ""))


def _age(seconds: float) -> str:
    """Seconds in the largest unit of which there are two.

    >>> _age(7300.0)
    '2.0 h'
    """
    units = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
    unit, size = next(((unit, size) for unit, size in units if abs(seconds) >= 2 * size), units[-1])
    return f"{seconds / size:.1f} {unit}"


def pairs(values: Any, *, as_json: bool) -> None:
    """Names and values, one per line."""
    if as_json:
        _json(values)
        return
    for line in flat(values):
        click.echo(line)


def groups(values: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    """Names and values by heading, aligned over all of them."""
    if as_json:
        _json(values)
        return
    width = max((len(name) for group in values.values() for name in group), default=0)
    for index, (heading, group) in enumerate(values.items()):
        click.echo(f"\n{heading}" if index else heading)
        for name, value in group.items():
            click.echo(f"  {name:<{width}}  {value}")


def measured(result: Mapping[str, Any], *, as_json: bool) -> None:
    """The result of a benchmark: a table if it has rows, otherwise names and values."""
    plain = {key: _plain(value) for key, value in result.items()}
    if as_json:
        _json(plain)
        return
    for key, value in plain.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            flattened = [dict(_leaves(row, "")) for row in value]
            _table(list(flattened[0]), [list(row.values()) for row in flattened], f"\n{key}")
        else:
            pairs({key: value}, as_json=False)


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, wherever they are in a list."""
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def flat(values: Mapping[str, Any]) -> list[str]:
    """Nested names and values as aligned lines.

    >>> flat({"rows": {"train": 2}, "seconds": 1.5})
    ['rows.train  2', 'seconds     1.5']
    """
    leaves = list(_leaves(values, ""))
    width = max((len(name) for name, _ in leaves), default=0)
    return [f"{name:<{width}}  {value}" for name, value in leaves]


def _leaves(value: Any, name: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield name, f"{value:.4g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, f"{value:,}"
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, "n/a" if value is None else str(value)


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Aligned columns, names left and figures right, without borders or truncation."""
    click.echo(caption)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    sides: list[JustifyMethod] = ["right"] * len(titles)
    sides[:1] = ["left"]
    for title, side in zip(titles, sides, strict=True):
        table.add_column(Text(title, justify=side), justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(text, justify=side) for text, side in zip(row, sides, strict=True)))
    console = Console(width=_WIDE, highlight=False)
    with console.capture() as drawn:
        console.print(table, soft_wrap=True)
    click.echo(drawn.get(), nl=False)  # rich ends the process itself where nobody reads any more
