"""Checkpoints: safetensors and JSON, written whole or not at all, readable with neither TorchRec nor a GPU.

    MODEL/checkpoint/last/    weights.safetensors  optimizer.safetensors  state.json     after every epoch
    MODEL/checkpoint/best/    weights.safetensors  state.json                            the epoch validation liked most

Weights go by names that do not depend on how tables are held (rec/ranker.py, `weights_of`). No pickle on any path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rec.atomic import inventory, read_json, verify, whole_folder, write_json
from rec.errors import BundleError
from rec.ranker import Ranker, weights_of


def save(folder: Path, state: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write `state.json` and one safetensors file per entry of `tensors`, with a manifest of checksums."""
    with whole_folder(folder) as beside:
        for name, values in tensors.items():
            save_file(
                {key: value.detach().cpu().contiguous().clone() for key, value in values.items()},
                beside / f"{name}.safetensors",
            )
        write_json(beside / "state.json", dict(state))
        write_json(beside / "manifest.json", {"format": 1, "files": inventory(beside)})


def state(folder: Path) -> dict[str, Any]:
    """The verified `state.json` of a checkpoint; BundleError when any of its files is missing or changed."""
    verify(folder, read_json(folder / "manifest.json")["files"])
    return read_json(folder / "state.json")


def tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """One safetensors file of a checkpoint."""
    try:
        return load_file(folder / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{folder / name}.safetensors: cannot be read: {error}") from None


def load_weights(ranker: Ranker, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a ranker in place; BundleError names what is missing, extra, or of another shape."""
    mine = weights_of(ranker)
    for name in sorted(set(mine) ^ set(weights)):
        raise BundleError(
            f"weights: {name} is {'missing from the checkpoint' if name in mine else 'not in this model'}"
        )
    with torch.no_grad():
        for name, weight in mine.items():
            if weight.shape != weights[name].shape:
                raise BundleError(f"weights: {name}: expected {list(weight.shape)}, got {list(weights[name].shape)}")
            weight.copy_(weights[name])


def optimizer_tensors(ranker: Ranker, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The whole optimizer: AdamW's moments and step by parameter name, Adagrad's accumulators by table."""
    out = {f"adagrad.{name}": value for name, value in ranker.fused().accumulators().items()}
    for name, parameter in ranker.dense().items():
        for key, value in optimizer.state[parameter].items():
            out[f"adamw.{key}.{name}"] = value
    return out


def load_optimizer(ranker: Ranker, optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    for name, accumulator in ranker.fused().accumulators().items():
        accumulator.copy_(saved[f"adagrad.{name}"])
    for name, parameter in ranker.dense().items():
        optimizer.state[parameter] = {
            key: saved[f"adamw.{key}.{name}"].to("cpu" if key == "step" else parameter.device)
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
