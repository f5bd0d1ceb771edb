"""Slow, obvious twin of features/logs/dtypes.py: what one logged value becomes, from the table in docs/your-logs.md.

None is no value; LOST is a value that cannot be what is wanted.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

LOST = "lost"
MISSING = ("", "\\N", "nan", "NaN")
NO_VALUE = {"nan", "null", "none", "na", "n/a", "<na>", "nat", "nil", "-nan", "#n/a"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value(actual: object, wanted: str, *, key: bool = False) -> object:
    """What a value becomes as an `int`, a `string`, a `float` or a `bool`."""
    if actual is None or (isinstance(actual, float) and math.isnan(actual)):
        return None
    if isinstance(actual, str) and actual.strip(" ") in MISSING:
        return None
    if wanted == "string":
        return _text(actual, key=key)
    if isinstance(actual, str):
        word = actual.strip()
        if word.lower() in NO_VALUE or not word:
            return None
        actual = _read(word, wanted)
    if actual is LOST or isinstance(actual, list | datetime):
        return LOST
    if wanted == "int":
        whole = isinstance(actual, bool | int) or actual.is_integer()
        return int(actual) if whole and -(2**63) <= int(actual) < 2**63 else LOST
    return bool(actual) if wanted == "bool" else float(actual)


def listed(actual: object, wanted: str, *, split: str | None = None) -> object:
    """A list of what `value` makes of its elements; a text is taken apart, and its empty pieces are nothing."""
    if actual is None or (isinstance(actual, float) and math.isnan(actual)):
        return None
    if isinstance(actual, str):
        if actual.strip(" ") in MISSING:
            return None
        elements = [value(piece, wanted) for piece in pieces(actual, split, numbers=wanted != "string")]
        return LOST if LOST in elements else [element for element in elements if element is not None]
    elements = [value(element, wanted) for element in (actual if isinstance(actual, list) else [actual])]
    return LOST if LOST in elements else elements


def pieces(text: str, split: str | None, *, numbers: bool) -> list[str]:
    """The pieces of a text that is no list in brackets."""
    parts = text.split(split) if split is not None else re.split(r"[\s,;|]+", text) if numbers else [text]
    return [part.strip() for part in parts if part.strip()]


def moment(actual: object) -> object:
    """A count of seconds, or a datetime, of UTC where it says no zone."""
    if actual is None or isinstance(actual, datetime):
        return actual if actual is None or actual.tzinfo else actual.replace(tzinfo=UTC)
    return EPOCH + timedelta(seconds=actual)


def _text(actual: object, *, key: bool) -> object:
    if isinstance(actual, bool):
        return "true" if actual else "false"
    if isinstance(actual, float) and actual.is_integer() and abs(actual) < 2**63:
        return str(int(actual))
    if isinstance(actual, str) and key and re.fullmatch(r"\s*[+-]?[0-9]+\.0*\s*", actual):
        return actual.strip().partition(".")[0]
    return LOST if isinstance(actual, list) else str(actual)


def _read(word: str, wanted: str) -> object:
    """What a word says: a number, or true and false."""
    if wanted == "bool":
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(word.lower(), LOST)
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if re.fullmatch(r"[+-]?[0-9]+", word):
        return int(word)
    if re.fullmatch(r"[+-]?[0-9]+\.0*", word):
        return int(word.partition(".")[0])
    return float(word) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", word) else LOST
