"""Raw logs to DATA: session tables per split, what is fitted on train, and the store's first snapshot.

logs -> joins -> sessions -> labels -> split -> columns -> train/ validation/ test/ -> fitted/ -> store/
    -> manifest.json                                                  DATA is there whole or not at all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features import columns, joins, labels, sessions, snapshot, split
from features.logs import Logs
from features.past import Behaviour
from features.sessions import Sessions
from rec import parts
from rec.arrow import label_type, schema, to_rows
from rec.encode import Encoder, Hash, Vocabulary, as_ids, fit_vocabulary
from rec.errors import SpecError
from rec.files import inventory, whole_folder, write_bytes, write_json
from rec.fitted import fit
from rec.parts import SPLITS
from rec.progress import Progress
from rec.request import spans
from rec.spec import Id, Ids, Spec, dump

PART = 500_000  # candidates per file, about: what is taken at once while writing


@dataclass(frozen=True)
class Made:
    """All requests of a log as flat Arrow columns, with the split of each."""

    sessions: Sessions
    context: Mapping[str, pa.Array]
    candidates: Mapping[str, pa.Array]
    labels: Mapping[str, np.ndarray]
    split: np.ndarray


def build(spec: Spec, logs: Logs, out: Path, *, progress: Progress) -> dict[str, Any]:
    """Write DATA into `out` and give its manifest.

    Raises SpecError when the spec and the logs do not fit (an unknown column, a label among the features), DataError
    when the logs are not what the spec says (an event without its parent, an event later than its window, no train).
    """
    refuse_leaks(spec)
    progress.start("reading logs")
    table = joins.read(spec, logs)
    progress.start("requests")
    grouped = sessions.group(spec, table.rows)
    label = labels.read(spec, grouped.rows)
    refuse_bad_labels(spec, grouped, label)
    progress.start("features")
    past = Behaviour(spec, grouped.rows, label)
    made = _made(spec, table, grouped, label, past)
    progress.start("writing", len(grouped.rows))
    with whole_folder(out) as folder:
        return _write(folder, spec, table=table, made=made, past=past, progress=progress)


def refuse_leaks(spec: Spec) -> None:
    """SpecError when a feature reads what a label is made of."""
    leaks = labels.leaks(spec)
    if leaks:
        raise SpecError(f"{leaks[0]}; the model would be given the answer")


def refuse_bad_labels(spec: Spec, grouped: Sessions, label: Mapping[str, np.ndarray]) -> None:
    """DataError for events without their parent, and for events later than the window of a task that features count.

    For quantities that are negative or infinite too.
    """
    labels.refuse(labels.below_nothing(spec, label, grouped.rows))
    labels.refuse(labels.orphans(spec, label, grouped.rows))
    used = {getattr(feature, "task", None) for _, features in spec.sides() for feature in features.values()}
    late = labels.late(spec, label, grouped.rows) if used - {None} else []
    labels.refuse([finding for finding in late if finding.name.split(".")[1] in used])


def _made(spec: Spec, table: joins.Table, grouped: Sessions, label: Mapping[str, np.ndarray], past: Behaviour) -> Made:
    placed = split.assign(spec, grouped)
    first = joins.with_users(spec, grouped.first(), table.users)
    context = columns.side(spec, "context", first, grouped.time, past)
    candidates = columns.side(spec, "candidates", grouped.rows, grouped.time[grouped.owner()], past)
    return Made(grouped, context, candidates, label, placed)


def _write(
    folder: Path, spec: Spec, *, table: joins.Table, made: Made, past: Behaviour, progress: Progress
) -> dict[str, Any]:
    counts = {}
    for place, name in enumerate(SPLITS):
        (folder / name).mkdir()
        requests = np.flatnonzero(made.split == place)
        counts[name] = _counts(spec, made, requests)
        for number, chunk in enumerate(_chunks(made, requests)):
            rows = _rows(spec, made, chunk)
            parts.write(folder / name / f"part-{number:05d}.arrow", [rows], schema(spec))
            progress.advance(len(rows["candidates"].flatten()))
        if not len(requests):
            progress.say(f"{name}: no request; see [split] in the spec")
    encoders = _encoders(spec, made)
    fit(parts.read(folder, "train", spec), spec, encoders).save(folder / "fitted")
    snapshot.write(folder / "store", spec, table, made.sessions, past)
    write_bytes(folder / "spec.toml", dump(spec).encode())
    manifest = {"format": 1, "name": spec.name, "counts": counts, "unseen": _unseen(spec, made, encoders)}
    manifest["files"] = inventory(folder)
    write_json(folder / "manifest.json", manifest)
    return manifest


def _chunks(made: Made, requests: np.ndarray) -> Iterator[np.ndarray]:
    """Requests in runs of about PART candidates; one empty run when there are none: a split is always a file."""
    counts = np.diff(made.sessions.offsets)[requests]
    part = (np.cumsum(counts) - counts) // PART
    cuts = np.flatnonzero(np.diff(part)) + 1
    yield from np.split(requests, cuts)


def _rows(spec: Spec, made: Made, requests: np.ndarray) -> pa.RecordBatch:
    counts = np.diff(made.sessions.offsets)[requests]
    places = spans(made.sessions.offsets[requests], counts)
    shape = schema(spec)
    label = {
        name: pa.array(values[places], label_type(spec.tasks[name]), from_pandas=True)
        for name, values in made.labels.items()
    }
    return to_rows(
        shape,
        request_id=made.sessions.ids.take(pa.array(requests)),
        time=pa.array(made.sessions.time[requests]).cast(shape.field("time").type),
        context=columns.take(made.context, requests),
        candidates={**columns.take(made.candidates, places), **label},
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )


def _values(made: Made, side: str, name: str, place: int) -> pa.Array:
    """All ids of a feature in one split, flat."""
    requests = np.flatnonzero(made.split == place)
    offsets = made.sessions.offsets
    places = requests if side == "context" else spans(offsets[requests], np.diff(offsets)[requests])
    column = (made.context if side == "context" else made.candidates)[name].take(pa.array(places))
    return column.flatten() if pa.types.is_list(column.type) else column


def _encoders(spec: Spec, made: Made) -> dict[str, Encoder]:
    """One encoder per table, vocabularies from the training requests only."""
    encoders: dict[str, Encoder] = {}
    for side, name, feature in _embedded(spec):
        if feature.table is None and feature.encode == "hash":
            encoders[name] = Hash(feature.rows)
        elif feature.table is None:
            encoders[name] = fit_vocabulary(_values(made, side, name, 0), min_count=feature.min_count)
    return encoders


def _unseen(spec: Spec, made: Made, encoders: Mapping[str, Encoder]) -> dict[str, dict[str, float]]:
    """For validation and test: the share of each feature's ids that have no row of their own."""
    shares: dict[str, dict[str, float]] = {}
    for place, split_name in enumerate(SPLITS[1:], start=1):
        shares[split_name] = {}
        for side, name, feature in _embedded(spec):
            encoder = encoders[spec.table_of(side, name)]
            ids = as_ids(_values(made, side, name, place).drop_null(), feature.values, f"{side}.{name}")
            if isinstance(encoder, Vocabulary) and len(ids):
                shares[split_name][name] = round(float((encoder(ids) == 0).mean()), 6)
    return shares


def _embedded(spec: Spec) -> Iterator[tuple[str, str, Id | Ids]]:
    """Id features whose rows are found by an encoder: all but the hour and the weekday."""
    for side, features in spec.sides():
        for name, feature in features.items():
            if isinstance(feature, Id | Ids) and feature.make not in ("hour", "weekday"):
                yield side, name, feature


def _counts(spec: Spec, made: Made, requests: np.ndarray) -> dict[str, Any]:
    offsets = made.sessions.offsets
    places = spans(offsets[requests], np.diff(offsets)[requests])
    counts: dict[str, Any] = {"requests": len(requests), "candidates": len(places)}
    for key in ("user", "item"):
        column = getattr(spec.keys, key)
        if column is not None:
            counts[f"{key}s"] = made.sessions.rows[column][places].drop_nulls().n_unique()
    counts["observed"] = {name: int((values[places] >= 0).sum()) for name, values in made.labels.items()}
    counts["positives"] = {name: int((values[places] > 0).sum()) for name, values in made.labels.items()}
    return counts
