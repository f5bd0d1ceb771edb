from __future__ import annotations

import pytest

from rec.errors import SpecError
from serving.server.settings import ServerSettings, read_settings


def test_settings_come_from_a_file_and_from_flags(tmp_path):
    """A flag wins; what is given nowhere has its default."""
    (tmp_path / "serve.toml").write_text("drain_seconds = 3\nmax_body = 1000\n")
    settings = read_settings(tmp_path / "serve.toml", drain_seconds=7.0, max_body=None)
    assert (settings.drain_seconds, settings.max_body) == (7.0, 1000)
    assert read_settings(None) == ServerSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_bodies = 1", "max_bodies: no setting of the server; did you mean 'max_body'?"),
        ("max_body = 0", "max_body: Input should be greater than or equal to 1, got 0"),
        ("head_seconds = nan", "head_seconds: Input should be"),
        ("stuck_seconds = 0.1", "stuck_seconds: Input should be greater than or equal to 1"),
        ("max_body = ", "Invalid value"),
        ("access_log = 0.01", 'access_log: expected log_format = "json" beside it, got "text"'),
        ('access_log = 2\nlog_format = "json"', "access_log: Input should be less than or equal to 1, got 2"),
        ('log_format = "xml"', "log_format: Input should be 'text' or 'json', got 'xml'"),
    ],
)
def test_mistakes_are_told(tmp_path, text, message):
    """With the file, the setting, and what was expected."""
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        read_settings(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    """As any other file."""
    with pytest.raises(SpecError, match="No such file"):
        read_settings(tmp_path / "none.toml")
