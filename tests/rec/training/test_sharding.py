"""Training over several processes is training in one: the same losses, weights and scores, whatever the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rec import spec as specs
from rec.data import preprocessor, splits
from rec.data.session_table import to_batch
from rec.progress import Silent
from rec.spec import Spec
from rec.spec.tasks import given
from rec.training import checkpoint, tensor_folder, trainer
from rec.training.run import load_run
from rec.training.scorer import scorer
from tests.rec.training import few_requests
from tests.rec.training.ranks import begun_on_ranks

# two hundred steps: 4 epochs of about 51 batches of about 7 requests
REQUESTS, EPOCHS = 7 * 51, 4
STEPS = ("train.batch=31", f"train.epochs={EPOCHS}", "train.patience=9", "train.lr=0.003", "train.watch.every=0")
ADAGRAD = "train.table_optimizer=adagrad"
MODELS = {
    "mmoe": ("model.experts=2", "model.expert_widths=[8]", "model.tower_widths=[4]"),
    "adagrad": ("model.experts=2", "model.expert_widths=[8]", "model.tower_widths=[4]", ADAGRAD),
    "home": ('model={name="home", levels=[[8], [8]], rank=4, tower_widths=[4]}',),
    # another seed: with the first, a candidate lies on the edge of a ReLU, where rounding decides what a unit learns
    "adatt": ('model={name="adatt", levels=[[8], [8]], tower_widths=[4]}', "seed=2"),
    "stem": ('model={name="stem", expert_widths=[8], shared_experts=2, tower_widths=[4]}',),
    "escm2_ips": ("objective.name=escm2_ips",),
    "escm2_dr": ("objective.name=escm2_dr",),
    "aitm": ("objective.name=aitm",),
    "dcmt": ("objective.name=dcmt",),
    "accumulated": ("train.accumulate=3",),
    "scheduled": ("train.warmup=20", "train.decay=cosine", "train.clip=0.5", "train.ema=0.9"),
}
MIXED = 'train.sharding.tables={user_id="row_wise", item_id="data_parallel"}'
CASES: Mapping[int, Sequence[tuple[str, str]]] = {
    2: [
        ("mmoe", "train.sharding.default=table_wise"),
        ("mmoe", "train.sharding.default=row_wise"),
        ("mmoe", "train.sharding.default=data_parallel"),
        ("mmoe", "train.sharding.default=auto"),
        ("mmoe", MIXED),
        ("adagrad", "train.sharding.default=column_wise"),
        ("home", "train.sharding.default=row_wise"),
        ("adatt", "train.sharding.default=table_wise"),
        ("stem", "train.sharding.default=row_wise"),
        ("escm2_ips", "train.sharding.default=table_wise"),
        ("escm2_dr", "train.sharding.default=row_wise"),
        ("aitm", "train.sharding.default=table_wise"),
        ("dcmt", "train.sharding.default=row_wise"),
        ("accumulated", "train.sharding.default=row_wise"),
        ("scheduled", MIXED),
    ],
    4: [
        ("mmoe", "train.sharding.default=table_wise"),
        ("mmoe", "train.sharding.default=row_wise"),
        ("mmoe", "train.sharding.default=auto"),
        ("adagrad", "train.sharding.default=column_wise"),
    ],
}


def described(spec: Spec, *overrides: str) -> Spec:
    """The tiny shop with tables wide enough to be divided by columns, and other settings."""
    text = specs.dump(spec).replace("dim = 4", "dim = 8")
    return specs.parse(text, overrides=[*STEPS, *overrides])


def train_all(text: str, data: Path, folder: Path, cases: Sequence[tuple[str, str]]) -> None:
    """Train every case, on as many ranks as there are."""
    for number, (model, sharding) in enumerate(cases):
        spec = described(specs.parse(text), *MODELS[model], sharding)
        trainer.train(spec, data, folder / f"{number}", progress=Silent())


@pytest.fixture(scope="module")
def few(spec, data, tmp_path_factory):
    """As many requests as two hundred steps need."""
    return few_requests.of(data, tmp_path_factory.mktemp("few") / "data", spec, requests=REQUESTS)


@pytest.fixture(scope="module")
def trained(spec, few, tmp_path_factory):
    """Where every case is, by the number of ranks, and every model of one process; all are trained at the same time."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") for ranks in (1, *CASES)}
    begun = [begun_on_ranks(n, train_all, specs.dump(spec), few, folders[n], CASES[n]) for n in CASES]
    try:
        for model, settings in MODELS.items():
            trainer.train(described(spec, *settings), few, folders[1] / model, progress=Silent())
    finally:
        for wait in begun:
            wait()
    return folders


