"""Logs in which no column looks like a user."""

from __future__ import annotations

from tests.pipelines.init.test_init import shop, started


def test_a_log_without_users_is_drafted_and_said(tmp_path):
    """What would be missing without them is named, with the option that says where they are."""
    shop().rename({"uid": "whom"}).write_parquet(tmp_path / "log.parquet")
    spec, _, notes = started(tmp_path)
    assert spec.keys.user is None
    assert notes["look at"]["keys.user"] == "no column looks like a user, so no history of users: name theirs by --user"
    assert "keys.user" not in started(tmp_path, user="whom")[2]["look at"]
