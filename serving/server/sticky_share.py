"""Which users a canary has: those whose position, a hash of the salt and the user's id, is below the share.

    position = the first 53 bits of sha256(salt + newline + id as text, in UTF-8), over 2**53

The same user has the same position in every worker, after every restart, and for every version, so a share that grows
takes users from stable to canary and none back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any

import msgspec

_INTEGERS = range(-(2**63), 2**64)


def position(salt: str, user: str) -> float:
    """Where a user stands, from 0 to 1; users are spread evenly.

    >>> round(position("salt", "7"), 6)
    0.822578
    """
    return (int.from_bytes(hashlib.sha256(f"{salt}\n{user}".encode()).digest()[:8]) >> 11) / 2**53


def user_text(value: Any, missing: Collection[str] = ()) -> str | None:
    """A user's id as text, the same whether it was sent as 7, 7.0 or "7"; None for what is no id.

    >>> user_text(7.0), user_text("7"), user_text(True), user_text("NA", ["NA"])
    ('7', '7', '1', None)
    """
    if isinstance(value, str):
        return None if value in missing else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(int(value)) if isinstance(value, int) and value in _INTEGERS else None


class Asker(msgspec.Struct, frozen=True):
    """Who asks in a request, and for which label."""

    user: str | None
    label: str | None


def asker_reader(key: str | None, missing: Collection[str]) -> Callable[[bytes], Asker | None]:
    """A function that finds out who asks in a body, whose user id is `context.<key>`; None for what is no request.

    It skips all else, candidates above all, which is several times as quick as to parse them.
    """
    fields = [] if key is None else [("user", Any, msgspec.field(default=None, name=key))]
    context = msgspec.defstruct("AskedContext", fields)
    body = msgspec.defstruct(
        "AskedBody",
        [("context", context, msgspec.field(default_factory=context)), ("label", str | None, None)],
    )
    decode = msgspec.json.Decoder(body).decode

    def read(data: bytes) -> Asker | None:
        try:
            body: Any = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        user = None if key is None else user_text(body.context.user, missing)
        return Asker(user, body.label)

    return read
