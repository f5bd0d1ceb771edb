"""What logs are called: a path, a glob, or an address of a database, a Delta table or a store, for `multigate init`.

Paths on the command line start where it is run, those of a spec at the spec; addresses of stores and servers are the
same everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from features.logs import copies, databases, delta, object_stores
from features.logs.forms import ENDINGS
from features.logs.paths import paths_of, short
from rec.errors import DataError, SpecError, nearest

_SIGNS = re.compile(r"[*?\[]")
_FROM = re.compile(r'\bFROM\s+"?([\w."]+)', re.IGNORECASE)
_WHERE = "init"


def expanded(named: Sequence[str]) -> list[str]:
    """The logs that are meant: those given, each once, and all files of logs in a folder; DataError where none is."""
    logs: list[str] = []
    for text in named:
        log = text if Path(text).exists() else object_stores.local(text, _WHERE)
        path = Path(log)
        if path.is_dir():
            logs += _inside(path)
        elif path.is_file() or copies.is_address(log) or _SIGNS.search(log):
            logs.append(log)
        else:
            near = nearest(path.name, [file.name for file in path.parent.glob("*")]) if path.parent.is_dir() else ""
            raise DataError(f"{path}: no such file{near}")
    return list(dict.fromkeys(logs))


def _inside(folder: Path) -> list[str]:
    if (folder / "_delta_log").is_dir():
        raise DataError(f"{folder}: is a Delta table; give delta:{folder}")
    inside = [
        file for file in folder.rglob("*") if file.name.endswith(ENDINGS) and not file.name.startswith((".", "_"))
    ]
    if not inside:
        raise DataError(f"{folder}: no file in it ends with one of {', '.join(ENDINGS)}")
    return [str(file) for file in sorted(inside) if file.is_file()]


def files_of(log: str) -> list[str]:
    """Every file of a path or glob as a log of its own, in the order in which they are read."""
    options = "?" + log.partition("?")[2] if object_stores.is_address(log) and "?" in log else ""
    return [short(path, Path()) + options for path in paths_of(log, Path(), _WHERE)]


def refuse_out(out: Path, logs: Sequence[str]) -> None:
    """SpecError for a spec that would be written over a log, or into a Delta table."""
    whole = out.resolve()
    for log in logs:
        is_address = _is_address(log)
        disk = copies.disk_of(log, Path(), _WHERE) if is_address else None
        files = [disk] if disk is not None else [] if is_address else paths_of(log, Path(), _WHERE)
        if any(whole == file.resolve() or file.resolve() in whole.parents for file in files):
            raise SpecError(f"{out}: is one of the logs; give another --out")


def in_spec(log: str, folder: Path) -> str:
    """How a spec in `folder` names a log.

    >>> in_spec("duckdb:shop.duckdb?table=clicks", Path("specs")), in_spec("s3://logs/*.csv", Path("specs"))
    ('duckdb:../shop.duckdb?table=clicks', 's3://logs/*.csv')
    """
    if not _is_address(log):
        return _relative(log, folder)
    if delta.is_address(log):
        table = delta.table_of(log, _WHERE)
        version = "" if table.version is None else f"?version={table.version}"
        return f"delta:{_relative(table.place, folder)}{version}" if isinstance(table.place, str) else log
    if databases.is_address(log):
        table = databases.table_of(log, _WHERE)
        begin = f"{table.driver}:{table.place}"
        file = table.file(Path())
        return log if file is None else f"{table.driver}:{_relative(str(file), folder)}{log.removeprefix(begin)}"
    return log


def title(log: str) -> str:
    """What a person is told: a file's name, an address as it is."""
    return log if _is_address(log) else Path(log).name


def word(log: str) -> str:
    """The word that says what is in a log: of its file, its table, or the folder of a glob.

    >>> word("logs/clicks.csv.gz"), word("s3://logs/clicks/dt=*/*.parquet"), word("duckdb:shop.duckdb?table=web.clicks")
    ('clicks', 'clicks', 'clicks')
    """
    place = log
    if databases.is_address(log):
        table = databases.table_of(log, _WHERE)
        text = _FROM.search(table.query or "")
        name = table.name or (text[1] if text else None)
        if name is not None:
            return name.replace('"', "").rpartition(".")[2]
        place = table.place
    elif _is_address(log):
        place = log.partition("?")[0]
    beginnings = (re.split(r"[*?\[.]", part)[0].strip("-_") for part in reversed(place.split("/")) if "=" not in part)
    return next((beginning for beginning in beginnings if beginning), "log")


def _is_address(log: str) -> bool:
    return not Path(log).is_file() and copies.is_address(log)


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(Path(path).absolute(), folder.absolute())).as_posix()
