"""The only import of TorchRec; where it fails, the error says what to install."""

from __future__ import annotations

import logging
import warnings

from rec.errors import InstallationError
from rec.modules.fbgemm import INSTALL, conflict, missing

if problem := conflict():
    raise InstallationError(problem)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # a notice about tracing that concerns no one here
        logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
        from fbgemm_gpu.split_embedding_configs import SparseType
        from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig
        from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
        from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor
except Exception as error:
    # a library built for another torch fails with OSError, RuntimeError or AttributeError, as the loader likes
    raise InstallationError(f"torchrec cannot be imported: {missing() or f'{error}; {INSTALL}'}") from error

__all__ = [
    "DataType",
    "EmbeddingBagConfig",
    "FusedEmbeddingBagCollection",
    "KeyedJaggedTensor",
    "KeyedTensor",
    "RowWiseAdagrad",
    "SparseType",
]
