"""What had become known strictly before a moment: counts, smoothed rates, and the last things a user did.

    impression at t, task with window w:   known at t + w
    request at T sees it when              t + w < T        a tie is broken against us

Everything is a binary search in one sorted array of (value, moment known), so a million questions take about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from features.moments import TIME
from rec.encode import Vocabulary, fit_vocabulary
from rec.errors import SpecError
from rec.request import spans
from rec.spec import Spec


class Past:
    """Events, each with a value (as a code from 1; 0 is none) and the moment it became known.

    >>> past = Past(np.array([1, 1, 2]), np.array([10, 20, 10]), np.array([1, 0, 1]))
    >>> past.count(np.array([1, 1]), np.array([20, 21]))      # shown, happened
    (array([1, 2]), array([1, 1]))
    """

    def __init__(self, code_E: np.ndarray, known_E: np.ndarray, event_E: np.ndarray) -> None:
        """`event_E` is 1 where the event counted by `happened` took place, else 0."""
        self._moments = np.sort(known_E)
        key_E = code_E * (len(self._moments) + 1) + np.searchsorted(self._moments, known_E)
        self.order = np.argsort(key_E, kind="stable")
        self._keys = key_E[self.order]
        self._events = np.concatenate([[0], np.cumsum(event_E[self.order], dtype=np.int64)])

    def before(self, code_Q: np.ndarray, time_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) place in `order` of the events of a value known before a moment, oldest first."""
        start = code_Q * (len(self._moments) + 1)
        first = np.searchsorted(self._keys, start)
        last = np.searchsorted(self._keys, start + np.searchsorted(self._moments, time_Q))
        return np.where(code_Q == 0, 0, first), np.where(code_Q == 0, 0, last)

    def count(self, code_Q: np.ndarray, time_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many events of a value were known before a moment, and how many of them happened."""
        first, last = self.before(code_Q, time_Q)
        return last - first, self._events[last] - self._events[first]


class Behaviour:
    """A whole log, to be asked what was known before a moment. Ties stay as its rows [E] have them."""

    def __init__(self, spec: Spec, rows: pl.DataFrame, labels: Mapping[str, np.ndarray]) -> None:
        """`labels` are those of `rows`: task -> int8 [E]."""
        self._spec, self._rows, self._labels = spec, rows, labels
        self._time = rows[TIME].dt.timestamp("us").to_numpy() if TIME in rows.columns else np.zeros(len(rows), np.int64)
        self._codes: dict[str, tuple[Vocabulary, np.ndarray]] = {}
        self._pasts: dict[tuple[str, str | None], Past] = {}

    def count(self, per: str, task: str | None, values_Q: pl.Series, time_Q: np.ndarray) -> np.ndarray:
        """Earlier impressions (or events of a task) of each value, float [Q]; NaN for a missing value."""
        code_Q = self._code(per, values_Q)
        shown, happened = self._past(per, task).count(code_Q, time_Q)
        return np.where(values_Q.is_null().to_numpy(), np.nan, shown if task is None else happened)

    def rate(self, per: str, task: str, values_Q: pl.Series, time_Q: np.ndarray, *, prior: float) -> np.ndarray:
        """`(events + prior * base) / (impressions + prior)` of each value, float [Q]; NaN for a missing value.

        base is the task's rate over all that was known by then: (events + 1) / (impressions + 2).
        """
        shown, happened = self._past(per, task).count(self._code(per, values_Q), time_Q)
        shown_by_all, happened_by_all = self._past("", task).count(np.ones(len(time_Q), np.int64), time_Q)
        base = (happened_by_all + 1) / (shown_by_all + 2)
        return np.where(values_Q.is_null().to_numpy(), np.nan, (happened + prior * base) / (shown + prior))

    def latest(
        self, column: str, task: str | None, users_Q: pl.Series, time_Q: np.ndarray, *, last: int
    ) -> pa.ListArray:
        """The last `last` values of `column` among what each user was shown, or where a task happened, oldest first."""
        user = self._spec.keys.user
        assert user is not None, "the spec refuses a history without keys.user"
        kept = self._rows[column].is_not_null().to_numpy() & (True if task is None else self._labels[task] == 1)
        rows_E = np.flatnonzero(kept)
        coder, code_N = self._coded(user)
        past = Past(code_N[rows_E], self._known(task)[rows_E], np.zeros(len(rows_E), np.int64))
        first, end = past.before(coder(as_keys(users_Q)), time_Q)
        length = np.minimum(end - first, last)
        items = as_keys(self._rows[column]).take(pa.array(rows_E[past.order[spans(end - length, length)]]))
        offsets = np.concatenate([[0], np.cumsum(length)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)

    def _past(self, per: str, task: str | None) -> Past:
        """The index of a column ("" for one value shared by all) and a task, made once."""
        if (per, task) not in self._pasts:
            code_N = self._coded(per)[1] if per else np.ones(len(self._time), np.int64)
            label_N = np.zeros(len(self._time), np.int8) if task is None else self._labels[task]
            rows_E = np.flatnonzero(label_N >= 0)
            self._pasts[per, task] = Past(code_N[rows_E], self._known(task)[rows_E], label_N[rows_E])
        return self._pasts[per, task]

    def _known(self, task: str | None) -> np.ndarray:
        window = timedelta(0) if task is None else self._spec.tasks[task].window
        return self._time + window // timedelta(microseconds=1)

    def _coded(self, column: str) -> tuple[Vocabulary, np.ndarray]:
        if column not in self._codes:
            values = as_keys(self._rows[column])
            coder = fit_vocabulary(values, min_count=1)
            self._codes[column] = coder, coder(values)
        return self._codes[column]

    def _code(self, per: str, values_Q: pl.Series) -> np.ndarray:
        return self._coded(per)[0](as_keys(values_Q))


def as_keys(values: pl.Series) -> pa.Array:
    """Values of any flat type as int64 or text, to be compared and counted; SpecError for lists."""
    if values.dtype.is_nested():
        raise SpecError(f"column {values.name!r}: expected one value per row to count by, got {values.dtype}")
    whole = values.dtype.is_integer() or values.dtype == pl.Boolean
    return values.cast(pl.Int64).to_arrow() if whole else values.cast(pl.String).to_arrow().cast(pa.string())
