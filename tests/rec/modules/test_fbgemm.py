"""FBGEMM and torch that do not fit are told apart by their metadata, and refused where TorchRec is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rec.modules.fbgemm import INSTALL, conflict, missing
from tests import ROOT
from tests.planted import plant


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function after which nothing but the given packages looks installed."""

    def look(**versions: str) -> None:
        named = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(sys, "path", [str(plant(tmp_path, named))])

    return look


def test_what_belongs_together_is_no_conflict(installed):
    """FBGEMM 1.8 for CPUs, the package without code, and torch 2.13."""
    installed(torch="2.13.0+cpu", fbgemm_gpu="1.8.0+cpu", fbgemm_gpu_cpu="1.8.0")
    assert (conflict(), missing()) == (None, None)


def test_fbgemm_of_another_torch_is_named(installed):
    """The sentence has both ways out: another torch, or another fbgemm."""
    installed(torch="2.13.0", fbgemm_gpu_cpu="1.9.0")
    assert conflict() == (
        "fbgemm-gpu-cpu 1.9.0 is built for torch 2.14, torch is 2.13.0: `pip install 'torch==2.14.*'`"
        " or `pip install 'fbgemm-gpu-cpu==1.8.*'`"
    )


def test_a_torch_nobody_built_fbgemm_for_has_one_way_out(installed):
    """Of torch 2.9 no fbgemm is known."""
    installed(torch="2.9.1", fbgemm_gpu="1.8.0")
    assert conflict() == "fbgemm-gpu 1.8.0 is built for torch 2.13, torch is 2.9.1: `pip install 'torch==2.13.*'`"


def test_both_builds_of_fbgemm_are_named(installed):
    """They write the same folder, so neither can be trusted."""
    installed(torch="2.13.0", fbgemm_gpu="1.8.0", fbgemm_gpu_cpu="1.8.0")
    assert str(conflict()).startswith(
        "fbgemm-gpu 1.8.0 (CUDA) and fbgemm-gpu-cpu 1.8.0 write the same folder: "
        "`pip uninstall fbgemm-gpu fbgemm-gpu-cpu`, then `pip install ./requirements/fbgemm-cpu"
    )


def test_what_is_missing_is_named(installed):
    """Nothing but the package without code is installed."""
    installed(fbgemm_gpu="1.8.0+cpu")
    assert missing() == f"torch and fbgemm not installed; {INSTALL}"
    assert conflict() is None


@pytest.mark.slow
def test_torchrec_is_not_imported_where_fbgemm_does_not_fit(tmp_path):
    """The first import that needs TorchRec ends in the sentence, not in the loader's."""
    path = f"{plant(tmp_path, {'fbgemm-gpu-cpu': '1.9.0'})}{os.pathsep}{ROOT}"
    code = "import rec.modules.fused_tables"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rec.errors.InstallationError: fbgemm-gpu-cpu 1.9.0 is built for torch 2.14, torch is 2.13.")
