"""Errors of stores, as their libraries word them, mean one thing each and repeat no options of an address."""

from __future__ import annotations

import re

import pytest

from features.logs.object_store_errors import store_errors
from rec.errors import DataError

AWS = "AWS Error {} during GetObject operation: {}"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            AWS.format(
                "NETWORK_CONNECTION", "curlCode: 18, Transferred a partial file; Details: end of response with 9"
            ),
            "the copy is incomplete: AWS Error",
        ),
        (
            AWS.format("NETWORK_CONNECTION", "curlCode: 6, Could not resolve hostname"),
            "cannot be reached; ?endpoint_over",
        ),
        (
            AWS.format("NETWORK_CONNECTION", "curlCode: 7, Couldn't connect to server"),
            "cannot be reached; ?endpoint_over",
        ),
        (
            AWS.format("ACCESS_DENIED", "No response body."),
            "access is refused; credentials are read from the environment",
        ),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: gone", "no such bucket: AWS Error"),
        ("Generic S3 error: error sending request for url (http://h/b?X-Amz-Signature=hunter2)", "cannot be reached; "),
        (
            "request to http://h/b?sig=hunter2 failed in an unknown way",
            "cannot be read: request to http://h/b?... failed",
        ),
    ],
)
def test_an_error_of_a_store_says_what_it_means(text, meaning):
    """Then its own words, without what stands behind a ?."""
    expected = re.escape(f"source.files: s3://b/a.csv: {meaning}")
    with pytest.raises(DataError, match=expected) as error, store_errors("s3://b/a.csv", "source.files"):
        raise OSError(text)
    assert "hunter2" not in str(error.value)
