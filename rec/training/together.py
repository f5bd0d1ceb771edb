"""An output folder that rank 0 opens for all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from rec import world
from rec.output_folder import Origin, Overwrite, State, opened
from rec.progress import Progress

_STATES: tuple[State, ...] = ("new", "interrupted", "finished")
_REFUSED = len(_STATES)


@contextmanager
def opened_together(out: Path, origin: Origin, *, overwrite: Overwrite, progress: Progress) -> Iterator[State]:
    """As `rec.output_folder.opened`, on all ranks at once; OtherRankError on the others where rank 0 is refused."""
    if world.rank() > 0:
        yield _receive()
        return
    with ExitStack() as stack:
        try:
            state = stack.enter_context(opened(out, origin, overwrite=overwrite, progress=progress))
        except BaseException:
            _broadcast(_REFUSED)
            raise
        _broadcast(_STATES.index(state))
        yield state


def _broadcast(answer: int) -> None:
    if world.size() > 1:
        dist.broadcast(torch.tensor(answer), 0)


def _receive() -> State:
    answer = torch.tensor(0)
    dist.broadcast(answer, 0)
    if int(answer) == _REFUSED:
        raise world.OtherRankError("rank 0 cannot write the output folder")
    return _STATES[int(answer)]
