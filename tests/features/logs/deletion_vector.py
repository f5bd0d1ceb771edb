"""A deletion vector in the log of a Delta table, written by hand as the protocol says (Deletion Vector Format)."""

from __future__ import annotations

import json
import struct
from pathlib import Path

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data: bytes) -> str:
    """Base 85 as ZeroMQ writes it: five letters for four bytes, the most significant first."""
    text = ""
    for (number,) in struct.iter_unpack(">I", data):
        text += "".join(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text


def bitmap(rows: list[int]) -> bytes:
    """A 64-bit roaring bitmap of an even number of rows below 65,536, in one array container."""
    values = struct.pack(f"<{len(rows)}H", *rows)
    container = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + values
    return struct.pack("<IQI", 1681511377, 1, 0) + container


def delete(table: Path, file: str, rows: list[int]) -> None:
    """A next version of a table without some rows of a file of it."""
    log = table / "_delta_log"
    lines = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
    add = next(line["add"] for line in lines if line.get("add", {}).get("path") == file)
    data = bitmap(rows)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": z85(data),
        "sizeInBytes": len(data),
        "cardinality": len(rows),
    }
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    new = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"remove": {"path": file, "deletionTimestamp": 1, "dataChange": True}},
        {"add": {**add, "deletionVector": vector}},
    ]
    version = len(list(log.glob("*.json")))
    (log / f"{version:020}.json").write_text("".join(json.dumps(line) + "\n" for line in new))
