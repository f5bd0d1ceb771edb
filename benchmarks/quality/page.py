"""Pages of measurements: prose written by hand, and generated tables between marks.

    <!-- table: auc -->                     in docs/measured/NAME.md, one for every table of the suite
    ...
    <!-- end -->

    <!-- measured -->                       in docs/models/MODEL.md: below it, a table of every suite that has one

Writing the same results twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.quality import PageContent
from rec.atomic import write_bytes
from rec.errors import SpecError, nearest
from rec.progress import Progress

BLOCK = re.compile(r"^<!-- table: ([\w-]+) -->\n(.*?)^<!-- end -->\n", re.MULTILINE | re.DOTALL)
ANCHOR = "<!-- measured -->\n"
BAR = r"\|"


def write(page: Path, name: str, content: PageContent, progress: Progress) -> list[str]:
    """Fill a suite's page, put its drawings beside it, and fill the pages of models; the files that were written.

    Pages of models are looked for in `models` beside the page's folder. Raises SpecError when a page has not the
    marks it needs, before anything is written.
    """
    texts = {page: filled(_read(page), content.tables, str(page))}
    for model, table in content.models.items():
        path = page.parent.parent / "models" / f"{model}.md"
        if path.exists():
            texts[path] = noted(_read(path), name, table, str(path))
        else:
            progress.say(f"{path}: not there, left out")
    drawn = {page.parent / file: svg for file, svg in content.plots.items()}
    for path, text in {**drawn, **texts}.items():
        write_bytes(path, (text.rstrip("\n") + "\n").encode())
    return [str(path) for path in {**texts, **drawn}]


def filled(text: str, tables: Mapping[str, str], where: str) -> str:
    """A page's text with every table between its marks.

    Raises SpecError when a table has no place, or a place no table.
    """
    places = [match[1] for match in BLOCK.finditer(text)]
    for name in tables:
        if name not in places:
            raise SpecError(f"{where}: no line '<!-- table: {name} -->' with '<!-- end -->' below it")
    for name in places:
        if name not in tables:
            raise SpecError(f"{where}: nothing measures the table {name!r}{nearest(name, tables)}")
    return BLOCK.sub(lambda match: _block(match[1], tables[match[1]]), text)


def noted(text: str, suite: str, table: str, where: str) -> str:
    """A model's page with the table of a suite below its mark, in the place of an earlier one.

    Raises SpecError when the mark is not there.
    """
    if ANCHOR not in text:
        raise SpecError(f"{where}: no line '{ANCHOR.strip()}', below which its measured results would stand")
    if suite in [match[1] for match in BLOCK.finditer(text)]:
        return BLOCK.sub(lambda match: _block(suite, table) if match[1] == suite else match[0], text)
    above, _, below = text.partition(ANCHOR)
    blocks = list(BLOCK.finditer(below))
    end = blocks[-1].end() if blocks else 0
    return f"{above}{ANCHOR}{below[:end]}\n{_block(suite, table)}{below[end:]}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: names to the left, figures to the right; a bar in a cell does not end it.

    >>> print(table(["model", "AUC"], [["mmoe", "0.71"]]))
    | model | AUC |
    |---|--:|
    | mmoe | 0.71 |
    """
    lines = [titles, ["---", *["--:"] * (len(titles) - 1)], *rows]
    text = [f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in lines]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text)


def _block(name: str, content: str) -> str:
    return f"<!-- table: {name} -->\n\n{content.strip()}\n\n<!-- end -->\n"


def _read(path: Path) -> str:
    if not path.exists():
        raise SpecError(f"{path}: no such page")
    return path.read_text(encoding="utf-8")
