"""The house keeps its own rules: a checker reads the source, and a planted fault shows that it would see one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import ROOT

PACKAGES = ("rec", "features", "serving", "pipelines", "benchmarks", "tools")
CONTRACT = (
    "rec.spec",
    "rec.data",
    "rec.evaluation",
    "rec.request",
    "rec.atomic",
    "rec.errors",
    "rec.memory",
    "rec.output_folder",
    "rec.progress",
)
# batches for training, the look at gates, and the two places where a model becomes a graph
TORCH_ALLOWED = {
    "rec.data.loader",
    "rec.evaluation.gate_health",
    "serving.export",
    "serving.graph.baseline",
    "serving.graph.network",
}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "os.getenv"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# an allocator is chosen before anything is loaded; libraries take from nowhere else whether they may report home
ENVIRONMENT_ALLOWED = {"rec.memory", "rec.telemetry", "rec.training.launch"}
CLOCKS_ALLOWED = {
    "serving.server.endpoint",
    "serving.export",
    "rec.training.mlflow_run",
}  # where the clock is read: a request arrives, a bundle is made, a tracking server asks for it
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
MAX_FILE, MAX_FUNCTION = 300, 60  # lines

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
    for layer in PACKAGES
    for path in sorted((ROOT / layer).rglob("*.py"))
}
SOURCES["multigate"] = (ROOT / "multigate.py").read_text(encoding="utf-8")
TESTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests").rglob("*.py"))
}


def imports(source: str) -> set[str]:
    """Every module a source names in an import, wherever it stands; `from a import b` may name the module a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _light(module: str) -> bool:
    """Whether a module is part of the contract or of the server."""
    contract = any(module == part or module.startswith(f"{part}.") for part in CONTRACT)
    return (contract or module.startswith("serving")) and module not in TORCH_ALLOWED


def reaches_torch(module: str, sources: dict[str, str]) -> list[str]:
    """The way from a module to torch through our own imports, or nothing."""
    seen, ways = {module}, [[module]]
    while ways:
        way = ways.pop()
        for name in sorted(imports(sources[way[-1]])):
            if name.split(".")[0] in ("torch", "torchrec", "fbgemm_gpu"):
                return [*way, name]
            if name in sources and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def dangers(module: str, source: str) -> list[str]:
    """Pickle in any form, code made from text, hidden settings, and clocks below pipelines."""
    faults = [name for name in imports(source) if name.split(".")[0] in FORBIDDEN_MODULES]
    below = module.split(".", maxsplit=1)[0] in ("rec", "features", "serving")
    timeless = below and module not in CLOCKS_ALLOWED
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            faults += [name] if name in FORBIDDEN_CALLS or (timeless and name in CLOCKS) else []
        sealed = below and module not in ENVIRONMENT_ALLOWED
        if isinstance(node, ast.Attribute) and sealed and ast.unparse(node) == "os.environ":
            faults.append("os.environ")
    return faults


def too_large(source: str) -> list[str]:
    """A file of more than 300 lines, functions of more than 60."""
    faults = [f"file: {lines} lines"] if (lines := source.count("\n")) > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            faults += [f"{node.name}: {length} lines"] if length > MAX_FUNCTION else []
    return faults


def without_docstring(source: str) -> list[str]:
    """Public functions and classes, and the module itself, that say nothing about themselves."""
    tree = ast.parse(source)
    silent = [] if ast.get_docstring(tree) else ["module"]
    return silent + [name for name, node in _public(tree.body, "") if not ast.get_docstring(node)]


def _public(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")


def lines_of(code: str) -> list[str]:
    """What a fresh interpreter prints for a piece of code."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", sorted(m for m in SOURCES if _light(m)))
def test_the_contract_and_the_server_do_not_reach_torch(module):
    """No chain of imports, however long, leads from the contract or the server to torch."""
    assert reaches_torch(module, SOURCES) == []


def test_torch_in_the_server_is_caught():
    """Planted: the server imports a module of ours that imports torch."""
    planted = {"serving.server.serve": "from rec import planted", "rec.planted": "import torch.nn"}
    assert reaches_torch("serving.server.serve", planted) == ["serving.server.serve", "rec.planted", "torch.nn"]


def test_a_running_server_holds_neither_torch_nor_polars():
    """What the process has loaded, not what the source says."""
    code = "import sys, serving.server.serve; print(*{'torch', 'polars'} & set(sys.modules))"
    assert lines_of(code) == []


def test_training_and_serving_load_no_compiler():
    """Every module of rec and of serving, in a fresh interpreter: numba belongs to features alone."""
    modules = [m.removesuffix(".__init__") for m in SOURCES if m.startswith(("rec.", "serving."))]
    loaded = "print(*{'numba'} & set(sys.modules))"
    code = f"import importlib, sys; [importlib.import_module(module) for module in {modules}]; {loaded}"
    assert lines_of(code) == []


def test_help_needs_only_click():
    """`multigate --help` is quick because nothing heavier than click and the standard library is imported for it."""
    code = (
        "import contextlib, io, sys; before = set(sys.modules); from pipelines.cli.main import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said: main(['--help'])\n"
        "assert 'features' in said.getvalue()\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    assert set(lines_of(code)) <= {"click", "pipelines", "rec", "benchmarks", "colorama"}


def test_the_command_line_imports_no_benchmarks():
    """An installed package has none: they are found by name where they are, never named in an import."""
    assert [m for m in SOURCES if m.startswith("pipelines.") and "benchmarks" in " ".join(imports(SOURCES[m]))] == []


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_dangerous_is_called(module):
    """No pickle, no code made from text, no environment variable, and below pipelines no clock."""
    assert dangers(module, SOURCES[module]) == []


@pytest.mark.parametrize(
    "fault",
    ["import pickle", "torch.load(path)", "eval('1')", "x = os.environ['SEED']", "datetime.now()", "time.time()"],
)
def test_a_danger_is_caught(fault):
    """Planted: one of each kind, in rec."""
    assert dangers("rec.planted", fault) != []


@pytest.mark.parametrize("module", [*SOURCES, *TESTS])
def test_files_and_functions_are_small(module):
    """300 lines a file, 60 a function."""
    assert too_large({**SOURCES, **TESTS}[module]) == []


def test_a_long_function_is_caught():
    """Planted: a function of 61 lines."""
    assert too_large("def f():\n" + "    x = 1\n" * 60) == ["f: 61 lines"]


@pytest.mark.parametrize("module", SOURCES)
def test_what_is_public_says_what_it_is(module):
    """Every module, public function, class and method has a docstring."""
    assert without_docstring(SOURCES[module]) == []


@pytest.mark.parametrize("module", [m for m in TESTS if m.split(".")[-1].startswith("test_")])
def test_a_test_is_a_sentence(module):
    """The docstring of every test is the specification it checks."""
    tests = [node for name, node in _public(ast.parse(TESTS[module]).body, "") if name.startswith("test_")]
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("module", [*SOURCES, *TESTS])
def test_source_is_ascii(module):
    """What looks alike is alike."""
    assert {**SOURCES, **TESTS}[module].isascii()


def test_no_room_is_called_utils():
    """A file is a noun; what fits nowhere is not named yet."""
    assert [name for name in SOURCES if re.search(r"\b(utils?|helpers?|common|misc)\b", name)] == []


def test_markers_are_slow_and_gpu_only():
    """A third marker would be a third kind of test run."""
    used = {mark for text in TESTS.values() for mark in re.findall(r"@pytest\.mark\.(\w+)", text)}
    assert used <= {"slow", "gpu", "parametrize", "skipif", "filterwarnings"}
