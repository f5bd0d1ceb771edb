"""Slow, obvious twin of features/logs/dtypes.py: what one logged value becomes, from the table in docs/log-values.md.

None is no value; LOST is a value that cannot be what is wanted.
"""

from __future__ import annotations

import itertools
import math
import re
from datetime import UTC, datetime, timedelta

LOST = "lost"
MISSING = ("", "\\N", "nan", "NaN")
NO_VALUE = {"nan", "null", "none", "na", "n/a", "<na>", "nat", "nil", "-nan", "#n/a"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value(found: object, wanted: str, *, key: bool = False) -> object:
    """What a value becomes as an `int`, a `string`, a `float` or a `bool`."""
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return None
    if isinstance(found, str) and found.strip(" ") in MISSING:
        return None
    if wanted == "string":
        return _text(found, key=key)
    if isinstance(found, str):
        word = found.strip()
        if word.lower() in NO_VALUE or not word:
            return None
        found = _read(word, wanted)
    if found is LOST or isinstance(found, list | datetime):
        return LOST
    if wanted == "int":
        whole = isinstance(found, bool | int) or found.is_integer()
        return int(found) if whole and -(2**63) <= int(found) < 2**63 else LOST
    return bool(found) if wanted == "bool" else float(found)


def listed(found: object, wanted: str, *, split: str | None = None) -> object:
    """A list of what `value` makes of its elements; a text is taken apart, and its empty pieces are nothing."""
    if found is None or (isinstance(found, float) and math.isnan(found)):
        return None
    if isinstance(found, str):
        if found.strip(" ") in MISSING:
            return None
        elements = [value(piece, wanted) for piece in pieces(found, split, numbers=wanted != "string")]
        return LOST if LOST in elements else [element for element in elements if element is not None]
    elements = [value(element, wanted) for element in (found if isinstance(found, list) else [found])]
    return LOST if LOST in elements else elements


def pieces(text: str, split: str | None, *, numbers: bool) -> list[str]:
    """The pieces of a text that is no list in brackets."""
    parts = text.split(split) if split is not None else re.split(r"[\s,;|]+", text) if numbers else [text]
    return [part.strip() for part in parts if part.strip()]


def moment(found: object) -> object:
    """A count of seconds, or a datetime, of UTC where it says no zone."""
    if found is None or isinstance(found, datetime):
        return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)
    return EPOCH + timedelta(seconds=found)


def _text(found: object, *, key: bool) -> object:
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, float) and found.is_integer() and abs(found) < 2**63:
        return str(int(found))
    if isinstance(found, str) and key and re.fullmatch(r"\s*[+-]?[0-9]+\.0*\s*", found):
        return found.strip().partition(".")[0]
    return LOST if isinstance(found, list) else str(found)


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


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return ["".join(run) for alike, run in itertools.groupby(text.lower(), str.isalnum) if alike]
