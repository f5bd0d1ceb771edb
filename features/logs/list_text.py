"""Lists that a log writes as text, because its form has none: which pieces a text holds, and lists built of pieces.

    [3, 7]  ["a", "b, c"]  ['a' 'b']  [None, x y]      JSON, Python and numpy: known without being told
    a b|c d         with split = "|"                   a b  c d
    3|7  3 7  3,7   numbers                            3  7: no number holds a separator
    a b|c d         text, and no `split`               one piece, a b|c d

Empty pieces are nothing.
"""

from __future__ import annotations

import ast

import numpy as np
import polars as pl
import pyarrow as pa

BETWEEN_NUMBERS = {".": r"[\s,;|]+", ",": r"[\s;|]+"}  # by what stands before decimals
_BRACKETS = r"(?s)^\s*\[.*\]\s*$"
_PIECE = r"""(?s)"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,\[\]\s'"][^,\[\]]*"""
_LISTED = r"^\s*[^\[\s|;,][^|;]*[|;]\s*\S|^\s*[^\[\s|;,][^|;,]*,\s*\S"


def pieces(
    text: pl.Series, *, split: str | None, numbers: bool, aligned: bool = False, decimal: str = "."
) -> pl.Series:
    """The pieces [n] of every text, as lists of text without empty ones; null for null.

    In brackets a list that is `aligned` with another keeps the places of words such as None. Numbers have a point
    before their decimals, as in JSON, whatever stands there outside brackets.

    >>> pieces(pl.Series(["[3, 7]", "a b|c|"]), split="|", numbers=False).to_list()
    [['3', '7'], ['a b', 'c']]
    """
    bracketed = text.str.contains(_BRACKETS).fill_null(value=False)
    if bracketed.all():
        return _bracketed(text, numbers=numbers, aligned=aligned)
    separated = _separated(text, split=split, numbers=numbers, decimal=decimal)
    if not bracketed.any():
        return separated
    return separated.zip_with(~bracketed, _bracketed(text, numbers=numbers, aligned=aligned))


def plain_numbers(text: pl.Series, decimal: str) -> pl.Series:
    """Numbers with a point before their decimals; what has one where a comma is due is no number then.

    >>> plain_numbers(pl.Series(["7,5", "1.234,5"]), ",").to_list()
    ['7.5', '1,234.5']
    """
    if decimal == ".":
        return text
    return (
        text.str.replace_all(".", "\0", literal=True)
        .str.replace_all(",", ".", literal=True)
        .str.replace_all("\0", ",", literal=True)
    )


def looks_listed(text: pl.Series) -> pl.Series:
    """Where text that is not in brackets holds what separates pieces elsewhere [n] bool."""
    return text.str.contains(_LISTED).fill_null(value=False)


def owners(lists: pl.Series) -> np.ndarray:
    """The list that every element of some lists belongs to [elements] int64."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    return np.repeat(np.arange(len(lists)), lengths)


def elements(lists: pl.Series) -> pl.Series:
    """The elements of lists, one below the other."""
    held = lists.filter(lists.list.len() > 0)
    return held.explode() if len(held) else pl.Series(lists.name, [], lists.dtype.inner)  # type: ignore[attr-defined]  # of lists


def built(name: str, flat: pl.Series, owner: np.ndarray, valid: np.ndarray) -> pl.Series:
    """Lists [valid] of elements `flat` by the ascending list `owner` each belongs to; null where not `valid`."""
    offsets = np.searchsorted(owner, np.arange(len(valid) + 1))
    values = flat.to_arrow(compat_level=pl.CompatLevel.oldest())
    mask = None if valid.all() else pa.array(~valid)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=mask)
    return pl.Series(name, lists).cast(pl.List(flat.dtype))


def _separated(text: pl.Series, *, split: str | None, numbers: bool, decimal: str = ".") -> pl.Series:
    column = pl.col(text.name)
    if split is not None:
        parts = column.str.split(split)
    elif numbers:
        parts = column.str.replace_all(BETWEEN_NUMBERS[decimal], "|").str.split("|")
    else:
        parts = column.reshape((-1, 1)).arr.to_list() if len(text) else column.str.split("|")
    stripped = parts.list.eval(pl.element().str.strip_chars()).list.eval(
        pl.element().filter(pl.element().str.len_bytes() > 0)
    )
    lists = text.to_frame().select(pl.when(column.is_not_null()).then(stripped)).to_series().alias(text.name)
    if not numbers or decimal == ".":
        return lists
    flat, valid = plain_numbers(elements(lists), decimal), lists.is_not_null().to_numpy()
    return built(text.name, flat, owners(lists), valid)


def _bracketed(text: pl.Series, *, numbers: bool, aligned: bool) -> pl.Series:
    """What stands between brackets; text in quotes as a program reads it, of numbers also between spaces."""
    if numbers:
        inside = pl.col(text.name).str.replace_all(r"[\[\]'\"]", " ").alias(text.name)
        return _separated(text.to_frame().select(inside).to_series(), split=None, numbers=True)
    tokens = text.str.extract_all(_PIECE)
    flat, owner = elements(tokens), owners(tokens)
    flat = flat.str.strip_chars()
    quoted = flat.str.contains(r"""^["']""")
    escaped = quoted & flat.str.contains("\\", literal=True)
    bare = flat.str.slice(1).str.head(-1)
    words = bare.zip_with(quoted, flat)
    if escaped.any():
        words = words.scatter(escaped.arg_true(), pl.Series([_unescaped(word) for word in flat.filter(escaped)]))
    nothing = ~quoted & flat.str.to_lowercase().is_in(["none", "null", "nan"])
    words = words.set(nothing, None)
    stays = ((words.str.len_bytes() > 0) | (words.is_null() & aligned)).fill_null(value=False).to_numpy()
    return built(text.name, words.filter(pl.Series(stays)), owner[stays], text.is_not_null().to_numpy())


def _unescaped(word: str) -> str:
    try:
        return str(ast.literal_eval(word))
    except (SyntaxError, ValueError):
        return word[1:-1]
