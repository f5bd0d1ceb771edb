"""The body of POST /v1/rank: parsed into typed columns, or refused with all errors listed.

    {"request_id": "r1",                            optional; generated when absent
     "time": "2026-11-20T08:30:00Z",                optional; the time of arrival when absent
     "context": {"user_id": 7, "device": "ios"},
     "candidates": [{"item_id": 3, "price": 9.9}, {"item_id": 5}]    or    {"item_id": [3, 5], "price": [9.9, null]},
     "deadline_ms": 50,                             optional; from the arrival of the request, else 504
     "label": "canary",                             optional; stable or canary, 404 where that is not served
     "options": {"top_k": 10}}                      optional

Names are those of the spec. A feature left out comes from the store; null says that it is known to be missing.
Errors are RFC 9457 problems: `context.user_id: expected an id, got 'bob'`, with an RFC 6901 pointer to each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from rec.data.session_table import field_type
from rec.spec import AnyFeature, Id, Spec
from serving.online.candidate_columns import Column, Names, count_of, from_columns, from_rows
from serving.online.json_columns import ColumnBuilder, UnfitError, column_builder, microseconds
from serving.online.problems import MAX_ERRORS, Problem, RequestError, display, escape, shorten, suggestion
from serving.store import SentColumn

KEYS = ("request_id", "time", "context", "candidates", "deadline_ms", "label", "options")
LABELS = ("stable", "canary")  # that a request can ask for; a shadow answers nobody
_LONGEST_MS = 3_600_000
_OPTIONS = ("top_k",)
# printable and without spaces: safe in a log line and in a header
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TIME = "a timestamp with a time zone, such as '2026-11-20T08:30:00Z'"

_NO_JSON = "Body is not JSON"
_DEPTH = 32  # no request that fits a spec is half as deep
_DEEP = f"body: nested too deeply: expected at most {_DEPTH} levels"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request in columns: context of length 1, candidates of length `count`; `columnar` if sent in columns."""

    request_id: str
    time: int
    context: Mapping[str, SentColumn]
    candidates: Mapping[str, SentColumn]
    count: int
    items: list[Any] | None
    top_k: int | None
    columnar: bool
    deadline_ms: int | None = None
    label: str | None = None


