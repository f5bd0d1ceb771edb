"""POST /v1/rank: what may come in, and what is said when something else does.

    {"request_id": "r1",                            optional; made when absent
     "time": "2026-11-20T08:30:00Z",                optional; the moment of arrival when absent
     "context": {"user_id": 7, "device": "ios"},
     "candidates": [{"item_id": 3, "price": 9.9}, {"item_id": 5}]    or    {"item_id": [3, 5], "price": [9.9, null]},
     "options": {"top_k": 10}}                      optional

Names are the spec's. What is left out comes from the store; null says that a value is known to be missing.
Errors are RFC 9457 problems: `context.user_id: expected an id, got 'bob'`, with an RFC 6901 pointer to each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from rec.data.session_table import field_type
from rec.errors import nearest
from rec.spec import AnyFeature, Id, Spec
from serving.online.json_columns import Build, UnfitError, builder, microseconds
from serving.online.problems import Problem, RequestError, escaped, shorter, shown
from serving.store import Sent

_KEYS = ("request_id", "time", "context", "candidates", "options")
_OPTIONS = ("top_k",)
# printable and without spaces: safe in a log line and in a header
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TIME = "a moment with a time zone, such as '2026-11-20T08:30:00Z'"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in columns: context of length 1, candidates of length `count`; `columnar` if it was sent that way."""

    request_id: str
    time: int
    context: Mapping[str, Sent]
    candidates: Mapping[str, Sent]
    count: int
    items: list[Any] | None
    top_k: int | None
    columnar: bool


class Reader:
    """Request bodies of one spec to columns."""

    def __init__(self, spec: Spec) -> None:
        """Works out once how the column of every feature is made."""
        self._most = spec.serve.max_candidates
        self._item = spec.keys.item
        self._build: dict[str, dict[str, Build]] = {}
        self._made: dict[str, dict[str, str]] = {}
        for side, features in spec.sides():
            stored = {name: f for name, f in features.items() if field_type(f) is not None}
            self._build[side] = {name: builder(feature) for name, feature in stored.items()}
            self._made[side] = {name: _made_of(f) for name, f in features.items() if name not in stored}
        self._decode = msgspec.json.Decoder().decode

    def read(self, body: bytes, now_us: int, make_id: Callable[[], str]) -> Asked:
        """The request in a body; `now_us` and `make_id` stand in for a time or id it does not give.

        Raises RequestError: 400 when it is not JSON, 413 with too many candidates, 422 when it does not fit the spec.
        """
        tree = self._tree(body)
        problems: list[Problem] = []
        _check_keys(tree, _KEYS, "", problems)
        context = tree.get("context", {})
        candidates = tree.get("candidates")
        cells = self._cells(candidates, problems)
        if not isinstance(context, dict):
            problems.append(("/context", f"context: expected an object, got {shown(context)}"))
            context = {}
        request_id = _request_id(tree.get("request_id"), problems)
        time = _time(tree.get("time"), problems)
        top_k = _top_k(tree.get("options", {}), problems)
        names = {name: ([value], None) for name, value in context.items()}
        sent_context = self._side("context", names, lambda name, _: (f"/context/{escaped(name)}", ""), problems)
        sent_candidates = self._side("candidates", cells, _pointer(candidates), problems)
        items = self._items(cells, candidates, problems)
        if problems:
            raise RequestError(422, "Request does not fit the spec", problems)
        return Asked(
            request_id=request_id or make_id(),
            time=now_us if time is None else time,
            context=sent_context,
            candidates=sent_candidates,
            count=_count(candidates),
            items=items,
            top_k=top_k,
            columnar=isinstance(candidates, dict),
        )

    def _tree(self, body: bytes) -> dict[str, Any]:
        title = "Body is not JSON"
        try:
            tree = self._decode(body)
        except UnicodeDecodeError as error:
            raise RequestError(400, title, [("", f"body: not UTF-8 (byte {error.start})")]) from None
        except RecursionError:
            raise RequestError(400, title, [("", "body: nested too deeply")]) from None
        except msgspec.DecodeError as error:
            raise RequestError(400, title, [("", f"body: {error}")]) from None
        if not isinstance(tree, dict):
            message = f"body: expected an object, got {shown(tree)}"
            raise RequestError(422, "Request does not fit the spec", [("", message)])
        return tree

    def _cells(self, candidates: Any, problems: list[Problem]) -> dict[str, tuple[list[Any], np.ndarray | None]]:
        """Values of every name that any candidate has, and where it was given (None: everywhere)."""
        if not isinstance(candidates, list | dict):
            got = "nothing" if candidates is None else shown(candidates)
            problems.append(("/candidates", f"candidates: expected a list of objects or an object of lists, got {got}"))
            return {}
        count = _count(candidates)
        if count > self._most:
            message = f"candidates: expected at most {self._most}, got {count}"
            raise RequestError(413, "Too many candidates", [("/candidates", message)])
        return _columns(candidates, count, problems) if isinstance(candidates, dict) else _rows(candidates, problems)

    def _side(
        self,
        side: str,
        cells: Mapping[str, tuple[list[Any], np.ndarray | None]],
        locate: Callable[[str, int], tuple[str, str]],
        problems: list[Problem],
    ) -> dict[str, Sent]:
        sent = {}
        for name, (values, given) in cells.items():
            build = self._build[side].get(name)
            if build is None:
                pointer, _ = locate(name, 0 if given is None else int(given.argmax()))
                problems.append((pointer, self._unknown(side, name)))
                continue
            try:
                sent[name] = Sent(build(values), given)
            except UnfitError as error:
                pointer, place = locate(name, error.index)
                message = f"{side}{place}.{name}: expected {error.expected}, got {shown(values[error.index])}"
                problems.append((pointer, message))
        return sent

    def _unknown(self, side: str, name: str) -> str:
        if name in self._made[side]:
            return f"{side}.{name}: worked out from {self._made[side][name]}; leave it out"
        return f"{side}.{shorter(name)}: not a feature of the spec{nearest(name, self._build[side])}"

    def _items(
        self, cells: Mapping[str, tuple[list[Any], np.ndarray | None]], candidates: Any, problems: list[Problem]
    ) -> list[Any] | None:
        """The item ids in the order of the request; each must be given, and only once."""
        count = _count(candidates)
        if self._item is None or problems:
            return None
        items = cells[self._item][0] if self._item in cells else [None] * count
        distinct = set(items)
        if len(distinct) == count and None not in distinct:
            return items
        locate = _pointer(candidates)
        first: dict[Any, int] = {}
        for index, item in enumerate(items):
            pointer, place = locate(self._item, index)
            if item is None:
                problems.append((pointer, f"candidates{place}.{self._item}: required, but not given"))
            elif item in first:
                message = f"candidates{place}.{self._item}: {shown(item)} is candidate {first[item]} already"
                problems.append((pointer, message))
            first.setdefault(item, index)
        return items


