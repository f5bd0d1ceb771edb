from __future__ import annotations

import pytest

import multigate
from tests.serving.conftest import items
from tests.serving.request_files.test_score import BAD, TIME, lines, scored

REQUESTS = [{"time": TIME, "context": {"user_id": user}, "candidates": items(3, 4, 5)} for user in (7, 8)]


def test_files_of_requests_are_scored_as_from_the_command_line(bundle, tmp_path):
    """`multigate.score_requests`: paths may be text, the parts are the same bytes, and bad rows are told of."""
    good = lines(tmp_path / "good.jsonl", REQUESTS)
    scored(bundle, [good], tmp_path / "command")
    done = multigate.score_requests(str(bundle), [str(good)], tmp_path / "python")
    assert (done["requests"], done["rejected"]) == (2, 0)
    names = [sorted(path.name for path in (tmp_path / out).glob("*.parquet")) for out in ("command", "python")]
    assert names[0] == names[1] != []
    for name in names[0]:
        assert (tmp_path / "command" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()
    bad = lines(tmp_path / "bad.jsonl", [*REQUESTS, BAD["bad type"]])
    with pytest.raises(multigate.DataError, match=r"bad\.jsonl.*3.*expected an id, got 'bob'"):
        multigate.score_requests(bundle, [bad], tmp_path / "refused")
    assert multigate.score_requests(bundle, [bad], tmp_path / "spared", bad_rows=0.5)["rejected"] == 1
