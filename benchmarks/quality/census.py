"""Census-Income: every expert model at one size on three tasks, the best ones on two tasks of the literature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, models, sharing, tables
from benchmarks.quality.page import table
from benchmarks.quality.published import DIFFERENCES, SOURCES
from benchmarks.quality.statistics import difference, gain, mean, spread, values, verdict

TASKS = ("income", "never_married", "college")
OF_TWO = ("mmoe",)  # what is trained with education among the inputs, too
NORMALISED = {"normalise": True, "activation": "swish"}
LEVELS = (64, 32)  # half the width AdaTT's paper has, so that every row and seed can be trained
TWO = "2 tasks: "
# by prior knowledge, for HoME: what pays, and how one lives
GROUPS = {"work": ["income", "college"], "life": ["never_married"]}
# found on the validation split (docs/log.md)
MODEL = {"dropout": 0.2}
TRAIN = ("train.epochs=12", "train.batch=2048")
LONGER = ("train.epochs=12", "train.batch=1024")  # twice the steps, for the comparison with others' best


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """Every model and the baselines on three tasks; some models on two."""
    every = models.rows(data_of["three"], MODEL, GROUPS, levels=LEVELS)
    three = [Variant(row.name, (*row.overrides, *TRAIN), "three") for row in [*every, *models.baselines()]]
    few = [row for row in models.rows(data_of["two"], MODEL, {}, levels=LEVELS) if row.name in OF_TWO]
    better = models.rows(data_of["two"], MODEL | NORMALISED, {}, levels=LEVELS)
    few += [Variant(f"{row.name}, normalised", row.overrides) for row in better if row.name == "mmoe"]
    two = [Variant(TWO + row.name, (*row.overrides, *LONGER), "two") for row in few]
    # what each of the things that were found is worth: the inputs, and the training
    plain = [row for row in models.rows(data_of["plain"], MODEL, {}, levels=LEVELS) if row.name == "mmoe"]
    two += [Variant(f"{TWO}{row.name}, plain inputs", (*row.overrides, *LONGER), "plain") for row in plain]
    return three + two


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """Tables and a drawing of docs/measured/census.md, and a table for every model's page."""
    three = {row: trainings for row, trainings in results.items() if not row.startswith(TWO)}
    two = {row.removeprefix(TWO): trainings for row, trainings in results.items() if row.startswith(TWO)}
    what = "Census-Income, three tasks, test AUC over seeds ([how](../measured/census.md)):"
    return PageContent(
        tables={
            "rates": tables.base_rates(data_of["three"], three, TASKS),
            "auc": with_mean(three, TASKS),
            "against": tables.against(three, models.REFERENCE, TASKS),
            "expected": expected(three),
            "two": halves(two, TASKS[:2]),
            "published": published(),
            "differences": differences(three),
            "sizes": tables.sizes(results),
            **sharing.of_models(three, TASKS),
        },
        plots={"census.svg": tables.dots(three, TASKS, models.REFERENCE)},
        models=tables.of_models(three, TASKS, models.model_of(three), what),
    )


def with_mean(results: Results, outputs: Sequence[str]) -> str:
    """AUC of every task, and of the mean task, best mean first."""
    ranked = sorted(results, key=lambda row: -average(results, row, outputs))
    rows = [
        [
            row,
            *(spread(values(results[row], name, "auc")) for name in outputs),
            spread(averages(results, row, outputs)),
        ]
        for row in ranked
    ]
    return table(["", *(f"`{name}`" for name in outputs), "mean of the tasks"], rows)


def halves(results: Results, outputs: Sequence[str]) -> str:
    """AUC on the test half, and of the same models on the other half, by which their training was stopped."""
    rows = [
        [
            row,
            *(spread(values(trainings, name, "auc")) for name in outputs),
            *(spread([training["validation"][name] for training in trainings]) for name in outputs),
        ]
        for row, trainings in results.items()
    ]
    return table(["", *(f"`{name}`" for name in outputs), *(f"`{name}`, validation" for name in outputs)], rows)


def averages(results: Results, row: str, outputs: Sequence[str]) -> list[float | None]:
    """The mean AUC over tasks, seed by seed."""
    by_task = [values(results[row], name, "auc") for name in outputs]
    return [mean(of_seed) for of_seed in zip(*by_task, strict=True)]


def average(results: Results, row: str, outputs: Sequence[str]) -> float:
    """The mean AUC over tasks and seeds."""
    return mean(averages(results, row, outputs)) or 0.0


def expected(results: Results) -> str:
    """The papers' expectation and our result: AdaTT is at least as good as the others on average."""
    rows = []
    for ours in ("adatt", "adatt_sp"):
        for other in ("shared_bottom", "mmoe", "ml_mmoe", "ple"):
            if ours in results and other in results:
                apart = difference(averages(results, ours, TASKS), averages(results, other, TASKS))
                rows.append([f"{ours} - {other}", str(apart or "n/a"), verdict(apart)])
    return table(["mean AUC of the tasks", "difference", ""], rows)


def published() -> str:
    """The numbers of others."""
    rows = [
        [source.name, model, *("" if value is None else f"{value:.4f}" for value in auc), source.protocol]
        for source in SOURCES
        for model, auc in source.auc.items()
    ]
    return table(["source", "model", *(f"`{name}`" for name in TASKS), "protocol"], rows)


def differences(results: Results) -> str:
    """AdaTT minus another model: in its paper, and here in both of its forms."""
    rows = []
    for (_, other), theirs in DIFFERENCES.items():
        rows.append([f"adatt - {other}, paper", *(f"{apart:+.4f}" for apart in theirs)])
        for ours in ("adatt", "adatt_sp"):
            if ours in results and other in results:
                gains = [gain(results[ours], results[other], name, "auc") for name in TASKS]
                rows.append([f"{ours} - {other}, here", *(str(apart or "n/a") for apart in gains)])
    return table(["", *(f"`{name}`" for name in TASKS)], rows)


SPECS = CHECKOUT / "specs"
FILES = {"three": "census_three.toml", "two": "census.toml", "plain": "census_plain.toml"}
SUITE = Suite(
    specs={name: SPECS / file for name, file in FILES.items()},
    seeds=3,
    rows=rows,
    page=page,
    changes={"two": ("train={ lr = 0.001 }",)},  # models are compared without average and refit
)
