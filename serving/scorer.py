"""One ONNX Runtime session behind batch scoring and serving: the same graph, the same feeds, the same scores.

B requests, N candidates
scorer.score(batch)                  {"click": [N], "buy": [N], "buy|click": [N]}
scorer.fused(scores)                 [N]  sum over tasks of value * P(task), or value * number
order(fused, batch.offsets())        [N]  candidates, best first inside each request
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
import onnxruntime as ort

from rec.data.session_table import to_batch
from rec.errors import BundleError
from rec.request import RequestBatch
from rec.spec.tasks import outputs, values
from serving.bundle import Bundle
from serving.graph.signature import OWNER, output_names

MOST_TOLERANCE = 1e-3  # of golden scores, whatever a manifest says
Device = Literal["cpu", "cuda"]
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


class NonFiniteError(BundleError):
    """The model returned NaN or infinity; the request is refused."""


# candidates of a run, about: on a CPU, what one layer hands to the next should stay in the caches of a core
_RUN: Mapping[Device, int] = {"cpu": 512, "cuda": 16_384}
_ATTENDING = 2048  # the same where every pair of them has a weight


class Scorer:
    """A bundle's graph, loaded once."""

    def __init__(self, bundle: Bundle, *, threads: int, device: Device = "cpu") -> None:
        """`threads` are ONNX Runtime's intra-op threads; requests run sequentially.

        Raises BundleError when the graph cannot be loaded, or CUDA was requested and is not available.
        """
        self.bundle = bundle
        self.outputs = outputs(bundle.spec.tasks)
        self._named = output_names(bundle.spec)
        self._values = values(bundle.spec)
        self.session = _session(bundle, threads, device)
        request = bundle.spec.model.get("request")
        attends = isinstance(request, Mapping) and request.get("self_attention", True)
        self._most = _ATTENDING if attends else _RUN[device]
        self._inputs = [value.name for value in self.session.get_inputs()]

    def score(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """Every output of every candidate, a probability or regression value, float32 [N]; N may be 0.

        Raises NonFiniteError rather than return NaN or infinity.
        """
        if batch.size == 1 or len(batch) <= self._most:
            return self.run(self.feeds(batch))
        parts = [self.run(self.feeds(part)) for part in batch.cut(_edges(batch.offsets(), self._most))]
        return {name: np.concatenate([scores[name] for scores in parts]) for name in self.outputs}

    def feeds(self, batch: RequestBatch) -> dict[str, np.ndarray]:
        """The batch under the names of the graph's inputs."""
        named = {f"context.{name}": value for name, value in batch.context.items()}
        named |= {f"candidates.{name}": value for name, value in batch.candidates.items()}
        named[OWNER] = batch.owner
        return {name: named[name] for name in self._inputs}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run of the graph; NonFiniteError for NaN or infinity."""
        scores = self.unchecked(feeds)
        for name, score_N in scores.items():
            if not np.isfinite(score_N).all():
                count = int((~np.isfinite(score_N)).sum())
                raise NonFiniteError(f"output {name}: {count} of {len(score_N)} scores are not finite")
        return scores

    def unchecked(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run of the graph, whatever comes out."""
        if not len(feeds[OWNER]):
            # a Reshape to -1 of nothing is an error in some graphs; there is nothing to compute either
            return {name: np.zeros(0, np.float32) for name in self.outputs}
        values = cast("list[np.ndarray]", self.session.run(self._named, feeds))
        return dict(zip(self.outputs, values, strict=True))

    def fused(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """The score candidates are ranked by, float64 [N]: sum over tasks of value * P(task), or value * number."""
        total_N = np.zeros(len(scores[self.outputs[0]]))
        for name, value in self._values.items():
            total_N += value * scores[name].astype(np.float64)
        return total_N


def _edges(offsets: np.ndarray, most: int) -> list[int]:
    """Where to cut requests so that each part has at most `most` candidates, or is one request.

    >>> _edges(np.array([0, 3, 5, 20, 21]), 10)
    [0, 2, 3, 4]
    """
    edges = [0]
    while edges[-1] < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[edges[-1]] + most, side="right")) - 1
        edges.append(max(edges[-1] + 1, stop))
    return edges


def order(fused_N: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Candidates by score inside each request, best first; equal scores keep the order of the request.

    >>> order(np.array([.1, .9, .9, .2, .3]), np.array([0, 3, 5]))
    array([1, 2, 0, 4, 3])
    """
    if len(offsets) == 2:  # one request: nothing to keep apart
        return np.argsort(-fused_N, kind="stable")
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.lexsort((-fused_N, owner))


def difference(expected_N: np.ndarray, actual_N: np.ndarray) -> float:
    """The largest difference of one output: absolute for expected values up to 1, relative above.

    >>> difference(np.array([0.5, 2000.0]), np.array([0.5, 2002.0]))
    0.001
    """
    with np.errstate(invalid="ignore"):  # of infinity: NaN, which is within no tolerance
        return float((np.abs(actual_N - expected_N) / np.maximum(1.0, np.abs(expected_N))).max(initial=0.0))


def check_golden(scorer: Scorer) -> float:
    """Score the bundle's golden requests; the largest `difference` from torch's scores.

    Raises BundleError when it is more than the manifest's tolerance.
    """
    bundle = scorer.bundle
    tolerance = bundle.manifest["parity"].get("tolerance", 1e-5)
    if not isinstance(tolerance, float) or not 0 <= tolerance <= MOST_TOLERANCE:
        raise BundleError(f"parity: tolerance: expected a number from 0 to {MOST_TOLERANCE:.0e}, got {tolerance!r}")
    if not len(bundle.golden_rows):
        raise BundleError("golden/requests.arrow: expected golden requests, got none")
    try:
        scores = scorer.score(to_batch(bundle.golden_rows, bundle.spec, bundle.preprocessor.encoders))
    except NonFiniteError:
        raise
    except Exception as error:  # noqa: BLE001  onnxruntime's own classes have no common base
        raise BundleError(f"golden requests cannot be scored: {error}") from None
    worst = 0.0
    for name, score_N in scores.items():
        expected_N = bundle.golden_scores[name].to_numpy(zero_copy_only=False)
        if len(expected_N) != len(score_N):
            raise BundleError(f"golden scores of {name}: expected {len(score_N)}, got {len(expected_N)}")
        apart = difference(expected_N, score_N)
        if not apart <= tolerance:
            raise BundleError(f"golden scores of {name}: differ by {apart:.2e}, at most {tolerance:.0e} is allowed")
        worst = max(worst, apart)
    return worst


def _session(bundle: Bundle, threads: int, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # a spinning pool burns a core after every request and slows whatever shares it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda" and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BundleError(
            f"device: expected cuda, got {', '.join(ort.get_available_providers())}; install onnxruntime-gpu"
        )
    try:
        # with its fallback, onnxruntime prints to stdout what it could not load, and tries the CPU
        session = ort.InferenceSession(str(bundle.model), options, providers=_PROVIDERS[device], enable_fallback=0)
    except Exception as error:  # noqa: BLE001  onnxruntime's own classes have no common base
        raise BundleError(
            f"{bundle.path}: model.onnx: onnxruntime cannot load it: {str(error) or type(error).__name__}"
        ) from None
    if session.get_providers()[0] != _PROVIDERS[device][0]:
        # onnxruntime falls back to the CPU with no more than a log line
        raise BundleError(f"device: expected {device}, got {', '.join(session.get_providers())}")
    return session
