"""The columns of a stored row of a user or an item beside its features; no feature is called so.

features/pipeline/snapshot.py writes such rows, serving/store.py reads them.
"""

from __future__ import annotations

KEY = "@key"
AS_OF = "@as_of"  # until when it holds all that happened
SEEN = "@seen"  # when the impression was whose values it has
OF_LAST = {b"moment": b"@seen"}  # metadata of a feature that is a value of the last impression
