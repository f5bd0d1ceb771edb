"""The spec: what is refused, and in what words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rec import spec as specs
from rec.errors import SpecError

MINIMAL = 'name = "x"\n[tasks.click]\nlabel = "c"\n'
WATCH = '[tasks.watch]\nlabel = "w"\npredict = "log"\n'

BAD = [
    ('name = "x"', "spec: tasks: required, but not given"),
    (MINIMAL + "[trian]\nlr = 1", "spec: trian: unknown key; did you mean 'train'?"),
    (MINIMAL + "[train]\nepoch = 3", "spec: train.epoch: unknown key; did you mean 'epochs'?"),
    (MINIMAL + '[train]\nlr = "fast"', "spec: train.lr: expected a valid number, got 'fast'"),
    (MINIMAL + '[train]\nmonitor = "auk"', "did you mean 'auc'?"),
    (
        MINIMAL + '[context]\na = { kind = "idd" }',
        "spec: context.a.kind: expected one of id, ids, number, kept, got 'idd'",
    ),
    (MINIMAL + '[context]\na = { kind = "id", dimm = 3 }', "spec: context.a.dimm: unknown key; did you mean 'dim'?"),
    (MINIMAL + '[context]\na = { kind = "id", dim = 6 }', "spec: context.a.dim: expected a multiple of 4, got 6"),
    (MINIMAL + '[context]\na = { kind = "id", table = "b" }', "context.a.table: no id feature 'b' declares a table"),
    (MINIMAL + '[context]\n"a.b" = { kind = "id" }', "a feature name is letters, digits, _ and -"),
    (MINIMAL + '[context]\na = { kind = "number", make = "rate", per = "u" }', "context.a.task: rate needs the task"),
    (MINIMAL + '[context]\na = { kind = "number", make = "count" }', "context.a.per: count needs the column"),
    (MINIMAL + '[context]\na = { kind = "number", make = "count", per = "u" }', "context.a: needs keys.time"),
    (MINIMAL + '[context]\na = { kind = "ids", make = "history", task = "clik" }', "did you mean 'click'?"),
    (
        MINIMAL + '[candidates]\na = { kind = "ids", make = "history" }',
        "candidates.a: a history belongs to the context",
    ),
    (MINIMAL + '[candidates]\nclick = { kind = "id" }', "tasks.click: a candidate feature has this name too"),
    (
        MINIMAL + '[context]\na = { kind = "id" }\n[candidates]\na = { kind = "id" }',
        "a context feature has this name too",
    ),
    (MINIMAL + '[keys]\nuser = "u"', "keys.user: 'u' is not in [context]; add u = { kind = \"kept\" }"),
    (MINIMAL + '[evaluate]\ngroup = "u"', "evaluate.group: no context feature 'u'"),
    (MINIMAL + '[tasks.buy]\nlabel = "b"\ngiven = "clik"', "tasks.buy.given: no task 'clik'; did you mean 'click'?"),
    ('name = "x"\n[tasks.a]\nlabel = "a"\ngiven = "b"\n[tasks.b]\nlabel = "b"\ngiven = "a"', "a circle: a -> b -> a"),
    (MINIMAL + '[tasks.buy]\nlabel = "b"\nspace = "parent"', "tasks.buy.space: 'parent' needs 'given'"),
    (MINIMAL + '[requests]\ngap = "30x"', "spec: requests.gap: expected a duration such as '30s'"),
    (MINIMAL + '[split]\ntest = "2022-01-01"', "give either 'validation' and 'test' (moments), or 'column'"),
    (MINIMAL + '[split]\nvalidation = "2022-01-02"\ntest = "2022-01-01"', "'validation' must be before 'test'"),
    (MINIMAL + "[train", "spec: not TOML"),
    ('name = "x"\n[tasks]', "tasks: expected at least one task"),
    (
        MINIMAL + WATCH + '[tasks.buy]\nlabel = "b"\ngiven = "watch"',
        "tasks.buy.given: 'watch' is a quantity; only an event can be a parent",
    ),
    (
        MINIMAL + '[tasks.watch]\nlabel = "w"\npredict = "logs"',
        "tasks.watch.predict: expected 'event', 'log', 'ordinal' or 'quantile', got 'logs'; did you mean 'log'?",
    ),
    (
        MINIMAL + WATCH + 'given = "click"\nspace = "all"',
        "tasks.watch.space: a quantity is always learnt where its parent happened; leave it out",
    ),
    (MINIMAL + WATCH + "bins = 8", "tasks.watch.bins: only for predict = 'ordinal', got 'log'"),
    (MINIMAL + "quantile = 0.9", "tasks.click.quantile: only for predict = 'quantile', got 'event'"),
    (
        MINIMAL + '[tasks.w]\nlabel = "w"\npredict = "quantile"\nquantile = 1.0',
        "tasks.w.quantile: expected less than 1",
    ),
    (
        'name = "x"\n' + WATCH + '[objective]\nname = "esmm"',
        "objective: learns events, and no task predicts one; leave",
    ),
    *(
        (
            f'{MINIMAL}{WATCH}[context]\na = {{ kind = "{kind}", make = "{make}", task = "watch" }}',
            "context.a.task: 'watch' is a quantity; counts, rates and histories are of events",
        )
        for kind, make in (("number", "rate"), ("number", "count"), ("ids", "history"))
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_wrong_spec_is_refused_with_its_path_and_the_nearest_match(text, message):
    """Where, what was expected, what came, and the nearest match."""
    with pytest.raises(SpecError) as caught:
        specs.parse(text)
    assert message in str(caught.value)


def test_every_mistake_of_types_is_told_at_once():
    """Two wrong keys give two lines."""
    with pytest.raises(SpecError) as caught:
        specs.parse(MINIMAL + "[train]\nepoch = 3\nlearning_rate = 1")
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_a_spec_error_naming_it(tmp_path):
    """No traceback for a wrong path."""
    with pytest.raises(SpecError, match=r"nowhere\.toml: no such spec"):
        specs.load(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_text_is_a_spec_error(tmp_path):
    """A Parquet file given as a spec is refused in words."""
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read as a spec"):
        specs.load(tmp_path / "x.toml")


def test_an_override_goes_through_the_same_strict_builder():
    """--set changes a value, and a wrong one is refused like one in the file."""
    assert specs.parse(MINIMAL, overrides=["train.lr=1e-2", "requests.gap=2h"]).requests.gap == timedelta(hours=2)
    with pytest.raises(SpecError, match=r"train\.epochs: expected"):
        specs.parse(MINIMAL, overrides=["train.epochs=0"])
    with pytest.raises(SpecError, match=r"--set train: expected section\.key=value"):
        specs.parse(MINIMAL, overrides=["train"])
    with pytest.raises(SpecError, match="name is a value, not a table"):
        specs.parse(MINIMAL, overrides=["name.x=1"])


def test_a_dumped_spec_reads_back_the_same():
    """The spec stored with a run is the run's spec."""
    text = MINIMAL + '[keys]\ntime = "t"\n[requests]\ngap = "2h"\n'
    text += '[split]\nvalidation = "2022-01-01"\ntest = "2022-01-02T03:00:00+02:00"\n'
    spec = specs.parse(text, overrides=["train.lr=1e-2"])
    assert specs.parse(specs.dump(spec)) == spec
