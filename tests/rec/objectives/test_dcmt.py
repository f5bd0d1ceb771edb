"""DCMT, against its equations, and what its constraint is for."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rec.objectives import by_hand
from tests.reference import objectives as slow

PAIR = {"click": None, "buy": "click"}
CLICKS = by_hand.labelled(click=[1, 1, 0, 0, 0, 1], buy=[1, 0, 0, 0, 0, -1])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_dcmt_is_its_equations(data):
    """Any tree, any pattern of labels, weights that reach the clip and weights that do not."""
    parents = data.draw(st.sampled_from(by_hand.TREES))
    clip = data.draw(st.sampled_from([1.0, 3.0, 15.0]))
    tasks = by_hand.tasks_of(parents, weight=2.0)
    labels, x = data.draw(by_hand.patterns(parents)), by_hand.hidden(tasks)
    shares = {"lambda_global": 0.7, "lambda_conditional": 0.4, "lambda_constraint": 0.3}
    model = by_hand.objective("dcmt", tasks, clip=clip, **shares)
    actual, logits, known = model.losses(x, labels), by_hand.plain(model(x)), by_hand.plain(labels)
    counter, entire = by_hand.plain(model.counterfactual(x)), slow.esmm(logits, known, parents)
    causal = slow.dcmt(logits, known, parents, counter, clip=clip, constraint=0.3)
    for name, parent in parents.items():
        by_hand.close(actual[name], entire[name] * (1.0 if parent is None else 0.7))
        if parent is not None:
            by_hand.close(actual[f"{name} (dcmt)"], 2.0 * 0.4 * causal[name])
    assert len(actual) == len(parents) + len(causal)


def mirrored(*, constraint):
    """An objective whose counterfactual tower is its factual one turned around."""
    model = by_hand.objective("dcmt", by_hand.tasks_of(PAIR), lambda_constraint=constraint)
    with torch.no_grad():
        for mine, theirs in zip(model.twins.parameters(), model.heads.towers.parameters(), strict=True):
            mine.copy_(theirs[1:])
        for p in model.twins.towers.last.parameters():
            p.neg_()
    return model


def test_what_sums_to_one_has_no_penalty():
    """Neither rounding nor the weight of the constraint makes one, also where one of the two is all but 0."""
    x = by_hand.hidden(PAIR, scale=30.0)
    loose, tight = mirrored(constraint=0.0), mirrored(constraint=100.0)
    torch.testing.assert_close(tight(x)["buy"], -tight.counterfactual(x)["buy"])
    torch.testing.assert_close(tight.losses(x, CLICKS), loose.losses(x, CLICKS))


def test_a_fresh_counterfactual_starts_beside_one_minus_the_rate():
    """The base rates of the two towers sum to 1, so that the constraint begins with nothing to undo."""
    model = by_hand.objective("dcmt", by_hand.tasks_of(PAIR), rate=0.02)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    x = by_hand.hidden(PAIR)
    torch.testing.assert_close(model.counterfactual(x)["buy"].sigmoid(), torch.full((6,), 0.98))
    torch.testing.assert_close(model(x)["buy"].sigmoid(), torch.full((6,), 0.02))


def test_clicked_candidates_teach_the_factual_tower_and_unclicked_ones_the_other():
    """Without the constraint and the entire-space loss neither hears of the other's candidates."""
    tasks = by_hand.tasks_of(PAIR, parent_space={"buy"})
    model = by_hand.objective("dcmt", tasks, lambda_constraint=0.0)
    x = by_hand.hidden(tasks)
    factual, counter = model.heads.towers.last.weight, model.twins.towers.last.weight
    for labels, deaf in (
        (by_hand.labelled(click=[1] * 6, buy=[1, 0] * 3), counter),
        (by_hand.labelled(click=[0] * 6, buy=[0] * 6), factual),
    ):
        loss = model.losses(x, labels)["buy"]
        assert by_hand.pull(loss, deaf).abs().sum() == 0
        assert by_hand.pull(loss, {id(factual): counter, id(counter): factual}[id(deaf)]).abs().sum() > 0


def test_through_the_constraint_unclicked_candidates_teach_the_factual_tower():
    """The only way to them when there is no entire-space loss; the click tower is not taught by any of it."""
    tasks = by_hand.tasks_of(PAIR, parent_space={"buy"})
    x = by_hand.hidden(tasks)
    with_it = by_hand.objective("dcmt", tasks, lambda_constraint=1.0)
    loss = with_it.losses(x, by_hand.labelled(click=[0] * 6, buy=[0] * 6))["buy"]
    assert by_hand.pull(loss, with_it.heads.towers.last.weight)[1].abs().sum() > 0
    assert (by_hand.pull(loss, x)[0] == 0).all()


def test_the_counterfactual_tower_is_not_computed_for_a_score():
    """Broken weights in it do not show."""
    model = by_hand.objective("dcmt", by_hand.tasks_of(PAIR))
    with torch.no_grad():
        for p in model.twins.parameters():
            p.fill_(torch.nan)
    for value in model(by_hand.hidden(PAIR)).values():
        assert value.isfinite().all()
