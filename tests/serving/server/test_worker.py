from __future__ import annotations

import multiprocessing
import resource

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from serving.bundle import load
from serving.memory_limit import limited_memory
from serving.server.control import received
from serving.server.counters import SharedCounters
from serving.server.generations import Generation
from serving.server.listener import bind
from serving.server.metric_series import COLUMNS
from serving.server.settings import ServerSettings
from serving.server.worker import Assignment, allow_connections, run_worker
from tests.serving.conftest import signed
from tests.serving.server.conftest import PATIENCE

SPAWN = multiprocessing.get_context("spawn")


def swollen(folder):
    """A bundle whose graph asks for 8 GB when it is loaded, and does nothing with them."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}.before" if name == output else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 31]), "huge.shape"))
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["huge.shape"], ["huge"], value=zero),
            helper.make_node("ReduceMax", ["huge"], ["nothing"], keepdims=0),
            helper.make_node("Add", [f"{output}.before", "nothing"], [output]),
        ]
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return signed(folder)


def news_of(folder, **settings):
    """The first message of a worker of a bundle, and its exit code."""
    bundle = load(folder)
    generation = Generation(bundle.name, bundle.digest, folder)
    ours, theirs = SPAWN.Pipe()
    with bind("127.0.0.1", 0) as address:
        assignment = Assignment(generation, 1, ServerSettings(**settings), address, SharedCounters(COLUMNS), 1)
        process = SPAWN.Process(target=run_worker, args=(theirs, assignment))
        process.start()
        theirs.close()
        assert ours.poll(PATIENCE * 2)
        messages = received(ours)
        ours.close()
        process.join(PATIENCE)
    return messages[0], process.exitcode


def test_a_graph_that_asks_for_too_much_memory_is_refused(spoilt):
    """In the worker that loads it, which says so and leaves; the machine does not notice."""
    message, code = news_of(swollen(spoilt), memory_bytes=3 << 30)
    assert code in (1, 4)  # 1 if this end of the pipe was closed first
    assert "golden requests cannot be scored" in message["failed"]


def test_a_worker_whose_supervisor_has_gone_leaves(bundle):
    """It was warm, and then the pipe ended."""
    message, code = news_of(bundle)
    assert "warm" in message
    assert code in (0, 1)


def test_memory_is_limited_for_a_block_only():
    """Before and after, the limit is what it was."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(8 << 30), pytest.raises(MemoryError):
        np.ones(2 << 30)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def connections_of(files):
    """Leave with the number of connections that a process with so many files holds."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    assert allow_connections(1) == 1
    raise SystemExit(allow_connections(8192))


def test_connections_are_as_many_as_files_may_be_open():
    """Beyond, the system would turn away whoever comes next: the slowest makes room before that."""
    process = SPAWN.Process(target=connections_of, args=(200,))
    process.start()
    process.join(PATIENCE)
    assert 1 <= process.exitcode < 190
