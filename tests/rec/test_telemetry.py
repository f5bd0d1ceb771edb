"""No library reports its use to its makers, whichever module of ours loads it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rec.telemetry import VARIABLES

# a file that ONNX Runtime holds open for its reports
OPEN_FILES = (
    "import os, sys; import {module}; "
    "held = [os.path.realpath(f'/proc/self/fd/{{n}}') for n in os.listdir('/proc/self/fd')]; "
    "print([path for path in held if 'onnxruntime' in path and path.endswith('.db')], 'onnxruntime' in sys.modules)"
)


def reports(module: str, home, **extra: str) -> str:
    """What is open after the import of `module` in a process whose home is new and that is no CI."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    suppressed = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "BUILD_BUILDID", "JENKINS_URL", "GITLAB_CI")
    kept = {name: value for name, value in kept.items() if name not in suppressed}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **extra}
    script = [sys.executable, "-c", OPEN_FILES.format(module=module)]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc")
@pytest.mark.parametrize("module", ["serving.scorer", "serving.export", "pipelines.laws.laws"])
def test_onnx_runtime_keeps_no_file_for_reports(module, tmp_path):
    """Each door by which ONNX Runtime is loaded."""
    assert reports(module, tmp_path) == "[] True"
    assert [path.name for path in tmp_path.rglob("deviceid")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="open files are read from /proc")
def test_a_user_may_ask_for_reports(tmp_path):
    """What the environment says already is kept; this is also what the test above would see without the opt-out."""
    assert "onnxruntime.db" in reports("serving.scorer", tmp_path, ORT_DISABLE_TELEMETRY="0")
