"""User errors as exceptions, each with the exit code of the command line.

    ValueError
        SpecError      the description of the problem is wrong      exit 2
        DataError      the logs or tables are not what it says      exit 3
        BundleError    a run, checkpoint or bundle cannot be used   exit 4
    ImportError
        InstallationError  a library is missing or does not fit     exit 1

A message says where, what was expected, what was given, and the nearest match. Any other exception is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecError(ValueError):
    """The spec is wrong: an unknown key or name, a wrong type."""

    exit_code = 2


class DataError(ValueError):
    """The data is wrong: a missing column, a truncated file, a label without its parent."""

    exit_code = 3


class BundleError(ValueError):
    """A run, checkpoint or bundle is incomplete, changed, or does not agree with itself."""

    exit_code = 4


class InstallationError(ImportError):
    """A library is missing, or does not fit the others; the text says what to install."""

    exit_code = 1


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word most like `word`, or the empty string.

    >>> nearest("lerning_rate", ["learning_rate", "epochs"])
    "; did you mean 'learning_rate'?"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
