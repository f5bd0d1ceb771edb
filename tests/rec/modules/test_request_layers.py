"""Request layers: against their equations, whatever the sizes of requests, with gradients; what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from rec import models
from rec.errors import SpecError
from rec.modules import request_layers
from rec.modules.request_layers import RequestConfig, RequestLayers
from tests.reference import request_layers as slow

SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 9]), min_size=1, max_size=6)
CONTEXT, CANDIDATE, WIDTH, HEADS = 3, 5, 6, 2


def drawn(sizes, seed=1):
    """Context [B, C], candidates [N, D] and owner [N] of requests of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    context = torch.randn(len(sizes), CONTEXT, generator=generator)
    return context, torch.randn(len(owner), CANDIDATE, generator=generator), owner


def fresh(summaries):
    """Layers whose weights are drawn from a seed."""
    torch.manual_seed(4)
    config = RequestConfig(width=WIDTH, heads=HEADS, summaries=summaries)
    return RequestLayers(config, context=CONTEXT, candidate=CANDIDATE)


@limits(deadline=None)
@given(SIZES, st.permutations(["mean", "max", "pooled"]), st.integers(0, 3))
def test_layers_are_their_equations(sizes, names, count):
    """Request by request, candidate by candidate; empty requests and single candidates too."""
    layers, (context, candidate, owner) = fresh(names[:count]), drawn(sizes)
    summary, attended = (x.detach().numpy() for x in layers(context, candidate, owner))
    token, project = layers.token, layers.project.weight.detach().numpy()
    weights = [p.detach().numpy() for p in (token.context, token.candidate, token.bias)]
    weight = None if layers.weight is None else layers.weight.weight[0].detach().numpy()
    for request in range(len(sizes)):
        own = (owner == request).numpy()
        seen = slow.token(context[request].numpy(), candidate[own].numpy(), weights)
        if count:
            np.testing.assert_allclose(summary[request], slow.summaries(names[:count], seen, weight), atol=1e-5)
        query, key, value = (x.reshape(-1, HEADS, WIDTH // HEADS) for x in np.split(seen @ project.T, 3, axis=1))
        expected = slow.attended(query, key, value).reshape(-1, WIDTH) @ layers.out.weight.detach().numpy().T
        np.testing.assert_allclose(attended[own], expected, atol=1e-5)
    assert summary.shape == (len(sizes), layers.context)
    assert attended.shape == (len(owner), layers.candidate)


def test_without_a_context_summaries_stand_beside_the_candidate():
    """However many empty requests there are, which a graph without a context cannot know of."""
    torch.manual_seed(4)
    layers = RequestLayers(RequestConfig(width=WIDTH), context=0, candidate=CANDIDATE)
    candidate, owner = drawn([2, 0, 3, 0])[1:]
    context, columns = layers(torch.zeros(4, 0), candidate, owner)
    assert (context.shape, columns.shape) == ((4, 0), (5, 4 * WIDTH))
    for rows in (slice(0, 2), slice(2, 5)):
        few = layers(torch.zeros(1, 0), candidate[rows], torch.zeros(rows.stop - rows.start, dtype=torch.int64))[1]
        torch.testing.assert_close(few, columns[rows])


@limits(deadline=None)
@given(SIZES)
def test_attention_by_size_is_attention_over_all_pairs_with_a_mask(sizes):
    """What training runs and what is exported: values and gradients; without a mask where a request is alone."""
    owner, results = drawn(sizes)[2], []

    def by_size(projected):
        query, key, value = projected.unflatten(1, (3, HEADS, -1)).unbind(1)
        return request_layers.attended(query, key, value, owner, len(sizes)).flatten(1)

    ways = [by_size, lambda projected: request_layers.attended_together(projected, owner, HEADS)]
    if len(set(owner.tolist())) == 1:
        ways.append(lambda projected: request_layers.attended_alone(projected, HEADS))
    for way in ways:
        projected = torch.randn(len(owner), 3 * WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()
        out = way(projected)
        (out * torch.arange(1.0, out.numel() + 1).view(out.shape) + 0 * projected.sum()).sum().backward()
        results.append((out.detach(), projected.grad))
    for other in results[1:] if len(owner) else ():
        for mine, its in zip(results[0], other, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Request layers with self-attention alone, and their exported graph."""
    layers, path = fresh([]).eval(), tmp_path_factory.mktemp("graph") / "layers.onnx"
    rows = {0: torch.export.Dim("N", min=0)}
    shapes = ({0: torch.export.Dim("B", min=1)}, rows, rows)
    torch.onnx.export(layers, drawn([2, 3]), path, dynamo=True, opset_version=20, dynamic_shapes=shapes, verbose=False)
    return layers, path


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("sizes", [[7], [1], [3, 4], [0, 5], [2, 0, 3, 1], [5, 0]])
def test_a_graph_attends_as_training_does(graph, sizes):
    """One request alone, several, and empty ones before or after."""
    layers, path = graph
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = drawn(sizes)
    values = zip(session.get_inputs(), inputs, strict=False)
    outputs = session.run(None, {value.name: tensor.numpy() for value, tensor in values})
    np.testing.assert_allclose(np.asarray(outputs[-1]), layers(*inputs)[1].detach().numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_request_alone_pays_for_no_mask(graph):
    """In one branch of the graph nothing is compared; in the other, where there are several requests, it is."""
    nodes = onnx.load(graph[1], load_external_data=False).graph.node
    branches = [
        [node.op_type for node in branch.g.node] for node in nodes for branch in node.attribute if branch.HasField("g")
    ]
    assert sorted(("Abs" in branch, branch.count("MatMul"), branch.count("Softmax")) for branch in branches) == [
        (False, 2, 1),
        (True, 2, 1),
    ]


def test_a_large_request_does_not_pad_the_small_ones(monkeypatch):
    """Two and three candidates beside 500: at most four times the pairs there are, in three products."""
    pairs = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(query, key, value, **named):
        pairs.append(query.shape[0] * query.shape[2] * key.shape[2])
        return attend(query, key, value, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    sizes = [2] * 1000 + [500] + [3] * 1000
    query, key, value = (torch.randn(sum(sizes), 1, 4) for _ in range(3))
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    request_layers.attended(query, key, value, owner, len(sizes))
    assert sum(pairs) <= 4 * sum(size**2 for size in sizes)
    assert len(pairs) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 32, "heads": 3}, r"model\.request: .*expected 'width' to be a multiple of 'heads', got 32 and 3"),
        ({"summaries": [], "self_attention": False}, r"model\.request: .*expected 'summaries' or 'self_attention'"),
        ({"summaries": ["max", "max"]}, r"model\.request: .*expected each of 'summaries' once"),
        ({"summaries": ["median"]}, r"model\.request\.summaries"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings, message):
    """In words of the spec."""
    with pytest.raises(SpecError, match=message):
        models.configured({"name": "mmoe", "request": settings})
