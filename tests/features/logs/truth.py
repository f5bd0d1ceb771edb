"""What every value that is found becomes as what is asked, written by hand from docs/log-values.md; LOST: refused.

A column of FOUND holds the values of one type, and ASKED are features; of each value there is a row in TRUTH, with what
it is as each of ASKED, in their order. Of a list, none and an empty one are the same. `sent` says what differs in
requests.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl

ASKED = {
    "int": 'kind = "id"',
    "text": 'kind = "id", values = "string"',
    "number": 'kind = "number"',
    "moment": 'kind = "number", make = "age"',
    "ints": 'kind = "ids"',
    "texts": 'kind = "ids", values = "string"',
    "split": 'kind = "ids", values = "string", split = "|"',
}
LOST = "lost"
NAN, LARGE = float("nan"), 2**63
NOON, START = datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
WRITTEN, CLOCK, DAY = "2026-03-02T12:00:00.000000+00:00", "2026-03-02T12:00:00.000", date(2026, 3, 2)


def after(seconds: float) -> datetime:
    """So many seconds after 1970."""
    return START + timedelta(seconds=seconds)


NOTHING = (None, None, None, None, [], [], [])
FOUND: dict[str, pl.DataType] = {
    "text": pl.String(),
    "text of whole numbers": pl.String(),
    "text of numbers": pl.String(),
    "text of truths": pl.String(),
    "text of lists": pl.String(),
    "text of timestamps": pl.String(),
    "words": pl.Categorical(),
    "bytes": pl.Binary(),
    "whole": pl.Int16(),
    "unsigned": pl.UInt64(),
    "real": pl.Float64(),
    "single": pl.Float32(),
    "decimal": pl.Decimal(10, 2),
    "bool": pl.Boolean(),
    "moment": pl.Datetime("us", "UTC"),
    "clock": pl.Datetime("ms"),
    "day": pl.Date(),
    "list": pl.List(pl.Int64()),
    "list of text": pl.List(pl.String()),
    "list of numbers": pl.List(pl.Float64()),
    "array": pl.Array(pl.UInt32(), 2),
    "nothing": pl.Null(),
}
TRUTH: dict[str, list[tuple[object, tuple]]] = {
    "text": [
        (" 7 ", (7, " 7 ", 7.0, after(7), [7], ["7"], ["7"])),
        ("bob", (LOST, "bob", LOST, LOST, LOST, ["bob"], ["bob"])),
        ("", NOTHING),
        ("\\N", NOTHING),
        ("NaN", NOTHING),
        ("NULL", (None, "NULL", None, None, [], ["NULL"], ["NULL"])),
        (None, NOTHING),
    ],
    "text of whole numbers": [
        ("007", (7, "007", 7.0, after(7), [7], ["007"], ["007"])),
        ("-1", (-1, "-1", -1.0, after(-1), [-1], ["-1"], ["-1"])),
        ("0", (0, "0", 0.0, START, [0], ["0"], ["0"])),
    ],
    "text of numbers": [
        ("7.0", (7, "7.0", 7.0, after(7), [7], ["7.0"], ["7.0"])),
        ("1.10", (LOST, "1.10", 1.1, after(1.1), LOST, ["1.10"], ["1.10"])),
        ("7.5", (LOST, "7.5", 7.5, after(7.5), LOST, ["7.5"], ["7.5"])),
    ],
    "text of truths": [
        ("True", (1, "True", 1.0, LOST, [1], ["True"], ["True"])),
        ("false", (0, "false", 0.0, LOST, [0], ["false"], ["false"])),
    ],
    "text of lists": [
        ("[3, 9]", (LOST, "[3, 9]", LOST, LOST, [3, 9], ["3", "9"], ["3", "9"])),
        ("3|9|", (LOST, "3|9|", LOST, LOST, [3, 9], ["3|9|"], ["3", "9"])),
        ("['a', \"b, c\"]", (LOST, "['a', \"b, c\"]", LOST, LOST, LOST, ["a", "b, c"], ["a", "b, c"])),
        ("Film Noir|a b", (LOST, "Film Noir|a b", LOST, LOST, LOST, ["Film Noir|a b"], ["Film Noir", "a b"])),
    ],
    "text of timestamps": [
        (text, (LOST, text, LOST, NOON, LOST, [text], [text]))
        for text in ("2026-03-02T12:00:00Z", "2026-03-02T21:00:00+09:00", "2026-03-02 12:00")
    ],
    "words": [
        ("7", (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        ("a|b", (LOST, "a|b", LOST, LOST, LOST, ["a|b"], ["a", "b"])),
    ],
    "bytes": [(b"7", (7, "7", 7.0, after(7), [7], ["7"], ["7"])), (b"\\N", NOTHING)],
    "whole": [
        (7, (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        (0, (0, "0", 0.0, START, [0], ["0"], ["0"])),
        (-1, (-1, "-1", -1.0, after(-1), [-1], ["-1"], ["-1"])),
        (None, NOTHING),
    ],
    "unsigned": [
        (7, (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        (LARGE, (LOST, str(LARGE), float(LARGE), LOST, LOST, [str(LARGE)], [str(LARGE)])),
    ],
    "real": [
        (7.0, (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        (7.5, (LOST, "7.5", 7.5, after(7.5), LOST, ["7.5"], ["7.5"])),
        (1.25e-5, (LOST, "0.0000125", 1.25e-5, after(1.2e-5), LOST, ["0.0000125"], ["0.0000125"])),
        (1e16, (10**16, "10000000000000000", 1e16, LOST, [10**16], ["10000000000000000"], ["10000000000000000"])),
        (NAN, NOTHING),
        (None, NOTHING),
    ],
    "single": [
        (7.0, (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        (0.5, (LOST, "0.5", 0.5, after(0.5), LOST, ["0.5"], ["0.5"])),
    ],
    "decimal": [
        (Decimal("7.00"), (7, "7", 7.0, after(7), [7], ["7"], ["7"])),
        (Decimal("7.50"), (LOST, "7.5", 7.5, after(7.5), LOST, ["7.5"], ["7.5"])),
        (None, NOTHING),
    ],
    "bool": [
        (True, (1, "true", 1.0, LOST, [1], ["true"], ["true"])),
        (False, (0, "false", 0.0, LOST, [0], ["false"], ["false"])),
    ],
    "moment": [(NOON, (LOST, WRITTEN, LOST, NOON, LOST, [WRITTEN], [WRITTEN]))],
    "clock": [(NOON.replace(tzinfo=None), (LOST, CLOCK, LOST, NOON, LOST, [CLOCK], [CLOCK]))],
    "day": [(DAY, (LOST, "2026-03-02", LOST, datetime(2026, 3, 2, tzinfo=UTC), LOST, ["2026-03-02"], ["2026-03-02"]))],
    "list": [
        ([7, None, 9], (LOST, LOST, LOST, LOST, [7, 9], ["7", "9"], ["7", "9"])),
        ([], (LOST, LOST, LOST, LOST, [], [], [])),
        (None, NOTHING),
    ],
    "list of text": [
        (["7", "", "\\N"], (LOST, LOST, LOST, LOST, [7], ["7"], ["7"])),
        (["a|b", None], (LOST, LOST, LOST, LOST, LOST, ["a|b"], ["a|b"])),
    ],
    "list of numbers": [
        ([7.0, NAN], (LOST, LOST, LOST, LOST, [7], ["7"], ["7"])),
        ([7.5, 0.25], (LOST, LOST, LOST, LOST, LOST, ["7.5", "0.25"], ["7.5", "0.25"])),
    ],
    "array": [([7, 8], (LOST, LOST, LOST, LOST, [7, 8], ["7", "8"], ["7", "8"]))],
    "nothing": [(None, NOTHING)],
}  # fmt: skip


def sent(value: object, asked: str, right: object) -> object:
    """What is right in a request: text is no number there and no list in brackets, a timestamp is text with a zone."""
    if value is None or str(value) == "nan":  # null in JSON
        return right
    if asked == "moment":
        return right if isinstance(value, str) and value.endswith(("Z", "+09:00")) else LOST
    text = isinstance(value, str) or (isinstance(value, list) and any(isinstance(element, str) for element in value))
    brackets = str(value).startswith("[") and isinstance(value, str) and asked in ("texts", "split")
    return LOST if (text and asked in ("int", "number", "ints")) or brackets else right
