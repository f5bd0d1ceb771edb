"""Means, sums and last values over windows: exact whatever comes and goes, and known no earlier than their event."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.logs.logs import Logs
from features.store import state
from features.sweep.value_totals import LARGEST, UNIT, fixed
from features.transforms.counters import NEVER
from rec.errors import DataError
from rec.spec import Spec
from tests.features import tiny

MAKES = ("mean", "sum", "last")


def read_times(*, task: str = "", window: str = "") -> Spec:
    """The mean, sum and last read time of an item; a click is known after 3 s."""
    more = "".join(f', {name} = "{value}"' for name, value in (("task", task), ("window", window)) if value)
    lines = [f'{m} = {{ kind = "number", make = "{m}", per = "item", column = "read"{more} }}' for m in MAKES]
    return tiny.spec(candidates="\n".join(lines), window=3)


def answers(spec: Spec, rows: list[tuple], *seconds: float, item: int = 10) -> list[list[float | None]]:
    """Mean, sum and last of an item as of some seconds, by a store fed with (item, second, clicked, read) in parts."""
    frame = tiny.frame([(1, *row[:3]) for row in rows]).with_columns(
        read=pl.Series([r[3] for r in rows], dtype=pl.Float64)
    )
    store = state.empty(spec, Logs.whole(frame.lazy()))
    for row in range(len(frame)):
        store.feed(frame[row : row + 1])
    values = [store.hydrate(1, [item], round(s * tiny.SECOND)).to_pylist()[0]["candidates"][0] for s in seconds]
    return [[of[make] for make in MAKES] for of in values]


@pytest.mark.parametrize(("late", "expected"), [(0, [None, 0.0, None]), (1e-6, [8.0, 8.0, 8.0])])
def test_a_value_is_known_with_its_event_and_a_microsecond_after_its_window(late, expected):
    """A read time of second 5 whose click is known 3 s later; without a click there is none."""
    rows = [(10, 5, 1, 8.0), (10, 5, 0, 100.0)]
    assert answers(read_times(task="click"), rows, 8 + late) == [expected]


def test_what_leaves_a_window_takes_away_exactly_what_it_brought():
    """A large value that has gone leaves no rounding of the small one behind; an empty window has no mean."""
    rows = [(10, 0, 0, 1e11), (10, 2, 0, 0.1)]
    tenth = float(np.float32(round(0.1 * UNIT) / UNIT))
    within = answers(read_times(window="3s"), rows, 1, 2.5, 3.5, 5, 5.5)
    assert within[2:] == [[tenth, tenth, tenth], [tenth, tenth, tenth], [None, 0.0, None]]
    assert within[0] == [float(np.float32(1e11))] * 3
    assert within[1][2] == tenth


def test_the_order_in_which_rows_come_does_not_change_a_bit():
    """Late rows too; of values of one moment the last in the log is the last."""
    rows = [(10, s, 0, v) for s, v in ((1, 0.1), (2, 1e10), (3, -0.3), (4, None), (5, 7e-5))]
    assert answers(read_times(), rows, 9) == answers(read_times(), rows[::-1], 9)
    assert answers(read_times(), rows, 9)[0][2] == pytest.approx(7e-5, abs=1 / UNIT)
    assert answers(read_times(), [(10, 1, 0, 3.0), (10, 1, 0, 4.0)], 2) == [[3.5, 7.0, 4.0]]


def test_of_nobody_nothing_is_known():
    """An unknown item has no mean, and a sum of 0; without a key there is neither."""
    assert answers(read_times(), [(10, 1, 0, 3.0)], 2, item=99) == [[None, 0.0, None]]
    assert answers(read_times(), [(10, 1, 0, 3.0)], 2, item=None) == [[None, None, None]]


def test_values_are_whole_parts_of_one():
    """Rounded half to even; what is infinite is missing, what is too large counts as the largest; words are refused."""
    values = pl.Series([1.5, -1.5 / UNIT, 2.5 / UNIT, None, float("inf"), float("nan"), 1e300, -1e300])
    most = int(LARGEST) * UNIT
    assert fixed(values, "x").tolist() == [3 * UNIT // 2, -2, 2, NEVER, NEVER, NEVER, most, -most]
    assert fixed(pl.Series(["2", None]), "x").tolist() == [2 * UNIT, NEVER]
    with pytest.raises(DataError, match=r"candidates.mean: expected a number, got 'long'"):
        fixed(pl.Series(["long"]), "candidates.mean")