class RequestParser:
    """Parses request bodies of one spec."""

    def __init__(self, spec: Spec) -> None:
        """Chooses the column builder of every feature once."""
        self._max_candidates = spec.serve.max_candidates
        self._item = spec.key_feature("item")
        self._builders: dict[str, dict[str, ColumnBuilder]] = {}
        self._derived: dict[str, dict[str, str]] = {}
        missing = spec.logs.missing
        for side, features in spec.sides():
            stored = {name: feature for name, feature in features.items() if field_type(feature) is not None}
            self._builders[side] = {name: column_builder(feature, missing) for name, feature in stored.items()}
            self._derived[side] = {name: _origin(f) for name, f in features.items() if name not in stored}
        self._decode = msgspec.json.Decoder().decode

    def parse(self, body: bytes, now_us: int | None, new_id: Callable[[], str]) -> ParsedRequest:
        """The request in a body; `now_us` and `new_id` are used where it has no time or no id.

        Raises RequestError: 400 when it is not JSON, 413 with too many candidates, 422 when it does not fit the spec.
        """
        return self.parse_tree(self._tree(body), now_us, new_id)

    def parse_tree(self, tree: dict[str, Any], now_us: int | None, new_id: Callable[[], str]) -> ParsedRequest:
        """The request in a decoded body, as `parse` has it; a time is required where nothing arrived at `now_us`."""
        problems: list[Problem] = []
        _check_keys(tree, KEYS, "", problems)
        context = tree.get("context", {})
        candidates = tree.get("candidates")
        columns = self._candidate_columns(candidates, problems)
        if not isinstance(context, dict):
            problems.append(("/context", f"context: expected an object, got {display(context)}"))
            context = {}
        request_id = _request_id(tree.get("request_id"), problems)
        time = _time(tree.get("time"), now_us, problems)
        deadline_ms = _deadline_ms(tree.get("deadline_ms"), problems)
        label = _label(tree.get("label"), problems)
        top_k = _top_k(tree.get("options", {}), problems)
        names = Names(self._builders["context"].keys(), partial(self._unknown, "context"), problems)
        known = names.known(context, lambda name: f"/context/{escape(name)}")
        values: dict[str, Column] = {name: ([context[name]], None) for name in known}
        sent_context = self._typed("context", values, lambda name, _: (f"/context/{escape(name)}", ""), problems)
        sent_candidates = self._typed("candidates", columns, _pointer(candidates), problems)
        items = self._items(columns, sent_candidates, candidates, problems)
        if problems:
            if _deeper(tree, _DEPTH):
                raise RequestError(400, _NO_JSON, [("", _DEEP)])
            raise RequestError(422, "Request does not fit the spec", problems)
        return ParsedRequest(
            request_id=request_id or new_id(),
            time=time,
            context=sent_context,
            candidates=sent_candidates,
            count=count_of(candidates),
            items=items,
            top_k=top_k,
            columnar=isinstance(candidates, dict),
            deadline_ms=deadline_ms,
            label=label,
        )

    def _tree(self, body: bytes) -> dict[str, Any]:
        title = _NO_JSON
        try:
            tree = self._decode(body)
        except UnicodeDecodeError as error:
            raise RequestError(400, title, [("", f"body: not UTF-8 (byte {error.start})")]) from None
        except RecursionError:
            raise RequestError(400, title, [("", _DEEP)]) from None
        except msgspec.DecodeError as error:
            raise RequestError(400, title, [("", f"body: {error}")]) from None
        if not isinstance(tree, dict):
            if isinstance(tree, list) and _deeper(tree, _DEPTH):
                raise RequestError(400, title, [("", _DEEP)])
            message = f"body: expected an object, got {display(tree)}"
            raise RequestError(422, "Request does not fit the spec", [("", message)])
        return tree

    def _candidate_columns(self, candidates: Any, problems: list[Problem]) -> dict[str, Column]:
        """A column of every name that any candidate has, whether candidates were sent as rows or as columns."""
        if not isinstance(candidates, list | dict):
            got = "nothing" if candidates is None else display(candidates)
            problems.append(("/candidates", f"candidates: expected a list of objects or an object of lists, got {got}"))
            return {}
        count = count_of(candidates)
        if count > self._max_candidates:
            message = f"candidates: expected at most {self._max_candidates}, got {count}"
            raise RequestError(413, "Too many candidates", [("/candidates", message)])
        names = Names(self._builders["candidates"].keys(), partial(self._unknown, "candidates"), problems)
        return from_columns(candidates, names, count) if isinstance(candidates, dict) else from_rows(candidates, names)

    def _typed(
        self,
        side: str,
        columns: Mapping[str, Column],
        locate: Callable[[str, int], tuple[str, str]],
        problems: list[Problem],
    ) -> dict[str, SentColumn]:
        """The columns of a side as the session table types them."""
        sent = {}
        for name, (values, present) in columns.items():
            try:
                sent[name] = SentColumn(self._builders[side][name](values), present)
            except UnfitError as error:
                pointer, place = locate(name, error.index)
                message = f"{side}{place}.{name}: expected {error.expected}, got {display(values[error.index])}"
                problems.append((pointer, message))
        return sent

    def _unknown(self, side: str, name: str) -> str:
        if name in self._derived[side]:
            return f"{side}.{name}: computed from {self._derived[side][name]}; leave it out"
        return f"{side}.{shorten(name)}: not a feature of the spec{suggestion(name, self._builders[side])}"

    def _items(
        self, columns: Mapping[str, Column], sent: Mapping[str, SentColumn], candidates: Any, problems: list[Problem]
    ) -> list[Any] | None:
        """The item ids as the request has them, in its order; each is required, and as it is read, only once.

        Where ids are text, 7 and "7" are one id, and so are 7 and 7.0 where they are numbers; a word that means "no
        value" is none.
        """
        count = count_of(candidates)
        if self._item is None or problems:
            return None
        items = columns[self._item][0] if self._item in columns else [None] * count
        typed = sent.get(self._item)
        alike = typed is None or (typed.values.null_count == 0 and len(set(map(type, items))) <= 1)
        ids = items if typed is None or alike else typed.values.to_pylist()
        distinct = set(ids)
        if len(distinct) == count and None not in distinct:
            return items
        locate = _pointer(candidates)
        first: dict[Any, int] = {}
        for index, item in enumerate(ids):
            pointer, place = locate(self._item, index)
            if item is None:
                problems.append((pointer, f"candidates{place}.{self._item}: required, but not given"))
            elif item in first:
                message = f"candidates{place}.{self._item}: {display(items[index])} is candidate {first[item]} already"
                problems.append((pointer, message))
            first.setdefault(item, index)
        return items


