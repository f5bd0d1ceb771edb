"""The spec: what is refused, and in what words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rec import spec as specs
from rec.errors import SpecError

MINIMAL = 'name = "x"\n[tasks.click]\nlabel = "c"\n'
WATCH = '[tasks.watch]\nlabel = "w"\npredict = "log"\n'

BAD = [
    (
        MINIMAL.replace('name = "x"', 'name = ""'),
        "spec: name: expected a name: up to 64 small letters, digits, '.', '_'",
    ),
    ('name = "x"', "spec: tasks: required, but not given"),
    (MINIMAL + "[trian]\nlr = 1", "spec: trian: unknown key; did you mean 'train'?"),
    (MINIMAL + "[train]\nepoch = 3", "spec: train.epoch: unknown key; did you mean 'epochs'?"),
    (MINIMAL + '[train]\nlr = "fast"', "spec: train.lr: expected a valid number, got 'fast'"),
    (MINIMAL + '[train]\nmonitor = "auk"', "did you mean 'auc'?"),
    (
        MINIMAL + '[context]\na = { kind = "idd" }',
        "spec: context.a.kind: expected one of id, ids, number, vector, kept, got 'idd'",
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
    ('name = "x"\n[tasks.a]\nlabel = "a"\ngiven = "b"\n[tasks.b]\nlabel = "b"\ngiven = "a"', "a cycle: a -> b -> a"),
    (
        MINIMAL + 'given = "click"\n[keys]\nuser = "u"\n[context]\nu = { kind = "id", make = "hour" }',
        "tasks.click.given: a cycle: click -> click",
    ),
    (
        MINIMAL
        + '[tasks.buy]\nlabel = "b"\ngiven = "clik"\n[context]\na = { kind = "ids", make = "gaps", task = "buy" }',
        "spec: tasks.buy.given: no task 'clik'; did you mean 'click'?",
    ),
    (MINIMAL + "[train]\nlr = nan", "spec: train.lr: expected a finite number, got nan"),
    (MINIMAL + "value = inf", "spec: tasks.click.value: expected a finite number, got inf"),
    (MINIMAL + '[requests]\ngap = "99999999999d"', "spec: requests.gap: expected a duration of at most 36500d, got"),
    (MINIMAL + '[split]\ntest = "soon"', "spec: split.test: expected a timestamp such as '2026-03-08' or"),
    (MINIMAL + "[split]\ntest = 0001-01-01", "spec: split.test: expected a timestamp from 1900 to 2200, got"),
    ("seed = -1\n" + MINIMAL, "spec: seed: expected greater than or equal to 0, got -1"),
    (
        MINIMAL + '[evaluate]\ngroup = "u"\n[context]\nu = { kind = "vector", size = 2 }',
        "spec: evaluate.group: expected an id or a kept int or string, got 'u', which is another kind of feature",
    ),
    (
        MINIMAL + '[keys]\nuser = "u"\n[context]\nu = { kind = "number" }',
        "spec: context.u: expected an id or a kept int or string, since it is keys.user, got number",
    ),
    (MINIMAL + '[tasks.buy]\nlabel = "b"\nspace = "parent"', "tasks.buy.space: 'parent' needs 'given'"),
    (MINIMAL + '[requests]\ngap = "30x"', "spec: requests.gap: expected a duration such as '30s'"),
    (
        MINIMAL + '[split]\ntest = "2022-01-01"',
        "split: expected either 'validation' and 'test' (timestamps), or 'column'",
    ),
    (MINIMAL + '[split]\nvalidation = "2022-01-02"\ntest = "2022-01-01"', "split: expected 'validation' before 'test'"),
    (MINIMAL + "[train", "spec: not TOML"),
    ('name = "x"\n[tasks]', "tasks: expected at least one task"),
    (
        MINIMAL + WATCH + '[tasks.buy]\nlabel = "b"\ngiven = "watch"',
        "tasks.buy.given: 'watch' is a regression task; only an event can be a parent",
    ),
    (
        MINIMAL + '[tasks.watch]\nlabel = "w"\npredict = "logs"',
        "tasks.watch.predict: expected 'event', 'log', 'ordinal' or 'quantile', got 'logs'; did you mean 'log'?",
    ),
    (
        MINIMAL + WATCH + 'given = "click"\nspace = "all"',
        "tasks.watch.space: a regression task is always learnt where its parent happened; leave it out",
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
            "context.a.task: 'watch' is a regression task; counts, rates and histories are of events",
        )
        for kind, make in (("number", "rate"), ("number", "count"), ("ids", "history"))
    ),
]


KEYS = '[keys]\ntime = "t"\nuser = "u"\n'
CITY = '[context]\nu = { kind = "kept" }\ncity = { kind = "id", values = "string" }\n'
ITEM = '[candidates]\nitem = { kind = "id" }\nprice = { kind = "number" }\nsize = { kind = "vector", size = 2 }\n'
SHOWN = MINIMAL + "[events.seen]\nlabel = 's'\n" + KEYS + CITY
CROSS = 'x = { kind = "id", make = "cross", of = '
COUNT = SHOWN + 'x = { kind = "number", make = "count", '
RATE = SHOWN + 'x = { kind = "number", make = "rate", per = "u", task = "click", '
BAD_FEATURES = [
    (SHOWN + '[events.click]\nlabel = "c"', "spec: events.click: a task has this name too, and features count tasks"),
    (SHOWN + '[events."a b"]\nlabel = "c"', "spec: events.a b: the name of an event is letters, digits, _ and -"),
    (
        COUNT + 'per = "u", task = "sen" }',
        "spec: context.x.task: no task 'sen', and no event of [events]; did you mean 'seen'?",
    ),
    (SHOWN + 'x = { kind = "ids", make = "gaps", task = "clik" }', "context.x.task: no task 'clik', and no event of"),
    (
        SHOWN + 'x = { kind = "number", window = "1d" }',
        "spec: context.x.window: only for make = 'count' or 'rate' or 'mean' or 'sum' or 'last' or 'expected' or",
    ),
    (
        SHOWN + 'x = { kind = "number", windows = ["1d"] }',
        "context.x.windows: only for make = 'count' or 'rate' or 'mean' or 'sum'",
    ),
    (SHOWN + 'x = { kind = "id", windows = ["1d"] }', "context.x.windows: unknown key"),
    (
        COUNT + 'per = "u", windows = ["1d", "1w"] }',
        "spec: context.x.windows: expected durations such as '1h' or '7d', or 'ever', got '1w'",
    ),
    (COUNT + 'per = "u", windows = [1] }', "spec: context.x.windows.0: expected a valid string, got 1"),
    (COUNT + 'per = "u", window = "1h", windows = ["1d"] }', "spec: context.x: give 'window' or 'windows', not both"),
    (
        COUNT + 'per = "u", windows = ["1d"] }\nx_1d = { kind = "number" }',
        "spec: context.x.windows: x_1d and so on must be new names; rename one",
    ),
    (COUNT + 'per = "u", windows = ["1d", "1d"] }', "spec: context.x.windows: '1d' is there twice"),
    (COUNT + 'per = ["u", "u"], task = "click" }', "spec: context.x.per: 'u' is there twice"),
    (SHOWN + 'x = { kind = "number", make = "rate", task = "click" }', "context.x.per: rate needs the column whose"),
    (COUNT + "per = [] }", "context.x.per: count needs the column whose"),
    (COUNT + "per = 3 }", "spec: context.x.per: expected a valid string or a valid list, got 3"),
    (COUNT + 'per = ["u", 3] }', "spec: context.x.per.1: expected a valid str"),
    (
        SHOWN + 'x = { kind = "number", make = "since", per = [] }',
        "context.x.per: expected at least one column, got []",
    ),
    (SHOWN + 'x = { kind = "number", make = "mean", column = "y" }', "context.x.per: mean needs the column whose past"),
    (
        SHOWN + 'x = { kind = "number", make = "last", per = "u" }',
        "context.x.column: last needs the column whose values",
    ),
    (RATE + 'given = "clik" }', "context.x.given: no task 'clik', and no event of [events]; did you mean 'click'?"),
    (RATE + 'given = "click" }', "context.x.given: 'click' is the task itself; a rate is of another event, such as"),
    (SHOWN + 'x = { kind = "number", prior = 3 }', "context.x.prior: only for make = 'rate' or 'coec', got 'column'"),
    (SHOWN + 'x = { kind = "number", per = "u" }', "context.x.per: only for make = 'count' or 'rate' or 'mean' or "),
    (SHOWN + 'x = { kind = "number", buckets = 3 }', "context.x.buckets: only for scale = 'quantile', got 'standard'"),
    (
        SHOWN + 'x = { kind = "number", scale = "log", dim = 4 }',
        "context.x.dim: only for scale = 'quantile', got 'log'",
    ),
    (SHOWN + 'x = { kind = "number", table = "city" }', "spec: context.x.table: unknown key"),
    (
        SHOWN + 'b = { kind = "number", scale = "quantile" }\nx = { kind = "id", table = "b" }',
        "spec: context.x.table: no id feature 'b' declares a table",
    ),
    (SHOWN + 'x = { kind = "id", of = ["city"] }', "spec: context.x.of: only for make = 'cross', got 'column'"),
    (SHOWN + CROSS + '["city"] }', "spec: context.x.of: expected at least two id features to cross, got ['city']"),
    (SHOWN + CROSS + '["city", "citi"] }', "spec: context.x.of: no feature 'citi'; did you mean 'city'?"),
    (
        SHOWN + CROSS + '["city", "u"] }',
        "spec: context.x.of: 'u' is not one id; only features of kind 'id' are crossed, and no cross of crosses",
    ),
    (SHOWN + ITEM + CROSS + '["item", "price"] }', "candidates.x.of: 'price' is not one id"),
    (SHOWN + ITEM + CROSS + '["item", "x"] }', "candidates.x.of: 'x' is not one id; only"),
    (
        SHOWN + CROSS + '["city", "item"] }\n' + ITEM,
        "spec: context.x.of: 'item' belongs to the candidates; a cross with it does too",
    ),
    (
        SHOWN + ITEM + CROSS + '["item", "city"], encode = "hash" }',
        "spec: candidates.x.encode: a cross is made of other features, and hashed; leave it out",
    ),
    (
        SHOWN + ITEM + CROSS + '["item", "city"] }\ny = { kind = "id", table = "x" }',
        "spec: candidates.y.table: no id feature 'x' declares a table",
    ),
    (SHOWN + 'x = { kind = "ids", make = "tokens" }', 'context.x.values: words are text; say values = "string"'),
    (SHOWN + 'x = { kind = "ids", make = "gaps", values = "string" }', "context.x.values: gaps are ints; leave it out"),
    (
        SHOWN + 'x = { kind = "ids", make = "history", buckets = true, values = "string" }',
        "spec: context.x.values: buckets are ints; leave it out",
    ),
    (SHOWN + 'x = { kind = "ids", buckets = true }', "context.x.buckets: only for make = 'history', got 'column'"),
    (SHOWN + 'x = { kind = "ids", task = "click" }', "context.x.task: only for make = 'history' or 'gaps', got 'colu"),
    (SHOWN + ITEM + 'x = { kind = "ids", make = "gaps" }', "spec: candidates.x: gaps belong to the context"),
    (
        SHOWN + ITEM + 'x = { kind = "number", make = "session_seconds" }',
        "spec: candidates.x: a session belongs to the context",
    ),
    (SHOWN + 'x = { kind = "vector" }', "spec: context.x.size: required, but not given"),
    (SHOWN + 'x = { kind = "vector", size = 0 }', "context.x.size: expected greater than or equal to 1, got 0"),
    (
        MINIMAL + '[keys]\ntime = "t"\nsession = "s"',
        "spec: keys.session: needs keys.user, whose sessions they are",
    ),
    (MINIMAL + '[sessions]\ngap = "1h"', "spec: sessions: needs keys.user, whose sessions they are"),
    (
        MINIMAL + '[keys]\ntime = "t"\n[context]\nx = { kind = "number", make = "since" }',
        "spec: context.x.per: since needs the column whose past is looked at, or keys.user",
    ),
    (MINIMAL + '[keys]\ntime = "t"\n[context]\nx = { kind = "ids", make = "gaps" }', "context: gaps need keys.user"),
    (
        MINIMAL + '[context]\nx = { kind = "number", make = "session_requests" }',
        "spec: context.x: needs keys.time, the column with the timestamp of an impression",
    ),
    (MINIMAL + WATCH + "negatives = 0.5", "tasks.watch.negatives: only for predict = 'event', got 'log'"),
    (MINIMAL + "negatives = 0.0", "tasks.click.negatives: expected greater than 0, got 0.0"),
    (MINIMAL + "[logs]\nbad_rows = 2.0", "logs.bad_rows: expected less than or equal to 1, got 2.0"),
]


@pytest.mark.parametrize(("text", "message"), [*BAD, *BAD_FEATURES])
def test_a_wrong_spec_is_refused_with_its_path_and_the_nearest_match(text, message):
    """Where, what was expected, what came, and the nearest match."""
    with pytest.raises(SpecError) as caught:
        specs.parse(text)
    assert message in str(caught.value)


def test_several_windows_are_as_many_features():
    """In their place, each with its own window; `ever` has none."""
    spec = specs.parse(COUNT + 'per = ["u", "city"], windows = ["1d", "ever"] }\ny = { kind = "number" }')
    assert list(spec.context) == ["u", "city", "x_1d", "x_ever", "y"]
    assert (spec.context["x_1d"].window, spec.context["x_ever"].window) == (timedelta(days=1), None)


def test_features_that_are_right_are_taken():
    """An event is counted like a task, crosses reach over to the context, and a name may be that of a kind."""
    spec = specs.parse(
        SHOWN
        + 'str = { kind = "number", make = "since", task = "seen", scale = "quantile", buckets = 4 }\n'
        + 'hour = { kind = "id", make = "hour" }\n'
        + 'here = { kind = "id", make = "cross", of = ["city", "hour"] }\n'
        + ITEM
        + 'x = { kind = "id", make = "cross", of = ["city", "item", "hour"] }\n'
        + 'words = { kind = "ids", make = "tokens", values = "string" }\n'
    )
    assert list(spec.tables()) == ["city", "str", "hour", "here", "item", "x", "words"]
    assert (spec.table_of("context", "str"), spec.tables()["str"].dim) == ("str", 8)


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
