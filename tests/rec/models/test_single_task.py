"""Single-task models side by side: nothing shared above the tables, or, with tables of their own, nothing at all."""

from __future__ import annotations

import pytest
import torch

from rec import models, ranker
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.spec import parse
from tests import strategies
from tests.rec.models import by_hand, family, unpacked

CPU = torch.device("cpu")
SPEC = """
name = "own"
[context]
user = { kind = "id", dim = 4 }
seen = { kind = "ids", table = "item" }
[candidates]
item = { kind = "id", dim = 8 }
price = { kind = "number" }
[tasks.a]
label = "a"
[tasks.b]
label = "b"
[model]
name = "single_task"
bottom_widths = [17, 13]
"""
ROWS = [
    {
        "request_id": str(r),
        "time": r,
        "context": {"user": 1 + r, "seen": [1, 2]},
        "candidates": [{"item": i, "price": 0.5 * i, "a": i % 2, "b": 1 - i % 2} for i in range(1, 5)],
    }
    for r in range(3)
]


def test_single_task_is_its_equations():
    """Against a loop over candidates and tasks."""
    family.agrees("single_task", bottom_widths=[5, 4])


@pytest.mark.parametrize(("context", "candidate"), [(3, 2), (0, 2), (3, 0), (0, 0)])
def test_with_own_tables_it_is_its_equations(context, candidate):
    """Each task reads the columns of its own embeddings; either side may be without any."""
    given = unpacked.inputs_by_formula(context=context, candidate=candidate, copies=3)
    model = by_hand.body("single_task", context=context, candidate=candidate, bottom_widths=[5, 4], tables="own")
    if context + candidate:
        by_hand.close(model, family.twin("single_task", model, given), *given)
    assert model(*given).shape == (3, 3, 4)


def test_single_task_gives_the_numbers_it_always_gave():
    """Golden values, of both variants."""
    shared = [
        [[1.13659, 1.635075, 0], [0, 0, 0], [0, 0, 0]],
        [[2.341642, 1.512195, 0], [0.102887, 0, 0], [0, 0, 0.382568]],
    ]
    own = [
        [[0, 0.159751, 1.01666], [0, 0.090041, 0.784367], [0, 0, 0.794337]],
        [[0.564773, 0.257355, 0], [1.006851, 0, 0], [0.041577, 0, 0]],
    ]
    family.golden("single_task", shared, bottom_widths=[8, 3])
    family.golden("single_task", own, bottom_widths=[8, 3], tables="own", copies=2)


@pytest.mark.parametrize("tables", ["shared", "own"])
def test_of_one_task_it_is_shared_bottom(tables):
    """With one task there is nobody to share with, and own tables have no leading axis."""
    alone = {"click": None}
    single = by_hand.body("single_task", tasks=alone, bottom_widths=[6, 5], tables=tables)
    plain = by_hand.body("shared_bottom", tasks=alone, bottom_widths=[6, 5])
    plain.load_state_dict({name.replace("bottoms.", "bottom."): p for name, p in single.state_dict().items()})
    given = by_hand.inputs()
    assert torch.equal(single(*given), plain(*given))


def test_every_id_has_an_embedding_per_task_where_tables_are_their_own():
    """And one otherwise, or where there is one task."""
    for tables, tasks, copies in (("shared", 3, 1), ("own", 3, 3), ("own", 1, 1)):
        config = models.configured({"name": "single_task", "tables": tables})
        assert config.copies(dict.fromkeys(map(str, range(tasks)))) == copies


def test_another_kind_of_table_is_refused():
    """The message names both kinds."""
    with pytest.raises(SpecError, match=r"model\.tables: expected 'shared' or 'own', got 'owned'; did you mean 'own'"):
        by_hand.body("single_task", tables="owned")


def test_no_task_pulls_at_what_another_reads():
    """The gradient of one task's output is exactly 0 on the embeddings and the layers of the others."""
    context, candidate, owner = unpacked.inputs_by_formula(copies=3)
    model = by_hand.body("single_task", bottom_widths=[17, 13], tables="own", activation="swish")
    for task in range(3):
        sides = [side.clone().requires_grad_() for side in (context, candidate)]
        out = model(*sides, owner)[task].square().sum()
        grads = torch.autograd.grad(out, [*sides, *model.parameters()])
        for grad in grads:
            assert grad[task].abs().sum() > 0
            assert grad[[other for other in range(3) if other != task]].abs().sum() == 0


@pytest.mark.parametrize("tables", ["own", "shared"])
def test_a_task_moves_only_its_own_part_of_a_table(tables):
    """Through TorchRec: after one backward pass of one task's loss; where tables are shared, all of a row moves."""
    spec = parse(SPEC + f'tables = "{tables}"')
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    before = {name: weight.clone() for name, weight in model.tables().items()}
    model.losses(tensors(strategies.batch(spec, ROWS), CPU))["b"].backward()
    for name, weight in model.tables().items():
        moved = (weight != before[name]).any(0)
        a, b = moved.chunk(2)
        assert len(moved) == spec.tables()[name].dim * (2 if tables == "own" else 1)
        assert b.all()
        assert a.any() == (tables == "shared")
