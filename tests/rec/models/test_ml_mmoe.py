"""Multi-level MMoE, against its equations and the models it becomes."""

from __future__ import annotations

import pytest
import torch

from rec.errors import SpecError
from rec.modules.expert_groups import SHARED
from tests.rec.models import by_hand, family

TASKS = list(by_hand.TASKS)


@pytest.mark.parametrize("levels", [[[5, 4]], [[5], [4]], [[5, 4], [3], [6, 2]]])
def test_ml_mmoe_is_its_equations(levels):
    """Against a loop over candidates, levels, gates and experts."""
    family.agrees("ml_mmoe", experts=4, levels=levels)


def test_ml_mmoe_gives_the_numbers_it_always_gave():
    """Golden values."""
    click = [[0.679172, 0.212471], [0.178865, 0.412849], [0.225948, 0.381392]]
    buy = [[0.391898, 0.19734], [0.037778, 0.05643], [0.054278, 0.782405]]
    family.golden("ml_mmoe", [click, buy], experts=3, levels=[[4], [2]])


def test_ml_mmoe_of_one_level_is_mmoe():
    """With the same weights, exactly."""
    single = by_hand.body("ml_mmoe", experts=3, levels=[[5, 4]])
    plain = by_hand.body("mmoe", experts=3, expert_widths=[5, 4])
    plain.load_state_dict({name.replace("s.0.", "s.", 1): weight for name, weight in single.state_dict().items()})
    given = by_hand.inputs()
    assert torch.equal(single(*given), plain(*given))


def test_ml_mmoe_with_one_expert_is_shared_bottom():
    """Whose layers are those of all levels."""
    single = by_hand.body("ml_mmoe", experts=1, levels=[[6], [5], [4]])
    plain = by_hand.body("shared_bottom", bottom_widths=[6, 5, 4])
    with torch.no_grad():
        for mine, theirs in zip(plain.bottom.first.parameters(), single.experts[0].parameters(), strict=True):
            mine.copy_(theirs)
        for level, layer in enumerate(plain.bottom.rest, 1):
            for mine, theirs in zip(layer.parameters(), single.experts[level].parameters(), strict=True):
                mine.copy_(theirs)
    given = by_hand.inputs()
    torch.testing.assert_close(single(*given), plain(*given))


def test_a_level_has_a_gate_for_every_reader():
    """Experts of the next level, or at the last the tasks; all of them read the raw input."""
    model = by_hand.body("ml_mmoe", experts=4, levels=[[5], [4], [3]])
    assert [gates.rows for gates in model.gates] == [[SHARED] * 4, [SHARED] * 4, TASKS]
    assert [gates.owners for gates in model.gates] == [[SHARED] * 4] * 3
    assert all(gates.linear.context.shape[1] + gates.linear.candidate.shape[1] == 5 for gates in model.gates)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], r"model\.levels: expected at least 1 item, got \[\]"),
        ([[5], []], r"model\.levels\.1: expected at least 1 item, got \[\]"),
        ([[5], 4], r"model\.levels\.1: expected a valid list, got 4"),
        ([[5, 0]], r"model\.levels\.0\.1: expected greater than or equal to 1, got 0"),
    ],
)
def test_levels_that_cannot_be_built_are_refused(levels, message):
    """Where, what was expected, and what came."""
    with pytest.raises(SpecError, match=message):
        by_hand.body("ml_mmoe", levels=levels)
