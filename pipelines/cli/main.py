"""The command line: exit codes of errors, Ctrl-C and usage mistakes. The verbs are listed in verbs.py.

    exit 0 ok  1 our mistake  2 usage or spec  3 data  4 model or bundle  5 input or output
         130 Ctrl-C  143 SIGTERM  129 SIGHUP

stdout is data (a table, or JSON with --json); stderr is for people. `multigate --debug VERB ...` shows the traceback of
our mistakes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import click

from pipelines.cli.verbs import Verbs
from rec.memory import keep_polars_memory

_NOTHING = "nothing is kept, start it again"
INTERRUPTED = {  # what Ctrl-C leaves of a verb, and which command goes on
    "features": "the slices that were written are kept in DATA, and the same command goes on after them",
    "train": "every whole checkpoint is kept in MODEL, and the same command goes on after the last",
    "export": "nothing is kept but what was there before, start it again",
    "score": "every whole part is kept in SCORES, and the same command goes on after the last",
    "run": "what was finished is kept in DIR, and the same command goes on from there",
    "demo": "what was finished is kept, and the same command goes on from there",
    "serve": "stopped",
    "bench": "of a --suite every training that ended is kept, and the same command goes on; of anything else nothing",
}
_BEGINS_AGAIN = ("features", "train", "score")  # with --force, so that only without it they go on


class Terminated(SystemExit):
    """SIGTERM or SIGHUP: what a verb holds is put away as at Ctrl-C, and the exit code is the signal's."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, as an error of our own.

    A KeyboardInterrupt that passes through an `exec` of text, such as the import of a dataclass, makes `python -m`
    end by the signal, whatever exit code was asked for.
    """


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="multigate")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an unexpected error.")
def cli() -> None:
    """Multi-task ranking: raw logs in, calibrated click and conversion probabilities out, from one spec."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and leave with its exit code; the entry point of `multigate`."""
    open_streams()
    keep_polars_memory()
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != "--debug"]
    verb = next((word for word in words if not word.startswith("-")), "")
    with _terminable():
        guarded(
            lambda: cli.main(words, prog_name="multigate", standalone_mode=False),
            verb=verb,
            debug=words != given,
            force="--force" in words,
        )


def open_streams() -> None:
    """Whatever the shell closed of stdin, stdout and stderr reads nothing, and writes nowhere.

    Otherwise the next file that is opened has its number, and what libraries print goes into that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8", closefd=nowhere != number))


@contextmanager
def _terminable() -> Iterator[None]:
    """Signals raise Interrupted or Terminated while the block runs; a second SIGTERM or SIGHUP ends the process."""

    def interrupt(number: int, _: object) -> None:  # noqa: ARG001
        raise Interrupted

    def terminate(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(128 + number)

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    mine = threading.current_thread() is threading.main_thread()  # no other may have handlers
    before = {number: how for number, how in usual.items() if mine and signal.getsignal(number) is how}
    try:
        for number in before:
            signal.signal(number, interrupt if number == signal.SIGINT else terminate)
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def guarded(work: Callable[[], object], *, verb: str = "", debug: bool = False, force: bool = False) -> None:
    """Run a verb and exit with its code; an error is printed as one line, or with `debug` as a traceback.

    `force` says that the verb was called with --force.
    """
    if not debug:
        warnings.simplefilter("ignore")  # what libraries tell their developers is not for ours
    try:
        left = work()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            raise
        code = _exit_code(error, verb, force=force)
        if code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _leave(code)
        raise SystemExit(code) from None
    # click hands back the code of --help and of usage shown instead of raising it
    raise SystemExit(left if isinstance(left, int) else 0)


def _leave(code: int) -> None:
    """End a process of several at once: what its threads wait for, the others may never send."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(error: BaseException, verb: str, *, force: bool) -> int:
    """Tell a person what went wrong, and the machine which kind of thing it was."""
    if isinstance(error, KeyboardInterrupt | click.Abort | Terminated):
        advice = INTERRUPTED.get(verb, _NOTHING)
        if force and verb in _BEGINS_AGAIN:
            advice = advice.replace("the same command", "the same command without --force")
        _tell(f"multigate {verb}: interrupted; {advice}")
        return int(error.code or 130) if isinstance(error, Terminated) else 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.ClickException):
        with suppress(OSError):
            error.show()
        return 5 if isinstance(error, click.FileError) else 2
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # whoever read us has gone; nothing is left to flush
        return 5
    from rec.errors import BundleError, DataError, SpecError

    if type(error).__name__ == "OtherRankError":
        return 1  # the other one says why
    _tell(f"multigate: {_rank()}{_message(error)}")
    if isinstance(error, SpecError | DataError | BundleError):
        return error.exit_code
    return 5 if isinstance(error, OSError) else 1


def _tell(line: str) -> None:
    """A line for people; where stderr takes none, the exit code is left."""
    try:
        click.echo(line, err=True)
    except OSError:
        sys.stderr = None


def _rank() -> str:
    """Which process of several speaks."""
    return f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""


def _message(error: BaseException) -> str:
    from pipelines.cli.installation import explain
    from rec.errors import BundleError, DataError, InstallationError, SpecError

    if isinstance(error, SpecError | DataError | BundleError | InstallationError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (sentence := explain(error)):
        return sentence
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return (
        f"this is our mistake, not yours: {type(error).__name__}: {error}\n"
        "multigate: the same command as `multigate --debug ...` prints the traceback that a bug report needs"
    )


if __name__ == "__main__":
    main()
