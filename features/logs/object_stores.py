"""Files in object stores, and in any other filesystem that pyarrow or fsspec can open, by address or glob.

    s3://bucket/logs/dt=2026-03-01/*.parquet          whatever speaks S3
    s3://bucket/logs/**/*.csv.gz?region=eu-west-1     options come behind the ?, see OPTIONS
    gs://bucket/logs/*.parquet?anonymous=true         Google Cloud Storage; abfss:// (Azure) and hdfs:// likewise
    sftp://host/logs/*.jsonl                          what fsspec knows, where the package that it asks for is installed

Credentials come from where the cloud's own programs have them (environment variables, files, the machine's role); an
address that holds some is refused, and neither it nor its options are repeated by any message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlencode

import pyarrow as pa
import pyarrow.fs as pafs

from features.logs import databases
from features.logs.forms import refuse_form
from features.logs.logs import first_line
from features.logs.object_store_errors import store_errors
from rec.errors import DataError, SpecError, nearest

_NATIVE = ("s3", "gs", "abfs", "abfss", "hdfs", "viewfs")  # pyarrow's own
_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "s3": ("anonymous", "endpoint_override", "region", "scheme", "tls_ca_file_path"),
    "gs": ("anonymous", "endpoint_override", "retry_limit_seconds", "scheme"),
    **dict.fromkeys(("abfs", "abfss"), ("endpoint", "enable_tls")),
}
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^?]*)(?:\?(?P<options>.*))?", re.DOTALL)
_PASSWORD = re.compile(r"[^/]*:(?!\d+(?:/|$))|[^/]*:.*@")  # user:password@host; host:8020 is a port
_SECRET = re.compile(r"key|secret|token|passw|sig|credential|sas", re.IGNORECASE)
_SIGNS = frozenset("*?[")
MARKS = ("_", ".")  # _SUCCESS, .part-0.crc: what programs leave beside files of a table
_BLOCK = 8 << 20  # bytes in memory of a file that is fetched
_RETRY = "20"  # seconds for which an unreachable Google Cloud Storage is asked again; its own default is 15 minutes


@dataclass(frozen=True)
class Place:
    """A path or glob in a store; `path` is the bucket or host and what follows, `options` are sorted."""

    scheme: str
    path: str
    options: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What messages call it: the address without options."""
        return f"{self.scheme}://{self.path}"


@dataclass(frozen=True)
class Stored:
    """A file of a store: its address, its path there, its size in bytes, and what changes when it does."""

    name: str
    path: str
    size: int
    state: str


def is_address(text: str) -> bool:
    """Whether a text means files of a store or of another filesystem: it begins with a scheme and `://`."""
    return _ADDRESS.fullmatch(text) is not None


def local(text: str, where: str) -> str:
    """A file:// address as the path that it means, anything else as it is; SpecError for one that is not absolute."""
    if not text.startswith("file://"):
        return text
    path = text.removeprefix("file://").removeprefix("localhost")
    if not path.startswith("/"):
        raise SpecError(f"{where}: {text}: expected a path from the root, such as file:///data/logs/*.parquet")
    return unquote(path)


def place_of(address: str, where: str) -> Place:
    """What an address means; SpecError for one that holds a secret, or an option that its store does not have."""
    match = _ADDRESS.fullmatch(address)
    assert match is not None, "only addresses come here"
    scheme, path = _SAME.get(match["scheme"], match["scheme"]), match["place"].rstrip("/")
    if _PASSWORD.match(path):
        raise _secret(scheme, where)
    options = parse_qsl(match["options"] or "", keep_blank_values=True)
    known = OPTIONS.get(scheme, ())
    for option, value in options:
        if _SECRET.search(option):
            raise _secret(scheme, where)
        if option not in known or not value:
            called = option if re.fullmatch(r"\w{1,30}", option) else "..."
            has = nearest(option, known) or f"; it has {', '.join(known) or 'none'}"
            raise SpecError(
                f"{where}: {scheme}://{path}: behind a ? stand options, in a glob too: no option {called!r} of "
                f"{scheme}://{has}"
            )
    if not path.strip("/"):
        raise SpecError(f"{where}: {scheme}://: expected a bucket and a path, such as {scheme}://bucket/logs/*.parquet")
    if _SIGNS & set(path.partition("/")[0]):
        raise SpecError(f"{where}: {scheme}://{path}: expected the name of a bucket before the first /, got a glob")
    return Place(scheme, path, tuple(sorted(options)))


