from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.errors import BundleError
from rec.request import RequestBatch, concat
from serving.bundle import load
from serving.graph.signature import OWNER
from serving.scorer import NonFiniteError, Scorer, check_golden, difference, order
from tests.serving.conftest import signed


def test_golden_scores_agree(scorer):
    """What torch gave at export is what ONNX Runtime gives now."""
    assert check_golden(scorer) <= 1e-5


def test_a_golden_score_that_moved_is_refused(opened):
    """A bundle whose scores are not what it says is not served."""
    moved = {name: pa.array(score.to_numpy() + 0.01) for name, score in opened.golden_scores.items()}
    spoilt = replace(opened, golden_scores=moved)
    with pytest.raises(BundleError, match=r"golden scores of click: differ by 1\.00e-02, at most 1e-05 is allowed"):
        check_golden(Scorer(spoilt, threads=1))


def test_differences_are_absolute_up_to_one_and_relative_above():
    """A probability to 1e-5, and a thousand seconds to a hundredth."""
    assert difference(np.array([0.5, 0.0]), np.array([0.25, 0.125])) == 0.25
    assert difference(np.array([1000.0, 0.5]), np.array([1010.0, 0.5])) == pytest.approx(0.01)
    assert difference(np.array([-1000.0]), np.array([-990.0])) == pytest.approx(0.01)
    assert difference(np.zeros(0), np.zeros(0)) == 0.0
    assert np.isnan(difference(np.array([1.0]), np.array([np.nan])))
    assert np.isnan(difference(np.array([np.inf]), np.array([np.inf])))


def test_a_graph_that_cannot_be_loaded_is_refused_in_silence(opened, tmp_path, capsys):
    """Where onnxruntime would try again and print to stdout, which may be somebody's JSON."""
    model = tmp_path / "model.onnx"
    model.write_bytes(opened.model.read_bytes().replace(b"MatMul", b"Mat\xbful"))
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it: ('utf-8' codec|[A-Za-z]*Error$)"):
        Scorer(replace(opened, model=model), threads=1)
    assert capsys.readouterr().out == ""


def test_golden_scores_of_other_requests_are_refused(opened):
    """As many scores as candidates, or they are of something else."""
    fewer = {name: score.slice(1) for name, score in opened.golden_scores.items()}
    with pytest.raises(BundleError, match=r"golden scores of click: expected \d+, got \d+"):
        check_golden(Scorer(replace(opened, golden_scores=fewer), threads=1))


def test_a_request_scores_the_same_alone(scorer, batch):
    """Neighbours in the batch do not change a score."""
    together = {name: batch.split(score) for name, score in scorer.score(batch).items()}
    for index in range(batch.size):
        alone = scorer.score(batch.request(index))
        for name, score in alone.items():
            np.testing.assert_allclose(score, together[name][index], atol=1e-6)


class RunSizes(Scorer):
    """Notes how many candidates every run of the model has."""

    def __init__(self, bundle, *, threads):
        """None yet."""
        super().__init__(bundle, threads=threads)
        self.sizes = []

    def run(self, feeds):
        """One more."""
        self.sizes.append(len(feeds[OWNER]))
        return super().run(feeds)


def test_many_requests_are_run_in_pieces_that_fit_a_cache(opened, batch):
    """At most 512 candidates a run, whole requests, and the scores of one run; one large request stays whole."""
    scorer = RunSizes(opened, threads=1)
    many = concat([batch] * 10)
    together = scorer.run(scorer.feeds(many))
    scorer.sizes.clear()
    for name, score in scorer.score(many).items():
        np.testing.assert_allclose(score, together[name], atol=1e-6)
    assert sum(scorer.sizes) == len(many) > 1024
    assert max(scorer.sizes) <= 512
    assert min(scorer.sizes[:-1]) > 512 - np.diff(many.offsets()).max()
    large = replace(many, size=1, context={n: v[:1] for n, v in many.context.items()}, owner=np.zeros_like(many.owner))
    scorer.sizes.clear()
    scorer.score(large)
    assert scorer.sizes == [len(many)]


