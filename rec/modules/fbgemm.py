"""Which FBGEMM belongs to which PyTorch, and what to install where they do not fit. Reads metadata, imports neither.

FBGEMM is compiled against one minor version of torch, which its metadata does not say; another one fails when it is
loaded. On a machine without CUDA the library is called `fbgemm-gpu-cpu`, and TorchRec asks for `fbgemm-gpu`: a package
of that name without code, version 1.8.0+cpu, stands in for it (requirements/fbgemm-cpu).
"""

from __future__ import annotations

from importlib import metadata

BUILT_FOR = {"1.6": "2.11", "1.7": "2.12", "1.8": "2.13", "1.9": "2.14"}  # fbgemm -> torch, minor versions
INSTALL = (
    "`pip install ./requirements/fbgemm-cpu 'multigate[cpu]'` in a checkout installs what fits without CUDA, "
    "`pip install 'multigate[cuda]'` with it"
)


def version_of(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing() -> str | None:
    """Which of torch and FBGEMM is not installed, as a sentence that says what to install; None where both are."""
    absent = [] if version_of("torch") else ["torch"]
    absent += [] if version_of("fbgemm-gpu-cpu") or _cuda_build() else ["fbgemm"]
    return f"{' and '.join(absent)} not installed; {INSTALL}" if absent else None


def conflict() -> str | None:
    """Why the installed FBGEMM does not fit torch, and what to install; None when no conflict is known."""
    torch, cpu, cuda = version_of("torch"), version_of("fbgemm-gpu-cpu"), _cuda_build()
    if cpu and cuda:
        return (
            f"fbgemm-gpu {cuda} (CUDA) and fbgemm-gpu-cpu {cpu} write the same folder: "
            f"`pip uninstall fbgemm-gpu fbgemm-gpu-cpu`, then {INSTALL}"
        )
    if torch is None or not (cpu or cuda):
        return None
    return _unpaired("fbgemm-gpu-cpu" if cpu else "fbgemm-gpu", str(cpu or cuda), torch)


def _cuda_build() -> str | None:
    """The version of fbgemm-gpu, unless it is the package without code that stands in for it."""
    version = version_of("fbgemm-gpu")
    return None if version is None or version.endswith("+cpu") else version


def _unpaired(name: str, version: str, torch: str) -> str | None:
    """A sentence where fbgemm is known to be built for another torch; None where it is not."""
    built_for, minor = BUILT_FOR.get(_minor(version)), _minor(torch)
    if built_for is None or built_for == minor:
        return None
    fitting = [fbgemm for fbgemm, torch_minor in BUILT_FOR.items() if torch_minor == minor]
    fbgemm = f" or `pip install '{name}=={fitting[0]}.*'`" if fitting else ""
    install = f"`pip install 'torch=={built_for}.*'`{fbgemm}"
    return f"{name} {version} is built for torch {built_for}, torch is {torch}: {install}"


def _minor(version: str) -> str:
    """The first two numbers of a version.

    >>> _minor("2.13.0+cpu")
    '2.13'
    """
    return ".".join(version.split(".")[:2])
