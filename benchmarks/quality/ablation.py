"""Ablation on KuaiRand-Pure: each group of features added to the attributes alone, and all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import CHECKOUT
from benchmarks.quality import PageContent, Results, Suite, SuiteData, Variant, tables
from benchmarks.quality.page import table
from benchmarks.quality.statistics import difference, mean, values
from features.checks import sample as sampled
from rec import spec as specs
from rec.evaluation import classification
from rec.spec import Spec

TASKS = ("click", "long_view", "like")
SPEC = CHECKOUT / "specs" / "kuairand_features.toml"
ATTRIBUTES, ALL = "attributes", "all"
BUCKETS = {"all, numbers but rates in buckets": False, "all, every number in buckets": True}  # rates too?
IDS = ("video_id", "author_id")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "ids": IDS,
    "ids and histories": (*IDS, "clicked", "clicked_tags", "clicked_gaps", "watched"),
    "counts and rates of the user": (
        *("user_shown_1h", "user_shown_1d", "user_shown_ever", "user_click_1d", "user_click_ever"),
        *("user_long", "user_like", "since_click"),
    ),
    "sessions": ("session_requests", "session_seconds"),
    "counts and rates of the video": (
        *("video_shown_1h", "video_shown_1d", "video_shown_ever", "video_click_1d", "video_click_ever"),
        *("video_long_1d", "video_long_ever", "video_like"),
    ),
    "rates of the author": ("author_click", "author_like"),
    "rates of user and tag": ("taste_click", "taste_long"),
    "ids and crosses": (*IDS, "degree_tag", "tab_video"),
}
ALONE = {"user_click_ever": "click", "user_like": "like", "video_click_ever": "click", "video_like": "like"}
EVERY = 1 << 40  # candidates: more than there are
KEPT = 'candidates.video_id={ kind = "kept" }'  # it is a key, so it stays in the tables


def without(names: Sequence[str]) -> tuple[str, ...]:
    """The overrides that remove features."""
    spec = specs.load(SPEC)
    side = {name: "context" if name in spec.context else "candidates" for name in names}
    return tuple(KEPT if name == "video_id" else f"{side[name]}.{name}=false" for name in dict.fromkeys(names))


def bucketed(*, rates: bool) -> tuple[str, ...]:
    """The overrides that bucket numbers instead of scaling them, with or without `rates`."""
    return tuple(
        f'{side}.{name}.scale="quantile"'
        for side, features in specs.load(SPEC).sides()
        for name, feature in features.items()
        if feature.kind == "number" and (rates or feature.make != "rate")
    )


def _changes() -> dict[str, tuple[str, ...]]:
    every = [name for names in GROUPS.values() for name in names]
    changes = {ATTRIBUTES: without(every), ALL: ()}
    changes |= {group: without([name for name in every if name not in names]) for group, names in GROUPS.items()}
    return {**changes, **{name: bucketed(rates=rates) for name, rates in BUCKETS.items()}}


def rows(data_of: Mapping[str, SuiteData]) -> list[Variant]:
    """A row per spec: what differs are the features."""
    order = [ATTRIBUTES, *GROUPS, ALL, *BUCKETS]
    return [Variant(name, (), of=name) for name in order if name in data_of]


def page(results: Results, data_of: Mapping[str, SuiteData]) -> PageContent:
    """The tables of docs/measured/ablation.md, and a drawing."""
    return PageContent(
        tables={
            "auc": tables.quality(results, TASKS),
            "against": tables.against(results, ATTRIBUTES, TASKS),
            "drop": drop(results),
            "gauc": tables.quality(results, TASKS, "gauc"),
            "alone": alone(data_of[ALL].spec, sampled.take(data_of[ALL].spec, data_of[ALL].data, size=EVERY)["test"]),
        },
        plots={"ablation.svg": tables.dots(results, TASKS, ATTRIBUTES)},
    )


def drop(results: Results) -> str:
    """AUC on the validation day, and its drop in the test week."""
    lines = []
    for name, trainings in results.items():
        cells = []
        for task in TASKS:
            before = [training["validation"].get(task) for training in trainings]
            fell = difference(before, values(trainings, task, "auc"))
            known = mean(before)
            cells.append("n/a" if fell is None or known is None else f"{known:.4f}, {fell.mean:+.4f}")
        lines.append([name, *cells])
    return table(["validation AUC, and minus test AUC", *(f"`{task}`" for task in TASKS)], lines)


def alone(spec: Spec, sample: sampled.Sample) -> str:
    """How well one number ranks candidates by itself: over all of them, and inside each user."""
    user = sample.spread("context", sampled.floats(sample.stored("context", str(spec.key_feature("user")))))
    lines = []
    for name, task in ALONE.items():
        side = "context" if name in spec.context else "candidates"
        number, label = sample.spread(side, sample.numbers(side, name)), sample.label(task)
        known = ~np.isnan(number) & ~np.isnan(label) & ~np.isnan(user)
        number, label, group = number[known], label[known], user[known].astype(np.int64)
        over = classification.auc(number, label)
        inside = classification.gauc(number, label, group, weight=spec.evaluate.weight).value
        cells = ["n/a" if value is None else f"{value:.4f}" for value in (over, inside)]
        lines.append([f"`{name}`, for `{task}`", *cells])
    return table(["a number by itself", "AUC over all", "AUC inside users"], lines)


SUITE = Suite(specs=dict.fromkeys(_changes(), SPEC), seeds=3, rows=rows, page=page, changes=_changes())
