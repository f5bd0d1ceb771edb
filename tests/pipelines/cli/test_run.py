"""`multigate run` does what is not fresh, and nothing else."""

from __future__ import annotations

import pytest

from pipelines.cli import run
from pipelines.cli.run import Step, bring_up_to_date
from rec import spec as specs
from rec.atomic import read_json
from rec.progress import Silent


@pytest.fixture
def made(tmp_path):
    """A folder, and a step that writes a file into it and notes each time whether it was asked to go on."""
    calls = []

    def step(digest: str) -> Step:
        def make(resume: bool) -> None:
            calls.append(resume)
            (tmp_path / "model").mkdir(exist_ok=True)

        return Step("model", digest, make)

    return tmp_path, step, calls


def test_a_fresh_step_is_kept(made):
    """The same digest twice is made once."""
    out, step, calls = made
    assert bring_up_to_date(out, step("a"), Silent())
    assert not bring_up_to_date(out, step("a"), Silent())
    assert calls == [False]


def test_a_stale_result_is_removed_first(made):
    """Nothing of an older spec is left in the folder."""
    out, step, calls = made
    bring_up_to_date(out, step("a"), Silent())
    (out / "model" / "old").touch()
    bring_up_to_date(out, step("b"), Silent())
    assert calls == [False, False]
    assert not (out / "model" / "old").exists()


def test_a_result_that_was_deleted_is_made_again(made):
    """steps.json alone is no result."""
    out, step, _ = made
    bring_up_to_date(out, step("a"), Silent())
    (out / "model").rmdir()
    assert bring_up_to_date(out, step("a"), Silent())


def test_an_interrupted_step_goes_on(made):
    """A step that was begun and not ended is asked to go on with what is there."""
    out, step, calls = made

    def broken(_: bool) -> None:
        (out / "model").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(out, Step("model", "a", broken), Silent())
    assert read_json(out / "steps.json") == {"model": {"digest": "a", "done": False}}
    assert bring_up_to_date(out, step("a"), Silent())
    assert calls == [True]


def test_what_tables_do_not_depend_on_does_not_remake_them(spec, tmp_path):
    """Another learning rate is another model of the same data."""
    text = specs.dump(spec)
    slower = specs.parse(text, overrides=["train.lr=1e-4"])
    before, after = run._digests(spec, tmp_path), run._digests(slower, tmp_path)
    assert before["data"] == after["data"]
    assert before["model"] != after["model"]


def test_a_changed_log_remakes_everything(tmp_path):
    """A file that [source] names, by path or by pattern, counts with its size and time."""
    spec = specs.parse('name = "x"\n[source]\nkind = "impressions"\nfiles = "*.csv"\n[tasks.click]\nlabel = "click"\n')
    log = tmp_path / "log.csv"
    log.write_text("click\n1\n")
    before = run._digests(spec, tmp_path)
    log.write_text("click\n1\n0\n")
    after = run._digests(spec, tmp_path)
    assert all(before[name] != after[name] for name in before)
