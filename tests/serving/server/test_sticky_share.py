from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server.sticky_share import Asker, asker_reader, position, user_text

SALTS = st.text("0123456789abcdef", min_size=1, max_size=16)
SHARES = st.floats(0, 1)


@given(SALTS, st.text(max_size=20).filter(lambda text: text.isprintable()), SHARES, SHARES)
def test_a_share_that_grows_takes_users_and_gives_none_back(salt, user, one, other):
    """A user of the smaller share is one of the larger; at 0 nobody is, at 1 everybody."""
    small, large = sorted([one, other])
    assert (position(salt, user) < small) <= (position(salt, user) < large)
    assert 0 <= position(salt, user) < 1


@given(SALTS, st.integers(-(2**63), 2**63 - 1))
def test_the_hash_is_the_one_that_is_written_down(salt, user):
    """So that whoever reads logs can tell who was a canary's user."""
    number = int(hashlib.sha256(f"{salt}\n{user}".encode()).hexdigest(), 16)
    bits = f"{number:0256b}"[:53]
    assert position(salt, str(user)) == int(bits, 2) / 2**53


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_users_are_spread_evenly_whatever_their_ids(share):
    """Ids that follow each other, and ids of one beginning: within 4 standard deviations of the share."""
    for users in (map(str, range(20_000)), (f"user-{index:08d}" for index in range(20_000))):
        taken = sum(position("9f2c51d0a7be4436", user) < share for user in users)
        assert abs(taken - 20_000 * share) < 4 * (20_000 * share * (1 - share)) ** 0.5


def test_another_salt_takes_other_users():
    """Of half of the users about half are in both halves."""
    both = sum(position("a", str(user)) < 0.5 and position("b", str(user)) < 0.5 for user in range(10_000))
    assert 2300 < both < 2700


def test_an_id_is_the_same_user_however_it_is_written():
    """7, 7.0 and "7" are one; a number with a fraction, a list, null and words for nothing are nobody."""
    assert {user_text(value) for value in (7, 7.0, "7")} == {"7"}
    assert [user_text(value, ["NA"]) for value in (7.5, [7], None, "NA", 2**64)] == [None] * 5


ASKED = {"context": {"user_id": 7}, "candidates": [{"item_id": 3}]}


@pytest.mark.parametrize(
    ("body", "asker"),
    [
        (json.dumps(ASKED), Asker("7", None)),
        (json.dumps({**ASKED, "label": "canary"}), Asker("7", "canary")),
        (json.dumps({"candidates": {"item_id": [3]}}), Asker(None, None)),
        ('{"context": {"user_id": 1}, "context": {"user_id": 2}}', Asker("2", None)),
        ('{"context": {"user_id": %s}}' % ("9" * 5000), None),
        ('{"context": [7]}', None),
        ('{"label": 3}', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_who_asks_is_read_without_the_rest(body, asker):
    """What is no request asks for nobody: it is refused elsewhere."""
    assert asker_reader("user_id", [])(body.encode()) in (asker, *([] if asker else [Asker(None, None)]))


def test_without_a_user_key_nobody_is_known():
    """Then only who names a label gets another."""
    assert asker_reader(None, [])(json.dumps({**ASKED, "label": "canary"}).encode()) == Asker(None, "canary")