def listed(place: Place, where: str) -> tuple[pafs.FileSystem, list[Stored]]:
    """The files of a path or glob, by name, and the filesystem that has them.

    Raises SpecError for a filesystem that no installed package opens, DataError where there is no such file, bucket or
    access, or a file has an unknown form.
    """
    parts = place.path.split("/")
    fixed = next((n for n, part in enumerate(parts) if _SIGNS & set(part)), len(parts))
    with store_errors(place.name, where):
        filesystem, root = opened(place, "/".join(parts[:fixed]), where)
        whole = "/".join((root, *parts[fixed:]))
        exact = filesystem.get_file_info(whole)
        if exact.type == pafs.FileType.File:
            infos = {whole: exact}
        elif fixed == len(parts):
            raise _absent(filesystem, place, whole, exact, where)
        else:
            infos = _matches(filesystem, root, parts[fixed:])
        if not infos:
            raise DataError(f"{where}: no file {place.name}")
        names = {path: f"{place.scheme}://{'/'.join(parts[:fixed])}{path.removeprefix(root)}" for path in infos}
        for name in names.values():
            refuse_form(PurePosixPath(name), where, name)
        states = {path: _state(filesystem, info) for path, info in infos.items()}
    return filesystem, [Stored(names[path], path, info.size, states[path]) for path, info in infos.items()]


