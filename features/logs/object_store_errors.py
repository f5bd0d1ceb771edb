"""Errors of object stores in words of one kind: each library of a store says the same in its own way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from features.logs.logs import first_line
from rec.errors import DataError, SpecError

_FAILED = (OSError, pa.ArrowException, ValueError, NotImplementedError)
_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|Bucket .* not found", re.IGNORECASE)
_NO_ACCESS = re.compile(
    r"ACCESS_?DENIED|Forbidden|UNAUTHENTICATED|INVALID_?ACCESS_?KEY|SIGNATURE|EXPIRED_?TOKEN|HTTP [a-z ]*40[13]"
    r"|credential|OAuth2|access token",
    re.IGNORECASE,
)
_NO_WAY = re.compile(
    r"NETWORK_CONNECTION|resolve host|Connection refused|error sending request|timed? ?out|connect to", re.IGNORECASE
)
_PARTIAL = re.compile(r"partial file|curlCode: (18|56)|end of file before message length", re.IGNORECASE)
_REASONS = {
    _PARTIAL: "the copy is incomplete",
    _NO_BUCKET: "no such bucket",
    _NO_ACCESS: "access is refused; credentials are read from the environment, as the store's own programs read them, "
    "and ?anonymous=true reads what is public",
    _NO_WAY: "cannot be reached; ?endpoint_override=http://host:port or AWS_ENDPOINT_URL names another endpoint",
}


@contextmanager
def store_errors(name: str, where: str, *more: type[Exception]) -> Iterator[None]:
    """Errors of a store, and `more`, as DataError: what it means, then its own words without what a URL asks for."""
    try:
        yield
    except (DataError, SpecError):
        raise
    except FileNotFoundError:
        raise DataError(f"{where}: no file {name}") from None
    except (*_FAILED, *more) as error:
        query = re.compile(r"\?\S+")  # of a URL, with words of its own: Signature, token
        text = query.sub("?...", first_line(error))[:300]
        own = query.sub("?...", str(error))
        reason = next((why for sign, why in _REASONS.items() if sign.search(own)), "cannot be read")
        raise DataError(f"{where}: {name}: {reason}: {text}") from None