def _origin(feature: AnyFeature) -> str:
    """The inputs of a computed feature, which no request sends, for error messages."""
    return " and ".join(feature.of) if isinstance(feature, Id) and feature.of else "the time of the request"


def _deeper(tree: Any, depth: int) -> bool:
    """Whether any value lies below more than `depth` lists and objects; linear in the values, and no recursion."""
    level = [tree]
    for _ in range(depth):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _pointer(candidates: Any) -> Callable[[str, int], tuple[str, str]]:
    """JSON pointer and place of a value, which depend on whether candidates came as rows or as columns."""
    if isinstance(candidates, dict):
        return lambda name, index: (f"/candidates/{escape(name)}/{index}", f"[{index}]")
    return lambda name, index: (f"/candidates/{index}/{escape(name)}", f"[{index}]")


def _check_keys(tree: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[Problem]) -> None:
    for name in tree:
        if len(problems) >= MAX_ERRORS:
            return
        if name not in known:
            path = f"{where}.{shorten(name)}" if where else shorten(name)
            pointer = f"/{where}/{escape(name)}" if where else f"/{escape(name)}"
            problems.append((pointer, f"{path}: unknown key{suggestion(name, known)}"))


def _request_id(value: Any, problems: list[Problem]) -> str | None:
    if value is None or (isinstance(value, str) and _REQUEST_ID.fullmatch(value)):
        return value
    problems.append(("/request_id", f"request_id: expected 1 to 128 printable ASCII characters, got {display(value)}"))
    return None


def _time(value: Any, now_us: int | None, problems: list[Problem]) -> int:
    try:
        if value is not None:
            return microseconds(value)
        if now_us is not None:
            return now_us
        problems.append(("/time", f"time: required, but not given: expected {_TIME}"))
    except (ValueError, TypeError):
        problems.append(("/time", f"time: expected {_TIME}, got {display(value)}"))
    return 0


def _deadline_ms(value: Any, problems: list[Problem]) -> int | None:
    if value is None or (type(value) is int and 1 <= value <= _LONGEST_MS):
        return value
    expected = f"expected a whole number of milliseconds from 1 to {_LONGEST_MS}"
    problems.append(("/deadline_ms", f"deadline_ms: {expected}, got {display(value)}"))
    return None


def _label(value: Any, problems: list[Problem]) -> str | None:
    if value is None or value in LABELS:
        return value
    problems.append(("/label", f"label: expected 'stable' or 'canary', got {display(value)}"))
    return None


def _top_k(options: Any, problems: list[Problem]) -> int | None:
    if not isinstance(options, dict):
        problems.append(("/options", f"options: expected an object, got {display(options)}"))
        return None
    _check_keys(options, _OPTIONS, "options", problems)
    value = options.get("top_k")
    if value is not None and (type(value) is not int or value < 1):
        problems.append(("/options/top_k", f"options.top_k: expected a whole number from 1, got {display(value)}"))
        return None
    return value