def opened(place: Place, fixed: str, where: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of an address, and what it calls the path `fixed`."""
    bucket, _, rest = fixed.partition("/")
    options = dict(place.options)
    anonymous = options.pop("anonymous", "false")
    if anonymous not in ("true", "false"):
        raise SpecError(f"{where}: {place.name}: anonymous: expected true or false, got {anonymous!r}")
    if place.scheme not in _NATIVE:
        return _of_fsspec(place.scheme, fixed, where)
    if place.scheme == "s3" and anonymous == "true":
        if not {"endpoint_override", "region"} & set(options):
            options["region"] = pafs.resolve_s3_region(bucket)
        filesystem, root = pafs.S3FileSystem(anonymous=True, **options), bucket
    elif place.scheme == "s3":
        filesystem, root = pafs.FileSystem.from_uri(f"s3://{bucket}?{urlencode(options)}")
    elif place.scheme == "gs":
        who = "anonymous@" if anonymous == "true" else ""
        options = {"retry_limit_seconds": _RETRY, **options}
        filesystem, root = pafs.FileSystem.from_uri(f"gs://{who}{bucket}?{urlencode(options)}")
    else:
        filesystem, root = pafs.FileSystem.from_uri(f"{place.scheme}://{bucket}/?{urlencode(options)}".rstrip("?"))
    return filesystem, "/".join((root.rstrip("/"), rest)).rstrip("/")


def fetch(
    filesystem: pafs.FileSystem, stored: Stored, target: Path, where: str, advance: Callable[[int], None]
) -> None:
    """Copy a file whole; `advance` is told of each block how many bytes it has.

    Raises DataError, and leaves no copy, where it cannot be read, changed meanwhile, or the disk is full.
    """
    beside = target.with_name(f"{target.name}.part")
    try:
        with store_errors(stored.name, where):
            with filesystem.open_input_file(stored.path) as source, beside.open("wb", buffering=0) as file:
                before = _tag(filesystem, source, stored)
                while block := source.read(_BLOCK):
                    _write(file, block, stored.name, where)
                    advance(len(block))
            with filesystem.open_input_file(stored.path) as source:
                after = _tag(filesystem, source, stored)
            if before != after:
                raise DataError(f"{where}: {stored.name}: changed while it was read; try again")
            if beside.stat().st_size != stored.size:
                got = f"expected {stored.size} bytes, got {beside.stat().st_size}"
                raise DataError(f"{where}: {stored.name}: the copy is incomplete: {got}")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _write(file: FileIO, block: bytes, name: str, where: str) -> None:
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise DataError(f"{where}: {name}: {full(Path(file.name).parent, error)}") from None


def full(folder: Path, error: OSError) -> str:
    """What to say of a copy that cannot be written."""
    return f"cannot be copied to {folder}: {first_line(error)}; TMPDIR names another disk"


def _of_fsspec(scheme: str, fixed: str, where: str) -> tuple[pafs.FileSystem, str]:
    import fsspec  # looks through all packages that are installed

    try:
        filesystem, path = fsspec.core.url_to_fs(f"{scheme}://{fixed}")
    except ImportError as error:
        raise SpecError(f"{where}: {scheme}:// needs a library: {first_line(error)}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        near = nearest(scheme, (*_NATIVE, *fsspec.available_protocols(), *databases.DRIVERS))
        hint = near or f"; expected {', '.join(_NATIVE)}, or what fsspec knows"
        raise SpecError(f"{where}: no filesystem {scheme}://{hint}") from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path.rstrip("/")


def _matches(filesystem: pafs.FileSystem, root: str, globs: Sequence[str]) -> dict[str, pafs.FileInfo]:
    """Files below `root` that fit a glob, in the order in which paths of a disk are sorted: folder by folder."""
    deep = len(globs) > 1 or globs[0] == "**"
    infos = filesystem.get_file_info(pafs.FileSelector(root, recursive=deep))
    below = {info.path: info.path.removeprefix(root).strip("/").split("/") for info in infos}
    return {
        info.path: info
        for info in sorted(infos, key=lambda info: below[info.path])
        if info.type == pafs.FileType.File and not info.base_name.startswith(MARKS) and _fits(below[info.path], globs)
    }


def _fits(parts: Sequence[str], globs: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a glob, where ** is any number of folders.

    >>> _fits(["dt=1", "a.csv"], ["**", "*.csv"]), _fits(["dt=1", "a.csv"], ["*.csv"])
    (True, False)
    """
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_fits(parts[n:], globs[1:] or ["*"]) for n in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _fits(parts[1:], globs[1:])


def _absent(filesystem: pafs.FileSystem, place: Place, path: str, info: pafs.FileInfo, where: str) -> DataError:
    """What to say of a path that is no file: the nearest name beside it; an error of a bucket that is not there."""
    if info.type == pafs.FileType.Directory:
        return DataError(f"{where}: {place.name} is a folder; give its files, such as {place.name}/**/*.parquet")
    folder, _, name = path.rpartition("/")
    try:
        beside = filesystem.get_file_info(pafs.FileSelector(folder)) if folder else []
    except FileNotFoundError:
        beside = []
    return DataError(f"{where}: no file {place.name}{nearest(name, [entry.base_name for entry in beside])}")


def _state(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> str:
    """What changes when a file does: its size and time; of fsspec's filesystems what they say themselves."""
    handler = filesystem.handler if isinstance(filesystem, pafs.PyFileSystem) else None
    return f"{info.size} {handler.fs.ukey(info.path) if isinstance(handler, pafs.FSSpecHandler) else info.mtime_ns}"


def _tag(filesystem: pafs.FileSystem, file: pa.NativeFile, stored: Stored) -> object:
    """What an open file is: the tag that an object store gives its content, elsewhere what changes when it does."""
    tags = {} if isinstance(filesystem, pafs.PyFileSystem) else file.metadata() or {}
    return tags.get("ETag") or _state(filesystem, filesystem.get_file_info(stored.path))


def _secret(scheme: str, where: str) -> SpecError:
    return SpecError(
        f"{where}: an address of {scheme}:// holds a password, key or token; a spec holds no secrets, expected them in "
        "the environment, as the store's own programs read them"
    )
