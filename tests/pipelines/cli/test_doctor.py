"""The doctor sees what is missing or does not fit, and says what to install; each finding is planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from pipelines.cli import doctor
from tests import ROOT
from tests.planted import plant


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function after which nothing but the given packages looks installed."""

    def look(**versions: str) -> None:
        named = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(sys, "path", [str(plant(tmp_path, named))])

    return look


def test_this_environment_is_well():
    """The environment the tests run in has what is needed, at the tested versions."""
    findings = doctor.examine()
    assert [finding for finding in findings if not finding["passed"]] == []
    assert [f["text"] for f in findings if "is what is tested" in f["text"]] == []


def test_a_tested_version_is_said():
    """What is installed, and the range it is in."""
    assert doctor.library(Requirement("click>=8.5.1,<9"))["text"] == "8.5.1, the tested version (>=8.5.1,<9)"


def test_a_version_in_the_range_that_is_not_tested_passes(installed):
    """It works as far as anybody knows; the tested one is named."""
    installed(polars="2.4.0")
    finding = doctor.library(Requirement("polars>=2.1.0,<3"))
    assert finding["passed"]
    assert finding["text"] == "2.4.0 is in the range >=2.1.0,<3; 2.1.0 is what is tested"


def test_a_version_out_of_the_range_is_named(installed):
    """What was expected, what is there, and the way out."""
    installed(polars="1.30.0")
    finding = doctor.library(Requirement("polars>=2.1.0,<3"))
    assert not finding["passed"]
    assert finding["text"] == "expected >=2.1.0,<3, got 1.30.0; `pip install 'polars>=2.1.0,<3'` installs it"


def test_a_missing_library_is_named(installed):
    """FBGEMM has a way out of its own, and so has TorchRec, which would bring the wrong one."""
    installed()
    assert (
        "expected >=1,<2, got nothing; `pip install 'onnx>=1,<2'`" in doctor.library(Requirement("onnx>=1,<2"))["text"]
    )
    torchrec = doctor.library(Requirement("torchrec>=1.8.0,<1.9"))["text"]
    assert torchrec.startswith("expected >=1.8.0,<1.9, got nothing; `pip install ./requirements/fbgemm-cpu")
    finding = doctor.library(Requirement("fbgemm-gpu==1.8.0+cpu"))
    assert finding["text"].startswith("expected ==1.8.0+cpu, got nothing; `pip install ./requirements/fbgemm-cpu")


def test_metadata_without_dependencies_is_refused(installed):
    """A checkout whose metadata is from before they were listed, or a copy that nobody installed."""
    installed(multigate="0.1.0")
    (finding,) = doctor.libraries("cpu")
    assert not finding["passed"]
    assert finding["text"] == "its metadata names no dependency; `pip install .` in a checkout writes it anew"


def test_another_python_is_refused(tmp_path, monkeypatch):
    """The range is that of the metadata."""
    folder = plant(tmp_path, {"multigate": "9"})
    about = folder / "multigate-9.dist-info" / "METADATA"
    about.write_text(about.read_text() + "Requires-Python: >=3.99\n")
    monkeypatch.setattr(sys, "path", [str(folder)])
    finding = doctor.python()
    assert not finding["passed"]
    assert finding["text"].startswith("expected >=3.99, got 3.")


def test_fbgemm_of_another_torch_fails(installed):
    """The sentence of the import (tests/rec/modules/test_fbgemm.py)."""
    installed(torch="2.13.0", fbgemm_gpu_cpu="1.9.0")
    finding = doctor.fbgemm()
    assert not finding["passed"]
    assert finding["text"].startswith("fbgemm-gpu-cpu 1.9.0 is built for torch 2.14, torch is 2.13.0: ")


def test_no_fbgemm_fails(installed):
    """PyTorch alone is not enough."""
    installed(torch="2.13.0")
    assert doctor.fbgemm()["text"].startswith("fbgemm not installed; `pip install ./requirements/fbgemm-cpu")


def test_both_builds_of_onnx_runtime_fail(installed):
    """They write the same folder."""
    installed(onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    finding = doctor.onnxruntime()
    assert not finding["passed"]
    assert finding["text"] == (
        "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 write the same folder: "
        "`pip uninstall onnxruntime onnxruntime-gpu`, then install one of them"
    )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="ONNX Runtime may have CUDA here")
def test_a_cuda_build_without_cuda_warns(installed):
    """ONNX Runtime would run on the CPU without a word."""
    installed(onnxruntime_gpu="1.31.1")
    finding = doctor.onnxruntime()
    assert (finding["passed"], finding["level"], finding["count"]) == (True, "warn", 1)
    assert finding["text"].endswith("CPUExecutionProvider; no CUDA, though onnxruntime-gpu 1.31.1 is installed")


def test_an_optional_extra_is_offered(installed):
    """What it is for, and the command that adds it to an installed multigate."""
    ray = doctor.installation.requirements("ray")
    installed()
    (name,) = [requirement.name for requirement in doctor.installation.unmet(ray)]
    assert name == "ray"


@pytest.mark.slow
def test_a_broken_installation_ends_in_another_exit_code(tmp_path):
    """0 only where everything that is needed is there."""
    path = f"{plant(tmp_path, {'polars': '1.0', 'ray': '1.0'})}{os.pathsep}{ROOT}"
    command = [sys.executable, "-m", "pipelines.cli", "doctor"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith(("PASS", "FAIL"))}
    assert done.returncode == 1
    assert lines["polars"].endswith("expected >=2.1.0,<3, got 1.0; `pip install 'polars>=2.1.0,<3'` installs it")
    assert "not installed (ray), for `--engine ray` of `multigate features` and `multigate score`; `pip" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("torch", "torch is not installed; `pip install ./requirements/fbgemm-cpu 'multigate[cpu]'`"),
        ("polars", "polars is not installed; `pip install 'polars>=2.1.0,<3'` installs it"),
    ],
)
def test_a_verb_without_its_library_says_what_to_install(module, sentence, data, tmp_path):
    """`pip install .` without an extra has no torch: a sentence and exit code 1, no traceback."""
    verb = ["train", str(ROOT / "specs/shop.toml"), "--data", str(data), "--out", str(tmp_path / "run")]
    if module == "polars":
        verb = ["features", str(ROOT / "specs/shop.toml"), "--out", str(tmp_path / "data")]
    code = f"import sys; sys.modules[{module!r}] = None; from pipelines.cli.main import main; main({verb!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"multigate: {sentence}")
    assert done.stderr.endswith("`multigate doctor` looks at all that is needed\n")
