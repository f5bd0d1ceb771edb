"""Installed versions against those that multigate's metadata requires. Imports no heavy library."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rec.modules.fbgemm import INSTALL, version_of

NAME = "multigate"
# what an import is called where its package is called otherwise
_PACKAGES = {
    "fbgemm_gpu": "fbgemm",
    "google": "protobuf",
    "tomli_w": "tomli-w",
}
_ACCELERATED = ("torch", "torchrec", "fbgemm_gpu", "onnxruntime")  # what the extras cpu and cuda bring


def requirements(extra: str = "") -> list[Requirement]:
    """The requirements of every machine, or the additional ones of an extra."""
    everything = [Requirement(line) for line in metadata.requires(NAME) or ()]
    here = [
        requirement
        for requirement in everything
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]
    basic = {
        str(requirement)
        for requirement in everything
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    return [requirement for requirement in here if not extra or str(requirement) not in basic]


def extra_in_use() -> str:
    """`cuda` where a CUDA build of ONNX Runtime or FBGEMM is installed, else `cpu`."""
    fbgemm = version_of("fbgemm-gpu")
    cuda = fbgemm is not None and not fbgemm.endswith("+cpu")
    return "cuda" if cuda or version_of("onnxruntime-gpu") else "cpu"


def tested(specifier: SpecifierSet) -> str:
    """The tested version: the lower bound of a range, or the pinned version."""
    return next((bound.version for bound in specifier if bound.operator in (">=", "==")), "")


def ranged(specifier: SpecifierSet) -> str:
    """A range as people write it: the lower bound first.

    >>> ranged(SpecifierSet("<9,>=8.5.1"))
    '>=8.5.1,<9'
    """
    return ",".join(sorted(map(str, specifier), reverse=True))


def unmet(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Requirements that the installed packages do not meet."""
    return [
        requirement
        for requirement in requirements
        if (version := version_of(requirement.name)) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]


def explain(error: ModuleNotFoundError) -> str | None:
    """What to install for a missing module; None if it is not a requirement of multigate."""
    module = (error.name or "").partition(".")[0]
    name = _PACKAGES.get(module, module)
    ranges = [name + ranged(requirement.specifier) for requirement in requirements() if requirement.name == name]
    if module in _ACCELERATED:
        way = INSTALL
    elif ranges:
        way = f"`pip install '{ranges[0]}'` installs it"
    else:
        return None
    return f"{name} is not installed; {way}; `multigate doctor` looks at all that is needed"


def how_to_add(extra: str) -> str:
    """The command that brings an extra to an installed multigate."""
    return f"`pip install '{NAME}[{extra}]'` installs it"
