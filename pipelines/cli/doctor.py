"""What is installed against what was pinned, what the machine has, and what to do where they differ."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[2] / "requirements"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)
DISK = 5 * 2**30  # bytes: an environment and the largest run of the README


def examine() -> list[dict[str, Any]]:
    """Findings as `check` prints them; `passed` is False where something has to be done."""
    return [
        _python(),
        *_packages(pins(_wanted())),
        _onnx_runtimes(),
        _imports(),
        _torch_device(),
        _onnx_device(),
        _machine(),
        _disk(),
    ]


def pins(which: str) -> dict[str, str]:
    """Names and versions in requirements/common.txt and in the set `which`, cpu or cuda; empty where they are not."""
    texts = [file.read_text() for name in ("common", which) if (file := PINS / f"{name}.txt").exists()]
    return dict(_PIN.findall("\n".join(texts)))


def _wanted() -> str:
    return "cuda" if _version("onnxruntime-gpu") else "cpu"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _finding(name: str, text: str, *, passed: bool = True) -> dict[str, Any]:
    return {"name": name, "passed": passed, "count": int(not passed), "total": 1, "examples": [], "text": text}


def _python() -> dict[str, Any]:
    enough = sys.version_info >= (3, 11)
    text = platform.python_version()
    return _finding("python", text if enough else f"{text}; 3.11 or newer is needed", passed=enough)


def _packages(wanted: dict[str, str]) -> list[dict[str, Any]]:
    """One finding for each package that is not the pinned one, or one for all of them."""
    differ = {name: _version(name) for name, version in wanted.items() if not _same(_version(name), version)}
    if not differ:
        return [_finding("packages", f"{len(wanted)} as pinned")]
    return [
        _finding(name, f"expected {wanted[name]}, got {found or 'nothing'}; `make setup` installs it", passed=False)
        for name, found in differ.items()
    ]


def _same(found: str | None, wanted: str) -> bool:
    """Whether versions agree; torch says after a plus which build it is."""
    return found is not None and found.partition("+")[0] == wanted.partition("+")[0]


def _onnx_runtimes() -> dict[str, Any]:
    both = _version("onnxruntime") and _version("onnxruntime-gpu")
    if both:
        text = "onnxruntime and onnxruntime-gpu write the same folder; remove .venv and install one set of pins"
        return _finding("onnxruntime", text, passed=False)
    return _finding("onnxruntime", "one build only")


def _imports() -> dict[str, Any]:
    try:
        import fbgemm_gpu  # noqa: F401  its version must be the one torch was built with, and only an import tells
    except Exception as error:  # noqa: BLE001  whatever it is, it is what the reader has to know
        text = f"cannot be imported: {error}; fbgemm 1.8 belongs to torch 2.13"
        return _finding("fbgemm", text, passed=False)
    return _finding("fbgemm", "fits torch")


def _torch_device() -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        return _finding("torch device", f"cannot be imported: {error}; `make setup` installs it", passed=False)
    if torch.cuda.is_available():
        return _finding(
            "torch device", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        )
    why = "this torch was built without it" if torch.version.cuda is None else "the driver shows no device"
    return _finding("torch device", f"cpu; no CUDA: {why} (`make SET=cuda setup` takes the CUDA pins)")


def _onnx_device() -> dict[str, Any]:
    try:
        import onnxruntime
    except ImportError as error:
        return _finding("onnxruntime device", f"cannot be imported: {error}; `make setup` installs it", passed=False)
    return _finding("onnxruntime device", ", ".join(onnxruntime.get_available_providers()))


def _machine() -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return _finding("machine", f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB of memory, {platform.platform()}")


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free
    return _finding("disk", f"{free / 2**30:.0f} GiB free here", passed=free >= DISK)
