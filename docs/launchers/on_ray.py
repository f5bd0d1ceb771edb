"""Train on the machines of a Ray cluster: one Ray task a machine, each of which is a torchrun.

python docs/launchers/on_ray.py --machines 2 --procs 8 -- train SPEC --data DATA --out MODEL
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(max_retries=0)
def machine(options: list[str], words: list[str]) -> int:
    """The exit code of one machine's processes."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "pipelines.cli", *words]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """The largest exit code of all machines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, required=True)
    parser.add_argument("--procs", type=int, required=True, help="processes of a machine: its GPUs, where it has some")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that Ray reserves on each machine")
    parser.add_argument("--port", type=int, default=29400, help="of the first machine, where all meet")
    parser.add_argument("words", nargs="+", help="the command, after --")
    asked = parser.parse_args()
    ray.init()
    nodes = [node for node in ray.nodes() if node["Alive"]][: asked.machines]
    options = [f"--nnodes={asked.machines}", f"--nproc-per-node={asked.procs}", "--rdzv-backend=c10d"]
    options += [f"--rdzv-id={ray.get_runtime_context().get_job_id()}"]
    options += [f"--rdzv-endpoint={nodes[0]['NodeManagerAddress']}:{asked.port}"]
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    tasks = [
        # the first is where all meet; torchrun would guess by host name, which Ray need not use
        machine.options(num_gpus=asked.gpus, scheduling_strategy=to).remote(
            [*options, f"--rdzv-conf=is_host={place == 0}"], asked.words
        )
        for place, to in enumerate(pinned)
    ]
    return max(ray.get(tasks))


if __name__ == "__main__":
    sys.exit(main())
