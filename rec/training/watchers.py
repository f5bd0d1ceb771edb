"""Whoever watches a training: MODEL/watch.jsonl, TensorBoard files, an MLflow run, classes of other packages.

    [project.entry-points."multigate.watchers"]      in the other package's pyproject.toml
    theirs = "their_package.module:Class"            [train.watch] watchers = ["theirs"], or the class itself

A class is made at rank 0 by `Class(folder, step=...)`: MODEL, and the step of the checkpoint which training goes on
from. One that raises is dropped with a line; it does not end training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rec.errors import SpecError, nearest
from rec.spec import Spec, Watching, plugins
from rec.training.watch_lines import LineWatcher

GROUP = "multigate.watchers"
METHODS = ("step", "validation", "close")
_WHERE = "train.watch.watchers"
_NEEDED = {"tensorboard": ("tensorboard", "watch"), "mlflow": ("mlflow", "mlflow")}  # setting: module, extra


class Watcher(Protocol):
    """Is told what training looks like; names of figures are `loss/click`, `seconds/forward`, `gradient_norm`, ..."""

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """A look at a step, counted from 1 over all epochs."""
        ...

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """A validation after a step: `auc/click`, `normalised_entropy/click`, ..., and `train_loss/click` till then."""
        ...

    def close(self) -> None:
        """Training is over, by its end or by an error."""
        ...


def check(watch: Watching) -> None:
    """Raise SpecError for a watcher that is not installed here; on every rank, before the first step."""
    for setting, (module, extra) in _NEEDED.items():
        if getattr(watch, setting) and find_spec(module) is None:
            way = f"`pip install 'multigate[{extra}]'` installs it"
            raise SpecError(f"train.watch.{setting}: {module} is not installed; {way}")
    for name in watch.watchers:
        _loaded(name)


def create(spec: Spec, folder: Path, *, step: int) -> list[Watcher]:
    """The watchers of a run; SpecError where one cannot be made."""
    watch = spec.train.watch
    watchers: list[Watcher] = [LineWatcher(folder, step=step)]
    if watch.tensorboard:
        from rec.training.tensorboard_files import TensorBoardWatcher

        watchers.append(TensorBoardWatcher(folder, step=step))
    if watch.mlflow:
        watchers.append(_mlflow(spec, folder, watch.mlflow))
    for name in watch.watchers:
        target, loaded = _loaded(name)
        watchers.append(plugins.construct(target, _WHERE, loaded, folder, step=step))
    return watchers


class Watchers:
    """Several watchers as one; one that raises is dropped, and `say` hears of it."""

    def __init__(self, watchers: Sequence[Watcher], say: Callable[[str], None]) -> None:
        self._watchers, self._say = list(watchers), say

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell each of a look."""
        self._each(lambda watcher: watcher.step(step, figures))

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell each of a validation."""
        self._each(lambda watcher: watcher.validation(step, figures))

    def close(self) -> None:
        """Close each."""
        self._each(lambda watcher: watcher.close())

    def _each(self, tell: Callable[[Watcher], None]) -> None:
        for watcher in list(self._watchers):
            try:
                tell(watcher)
            except Exception as error:  # noqa: BLE001  a full disk or an absent server of figures must not end training
                self._watchers.remove(watcher)
                name = type(watcher).__name__
                self._say(f"{name} stopped watching: {type(error).__name__}: {error}; training goes on without it")


def _mlflow(spec: Spec, folder: Path, uri: str) -> Watcher:
    from mlflow.exceptions import MlflowException

    from rec.training.mlflow_run import MlflowWatcher

    params = {"model": spec.model["name"], "seed": spec.seed, **spec.train.model_dump(exclude={"watch"}, mode="json")}
    try:
        return MlflowWatcher(folder, uri, experiment=spec.name, params=params)
    except MlflowException as error:
        raise SpecError(f"train.watch.mlflow: {uri!r}: {error}") from error


def _loaded(name: str) -> tuple[str, Any]:
    """A class of another package as package.module:Class, and the class itself."""
    target = name
    if not plugins.is_target(name):
        plugin = plugins.registered(GROUP, name, _WHERE)
        if plugin is None:
            known = [plugin.name for plugin in plugins.installed(GROUP)]
            choices = f": {', '.join(known)}{nearest(name, known)}" if known else "; none is installed"
            raise SpecError(f"{_WHERE}: no watcher {name!r}{choices}")
        target = plugin.target
    loaded = plugins.load(target, _WHERE)
    plugins.has_methods(loaded, METHODS, target=target, where=_WHERE)
    return target, loaded
