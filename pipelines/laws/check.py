"""`multigate check-model`: every law of the model contract, tested on a model over small random specs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.laws import drawn, laws
from rec import models, objectives, ranker
from rec.data import preprocessor as preprocessors
from rec.data.preprocessor import Preprocessor
from rec.data.session_table import to_batch
from rec.request import RequestBatch
from rec.spec import Spec, parse
from rec.training.scorer import scorer

SEED = 1


@dataclass(frozen=True)
class Verdict:
    """Whether a law held on every random spec; otherwise `text` says what was expected and what came."""

    law: str
    passed: bool
    text: str = ""


@dataclass(frozen=True)
class Trial:
    """A random spec with the model under test, the preprocessor fitted on its rows, and the rows as a batch."""

    spec: Spec
    preprocessor: Preprocessor
    batch: RequestBatch

    def fresh(self) -> ranker.Ranker:
        """The whole network with fresh weights, as it scores."""
        return ranker.create(self.spec, self.preprocessor, seed=SEED, device=laws.CPU).eval()

    def plain(self) -> ranker.Ranker:
        """The same network over plain tables, as it is exported."""
        return ranker.from_weights(self.spec, self.preprocessor, ranker.weights_of(self.fresh()))


def _built(trial: Trial, _folder: Path) -> None:
    trial.fresh()


def _finite(trial: Trial, _folder: Path) -> None:
    laws.one_finite_logit_per_candidate_and_task(trial.fresh(), trial.spec, trial.batch)


def _child(trial: Trial, _folder: Path) -> None:
    served = scorer(trial.fresh(), laws.parents_of(trial.spec), laws.CPU)(trial.batch)
    laws.a_child_is_never_likelier_than_its_parent(served, laws.event_parents_of(trial.spec))
    laws.an_amount_is_what_its_parent_lets_through(served, trial.spec)


def _alone(trial: Trial, _folder: Path) -> None:
    laws.a_request_scores_the_same_alone(trial.fresh(), trial.batch)


def _order(trial: Trial, _folder: Path) -> None:
    laws.candidate_order_does_not_matter(trial.fresh(), trial.batch)


def _single(trial: Trial, _folder: Path) -> None:
    laws.a_batch_of_one_works(trial.fresh(), trial.spec, trial.batch)


def _learns(trial: Trial, _folder: Path) -> None:
    laws.every_weight_learns(trial.fresh(), trial.spec, trial.batch)


def _onnx(trial: Trial, folder: Path) -> None:
    laws.onnx_gives_the_same_scores(trial.plain(), trial.spec, trial.batch, folder)


LAWS: dict[str, Callable[[Trial, Path], None]] = {
    "it is built for any spec": _built,
    "one finite logit per candidate and task": _finite,
    "a child is never likelier than its parent": _child,
    "a request scores the same alone": _alone,
    "candidate order does not matter": _order,
    "a batch of one works": _single,
    "every weight learns": _learns,
    "ONNX gives the same scores": _onnx,
}


def check(name: str, overrides: Sequence[str] = (), *, tried: Collection[str] = tuple(LAWS)) -> list[Verdict]:
    """The verdict on every law, in order, with the first random spec that breaks it.

    `name` is a model's name or package.module:Class, `overrides` are those of --set, such as model.experts=2. Raises
    SpecError where there is no such model, objective or setting.
    """
    trials = [_trial(text, name, overrides) for text in drawn.SPECS]
    for trial in trials:
        models.configured(trial.spec.model)
        objectives.configured(trial.spec.objective)
    with TemporaryDirectory(prefix="multigate-") as folder:
        verdicts = []
        for law in LAWS:
            if law in tried:
                verdicts.append(_verdict(law, trials, Path(folder)))
            if verdicts and verdicts[-1].law == next(iter(LAWS)) and not verdicts[-1].passed:
                break  # what cannot be built keeps no other law either
        return verdicts


def _trial(text: str, name: str, overrides: Sequence[str]) -> Trial:
    spec = parse(text, where="check-model", overrides=[f'model.name="{name}"', *overrides])
    rows = drawn.rows(spec, SEED)
    preprocessor = preprocessors.fit([rows], spec)
    return Trial(spec, preprocessor, to_batch(rows, spec, preprocessor.encoders))


def _verdict(law: str, trials: Sequence[Trial], folder: Path) -> Verdict:
    for trial in trials:
        try:
            LAWS[law](trial, folder)
        except laws.Broken as broken:
            return Verdict(law, passed=False, text=f"{trial.spec.name}: {broken}")
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever somebody else's code raises
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            return Verdict(law, passed=False, text=f"{trial.spec.name}: expected no exception, got {message}")
    return Verdict(law, passed=True)
