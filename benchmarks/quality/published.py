"""Published test AUC on Census-Income: income, never married and college, with the experimental setup.

Comparable are numbers of one source among each other, and differences between models across sources.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Publication:
    """Where numbers were published, how they were made, and the numbers: model -> AUC of the three tasks."""

    name: str
    protocol: str
    auc: dict[str, tuple[float | None, float | None, float | None]]


SOURCES = (
    Publication(
        "Ma et al. (MMoE), KDD 2018, group 1",
        "two tasks, best of a hyper-parameter search; quoted second hand",
        {
            "single task": (0.9398, 0.9933, None),
            "shared bottom": (0.9361, 0.9915, None),
            "omoe": (0.9387, 0.9928, None),
            "mmoe": (0.9410, 0.9926, None),
        },
    ),
    Publication(
        "the same, group 2",
        "college and never married; quoted second hand",
        {"single task": (None, 0.9933, 0.8843), "mmoe": (None, 0.9932, 0.8860)},
    ),
    Publication(
        "Li et al. (AdaTT), KDD 2023, table 5, 6 experts",
        "three tasks, mean of 100 initialisations; the columns are not named, this is the only order that makes sense",
        {
            "ml_mmoe": (0.9178, 0.9731, 0.8729),
            "ple": (0.9164, 0.9697, 0.8683),
            "adatt": (0.9202, 0.9783, 0.8766),
        },
    ),
    Publication(
        "the same, 9 experts",
        "as above",
        {
            "ml_mmoe": (0.9139, 0.9730, 0.8688),
            "ple": (0.9134, 0.9680, 0.8645),
            "adatt": (0.9174, 0.9786, 0.8744),
        },
    ),
    Publication(
        "IJANMC 9 (1), 2024",
        "two tasks, embeddings of 4, layers of 512 and 256",
        {
            "single task": (0.9198, 0.9748, None),
            "shared bottom": (0.9148, 0.9754, None),
            "mmoe": (0.9152, 0.9756, None),
            "ple": (0.9161, 0.9764, None),
        },
    ),
    Publication(
        "PaddleRec, its page of MMoE",
        "two tasks; the mean, and the best, of its test evaluations",
        {"mmoe, mean": (0.94465, 0.99324, None), "mmoe, best": (0.94937, 0.99419, None)},
    ),
    Publication(
        "torch-rechub, its page of examples",
        "two tasks, one run, halves of the test file drawn without a seed, stopped by income in the other half",
        {
            "shared bottom": (0.9560, 0.9948, None),
            "mmoe": (0.9579, 0.9950, None),
            "ple, 1 level": (0.9583, 0.9951, None),
            "ple, 2 levels": (0.9593, 0.9950, None),
        },
    ),
)

# AdaTT minus another model in AdaTT's own table (6 experts): what ours are compared with
DIFFERENCES = {
    ("adatt", "ple"): (0.0038, 0.0086, 0.0083),
    ("adatt", "ml_mmoe"): (0.0024, 0.0052, 0.0037),
}
