"""Rows of the table in docs/log-values.md that no other test here is the kind of."""

from __future__ import annotations

import pytest

from rec.spec import parse
from tests.features.logs.test_forms import SPEC, rows_of, spec


@pytest.mark.parametrize("where", ["store <> 6", "code = '02'", "code <> '2'"])
def test_a_condition_changes_no_value(tmp_path, where):
    """A number beside a number, text beside text, whatever the column looks like; ids keep their zeros."""
    (tmp_path / "log.csv").write_text("user,item,time,a,store,code\n007,1,0,0,0005,02\n008,2,1,0,0006,2\n")
    rows = rows_of(spec("log.csv", user="string", more=f', where = "{where}"'), tmp_path, "user", "item", "store")
    assert rows.select("user", "item", "store").rows() == [("007", 1, "0005")]


def test_a_quote_in_a_name_is_written_twice(tmp_path):
    """As in a value."""
    (tmp_path / "log.csv").write_text('user,item,time,a,"size ""inch"""\n1,2,0,0,"7"" wide"\n')
    rows = rows_of(spec("log.csv"), tmp_path, 'size "inch"')
    assert rows['size "inch"'].to_list() == ['7" wide']


def test_files_of_one_name_in_different_folders_are_different_files(tmp_path):
    """Their requests without ids are different ones; a file that two globs name is read once."""
    for day in ("1", "2"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "part-0.csv").write_text(f"user,time,shown,clicks\n{day},0,[3 9],[9]\n")
    events = ', shown = "shown", events = { a = { items = "clicks" } }'
    text = SPEC.format(
        kind="requests", files="X", time="time", user="int", more=events, keys=', request = "rid"', rest=""
    )
    described = parse(text.replace('"X"', '["1/part-0.csv", "*/part-0.csv"]'))
    rows = rows_of(described, tmp_path, "user", "item", "a", "rid")
    assert rows.select("user", "item", "a").rows() == [(1, 3, 0), (1, 9, 1), (2, 3, 0), (2, 9, 1)]
    assert rows["rid"].n_unique() == 2
