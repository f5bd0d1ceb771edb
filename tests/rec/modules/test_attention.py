"""Target attention: its equations, what padding and empty histories do to it, and what runs once per request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.laws import laws
from rec import models, ranker
from rec.data.loader import tensors
from rec.errors import SpecError
from rec.modules import attention
from rec.modules.attention import AttentionConfig, Din, MultiHead
from rec.modules.inputs import AttendedHistory
from rec.modules.layout import histories
from rec.spec import parse
from tests import strategies
from tests.rec.modules.products import drawn, owners, shaken
from tests.reference import attention as slow

KINDS = [
    {"kind": "din", "hidden": [5, 3]},
    {"kind": "din", "softmax": True},
    {"kind": "multihead", "heads": 3, "width": 4},
    {"kind": "multihead", "activation": "relu"},
]
CPU = torch.device("cpu")
some = settings(max_examples=40, deadline=None)


def created(settings, width):
    """A module of one of the kinds, its weights drawn from a fixed seed."""
    torch.manual_seed(1)
    return shaken(attention.create(AttentionConfig.model_validate(settings), width))


@st.composite
def pasts(draw):
    """(AttendedHistory, owner) of any shape, with empty histories and requests without candidates."""
    requests, owner = draw(owners())
    length, width, seed = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(0, 99))
    known = draw(
        st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=requests, max_size=requests)
    )
    steps = drawn(requests, length, width, seed=seed)
    return AttendedHistory(steps, torch.tensor(known), drawn(len(owner), width, seed=seed + 1)), owner


def arrays(past, owner):
    """What the twins take."""
    return past.steps.numpy(), past.known.numpy(), past.query.numpy(), owner.numpy()


@some
@given(drawn_past=pasts(), softmax=st.booleans(), hidden=st.sampled_from([[4], [5, 3]]))
def test_din_is_its_equations(drawn_past, softmax, hidden):
    """Against [t; s; t - s; t * s] put together for every candidate and step."""
    past, owner = drawn_past
    width = past.query.shape[1]
    module = shaken(Din(width, hidden, softmax=softmax))
    w_t, w_s, w_minus, w_times = (drawn(hidden[0], width, seed=i) for i in range(4))
    with torch.no_grad():
        module.candidate.weight.copy_(w_t + w_minus)
        module.step.weight.copy_(w_s - w_minus)
        module.product.weight.copy_(w_times)
        actual = module(past, owner)
    first = torch.cat([w_t, w_s, w_minus, w_times], 1).T.numpy(), module.candidate.bias.detach().numpy()
    rest = [(layer.weight.T.detach().numpy(), layer.bias.detach().numpy()) for layer in module.rest]
    np.testing.assert_allclose(actual, slow.din(*arrays(past, owner), [first, *rest], softmax=softmax), atol=1e-12)


@some
@given(drawn_past=pasts(), heads=st.integers(1, 3), head=st.integers(1, 4), relu=st.booleans())
def test_multihead_attention_is_its_equations(drawn_past, heads, head, relu):
    """Against a loop over candidates, heads and steps."""
    past, owner = drawn_past
    module = shaken(MultiHead(past.query.shape[1], heads=heads, head=head, relu=relu))
    weights = {name.split(".")[0]: p.T.detach().numpy() for name, p in module.named_parameters()}
    twin = slow.multihead(*arrays(past, owner), weights, heads=heads, relu=relu)
    with torch.no_grad():
        np.testing.assert_allclose(module(past, owner), twin, atol=1e-12)


@pytest.mark.parametrize("settings", KINDS, ids=str)
@some
@given(drawn_past=pasts(), other=st.sampled_from([0.0, 1e30, -3.0, np.nan, np.inf]))
def test_what_stands_in_padding_never_shows(settings, drawn_past, other):
    """Not even when it is no number: neither in the result nor in any gradient."""
    past, owner = drawn_past
    module = created(settings, past.query.shape[1])
    filled = AttendedHistory(torch.where(past.known.unsqueeze(-1), past.steps, other), past.known, past.query)
    expected, actual = module(past, owner), module(filled, owner)
    assert torch.equal(actual, expected)
    actual.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("settings", KINDS, ids=str)
@some
@given(drawn_past=pasts())
def test_an_empty_history_gives_exactly_nothing(settings, drawn_past):
    """No uniform weights over padding, no NaN; a candidate with a history gets something."""
    past, owner = drawn_past
    with torch.no_grad():
        actual = created(settings, past.query.shape[1])(past, owner)
    assert actual.shape == past.query.shape
    assert actual.isfinite().all()
    assert not actual[~past.known.any(1)[owner]].any()


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_planted_nan_is_seen_by_its_request_alone(settings):
    """A step that is there counts, in every candidate of its request and in no other."""
    past = AttendedHistory(drawn(2, 3, 4, seed=1), torch.ones(2, 3, dtype=torch.bool), drawn(3, 4, seed=2))
    past.steps[0, 1] = torch.nan
    with torch.no_grad():
        actual = created(settings, 4)(past, torch.tensor([0, 0, 1]))
    assert actual.isnan().all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_steps_have_no_order(settings):
    """Known steps permuted with their places leave the sum as it is."""
    past = AttendedHistory(drawn(1, 4, 3, seed=1), torch.tensor([[False, True, True, True]]), drawn(2, 3, seed=2))
    turned = AttendedHistory(past.steps.flip(1), past.known.flip(1), past.query)
    module, owner = created(settings, 3), torch.tensor([0, 0])
    torch.testing.assert_close(module(turned, owner), module(past, owner))


def test_softmax_of_din_gives_an_average():
    """The average of steps that are all the same is that step, however many there are."""
    step = drawn(1, 1, 3, seed=1)
    past = AttendedHistory(step.expand(1, 4, 3), torch.tensor([[False, True, True, True]]), drawn(1, 3, seed=2))
    with torch.no_grad():
        torch.testing.assert_close(created({"kind": "din", "softmax": True}, 3)(past, torch.tensor([0])), step[0])


@pytest.mark.parametrize(
    ("settings", "once", "each"),
    [
        (KINDS[0], {"step": (2, 3)}, {"candidate": (5,), "product": (5, 3)}),
        (KINDS[2], {"key": (2, 3), "value": (2, 3)}, {"query": (5,), "out": (5,)}),
    ],
    ids=["din", "multihead"],
)
def test_what_depends_on_a_step_alone_runs_once_per_request(settings, once, each):
    """Two requests, five candidates, three steps: rows counted at every layer."""
    rows = {}
    module = created(settings, 4)
    for name, layer in module.named_children():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda _, given, __, name=name: rows.update({name: tuple(given[0].shape[:-1])}))
    past = AttendedHistory(drawn(2, 3, 4, seed=1), torch.ones(2, 3, dtype=torch.bool), drawn(5, 4, seed=2))
    module(past, torch.tensor([0, 0, 0, 1, 1]))
    assert rows == once | each


SPEC = """
name = "shop"
[context]
u = { kind = "kept" }
seen = { kind = "ids", make = "history", task = "click", last = 3, table = "item" }
seen_tags = { kind = "ids", make = "history", task = "click", column = "tag", last = 3, table = "tag" }
asked = { kind = "ids", last = 2, table = "tag" }
[candidates]
item = { kind = "id", dim = 8 }
tag = { kind = "id", dim = 4 }
[tasks.click]
label = "click"
[keys]
user = "u"
time = "t"
[split]
column = "split"
"""
ROWS = [
    {
        "request_id": "r",
        "time": 0,
        "context": {"u": 1, "seen": [1, 2], "seen_tags": [3, None], "asked": seen},
        "candidates": [{"item": 1, "tag": 2, "click": 1}, {"item": 2, "tag": 9, "click": 0}],
    }
    for seen in ([1, 2], [])
]


def shop(settings):
    """The spec above with attention of one kind."""
    return parse(SPEC).model_copy(update={"model": {"expert_widths": [9], "attention": settings}})


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_ranker_looks_into_every_history(settings):
    """Items and tags of the same events are one history of wider steps, a list of its own another."""
    spec = shop(settings)
    assert [list(history.lists) for history in histories(spec)] == [["seen", "seen_tags"], ["asked"]]
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    below = model.interaction[0]
    assert len(below.attention) == 2
    assert (below.context, below.candidate) == (8 + 4 + 4, 8 + 4 + 12 + 4)
    batch = strategies.batch(spec, ROWS)
    laws.one_finite_logit_per_candidate_and_task(model, spec, batch)
    laws.a_request_scores_the_same_alone(model.eval(), batch)
    laws.every_weight_learns(model, spec, batch)


def test_a_candidate_is_told_what_its_history_says():
    """Two requests that differ in an attended list alone give the columns of attention two values, and no other."""
    spec = shop(KINDS[0])
    model = ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    inputs = model.embedding(tensors(strategies.batch(spec, ROWS), CPU))
    with torch.no_grad():
        _, candidate = model.interaction[0](inputs)
    first, second = candidate[0], candidate[2]
    assert torch.equal(first[:24], second[:24])
    assert first[24:].all()
    assert not second[24:].any()


def test_attention_without_a_history_is_refused():
    """With the line that would make one."""
    spec = parse(
        'name = "x"\n[context]\nseen = { kind = "ids" }\n[candidates]\nitem = { kind = "id" }\n'
        '[tasks.c]\nlabel = "c"\n[model]\nattention = { kind = "din" }'
    )
    with pytest.raises(SpecError) as caught:
        ranker.create(spec, strategies.preprocessor(spec), seed=1, device=CPU)
    assert str(caught.value) == (
        "model.attention: expected a list in [context] that shares a table with an id of [candidates], "
        'such as seen = { kind = "ids", table = "item" }; there is none'
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dim"}, "model.attention.kind: expected 'din' or 'multihead', got 'dim'; did you mean 'din'?"),
        ({}, "model.attention.kind: required, but not given"),
        ({"kind": "din", "heads": 2}, "model.attention: expected no 'heads' with kind 'din'"),
        ({"kind": "multihead", "softmax": True}, "model.attention: expected no 'softmax' with kind 'multihead'"),
        ({"kind": "din", "hiden": [2]}, "model.attention.hiden: unknown key; did you mean 'hidden'?"),
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(settings, message):
    """A setting of the other kind is not ignored."""
    with pytest.raises(SpecError) as caught:
        models.configured({"attention": settings})
    assert str(caught.value) == message
