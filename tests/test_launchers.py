"""docs/launchers.md: manifests that Kubernetes accepts, and commands that Multigate understands."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys

import click
import kubernetes_validate
import pytest
import yaml
from torch.distributed.run import get_args_parser

from pipelines.cli.main import cli
from rec import spec as specs
from tests import ROOT

PAGE = (ROOT / "docs/launchers.md").read_text()
MANIFEST = ROOT / "docs/launchers/kubernetes.yaml"
OBJECTS = list(yaml.safe_load_all(MANIFEST.read_text()))
JOB = OBJECTS[1]["spec"]
COMMAND = JOB["template"]["spec"]["containers"][0]["command"]
COMMANDS = [COMMAND] + [
    shlex.split(text.replace("\\\n", " "))
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for text in re.findall(r"^torchrun (?:.*\\\n)*.*$", block, re.MULTILINE)
]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("described", OBJECTS, ids=[o["kind"] for o in OBJECTS])
def test_kubernetes_accepts_the_manifest(described, version):
    """By its own JSON schema, of an older and a newer version, without a key that it does not know."""
    kubernetes_validate.validate(described, version, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_caught():
    """Planted: a slip of the pen in the Job."""
    planted = {**OBJECTS[1], "spec": {**JOB, "paralelism": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(planted, "1.37", strict=True)


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_torchrun_and_train_understand_the_command(command):
    """Every torchrun of the page and of the manifest, parsed by torchrun and by Multigate."""
    asked = get_args_parser().parse_args(command[1:])
    assert (asked.module, asked.training_script) == (True, "pipelines.cli")
    verb, *words = asked.training_script_args
    assert verb == "train"
    _, train, words = cli.resolve_command(click.Context(cli), [verb, *words])
    assert train is not None
    train.make_context("train", words)


def test_as_many_pods_meet_as_the_job_starts():
    """Torchrun's machines are the Job's pods, its processes their GPUs, and the place to meet is the first pod."""
    asked = get_args_parser().parse_args(COMMAND[1:])
    pod = JOB["template"]["spec"]
    assert int(asked.nnodes) == JOB["completions"] == JOB["parallelism"]
    assert asked.nproc_per_node == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    service = OBJECTS[0]["metadata"]["name"]
    assert asked.rdzv_endpoint == f"{OBJECTS[1]['metadata']['name']}-0.{service}:29400"
    assert pod["subdomain"] == service


@pytest.mark.slow
def test_a_ray_cluster_trains_with_two_processes(spec, data, tmp_path):
    """A local cluster of one machine; the run is whole."""
    (tmp_path / "spec.toml").write_text(specs.dump(spec))
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    words = ["train", str(tmp_path / "spec.toml"), "--data", str(data), "--out", str(tmp_path / "model")]
    script = [sys.executable, "docs/launchers/on_ray.py", "--machines", "1", "--procs", "2", "--port", str(port), "--"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*script, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    history = json.loads((tmp_path / "model" / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2]
