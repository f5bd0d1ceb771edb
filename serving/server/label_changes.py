"""What an operator can change while a server runs: the bundle that is served, or the labels of versions.

Both take what the admin page was sent, wait until the change is done, and say what is served then.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol, cast

from rec.errors import BundleError, nearest
from serving.server.event_log import log_event
from serving.server.generations import Generation, GenerationStore
from serving.server.labels import LABELS, Label, Labelled, VersionLabels
from serving.server.models_folder import ModelsFolder
from serving.server.supervisor import Supervisor

Wish = dict[str, Any]


class Changes(Protocol):
    """What the admin page does."""

    def promote(self, wish: Wish) -> Wish:
        """Take something into service; BundleError or OSError says why it is not."""
        ...

    def rollback(self, wish: Wish) -> Wish:
        """Undo the last change."""
        ...

    def status(self) -> Wish:
        """What is served."""
        ...


class BundleChanges:
    """Changes of a server of one bundle: {"bundle": path} takes its place."""

    def __init__(self, supervisor: Supervisor, store: GenerationStore) -> None:
        """`store` has the copies."""
        self.status = supervisor.status
        self._supervisor = supervisor
        self._store = store
        self._promoting = threading.Lock()

    def promote(self, wish: Wish) -> Wish:
        """Serve another bundle."""
        path = wish.get("bundle")
        if not isinstance(path, str) or not path:
            raise BundleError('expected {"bundle": path}')
        if wish.get("label", "stable") != "stable" or wish.get("share") is not None:
            raise BundleError("labels and shares are those of `multigate serve --models`; this server has one bundle")
        with self._promoting:  # a copy is removed by nobody between being made and being asked for
            try:
                generation = self._store.take(Path(path))
            except (BundleError, OSError) as error:
                log_event("promote_refused", reason=str(error))
                raise
            log_event("promote", **named(generation))
            self._store.keep(self._supervisor.needed | {generation.digest})
            outcome = self._supervisor.swap(generation)
        return {"digest": outcome.result()}

    def rollback(self, wish: Wish) -> Wish:
        """Serve what was served before."""
        if wish.get("label", "stable") != "stable" or wish.get("clear"):
            raise BundleError("labels are those of `multigate serve --models`; this server has one bundle")
        before = self._supervisor.previous
        if before is None:
            raise BundleError("nothing was served before")
        log_event("rollback", **named(before))
        return {"digest": self._supervisor.swap(before).result()}


class LabelChanges:
    """Changes of a server of a folder of models: {"version": name, "label": "canary", "share": 0.05}.

    One at a time, from the first look at the labels until the change is done.
    """

    def __init__(self, supervisor: Supervisor, models: ModelsFolder) -> None:
        """`models` is the folder."""
        self._supervisor = supervisor
        self._models = models
        self._changing = threading.Lock()
        self._bad: dict[Label, dict[str, str]] = {}

    def begin(self, stable: Generation) -> None:
        """Beside stable, which is served, serve canary and shadow; one that fails is bad, and stays labelled.

        Changes that are asked for meanwhile wait.
        """
        self._pin("stable", stable)
        threading.Thread(target=self._begin_others, daemon=True, name="labels").start()

    def _begin_others(self) -> None:
        with self._changing:
            for label in LABELS[1:]:
                labelled = self._models.labels.get(label)
                if labelled is None:
                    continue
                try:
                    generation = self._models.generation(labelled)
                    self._supervisor.swap(generation, label, share=labelled.share or 0.0).result()
                except (BundleError, OSError) as error:
                    log_event("label_failed", label=label, version=labelled.version, reason=str(error))
                    self._mark(label, labelled, str(error))
                else:
                    self._pin(label, generation)

    def promote(self, wish: Wish) -> Wish:
        """Give a label to a version."""
        with self._changing:
            label, labels = _label(wish), self._models.labels
            version = wish.get("version")
            if not isinstance(version, str) or not version:
                raise BundleError('expected {"version": name}')
            share = _share(wish.get("share"), label, labels.canary)
            try:
                generation = self._models.take(version)
            except (BundleError, OSError) as error:
                log_event("promote_refused", label=label, version=version, reason=str(error))
                raise
            log_event("promote", label=label, share=share, **named(generation))
            labelled = Labelled(version=version, digest=generation.digest, share=share)
            return self._set(label, generation, labels.changed(label, labelled))

    def rollback(self, wish: Wish) -> Wish:
        """Undo the last change of a label, or, with `clear`, take it away."""
        with self._changing:
            label, labels = _label(wish), self._models.labels
            if wish.get("clear") and label == "stable":
                raise BundleError("stable: this label cannot be taken away: somebody has to answer")
            if wish.get("clear") and labels.get(label) is None:
                raise BundleError(f"{label}: no version has this label")
            after = labels.changed(label, None) if wish.get("clear") else labels.undone(label)
            labelled = after.get(label)
            generation = None if labelled is None else self._models.generation(labelled)
            log_event("rollback", label=label, **({} if generation is None else named(generation)))
            return self._set(label, generation, after)

    def status(self) -> Wish:
        """What is served with each label, and what is on the disk; `bad` of a label says what could not be."""
        status, versions, labels = self._supervisor.status(), self._models.versions(), self._models.labels
        status.pop("previous")
        for label in LABELS:
            labelled = labels.get(label)
            served = status[label] or ({} if labelled is None else {"version": labelled.version, "healthy": False})
            if labelled is not None:
                share = {} if labelled.share is None else {"share": labelled.share}
                served = {**served, **share, "on_disk": labelled.version in versions}
            if label in self._bad:
                served = {**served, "bad": self._bad[label]}
            before = [None if past is None else past.version for past in labels.before.get(label, [])]
            status[label] = {**served, "before": before} if served or before else None
        return {**status, "versions": versions}

    def _set(self, label: Label, generation: Generation | None, after: VersionLabels) -> Wish:
        labelled = after.get(label)
        share = None if labelled is None else labelled.share
        try:
            outcome = self._supervisor.swap(
                generation, label, share=share or 0.0, commit=lambda: self._models.write(after)
            )
            outcome.result()
        except BundleError as error:
            if labelled is not None:
                self._mark(label, labelled, str(error))
            raise
        finally:
            self._models.clean(self._supervisor.needed)
        self._bad.pop(label, None)
        what = {} if labelled is None else {k: v for k, v in labelled.model_dump().items() if v is not None}
        return {"label": label, **what}

    def _pin(self, label: Label, generation: Generation) -> None:
        try:
            self._models.pin(label, generation)
        except (BundleError, OSError) as error:
            log_event("labels_not_written", reason=str(error))

    def _mark(self, label: Label, labelled: Labelled, reason: str) -> None:
        digest = {} if labelled.digest is None else {"digest": labelled.digest}
        self._bad[label] = {"version": labelled.version, **digest, "reason": reason}


def named(generation: Generation) -> dict[str, str | int]:
    """A generation as fields of an event."""
    return {**generation.named, "generation": generation.number}


def _label(wish: Wish) -> Label:
    label = wish.get("label", "stable")
    if label not in LABELS:
        hint = nearest(label, LABELS) if isinstance(label, str) else ""
        raise BundleError(f"label: expected stable, canary or shadow, got {label!r:.80}{hint}")
    return cast("Label", label)


def _share(share: Any, label: Label, canary: Labelled | None) -> float | None:
    """The share of users that a promotion names; a canary keeps the one it has."""
    if label != "canary":
        if share is not None:
            raise BundleError(f"share: only a canary has a share of users, not {label}")
        return None
    if share is None and canary is not None:
        return canary.share
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise BundleError(f"share: expected a share of users from 0% to 100% for a first canary, got {share!r:.80}")
    return float(share)
