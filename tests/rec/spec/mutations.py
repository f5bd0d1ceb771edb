"""Hypothesis: a spec that was right, with one to three things done to it that a person or a tool may do by mistake."""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

import tomli_w
from hypothesis import strategies as st

Path = tuple[str | int, ...]

WORDS = [
    "",
    " ",
    "a b",
    "a.b",
    "\u00e9t\u00e9",
    "click",
    "item_id",
    "x" * 200,
    "a\nb",
    "'",
    "-",
    "__class__",
    "type",
    "keys",
]
ODD = [
    "(",
    "1 +",
    "SELECT 1",
    "NULL",
    "click",
    "a.b.c",
    "'",
    '"',
    "CAST(x AS",
    "x IN (1",
    "COUNT(*)",
    "not",
    "*",
    "\x00",
]
CODE = ["os:path", "nowhere:Model", "rec.spec:Spec", ":", "a:b:c", ".a:B", "rec.models.mmoe:Config", "json:JSONDecoder"]
NUMBERS = [0, -1, 1, 2, 7, 10**6, 2**31, 2**63 - 1, -(2**63), 0.0, -0.5, 0.5, 1.5, 1e-300, 1e300]
ODD_NUMBERS = [float("nan"), float("inf"), float("-inf")]
MOMENTS = [
    dt.date(2022, 1, 1),
    dt.time(7, 30),
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59),  # noqa: DTZ001  # TOML has moments without a zone
]
TEXTS = [
    "30s",
    "99999999999d",
    "0s",
    "-1d",
    "7",
    "2022-13-01",
    "0001-01-01",
    "9999-12-31T23:59:59-12:00",
    "auto",
    "cuda",
]
TREES = [{}, [], [[]], [1, "a"], [{}], {"a": {"b": {"c": 1}}}, {"kind": "id"}, ["a"] * 3, [[1], [2, 3]], {"": 1}]


def paths(tree: Any, path: Path = ()) -> list[Path]:
    """The place of every value in a tree, tables and their values alike."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path_below for key, value in below for path_below in ((*path, key), *paths(value, (*path, key)))]


def at(tree: Any, path: Path) -> Any:
    """The value at a place."""
    for key in path:
        tree = tree[key]
    return tree


def values(tree: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A value of any type: odd, huge, empty, or taken from somewhere else in the same spec."""
    names = [key for path in paths(tree) for key in path if isinstance(key, str)]
    own = [value for path in paths(tree) if isinstance(value := at(tree, path), str | int | float | list)]
    flat = [*WORDS, *ODD, *CODE, *NUMBERS, *ODD_NUMBERS, *MOMENTS, *TEXTS, True, False]
    kinds = [st.sampled_from(options) for options in (flat, names, TREES) if options]
    return st.one_of(*kinds, st.sampled_from(own), st.text(max_size=6), st.integers(-(2**63), 2**63 - 1)).map(
        copy.deepcopy
    )


@st.composite
def mutated(draw: st.DrawFn, tree: dict[str, Any], *, most: int = 3) -> tuple[dict[str, Any], list[Path]]:
    """A copy of a tree with one to `most` changes, and the place of each."""
    tree, places = copy.deepcopy(tree), []
    for _ in range(draw(st.integers(1, most))):
        every = paths(tree)
        if not every:
            break
        path = draw(st.sampled_from(every))
        way = draw(st.sampled_from(WAYS))
        places += way(draw, tree, path)
    return tree, places


def _dropped(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    del draw
    at(tree, path[:-1]).pop(path[-1])
    return [path]


def _renamed(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    holder, key = at(tree, path[:-1]), path[-1]
    if isinstance(key, int):
        return _replaced(draw, tree, path)
    near = [key[:-1], key + "s", key.upper(), key[::-1], f"{key}.x"]
    new = draw(st.sampled_from([*near, *WORDS]) | st.text(max_size=5))
    items = [(new if name == key else name, value) for name, value in holder.items() if name == key or name != new]
    holder.clear()
    holder.update(items)
    return [path, (*path[:-1], new)]


def _replaced(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    at(tree, path[:-1])[path[-1]] = draw(values(tree))
    return [path]


def _added(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    """A key from elsewhere, or an odd one, in a table."""
    holder = at(tree, path)
    while not isinstance(holder, dict):
        path = path[:-1]
        holder = at(tree, path)
    names = sorted({key for place in paths(tree) for key in place if isinstance(key, str)})
    key = draw(st.sampled_from([*names, *WORDS]))
    holder[key] = draw(values(tree))
    return [(*path, key)]


def _copied(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    """A table or a value once more, under another name beside it or anywhere else."""
    other = draw(st.sampled_from(paths(tree)))
    value = copy.deepcopy(at(tree, path))
    at(tree, other[:-1])[other[-1]] = value
    return [path, other]


def _swapped(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    other = draw(st.sampled_from(paths(tree)))
    if path[: len(other)] == other or other[: len(path)] == path:
        return _replaced(draw, tree, path)
    mine, theirs = at(tree, path), at(tree, other)
    at(tree, path[:-1])[path[-1]], at(tree, other[:-1])[other[-1]] = theirs, mine
    return [path, other]


def _nested(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    value = at(tree, path)
    for _ in range(draw(st.sampled_from([1, 2, 50]))):
        value = {str(path[-1]): value} if draw(st.booleans()) else [value]
    at(tree, path[:-1])[path[-1]] = value
    return [path]


def _repeated(draw: st.DrawFn, tree: Any, path: Path) -> list[Path]:
    """The same table under many names."""
    holder = at(tree, path[:-1])
    if not isinstance(holder, dict):
        return _replaced(draw, tree, path)
    for number in range(draw(st.sampled_from([1, 30]))):
        holder[f"{path[-1]}{number}"] = copy.deepcopy(at(tree, path))
    return [path, path[:-1]]


WAYS = [_dropped, _renamed, _replaced, _replaced, _replaced, _added, _copied, _swapped, _nested, _repeated]


def text_of(tree: dict[str, Any]) -> str:
    """A tree as TOML."""
    return tomli_w.dumps(tree)


@st.composite
def scrambled(draw: st.DrawFn, text: str) -> str:
    """TOML with a piece cut out, repeated, or written over."""
    start = draw(st.integers(0, len(text)))
    length = draw(st.sampled_from([0, 1, 2, 10, 100]))
    piece = draw(
        st.text(max_size=5) | st.sampled_from(["[[", "]", "=", "\n[tasks]\n", '"', "'''", "\\", "\r", "\ufeff"])
    )
    return text[:start] + draw(st.sampled_from(["", piece, text[start : start + length] * 2])) + text[start + length :]
