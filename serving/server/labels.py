"""Labels: which version of a folder of models is served to whom, in a file that is written whole.

    stable   who is not a user of another label        canary   a share of users       shadow   nobody: it is compared

    {"format": 1, "salt": "9f2c51d0a7be4436", "stable": {"version": "a", "digest": "9b1f..."},
     "canary": {"version": "b", "digest": "77c0...", "share": 0.05}, "shadow": null,
     "before": {"canary": [null]}}

`before` is what each label was, the last change last, so that it can be undone. By hand only versions, shares and the
salt are written, while no server runs; digests are those of the versions as they were when the label was set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError

from rec import atomic
from rec.errors import BundleError, nearest
from rec.spec.types import Share, Strict
from serving.server.counters import ROWS

Label = Literal["stable", "canary", "shadow"]
LABELS: tuple[Label, ...] = get_args(Label)
VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
FILE = "labels.json"
_UNDONE = 3  # changes of a label that can be undone: what it was stays on the disk
# rows of the counters, by the label that their processes serve; the first of each is the supervisor's
ROWS_OF: Mapping[Label, range] = {"stable": range(128), "canary": range(128, 240), "shadow": range(240, ROWS)}


class Labelled(Strict):
    """The version that has a label; `share` of users is that of a canary."""

    version: Annotated[str, Field(pattern=VERSION)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    share: Share | None = None


class VersionLabels(Strict):
    """All labels of a folder of models."""

    format: Literal[1] = 1
    salt: Annotated[str, Field(pattern="^[!-~]{1,64}$")]
    stable: Labelled
    canary: Labelled | None = None
    shadow: Labelled | None = None
    before: dict[Label, list[Labelled | None]] = Field(default_factory=dict)

    def get(self, label: Label) -> Labelled | None:
        """What has a label."""
        return {"stable": self.stable, "canary": self.canary, "shadow": self.shadow}[label]

    def digests(self) -> set[str]:
        """The digests of all that has a label, or can have it back."""
        now = [self.get(label) for label in LABELS]
        past = [labelled for history in self.before.values() for labelled in history]
        return {labelled.digest for labelled in (*now, *past) if labelled is not None and labelled.digest is not None}

    def changed(self, label: Label, labelled: Labelled | None) -> VersionLabels:
        """These labels, with another version or share, or none, for one of them; a change to the same is none."""
        if labelled == self.get(label):
            return self
        history = [*self.before.get(label, []), self.get(label)][-_UNDONE:]
        return self.model_copy(update={label: labelled, "before": {**self.before, label: history}})

    def last(self, label: Label) -> Labelled | None:
        """What a label was before its last change; BundleError where there is no change to undo."""
        if not self.before.get(label):
            raise BundleError(f"{label}: no change of this label to undo")
        return self.before[label][-1]

    def undone(self, label: Label) -> VersionLabels:
        """These labels without the last change of one of them."""
        return self.model_copy(
            update={label: self.last(label), "before": {**self.before, label: self.before[label][:-1]}}
        )


def read_labels(path: Path, versions: Sequence[str], *, salt: str) -> VersionLabels:
    """The labels in a file; BundleError says what is wrong in it.

    `versions` are those on the disk, for suggestions; the `salt` is that of a file that has none.
    """
    values: dict[str, Any] = atomic.read_json(path, dict)
    for key in values:
        if key not in VersionLabels.model_fields:
            raise BundleError(f"{path}: {key}: no label{nearest(key, VersionLabels.model_fields)}")
    try:
        labels = VersionLabels.model_validate({"salt": salt, **values})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {name}: {first['msg']}, got {first['input']!r:.60}") from None
    for label in LABELS:
        labelled = labels.get(label)
        if (labelled is not None and labelled.share is not None) != (label == "canary" and labelled is not None):
            raise BundleError(f"{path}: {label}: a canary has a share of users, from 0 to 1, and no other label has")
        if labelled is not None and labelled.digest is None and labelled.version not in versions:
            raise BundleError(f"{path}: {label}: {missing_version(labelled.version, versions)}")
    return labels


def missing_version(version: str, versions: Sequence[str]) -> str:
    """Why a version cannot have a label: there is none of that name."""
    if re.fullmatch(VERSION, version) is None:
        return f"expected the name of a version, got {version!r:.80}"
    choices = ", ".join(sorted(versions)[-8:]) or "none"
    return f"no version {version!r}{nearest(version, versions)} (there is: {choices})"


def label_of(row: int) -> Label:
    """The label whose process a row of the counters is for.

    >>> label_of(3), label_of(130)
    ('stable', 'canary')
    """
    return next(label for label, rows in ROWS_OF.items() if row in rows)
