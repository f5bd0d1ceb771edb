from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.errors import BundleError
from serving.server.labels import LABELS, Labelled, VersionLabels, missing_version, read_labels

A, B = (Labelled(version=name, digest=name * 64) for name in "ab")
FIRST = VersionLabels(salt="s", stable=A)


def test_the_last_change_of_a_label_is_undone():
    """A share, then the version, then nothing is left; other labels stay as they are."""
    canary = [B.model_copy(update={"share": share}) for share in (0.05, 0.2)]
    labels = FIRST.changed("canary", canary[0]).changed("shadow", B).changed("canary", canary[1])
    assert labels.undone("canary").canary == canary[0]
    gone = labels.undone("canary").undone("canary")
    assert (gone.canary, gone.shadow) == (None, B)
    with pytest.raises(BundleError, match="canary: no change of this label to undo"):
        gone.undone("canary")


def test_a_change_to_the_same_is_none():
    """What a rollback would serve is not lost by asking twice."""
    labels = FIRST.changed("stable", B)
    assert labels.changed("stable", B) is labels


CHANGES = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from("abc"), st.floats(0, 1)), max_size=12)


@given(CHANGES)
def test_labels_are_read_as_they_were_written(tmp_path_factory, changes):
    """Whatever was done to them; what can be had back is bounded, and its digests are known."""
    labels = FIRST
    for label, name, share in changes:
        labelled = Labelled(version=name, digest=name * 64, share=share if label == "canary" else None)
        labels = labels.changed(label, labelled)
    path = tmp_path_factory.getbasetemp() / "labels.json"
    path.write_text(json.dumps(labels.model_dump(exclude_none=True)))
    assert read_labels(path, [], salt="unused") == labels
    assert all(len(history) <= 3 for history in labels.before.values())
    assert {labels.stable.digest} <= labels.digests() <= {name * 64 for name in "abc"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.json: not JSON"),
        ("[]", "expected a dict"),
        ('{"stabel": {"version": "a"}}', "stabel: no label; did you mean 'stable'?"),
        ("{}", "labels.json: stable: Field required"),
        ('{"stable": {"version": "../a"}}', "stable.version: String should match pattern"),
        ('{"stable": {"version": "v10"}}', r"stable: no version 'v10'; did you mean 'v1'\? \(there is: v1, v2\)"),
        ('{"stable": {"version": "v1", "digest": "x"}}', "stable.digest: String should match pattern"),
        ('{"stable": {"version": "v1"}, "canary": {"version": "v2"}}', "canary: a canary has a share of users"),
        ('{"stable": {"version": "v1"}, "canary": {"version": "v2", "share": 5}}', "canary.share: Input should be"),
        ('{"stable": {"version": "v1", "share": 1.0}}', "stable: a canary has a share of users"),
        ('{"stable": {"version": "v1"}, "format": 2}', "format: Input should be 1, got 2"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, text, message):
    """With the place, what was expected, and the nearest match."""
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        read_labels(tmp_path / "labels.json", ["v1", "v2"], salt="s")


def test_a_version_of_a_long_or_hostile_name_is_not_repeated_in_full():
    """Its error is short."""
    assert len(missing_version("x" * 10_000, ["a"])) < 200
    assert missing_version("../etc", []) == "expected the name of a version, got '../etc'"