@pytest.fixture(scope="module")
def alone(trained):
    """Every model trained in one process."""
    return trained[1]


@pytest.fixture(scope="module", params=CASES, ids="{} ranks".format)
def several(request, trained):
    """Every case of so many ranks, and where each is."""
    folder = trained[request.param]
    return [(model, sharding, folder / f"{number}") for number, (model, sharding) in enumerate(CASES[request.param])]


def test_ranks_learn_what_one_process_learns(spec, few, alone, several):
    """Losses of every epoch to the order of sums, weights and optimizers' states to 1e-5, scores of the best too."""
    rows = next(splits.read(few, "test", spec))
    for model, sharding, run in several:
        case = f"{model}, {sharding}"
        histories = [json.loads((folder / "history.json").read_text()) for folder in (run, alone / model)]
        assert [e["step"] for e in histories[0]] == [e["step"] for e in histories[1]], case
        assert len(histories[0]) == EPOCHS
        assert histories[0][-1]["step"] >= 200
        for mine, other in zip(*histories, strict=True):
            assert mine["train"]["loss"] == pytest.approx(other["train"]["loss"], abs=2e-6), case
        for name, (mine, other) in both(run, alone / model).items():
            torch.testing.assert_close(
                mine, other, rtol=1e-4, atol=1e-5, msg=lambda text, at=(case, name): f"{at}: {text}"
            )
        for name, (mine, other) in scores(spec, rows, run, alone / model).items():
            np.testing.assert_allclose(mine, other, atol=1e-5, err_msg=f"{case}: {name}")


def both(run, other):
    """Every tensor of two newest checkpoints but the sums of losses, which each rank has its own of."""
    mine, theirs = (dict(tensor_folder.tensors(checkpoint.steps(folder)[-1])) for folder in (run, other))
    assert set(mine) == set(theirs)
    return {name: (mine[name], theirs[name]) for name in mine if not name.startswith(checkpoint.SUMS)}


def scores(spec, rows, *runs):
    """The scores of two runs' best weights on the same requests."""
    out = []
    for run in runs:
        mine, learnt, model = load_run(run)
        batch = to_batch(rows, mine, learnt.encoders)
        out.append(scorer(model, given(spec.tasks), torch.device("cpu"))(batch))
    return {name: (out[0][name], out[1][name]) for name in out[0]}


def test_every_row_that_was_used_changes(spec, few, several):
    """Of every table under every plan: tables that silently never learn are what the plan must not make."""
    learnt = preprocessor.load(spec, few / "fitted")
    for model, sharding, run in several:
        mine = described(spec, *MODELS[model], sharding)
        saved = dict(tensor_folder.tensors(checkpoint.steps(run)[-1]))
        for table in mine.tables():
            used = ids_of(mine, few, learnt, table)
            states = saved[f"table_states.{table}.momentum1"]
            moved = states.flatten(1).any(1) if states.dim() > 1 else states != 0
            assert moved[used[used != 0]].all(), (model, sharding, table)


def ids_of(spec, data, learnt, table):
    """Every row of a table that training looks up."""
    actual = [np.zeros(0, np.int64)]
    for rows in splits.read(data, "train", spec):
        batch = to_batch(rows, spec, learnt.encoders)
        for side, values in (("context", batch.context), ("candidates", batch.candidates)):
            actual += [
                values[name].ravel()
                for name in values
                if name in dict(spec.sides())[side] and uses(spec, side, name, table)
            ]
    return np.unique(np.concatenate(actual))


def uses(spec, side, name, table):
    """Whether a feature looks its rows up in a table."""
    feature = dict(spec.sides())[side][name]
    return specs.has_rows(feature) and spec.table_of(side, name) == table
