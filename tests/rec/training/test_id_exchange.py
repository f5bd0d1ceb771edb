"""Ids that are sent ahead of their step: the same rows and weights, to the bit, as ids that are sent in it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rec import spec as specs
from rec import world
from rec.data import loader
from rec.data.loader import Share
from rec.spec import Spec
from rec.training import id_exchange, planning
from rec.training.run import load_run
from rec.training.sharding import ShardedTables
from rec.training.step import Fit, new_fit
from tests.rec.training.ranks import on_ranks

KINDS = ("table_wise", "row_wise", "data_parallel")


def learnt(tables: ShardedTables, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A step that pulls at every row that was looked up; what they were before it."""
    before = {group: of.detach().clone() for group, of in rows.items()}
    torch.stack([((1 + before[group]) * of).sum() for group, of in rows.items()]).sum().backward()
    tables.step()
    return before


def compare(spec: Spec, data: Path, run: Path) -> None:
    """The rows of every batch of an epoch, and what a rank holds after the last, sent ahead and in their step."""
    _, preprocessor, _ = load_run(run)
    fits = [new_fit(spec, preprocessor, planning.sharded(spec, data)) for _ in range(2)]
    (_, plain), (embedding, ahead) = ((fit.ranker.embedding, tables_of(fit)) for fit in fits)
    parts = loader.shuffled(data, spec, preprocessor.encoders, epoch=1, share=Share(world.rank(), world.size()))
    batches = [loader.tensors(part.mine, torch.device("cpu")) for part in islice(parts, 100)]
    assert world.total(torch.tensor(sum(not len(batch) for batch in batches))) > 0
    before = [learnt(plain, plain(embedding.ids(batch))) for batch in batches]
    sent = ((number, ahead.send(embedding.ids(batch))) for number, batch in enumerate(batches))
    order = []
    for number, exchange in id_exchange.ahead(sent):
        order.append(number)
        if number == 1:
            ahead(embedding.ids(batches[0]))  # as a validation between two steps does
        rows = learnt(ahead, ahead(exchange))
        assert rows.keys() == before[number].keys()
        assert all(torch.equal(rows[group], before[number][group]) for group in rows), number
    assert order == list(range(len(batches)))
    for mine, other in zip(ahead.parts(), plain.parts(), strict=True):
        assert torch.equal(mine.weight, other.weight), mine.table
        assert all(torch.equal(mine.states[name], other.states[name]) for name in mine.states), mine.table


def tables_of(fit: Fit) -> ShardedTables:
    """The sharded tables of a model."""
    assert isinstance(fit.ranker.embedding.tables, ShardedTables)
    return fit.ranker.embedding.tables


def whole_short_epochs(spec: Spec, data: Path, run: Path) -> None:
    """Epochs of fewer batches than are sent ahead: every batch comes, in its order."""
    _, preprocessor, _ = load_run(run)
    fit = new_fit(spec, preprocessor, planning.sharded(spec, data))
    parts = loader.shuffled(data, spec, preprocessor.encoders, epoch=1, share=Share(world.rank(), world.size()))
    batch = loader.tensors(next(parts).mine, torch.device("cpu"))
    tables, ids = tables_of(fit), fit.ranker.embedding.ids(batch)
    for count in range(3):
        sent = id_exchange.ahead((number, tables.send(ids)) for number in range(count))
        assert [number for number, exchange in sent if tables(exchange)] == list(range(count))


def compare_all(text: str, data: Path, run: Path) -> None:
    """Under every plan, in batches of one request, which leave a rank without candidates."""
    described = [specs.parse(text, overrides=["train.batch=6", f"train.sharding.default={kind}"]) for kind in KINDS]
    for spec in described:
        compare(spec, data, run)
    whole_short_epochs(described[0], data, run)


def test_rows_and_weights_are_those_of_ids_sent_in_their_step(spec, data, run):
    """Under every plan, to the bit, with ranks that have nothing of a batch, and a lookup of others in between."""
    on_ranks(2, compare_all, specs.dump(spec), data, run)