def test_outputs_are_probabilities_by_name(scorer, batch):
    """One for every task and one for every child given its parent; a child is never likelier than its parent."""
    scores = scorer.score(batch)
    assert list(scores) == ["click", "buy", "buy|click"]
    assert all(score.shape == (len(batch),) and score.dtype == np.float32 for score in scores.values())
    np.testing.assert_allclose(scores["buy"], scores["click"] * scores["buy|click"], rtol=1e-5)


def test_no_candidates_give_no_scores(scorer, batch):
    """A request may be empty, and so may all of them."""
    empty = RequestBatch(
        1,
        {name: value[:1] for name, value in batch.context.items()},
        {name: value[:0] for name, value in batch.candidates.items()},
        batch.owner[:0],
    )
    assert {len(score) for score in scorer.score(empty).values()} == {0}
    assert len(scorer.fused(scorer.score(empty))) == 0


def test_the_fused_score_weighs_events_by_their_value(scorer):
    """The sum over tasks of value * P(task); a conditional probability is no event."""
    scores = {name: np.array([p], np.float32) for name, p in (("click", 0.5), ("buy", 0.25), ("buy|click", 0.5))}
    assert scorer.fused(scores).tolist() == [0.5 + 5.0 * 0.25]


def test_nothing_that_is_not_finite_is_returned(spoilt, batch):
    """A model with a NaN in a weight answers nothing, rather than NaN."""
    model = onnx.load(str(spoilt / "model.onnx"))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(model, str(spoilt / "model.onnx"))
    (spoilt / "model.onnx.data").unlink(missing_ok=True)
    broken = Scorer(load(signed(spoilt)), threads=1)
    with pytest.raises(NonFiniteError, match=rf"output click: {len(batch)} of {len(batch)} scores are not finite"):
        broken.score(batch)


def test_cuda_is_not_replaced_by_the_cpu_in_silence(opened):
    """Whoever asks for CUDA gets it or an error."""
    if "CUDAExecutionProvider" in onnxruntime_providers():
        pytest.skip("CUDA is there")
    with pytest.raises(
        BundleError, match=r"device: expected cuda, got .*CPUExecutionProvider; install onnxruntime-gpu"
    ):
        Scorer(opened, threads=1, device="cuda")


def onnxruntime_providers() -> list[str]:
    import onnxruntime

    return onnxruntime.get_available_providers()


def test_a_graph_that_onnxruntime_refuses_is_a_bundle_error(opened, tmp_path):
    """Not an exception of onnxruntime's own."""
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        Scorer(replace(opened, model=tmp_path / "model.onnx"), threads=1)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=6), min_size=1, max_size=5))
def test_order_is_by_score_then_position(requests):
    """Best first inside each request; equal scores keep the order of the request."""
    fused = np.array([score for request in requests for score in request])
    offsets = np.cumsum([0, *map(len, requests)])
    slow = [
        start + index
        for start, request in zip(offsets, requests, strict=False)
        for index in sorted(range(len(request)), key=lambda i, r=request: (-r[i], i))
    ]
    assert order(fused, offsets).tolist() == slow


@pytest.mark.parametrize("tolerance", [1e9, float("inf"), -1.0, "much", None, 0.1])
def test_a_manifests_own_tolerance_is_not_believed(opened, tolerance):
    """A manifest cannot say that anything goes."""
    parity = {**opened.manifest["parity"], "tolerance": tolerance}
    lenient = replace(opened, manifest={**opened.manifest, "parity": parity})
    with pytest.raises(BundleError, match="parity: tolerance: expected a number from 0 to 1e-03, got"):
        check_golden(Scorer(lenient, threads=1))


def test_a_bundle_without_golden_requests_is_refused(opened):
    """Nothing is checked by nothing."""
    empty = replace(opened, golden_rows=opened.golden_rows.slice(0, 0))
    with pytest.raises(BundleError, match="expected golden requests, got none"):
        check_golden(Scorer(empty, threads=1))
