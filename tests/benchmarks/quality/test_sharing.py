"""Whether sharing helps: differences from single-task networks and boosted trees, and what is said of them."""

from __future__ import annotations

from benchmarks.quality import lists, sharing
from benchmarks.quality import page as pages
from tests import ROOT

OWN = "single_task, own tables"


def trained(auc: list[float], *, validation: float = 0.5, seeds: list[int] | None = None) -> list[dict]:
    """Trainings that left these AUCs of `click` on the test split, with seeds 1, 2, ..."""
    return [
        {
            "seed": seed,
            "validation": {"click": validation},
            "epochs": [{"epoch": 1, "seconds": 1.5}],
            "best": 3,
            "weights": {"dense": 1000, "tables": 2000},
            "report": {"outputs": {"click": {"auc": value, "gauc": value}}},
            "measured": {"ndcg": value, "divergence": 0.1},
        }
        for seed, value in zip(seeds or range(1, 9), auc, strict=False)
    ]


RESULTS = {
    "single_task": trained([0.70, 0.71, 0.72]),
    "mmoe": trained([0.72, 0.73, 0.74], validation=0.6),
    "ple": trained([0.75, 0.76, 0.77], validation=0.4),
    "omoe": trained([0.69, 0.70, 0.71]),
    "gbdt": trained([0.74, 0.75, 0.76]),
    "popularity": trained([0.9, 0.9, 0.9], validation=0.9),
}


def test_the_best_network_is_chosen_on_validation_and_judged_on_test():
    """PLE is better on the test split, and is not chosen; all that are clearly apart are named."""
    line = sharing.of_models(RESULTS, ["click"])["sharing"].splitlines()[2]
    assert line.startswith("| `click`, minus single_task | mmoe | **+0.0200** [+0.0200, +0.0200] | better |")
    assert line.endswith("| 2 of 3: mmoe; ple | 1 of 3: omoe |")


def test_single_task_networks_too_are_measured_against_boosted_trees():
    """Against trees any network may be the best; popularity is no network."""
    found = sharing.of_models(RESULTS, ["click"])
    assert (
        "| `click`, minus gbdt | mmoe | **-0.0200** [-0.0200, -0.0200] | worse | 1 of 4: ple | 3 of 4: "
        in found["trees"]
    )
    assert [line.split(" | ")[0] for line in found["against-trees"].splitlines()[2:]] == [
        "| single_task",
        "| mmoe",
        "| ple",
        "| omoe",
    ]


def test_what_is_missing_is_not_available_and_stops_nothing():
    """No such row, one seed, or seeds in which the two never met."""
    found = sharing.of_models(RESULTS, ["click"])
    assert "| `click`, minus single_task, own tables | n/a | n/a | n/a | 0 of 0 | 0 of 0 |" in found["sharing"]
    assert found["against-own-tables"].count("\n") == 1
    apart = {"single_task": trained([0.7]), "mmoe": trained([0.7, 0.8], seeds=[2, 3])}
    assert "| mmoe | n/a |" in sharing.of_models(apart, ["click"])["against-single"]


def test_seeds_are_paired_by_their_number():
    """A first seed that failed in one row does not move the others against each other."""
    results = {"mmoe": trained([0.81, 0.91], seeds=[2, 3]), "single_task": trained([0.7, 0.8, 0.9])}
    line = sharing.pairs(results, [("mmoe", "single_task")], ["click"]).splitlines()[-1]
    assert line == "| mmoe - single_task | `click` | **+0.0100** [+0.0100, +0.0100] | better |"


def test_a_difference_inside_the_spread_is_neither():
    """Two seeds leave a wide interval."""
    results = {"mmoe": trained([0.71, 0.83]), OWN: trained([0.7, 0.8])}
    line = sharing.of_models(results, ["click"])["sharing"].splitlines()[-1]
    assert "| mmoe | +0.0200 [-0.1071, +0.1471] | within the spread of seeds |" in line


def test_the_page_of_lists_has_a_place_for_every_table():
    """With all rows, and with some."""
    page = (ROOT / "docs" / "measured" / "lists.md").read_text()
    for rows in (list(lists.ROWS), ["gbdt, features"]):
        found = lists.page({row: trained([0.7, 0.8]) for row in rows}, {}).tables
        assert "nan" not in pages.filled(page, found, "lists.md")
