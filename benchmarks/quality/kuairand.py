"""KuaiRand-Pure, six kinds of feedback from common to rare: every expert model at one size."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, models, sharing, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import gain, mean, standard_error, values

TASKS = ("click", "long_view", "like", "profile", "comment", "follow")
GIVEN = ("long_view|click", "like|click", "profile|click", "comment|click")
SPARSE = ("like", "profile", "comment", "follow")  # under 2% of candidates
GROUPS = {"watch": ["click", "long_view"], "interaction": ["like", "profile", "comment", "follow"]}
WITHOUT_EXPERTS = ("shared_bottom", "single_task", "gbdt", "popularity")


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Every model, and the baselines."""
    return [*models.rows(data_of[""], {"dropout": 0.2}, GROUPS), *models.baselines()]


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """Tables and a drawing of docs/measured/kuairand.md, and a table for every model's page."""
    what = "KuaiRand-Pure, six tasks, test AUC over seeds ([how](../measured/kuairand.md)):"
    return PageContent(
        tables={
            "rates": tables.base_rates(data_of[""], results, TASKS),
            "auc": tables.quality(results, TASKS),
            "given": tables.quality(results, GIVEN),
            "gauc": tables.quality(results, (*TASKS[:2], *GIVEN[:1]), "gauc"),
            "gauc-sparse": tables.quality(results, SPARSE, "gauc"),
            "against": tables.against(results, models.REFERENCE, TASKS),
            "sparse": sparse(results),
            "sizes": tables.sizes(results),
            **sharing.of_models(results, TASKS),
        },
        plots={"kuairand.svg": tables.dots(results, TASKS, models.REFERENCE)},
        models=tables.of_models(results, TASKS, models.model_of(results), what),
    )


def sparse(results: Results) -> str:
    """For every sparse task: how many expert models beat Shared-Bottom, which comes first, and what chance would do."""
    experts = [row for row in results if not row.startswith(WITHOUT_EXPERTS)]
    lines = []
    for task in SPARSE:
        base = results.get(models.REFERENCE, ())
        gains = {row: gain(results[row], base, task, "auc") for row in experts}
        known = {row: apart for row, apart in gains.items() if apart is not None}
        if not known:
            continue
        best = max(known, key=lambda row: known[row].mean)
        better = [row for row, apart in known.items() if apart.low > 0]
        worse = [row for row, apart in known.items() if apart.high < 0]
        lines.append(
            [f"`{task}`", f"{best} {known[best]}", _of(better, known), _of(worse, known), _chance(results, task)]
        )
    titles = [
        "",
        f"best expert model minus {models.REFERENCE}",
        "clearly better",
        "clearly worse",
        "standard error of the AUC on this test set",
    ]
    return table(titles, lines)


def _of(names: list[str], every: Mapping[str, object]) -> str:
    return f"{len(names)} of {len(every)}" + (f": {'; '.join(names)}" if names else "")


def _chance(results: Results, task: str) -> str:
    """The standard error of the reference's AUC on a test set of this size."""
    trainings = results[models.REFERENCE]
    figures = trainings[0]["report"]["outputs"][task]
    auc = mean(values(trainings, task, "auc"))
    if auc is None:
        return "n/a"
    return f"{standard_error(auc, figures['positives'], figures['candidates'] - figures['positives']):.4f}"


SUITE = Suite(specs={"": CHECKOUT / "specs" / "kuairand_many.toml"}, seeds=3, rows=rows, page=page)
