"""What the documentation says exists: commands are known, links lead somewhere, every key of a spec is described."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import click
import pytest
import tomli_w
from packaging.requirements import Requirement

from pipelines.cli.main import cli, main
from rec import spec as specs
from tests import ROOT
from tools import spec_reference

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
VERBS = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    """A page as a test is called after it."""
    return page.relative_to(ROOT).as_posix()


def blocks(kind: str) -> list[tuple[str, str]]:
    """Every fenced block whose first word is `kind` (or that is marked with exactly these words), with its page."""
    fences = [(name(page), language, text) for page in PAGES for language, text in FENCE.findall(page.read_text())]
    return [(page, text) for page, language, text in fences if kind in (language, language.partition(" ")[0])]


PIP_FOLDERS = ("--wheel-dir", "--find-links", "--extra-index-url")
COMMANDS = [
    (page, line.removeprefix("$ "))
    for page, text in blocks("console")
    for line in text.splitlines()
    if line.startswith("$ ")
]


def refused(line: str) -> str:
    """Why a command of the documentation would not be understood; empty when it would."""
    words = shlex.split(line, comments=True)
    program = Path(words[0]).name
    if program == "make":
        return "" if set(words[1:]) <= VERBS else f"no such verb of make: {line}"
    if program == "pip":
        return uninstallable(words[1:])
    if words[:3] == ["python3", "-m", "venv"]:
        return ""
    if program != "multigate":
        return f"none of make, pip and multigate: {line}"
    command, words = cli, words[1:]
    try:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            _, command, words = command.resolve_command(click.Context(command), words)
            assert command is not None
        if "--help" not in words:
            command.make_context("multigate", words)
    except click.ClickException as error:
        return f"{line}: {error.format_message()}"
    return ""


def uninstallable(words: list[str]) -> str:
    """Why `pip install` or `pip wheel` would refuse these words; empty when each names a package of this repository."""
    if words[:1] not in (["install"], ["wheel"]):
        return f"neither install nor wheel: pip {' '.join(words)}"
    targets = [word for before, word in pairwise(words) if before not in PIP_FOLDERS]
    for target in (target for target in targets if not target.startswith("--")):
        folder, bracket, rest = target.partition("[")
        if folder.startswith(".") and not (ROOT / folder / "pyproject.toml").is_file():
            return f"no package in {folder}"
        requirement = Requirement(f"multigate{bracket}{rest}" if folder.startswith(".") else target)
        if requirement.name != "multigate" or not requirement.extras <= set(EXTRAS):
            return f"no such package or extra: {target}"
    return ""


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_is_known(page, line):
    """What a reader copies is parsed by the command line as it is, and make has the verb."""
    assert refused(line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "make dinner",
        "multigate trian x",
        "multigate train x --epochs 3",
        "rm -rf /",
        "pip install ./nowhere",
        "pip install '.[gpu]'",
    ],
)
def test_an_unknown_command_is_caught(line):
    """Planted: a verb, an option, a program, a folder and an extra that are not there."""
    assert refused(line) != ""


@pytest.mark.parametrize(("page", "text"), blocks("console run"))
def test_what_is_marked_runs(page, text, capsys, monkeypatch):
    """A block marked `run` ends well, and prints what stands below its command, if anything does."""
    monkeypatch.chdir(ROOT)
    first, _, expected = text.partition("\n")
    with pytest.raises(SystemExit) as left:
        main(shlex.split(first)[2:])
    assert left.value.code == 0
    assert expected in ("", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), blocks("python run"))
def test_python_that_is_marked_runs(page, text, tmp_path):
    """A block of Python marked `run` is under 20 lines, and ends well as it stands, in a folder that holds specs/."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert text.count("\n") < 20
    assert re.search(r"^\d+ requests, (\d+) candidates, \(\1,\) scores$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """A link to a file of the repository names one that is there."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", FENCE.sub("", page.read_text()))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_a_section_find_its_heading(page):
    """The fragment of a link is a heading of the page that it names, or of its own."""
    targets = re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)", FENCE.sub("", page.read_text()))
    lost = [
        (at, to)
        for at, to in targets
        if not at or at.endswith(".md")
        if to not in anchors((page.parent / at) if at else page)
    ]
    assert lost == []


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_toml_is_toml(page, text):
    """A piece of a spec can be pasted."""
    tomllib.loads(text)


AROUND = """
name = "pasted"
keys = { user = "user_id", item = "item_id", time = "t", request = "r" }
split = { validation = 2026-03-05T00:00:00Z, test = 2026-03-06T00:00:00Z }
context.user_id = { kind = "kept" }
candidates.brand = { kind = "id", values = "string" }
tasks.click = { label = "c" }
tasks.buy = { label = "b" }
tasks.long_read = { label = "l", given = "click" }
"""


def test_the_features_of_their_page_go_together():
    """Pasted into one spec, each finds what it is of: another number, a table, an event."""
    pasted = tomllib.loads(AROUND)
    for _, text in [block for block in blocks("toml") if block[0] == "docs/features.md"]:
        for table, lines in tomllib.loads(text).items():
            pasted.setdefault(table, {}).update(lines)
    specs.parse(tomli_w.dumps(pasted))


def test_the_reference_is_in_sync():
    """docs/spec.md is what `make fix` would write."""
    assert (ROOT / "docs/spec.md").read_text() == spec_reference.markdown()


def test_every_key_of_a_spec_is_described():
    """No row of the reference ends in nothing: a key says what it is for."""
    silent = [
        line for line in spec_reference.markdown().splitlines() if line.startswith("| `") and line.endswith("|  |")
    ]
    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_ascii(page):
    """What is copied from a page into a terminal is what stood there."""
    assert page.read_text().isascii()


def test_every_page_can_be_reached():
    """From README, by links, a reader comes to every page of docs; decisions are a folder."""
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = {(page.parent / t).resolve() for t in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())}
        ahead += [target for target in links if target not in seen]
    assert [name(page) for page in PAGES if page not in seen and "decisions" not in page.parts] == []