def _made_of(feature: AnyFeature) -> str:
    """What the door makes a feature of that no request brings."""
    return " and ".join(feature.of) if isinstance(feature, Id) and feature.of else "the time of the request"


def _count(candidates: Any) -> int:
    if isinstance(candidates, dict):
        return max((len(values) for values in candidates.values() if isinstance(values, list)), default=0)
    return len(candidates) if isinstance(candidates, list) else 0


def _rows(candidates: list[Any], problems: list[Problem]) -> dict[str, tuple[list[Any], np.ndarray | None]]:
    if not set(map(type, candidates)) <= {dict}:
        index = next(i for i, candidate in enumerate(candidates) if not isinstance(candidate, dict))
        got = shown(candidates[index])
        problems.append((f"/candidates/{index}", f"candidates[{index}]: expected an object, got {got}"))
        return {}
    cells: dict[str, tuple[list[Any], np.ndarray | None]] = {}
    names = candidates[0] if candidates else {}
    try:
        # as a rule all have the names of the first, and no others
        cells = {name: (list(map(itemgetter(name), candidates)), None) for name in names}
        if sum(map(len, candidates)) == len(names) * len(candidates):
            return cells
    except KeyError:
        pass
    # in the order of the request, so that errors come in that order too
    for name in dict.fromkeys(name for candidate in candidates for name in candidate):
        try:
            cells[name] = ([candidate[name] for candidate in candidates], None)
        except KeyError:
            given = np.array([name in candidate for candidate in candidates])
            cells[name] = ([candidate.get(name) for candidate in candidates], given)
    return cells


def _columns(
    candidates: dict[str, Any], count: int, problems: list[Problem]
) -> dict[str, tuple[list[Any], np.ndarray | None]]:
    cells: dict[str, tuple[list[Any], np.ndarray | None]] = {}
    for name, values in candidates.items():
        pointer, where = f"/candidates/{escaped(name)}", f"candidates.{shorter(name)}"
        if not isinstance(values, list):
            problems.append((pointer, f"{where}: expected a list with a value per candidate, got {shown(values)}"))
        elif len(values) != count:
            problems.append((pointer, f"{where}: expected {count} values like the longest column, got {len(values)}"))
        else:
            cells[name] = (values, None)
    return cells


def _pointer(candidates: Any) -> Callable[[str, int], tuple[str, str]]:
    """How a cell is pointed to, which depends on the form the candidates came in."""
    if isinstance(candidates, dict):
        return lambda name, index: (f"/candidates/{escaped(name)}/{index}", f"[{index}]")
    return lambda name, index: (f"/candidates/{index}/{escaped(name)}", f"[{index}]")


def _check_keys(tree: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[Problem]) -> None:
    for name in tree:
        if name not in known:
            path = f"{where}.{shorter(name)}" if where else shorter(name)
            pointer = f"/{where}/{escaped(name)}" if where else f"/{escaped(name)}"
            problems.append((pointer, f"{path}: unknown key{nearest(name, known)}"))


def _request_id(value: Any, problems: list[Problem]) -> str | None:
    if value is None or (isinstance(value, str) and _REQUEST_ID.fullmatch(value)):
        return value
    problems.append(("/request_id", f"request_id: expected 1 to 128 printable ASCII characters, got {shown(value)}"))
    return None


def _time(value: Any, problems: list[Problem]) -> int | None:
    if value is None:
        return None
    try:
        return microseconds(value)
    except (ValueError, TypeError):
        problems.append(("/time", f"time: expected {_TIME}, got {shown(value)}"))
        return None


def _top_k(options: Any, problems: list[Problem]) -> int | None:
    if not isinstance(options, dict):
        problems.append(("/options", f"options: expected an object, got {shown(options)}"))
        return None
    _check_keys(options, _OPTIONS, "options", problems)
    value = options.get("top_k")
    if value is not None and (type(value) is not int or value < 1):
        problems.append(("/options/top_k", f"options.top_k: expected a whole number from 1, got {shown(value)}"))
        return None
    return value
