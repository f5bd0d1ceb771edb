"""Which ids training drops: one after the other, with Python's own integers."""

from __future__ import annotations

import hashlib

_MASK = 2**64 - 1


def mixed(value):
    """SplitMix64."""
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return z ^ z >> 31


def dropped(share, *, seed, epoch, side, feature, request, candidate, position=None):
    """Whether one id is dropped; `position` is its place in a list."""
    digest = hashlib.blake2b(f"{seed} {epoch} {side} {feature}".encode(), digest_size=8).digest()
    bits = mixed((mixed((int.from_bytes(digest) + request) & _MASK) + candidate) & _MASK)
    if position is not None:
        bits = mixed((bits + position) & _MASK)
    return bits / 2**64 < share
