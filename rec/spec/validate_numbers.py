"""Validation of numbers: what a count, a rate, a session, or a number among its neighbours needs of the spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rec.errors import nearest
from rec.spec.features import EVER, EXPECTED, IN_REQUEST, MOMENTS, VALUED, WINDOWED, Number, keys_of, matching_of
from rec.spec.spec import Spec
from rec.spec.types import DURATION

_SESSION = ("session_requests", "session_seconds")


def contradictions(spec: Spec, side: str, path: str, feature: Number) -> Iterator[str]:
    """Each as `path: what is wrong`, where `path` is that of the number."""
    yield from _of_keys(spec, path, feature)
    yield from _of_events(path, feature)
    if feature.make in _SESSION and side == "candidates":
        yield f"{path}: a session belongs to the context"
    if feature.make in IN_REQUEST:
        yield from _of_neighbours(spec, side, path, feature)
    if feature.make in VALUED and feature.column is None:
        yield f"{path}.column: {feature.make} needs the column whose values it is of"
    if feature.half_life is not None:
        yield from _of_half_life(path, feature)
    elif feature.make in WINDOWED:
        yield from _of_windows(path, feature)
    for key in ("buckets", "dim"):
        if key in feature.model_fields_set and feature.scale != "quantile":
            yield f"{path}.{key}: only for scale = 'quantile', got {feature.scale!r}"


def _of_events(path: str, feature: Number) -> Iterator[str]:
    """What happened to impressions, and what they are counted as."""
    if feature.make in ("rate", "coec") and feature.task is None:
        yield f"{path}.task: {feature.make} needs the task whose events are counted"
    if feature.make == "expected" and feature.task is not None:
        yield f"{path}.task: expected is of all impressions, whatever came of them; leave it out, or make it 'coec'"
    if feature.make in EXPECTED and feature.column is not None:
        yield f"{path}.column: {feature.make!r} is made of the sizes of requests; leave it out"


def _of_keys(spec: Spec, path: str, feature: Number) -> Iterator[str]:
    """The columns whose past is counted."""
    if feature.make in WINDOWED and not feature.per:
        yield f"{path}.per: {feature.make} needs the column whose past is counted"
    if feature.make in MOMENTS and feature.per is None and spec.keys.user is None:
        yield f"{path}.per: {feature.make} needs the column whose past is looked at, or keys.user"
    if feature.make in MOMENTS and feature.per == []:
        yield f"{path}.per: expected at least one column, got []"
    if feature.matching is not None and len(matching_of(feature)) != len(keys_of(feature)):
        columns = f"{len(keys_of(feature))} column{'s' if len(keys_of(feature)) != 1 else ''}"
        yield f"{path}.matching: expected as many as per, {columns}, got {feature.matching!r}"
    if isinstance(feature.per, list) and len(set(feature.per)) < len(feature.per):
        yield f"{path}.per: {repeated(feature.per)!r} is there twice"


def _of_neighbours(spec: Spec, side: str, path: str, feature: Number) -> Iterator[str]:
    """A number among those of the request's candidates, and how many candidates there are."""
    if feature.column is not None:
        yield f"{path}.column: {feature.make!r} is made from the request alone; leave it out"
    if feature.make == "size":
        if side == "candidates":
            yield f"{path}: the size of a request belongs to the context"
        return
    if side == "context":
        yield f"{path}: {feature.make!r} compares the candidates of a request; it belongs to the candidates"
        return
    numbers = {name: f for name, f in spec.candidates.items() if isinstance(f, Number) and f.make not in IN_REQUEST}
    if feature.of is None or isinstance(feature.of, list):
        got = "nothing" if feature.of is None else repr(feature.of)
        names = f"; {path.partition('.')[2]}_NAME must be a new name for each" if feature.of else ""
        yield f"{path}.of: expected a number of [candidates], or a list of them, got {got}{names}"
    elif feature.of in spec.context:
        yield f"{path}.of: {feature.of!r} belongs to the context: it is the same for all candidates of a request"
    elif feature.of in spec.candidates and feature.of not in numbers:
        yield f"{path}.of: {feature.of!r} is no number that is stored or counted; only those are compared"
    elif feature.of not in numbers:
        yield f"{path}.of: no number {feature.of!r}{nearest(feature.of, numbers)}"


def repeated(words: Sequence[str]) -> str:
    """The first word that is there a second time."""
    return next(word for place, word in enumerate(words) if word in words[:place])


def _of_half_life(path: str, feature: Number) -> Iterator[str]:
    if not feature.half_life:
        yield f"{path}.half_life: expected longer than 0s"
    for key in ("window", "windows"):
        if key in feature.model_fields_set:
            yield f"{path}.{key}: what decays has no end; give half_life or {key}, not both"


def _of_windows(path: str, feature: Number) -> Iterator[str]:
    """Windows that could not be expanded (`rec.spec.features.expanded`)."""
    if feature.windows and "window" in feature.model_fields_set:
        yield f"{path}: give 'window' or 'windows', not both"
    for window in feature.windows:
        if window != EVER and not DURATION.fullmatch(window):
            yield f"{path}.windows: expected durations such as '1h' or '7d', or '{EVER}', got {window!r}"
            return
    if len(set(feature.windows)) < len(feature.windows):
        yield f"{path}.windows: {repeated(feature.windows)!r} is there twice"
    elif feature.windows:
        yield f"{path}.windows: {path.partition('.')[2]}_{feature.windows[0]} and so on must be new names; rename one"
