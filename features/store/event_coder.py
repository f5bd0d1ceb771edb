"""Impressions as the sweep takes them: rows of keys, outcomes, values of histories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from features import hashing
from features.logs.timestamps import TIME
from features.sweep.events import Events
from features.sweep.history_values import HistoryValues
from features.sweep.sweep import Sweep
from features.sweep.value_totals import fixed
from features.transforms.counters import SHARE, counted_by, outcome
from features.transforms.joins import column_of
from rec.spec import Spec


class EventCoder:
    """Codes impressions for a sweep; `values` are those of its histories."""

    def __init__(self, spec: Spec, sweep: Sweep) -> None:
        """Of a sweep of this spec."""
        self._spec, self._sweep = spec, sweep
        self.values = {name: HistoryValues(name, feature) for name, feature in sweep.histories_of.items()}

    def events(
        self,
        rows: pl.DataFrame,
        labels: Mapping[str, np.ndarray],
        place: np.ndarray,
        shown: tuple[np.ndarray, np.ndarray] | None,
    ) -> Events:
        """Impressions [n] with the columns of side tables, their labels [n] and where they stand in the log.

        `shown` are their requests [n], and the share of these that each is, if the sweep is asked for expected clicks.
        """
        sweep, spec = self._sweep, self._spec
        hashes: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        read = [column for per in sweep.groups for column in counted_by(per)]
        read += [str(spec.keys.user)] if sweep.histories else []
        for column in dict.fromkeys(read):
            hashes[column] = hashing.hashed(rows[column]), rows[column].is_not_null().to_numpy()
        keys = {}
        for per, group in sweep.groups.items():
            known = np.logical_and.reduce([hashes[column][1] for column in counted_by(per)])
            keys[per] = group.rows(hashing.combined([hashes[column][0] for column in counted_by(per)]), known)
        people = sweep.rows_of_people(*hashes[str(spec.keys.user)]) if sweep.histories else None
        held = {
            name: self.values[name].coded(rows[column_of(feature, name, spec)])
            for name, feature in sweep.histories_of.items()
        }
        outcomes = np.array([outcome(labels, task) for task in sweep.tasks], np.int8).reshape(
            len(sweep.tasks), len(rows)
        )
        numbers = {column: fixed(rows[column], where) for column, where in sweep.numbers.items() if column != SHARE}
        request, share = (None, None) if shown is None else shown
        numbers |= {} if share is None else {SHARE: share}
        return Events(rows[TIME].dt.timestamp("us").to_numpy(), place, outcomes, keys, people, held, numbers, request)
