"""`multigate doctor`: library versions against the package metadata, devices, free memory and disk.

A finding that is not `passed` keeps multigate from working and says what to install; one of level `warn` does not.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from pipelines.cli import installation
from rec.modules.fbgemm import INSTALL, conflict, missing, version_of

DISK = 5 * 2**30  # bytes: the largest run of the README, with room to spare
MEMORY = 2 * 2**30  # bytes: the demo needs about one
EXTRAS = {
    "ray": "for `--engine ray` of `multigate features` and `multigate score`",
    "sql": "for logs in DuckDB and SQLite",
    "watch": "for TensorBoard files of a training",
    "mlflow": "for an MLflow run of a training",
    "dev": "for the tests and checks of a checkout",
}


def examine() -> list[dict[str, Any]]:
    """Findings as `check` prints them: required libraries first, optional ones last."""
    extra = installation.extra_in_use()
    return [
        python(),
        *libraries(extra),
        fbgemm(),
        onnxruntime(),
        torch_devices(),
        machine(),
        disk(),
        caches(),
        *(optional(name, purpose) for name, purpose in EXTRAS.items()),
    ]


def finding(name: str, text: str, *, passed: bool = True, warn: bool = False) -> dict[str, Any]:
    """A finding; `warn` marks what works but deserves attention."""
    level = {"level": "warn"} if warn else {}
    return {
        "name": name,
        "passed": passed,
        "count": int(warn or not passed),
        "total": 1,
        "examples": [],
        "text": text,
        **level,
    }


def python() -> dict[str, Any]:
    """The interpreter against the range of the metadata, and the platform."""
    version, required = platform.python_version(), metadata.metadata(installation.NAME)["Requires-Python"] or ""
    if SpecifierSet(required).contains(version, prereleases=True):
        return finding("python", f"{version} ({required}) on {platform.platform()}")
    return finding("python", f"expected {required}, got {version}", passed=False)


def libraries(extra: str) -> list[dict[str, Any]]:
    """One finding per required library, on every machine or of the extra `cpu` or `cuda`."""
    requirements = [*installation.requirements(), *installation.requirements(extra)]
    if not requirements:
        text = "its metadata names no dependency; `pip install .` in a checkout writes it anew"
        return [finding(installation.NAME, text, passed=False)]
    return [library(requirement) for requirement in requirements]


def library(requirement: Requirement) -> dict[str, Any]:
    """The installed version of a library against its range, and against the version that is tested."""
    name, version = requirement.name, version_of(requirement.name)
    required = installation.ranged(requirement.specifier)
    if installation.unmet([requirement]):
        way = INSTALL if name.startswith(("fbgemm", "torchrec")) else f"`pip install '{name}{required}'` installs it"
        return finding(name, f"expected {required}, got {version or 'nothing'}; {way}", passed=False)
    tested = installation.tested(requirement.specifier)
    if Version(str(version)).public == Version(tested).public:
        return finding(name, f"{version}, the tested version ({required})")
    return finding(name, f"{version} is in the range {required}; {tested} is what is tested")


def fbgemm() -> dict[str, Any]:
    """Whether FBGEMM is the one build that fits torch, and can be loaded."""
    problem = conflict() or missing()
    if problem is None:
        try:
            importlib.import_module("rec.modules.torchrec")
        except Exception as error:  # noqa: BLE001  whatever it is, it is what the reader has to know
            problem = str(error)
    if problem:
        return finding("fbgemm and torch", problem, passed=False)
    name = "fbgemm-gpu-cpu" if version_of("fbgemm-gpu-cpu") else "fbgemm-gpu"
    return finding("fbgemm and torch", f"{name} {version_of(name)} fits torch {version_of('torch')}")


def onnxruntime() -> dict[str, Any]:
    """Whether exactly one build of ONNX Runtime is installed, and its execution providers."""
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    name = "onnxruntime providers"
    if cpu and gpu:
        way = "`pip uninstall onnxruntime onnxruntime-gpu`, then install one of them"
        return finding(name, f"onnxruntime {cpu} and onnxruntime-gpu {gpu} write the same folder: {way}", passed=False)
    try:
        import onnxruntime as ort
    except ImportError as error:
        return finding(name, f"onnxruntime cannot be imported: {error}; {INSTALL}", passed=False)
    providers = ort.get_available_providers()
    if gpu and "CUDAExecutionProvider" not in providers:
        return finding(name, f"{', '.join(providers)}; no CUDA, though onnxruntime-gpu {gpu} is installed", warn=True)
    return finding(name, ", ".join(providers))


def torch_devices() -> dict[str, Any]:
    """CUDA devices with their memory, or why there are none."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return finding("torch devices", f"torch cannot be imported: {error}; {INSTALL}", passed=False)
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        shown = (f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
        return finding("torch devices", f"{', '.join(shown)}; CUDA {torch.version.cuda}")
    why = "this torch was built without CUDA" if torch.version.cuda is None else "the driver shows no CUDA device"
    return finding("torch devices", f"cpu; {why}")


def machine() -> dict[str, Any]:
    """Cores this process may use, and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total, free = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    text = f"{cores} of {os.cpu_count()} cores, {total / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB unused"
    if total < MEMORY:
        return finding("machine", f"{text}; the demo needs {MEMORY / 2**30:.0f} GiB", warn=True)
    return finding("machine", text)


def disk() -> dict[str, Any]:
    """Free disk space of the working folder, where results are written."""
    return _room("disk", Path.cwd(), "another disk, or --out on one")


def caches() -> dict[str, Any]:
    """The folder of temporary files: `check` builds session tables there."""
    return _room("temporary files", Path(tempfile.gettempdir()), "TMPDIR names another folder")


def _room(name: str, folder: Path, way: str) -> dict[str, Any]:
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free / 2**30:.0f} GiB free"
    if free >= DISK:
        return finding(name, text)
    return finding(name, f"{text}; {DISK / 2**30:.0f} GiB are enough for every example: {way}", warn=True)


def optional(extra: str, purpose: str) -> dict[str, Any]:
    """Whether an optional extra is installed, and how to add it."""
    absent = installation.unmet(installation.requirements(extra))
    if not absent:
        return finding(f"extra {extra}", f"installed, {purpose}")
    names = ", ".join(requirement.name for requirement in absent)
    return finding(f"extra {extra}", f"not installed ({names}), {purpose}; {installation.how_to_add(extra)}")
