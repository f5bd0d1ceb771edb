"""Polars is told to keep memory before it is imported, unless the user told it something else."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys

import pytest

from rec.memory import keep_polars_memory, uncollected

IMPORTED = "import sys, pipelines.cli.main; print(any(name in sys.modules for name in ('polars', 'pyarrow', 'numpy')))"


@pytest.mark.skipif(sys.platform != "linux", reason="polars has another allocator there")
def test_what_the_user_set_stays(monkeypatch):
    """The allocator's own variable wins."""
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "")
    monkeypatch.delenv("_RJEM_MALLOC_CONF")
    keep_polars_memory()
    assert "muzzy_decay_ms:5000" in os.environ["_RJEM_MALLOC_CONF"]
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "narenas:1")
    keep_polars_memory()
    assert os.environ["_RJEM_MALLOC_CONF"] == "narenas:1"


def test_the_command_line_imports_nothing_heavy_before():
    """Or it would be too late to tell, and `--help` would be slow."""
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_nothing_is_collected_while_modules_are_imported():
    """Afterwards as before, whether it was on or off, and where an import fails."""
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), uncollected():
        importlib.import_module("no_such_module")
    assert gc.isenabled()
