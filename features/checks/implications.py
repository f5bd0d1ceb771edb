"""Columns that imply a label, or that a label implies: other outcomes of the same impression.

    is_comment = 1   click = 1 in 97% of its rows     the label follows from the column
    click = 1        viewed = 1 in all of its rows    the column follows from the label

A set A of rows (a value of a column, or "not 0", or "not missing") implies a label if it has significantly few
exceptions, rows of A without the label. By chance a share q of its n rows are exceptions, that of rows without the
label in the whole sample. A strong attribute, known before the impression, may have far fewer. So the test is against
a part of q, and x exceptions are too few if

    P(at most x | n, part q) <= exp(-n D(x / n || part q)) < ALPHA / tests        D: relative entropy of two coins

(Hoeffding, Probability Inequalities for Sums of Bounded Random Variables, 1963), with the number of all tests made,
over features, values, tasks and directions (Bonferroni). Rows of one request count once. For an attribute of a user or
an item (a value that is nearly constant per key) keys count, not rows.

With a part of FAILS the column was recorded after the impression. With WARNS it needs a look, and so does a single
value of several, or an attribute of a user or an item, which cannot have been recorded after an impression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.checks.leaks import TaskLabels, code_of_key, task_labels
from features.checks.outcome_names import looks_like_outcome
from features.checks.sample import Sample
from features.logs.logs import Finding
from rec.spec import Id, Number, Spec

ALPHA = 0.001  # of a false alarm anywhere in a data set
FAILS, WARNS = 1 / 20, 1 / 10  # of the exceptions that chance leaves
MOST = 0.5  # a column that most rows have anyway is a condition (in stock, say), not an outcome
FEWEST = 66  # rows: with fewer, no set is beyond chance even without an exception, as (1 - WARNS) ** 66 is about ALPHA
_ATTRIBUTE = ", the same in all rows of a user: does it sum up what came later?"
MANY = 100  # values from which an id's are not looked at one by one
BACK, ATTRIBUTE = 50, 0.9  # rows of keys that come back, and the share of those keys that never have the usual value


@dataclass(frozen=True)
class RowSet:
    """Rows of a side with a common value of a column; `event` if the column is 0/1 or missing/present."""

    side: str
    feature: str
    text: str
    rows: np.ndarray
    unit: np.ndarray
    event: bool


@dataclass(frozen=True)
class Implication:
    """A test: `exceptions` among `count` units violate the implication; `chance` is their expected share."""

    feature: str
    text: str
    count: int
    exceptions: int
    chance: float
    may_fail: bool

    def beyond(self, part: float, tests: int) -> bool:
        """Whether exceptions are significantly fewer than `part` of the expected share, corrected for `tests` tests."""
        return bool(log_bound(self.exceptions, self.count, part * self.chance) < np.log(ALPHA / tests))


def log_bound(exceptions: int, count: int, chance: float) -> float:
    """Logarithm of Hoeffding's bound on P(at most `exceptions` of `count`); exact for 0 exceptions.

    >>> round(log_bound(0, 100, 0.05), 2)     # 100 ln 0.95
    -5.13
    """
    if not count or not 0 < chance < 1 or exceptions >= count * chance:
        return 0.0
    share = exceptions / count
    none = (1 - share) * np.log((1 - share) / (1 - chance))
    return -count * float(none + (share * np.log(share / chance) if share else 0.0))


def findings(spec: Spec, sample: Sample) -> list[Finding]:
    """Two findings per classification task: columns recorded after the impression, and values with a single label."""
    labels = {
        side: [outcome for outcome in task_labels(spec, sample, side) if not outcome.space]
        for side in ("context", "candidates")
    }
    columns = [
        (side, name, feature)
        for side, features in spec.sides()
        for name, feature in features.items()
        if isinstance(feature, Number | Id) and feature.make == "column"
    ]
    sets = [rows for side, name, feature in columns for rows in _row_sets(spec, sample, side, name, feature=feature)]
    events = [task for task, outcome in spec.tasks.items() if outcome.predict == "event"]
    tests = {
        task: [
            test
            for rows in sets
            for outcome in labels[rows.side]
            if outcome.task == task
            for test in _tests(rows, outcome)
        ]
        for task in events
    }
    total = max(1, sum(map(len, tests.values())))
    of_tasks = [_findings(task, tests[task], total, len(columns)) for task in events]
    return [finding for two in of_tasks for finding in two]


def names(spec: Spec, sample: Sample) -> Finding:
    """Numeric columns named like outcomes, attributes of items aside; one of a user may sum up what came later."""
    columns, named = 0, []
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Number | Id) and feature.make == "column":
                columns += 1
                code = sample.codes(side, name)
                few = isinstance(feature, Number) or code.max(initial=0) <= 2
                named_so = few and len(code) and looks_like_outcome(feature.column or name)
                attribute = named_so and _units(spec, sample, side, code)[1]
                if named_so and not (attribute and side == "candidates"):
                    named.append(f"{side}.{name}{_ATTRIBUTE if attribute else ''}")
    text = "features named like outcomes; were they known before the impression?"
    return Finding("outcome names", True, len(named), columns, tuple(named[:3]), text, "warn")


def _findings(task: str, tests: list[Implication], total: int, columns: int) -> tuple[Finding, Finding]:
    events = [test for test in tests if test.may_fail and test.beyond(FAILS, total)]
    later = {test.feature: test.text for test in events}
    near = [test for test in tests if test.feature not in later and test.beyond(WARNS, total)]
    values: dict[str, str] = {}
    for test in sorted(near, key=lambda test: (not test.may_fail, -test.count)):
        values.setdefault(test.feature, test.text)
    return (
        Finding(
            f"outcomes.{task}", not later, len(later), columns, tuple(later.values())[:3],
            f"features known only after the impression: they imply {task}, or {task} implies them, beyond chance",
        ),
        Finding(
            f"one label.{task}", True, len(values), columns, tuple(values.values())[:3],
            f"features of which a value has (nearly) one label of {task} in all its rows, beyond chance", "warn",
        ),
    )  # fmt: skip


def _row_sets(spec: Spec, sample: Sample, side: str, name: str, *, feature: Number | Id) -> Iterator[RowSet]:
    """The row sets of a column: "not 0", "not missing", or each of a few values."""
    column, code = sample.stored(side, name), sample.codes(side, name)
    size = int(code.max(initial=0)) + 1
    if size <= 1:
        return
    unit, attribute = _units(spec, sample, side, code)
    whole = f"{side}.{name}"
    if isinstance(feature, Number):
        values = sample.floats(side, name)
        known = ~np.isnan(values)
        if not known.all():
            yield RowSet(side, whole, "has a value", known, unit, not attribute)
        if (values[known] == 0).any():
            yield RowSet(side, whole, "is not 0", known & (values != 0), unit, not attribute)
    counts = np.bincount(code, minlength=size)
    present = np.flatnonzero(counts)
    if len(present) > MANY:
        return
    for value in present[counts[present] >= FEWEST]:
        rows = code == value
        two = isinstance(feature, Id) and len(present) == 2 and counts[value] == counts[present].min()
        word = column[int(np.argmax(rows))].as_py() if value else None
        text = "has no value" if word is None else f"is {word!r}"
        yield RowSet(side, whole, text, rows, unit, two and not attribute)


def _units(spec: Spec, sample: Sample, side: str, code: np.ndarray) -> tuple[np.ndarray, bool]:
    """The unit of each row that is counted once, and whether it is the key of an attribute (a user or an item)."""
    usual = np.bincount(code).argmax()
    for key in (spec.keys.user, spec.keys.item if side == "candidates" else None):
        of_key = None if key is None else code_of_key(spec, sample, side, key)
        if of_key is None:
            continue
        size = int(of_key.max(initial=0)) + 1
        rows = np.bincount(of_key, minlength=size)
        other = np.bincount(of_key[code != usual], minlength=size)
        with_it = (rows >= 2) & (other > 0)
        with_it[0] = False  # nobody
        if rows[with_it].sum() >= BACK and (other[with_it] == rows[with_it]).mean() >= ATTRIBUTE:
            return of_key, True
    return (np.arange(len(code)) if side == "context" else sample.owner), False


def _tests(rows: RowSet, labels: TaskLabels) -> Iterator[Implication]:
    """Three tests: the rows imply the label, imply its absence, and the label implies the rows."""
    inside, happened = rows.rows[labels.known], labels.label == 1
    total, of_rows, of_label = len(inside), int(np.count_nonzero(inside)), int(np.count_nonzero(happened))
    if of_rows in (0, total) or of_label in (0, total):
        return
    both = int(np.count_nonzero(inside & happened))
    share, base = of_rows / total, of_label / total
    task, where = labels.task, f"where it {rows.text}"
    noun = "requests" if rows.side == "context" else "rows"
    for given, then, count, kept, text, chance, may_fail in (
        (inside, happened, of_rows, both, f"{task} happened in {{}} {where}", 1 - base, rows.event),
        (inside, ~happened, of_rows, of_rows - both, f"{task} did not happen in {{}} {where}", base, False),
        (happened, inside, of_label, both, f"it {rows.text} in {{}} where {task} happened", 1 - share,
         rows.event and share <= MOST),
    ):  # fmt: skip
        if rows.event or given is inside:
            shown = f"{rows.feature}: " + text.format(f"{kept:,} of {count:,} {noun}")
            units, exceptions = count, count - kept
            if exceptions < WARNS * chance * count:  # else it is within chance, whatever counts once
                unit = rows.unit[labels.known]
                units, exceptions = len(np.unique(unit[given])), len(np.unique(unit[given & ~then]))
            yield Implication(rows.feature, shown, units, exceptions, chance, may_fail)


def reveals(inside: np.ndarray, happened: np.ndarray, *, tests: int) -> bool:
    """Whether rows imply a label, or a label implies them, beyond chance; both bool [N], each row counted once."""
    if not inside.any() or inside.all() or not happened.any() or happened.all():
        return False
    share, base = float(inside.mean()), float(happened.mean())
    pairs = [(inside, happened, 1 - base)] + ([(happened, inside, 1 - share)] if share <= MOST else [])
    return any(
        Implication("", "", int(given.sum()), int((given & ~then).sum()), chance, may_fail=True).beyond(FAILS, tests)
        for given, then, chance in pairs
    )
