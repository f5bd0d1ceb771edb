"""Embedding tables that start anew in every epoch: multi-epoch data augmentation (MEDA).

    [train] tables = "redraw"

Rankers overfit in their second epoch, and rows of tables are where they do it: a row of a rare id knows its few labels
by heart. Here every table is drawn anew when an epoch begins, its optimizer's state is emptied, and the rest of the
network goes on: it learns to read rows that were trained on each request at most once.

Fan et al., Multi-Epoch Learning for Deep Click-Through Rate Prediction Models, 2023, section 3.
"""

from __future__ import annotations

from rec.errors import SpecError
from rec.modules.embedding_tables import draw
from rec.spec import Spec
from rec.training import pretrained_vectors
from rec.training.beginning import Beginning
from rec.training.state import Run


def refuse(spec: Spec, start: Beginning) -> None:
    """SpecError where rows of a trained run would be gone after the first epoch."""
    if spec.train.tables == "redraw" and start.run is not None:
        raise SpecError(
            f"train.tables: 'redraw' draws every row anew in each epoch, those copied from {start.run} (--from) too; "
            "leave out one of the two"
        )


def begin_epoch(run: Run, start: Beginning) -> None:
    """Draw the tables of an epoch that begins, where they are to be; all ranks call together.

    A draw depends on the seed and the epoch alone, so that it is the same on any number of ranks and when a run is
    taken up again. Rows with pretrained vectors start from these. The first epoch has the tables a run begins with.
    """
    if run.spec.train.tables == "keep" or run.epoch == 1 or run.batch:
        return
    for part in run.fit.ranker.stored_tables().parts():
        draw(part, run.spec.seed, epoch=run.epoch)
        for state in part.states.values():
            state.zero_()
    pretrained_vectors.fill(run, start.base)
