from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec import spec as specs
from serving.online.parse import RequestParser
from serving.online.problems import RequestError, problem
from tests.serving.conftest import IDS, NOW, items


@pytest.fixture(scope="module")
def parser(spec):
    """Reads requests of the tiny shop."""
    return RequestParser(spec)


def read(parser, request):
    """What a request, as Python values or as bytes, becomes."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return parser.parse(body, NOW, lambda: "generated")


def refused(parser, request):
    """The error a request meets."""
    with pytest.raises(RequestError) as error:
        read(parser, request)
    return error.value


@pytest.fixture(scope="module")
def text_parser(opened):
    """Reads requests of a shop whose ids of items are text."""
    return RequestParser(specs.parse(specs.dump(opened.spec), overrides=['candidates.item_id.values="string"']))


@pytest.mark.parametrize("ids", [[7, "7"], [7.0, "7"], [True, "true"], ["a", 7, "7", "b"]])
def test_an_id_is_one_however_it_is_written(text_parser, ids):
    """Where ids are text, 7 is "7": in rows and in columns, both are one candidate, and a candidate comes once."""
    for candidates in (items(*ids), {"item_id": ids}):
        assert "is candidate" in str(refused(text_parser, {"candidates": candidates}))
    assert read(text_parser, {"candidates": items(1, True, "x")}).items == [1, True, "x"]
    assert "required, but not given" in str(refused(text_parser, {"candidates": items("nan", "x")}))


def test_numbers_that_are_one_id_are_one_candidate(parser):
    """7.0 is the id 7, and true is 1."""
    for ids in ([7, 7.0], [1, True]):
        assert "is candidate 0 already" in str(refused(parser, {"candidates": items(*ids)}))


def test_a_request_becomes_columns(parser):
    """One of length 1 per context value, one of length N per candidate value, and where each was given."""
    request = {"request_id": "r1", "time": "2026-03-08T00:00:01Z", "options": {"top_k": 2}}
    request = read(
        parser, {**request, "context": {"user_id": 7}, "candidates": [{"item_id": 3, "price": 9.5}, {"item_id": 5}]}
    )
    assert (request.request_id, request.time, request.count, request.items, request.top_k) == (
        "r1",
        NOW + 10**6,
        2,
        [3, 5],
        2,
    )
    assert request.context["user_id"].values.to_pylist() == [7]
    assert request.candidates["item_id"].present is None
    assert request.candidates["price"].values.to_pylist() == [9.5, None]
    assert request.candidates["price"].present.tolist() == [True, False]


def test_what_is_optional_may_be_left_out(parser):
    """A request needs candidates and nothing else; time and id are then those of its arrival."""
    request = read(parser, {"candidates": []})
    assert (request.request_id, request.time, request.count, request.items, request.top_k) == (
        "generated",
        NOW,
        0,
        [],
        None,
    )
    assert read(parser, {"candidates": [], "time": None, "request_id": None}).request_id == "generated"


def test_columns_and_rows_are_the_same_request(parser):
    """The columnar form is only shorter."""
    rows = read(parser, {"candidates": [{"item_id": 3, "price": 1.5}, {"item_id": 5, "price": None}]})
    columns = read(parser, {"candidates": {"item_id": [3, 5], "price": [1.5, None]}})
    assert (columns.columnar, rows.columnar) == (True, False)
    assert replace(columns, columnar=False) == rows
    assert replace(read(parser, {"candidates": {}}), columnar=False) == read(parser, {"candidates": []})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: Input data was truncated"),
        (b'{"candidates": [', "body: Input data was truncated"),
        (b'{"candidates": []} x', "body: JSON is malformed: trailing characters (byte 20)"),
        (b"\xef\xbb\xbf{}", "body: JSON is malformed: invalid character (byte 0)"),
        (b'{"candidates": [{"item_id": NaN}]}', "body: JSON is malformed: invalid character (byte 28)"),
        (b'{"candidates": [{"price": Infinity}]}', "body: JSON is malformed: invalid character (byte 26)"),
        (b'{"candidates": [{"price": 1e400}]}', "body: Number out of range"),
        (b'{"candidates": ' + b"[" * 100_000, "body: nested too deeply"),
        (b'{"context": {"city": "\xff"}}', "body: not UTF-8 (byte "),
        (b'{"context": {"city": "\\ud800"}}', "body: "),
    ],
)
def test_what_is_no_json_is_400(parser, body, message):
    """With the byte where it stops being JSON, where the parser knows it."""
    error = refused(parser, body)
    assert error.status == 400
    assert error.title == "Body is not JSON"
    assert str(error).startswith(message)


CANDIDATES = items(1)
MOMENT = "a timestamp with a time zone, such as '2026-11-20T08:30:00Z'"


@pytest.mark.parametrize(
    ("request_", "pointer", "message"),
    [
        (3, "", "body: expected an object, got 3"),
        ({}, "/candidates", "candidates: expected a list of objects or an object of lists, got nothing"),
        ({"candidates": 3}, "/candidates", "candidates: expected a list of objects or an object of lists, got 3"),
        ({"candidate": [], "candidates": []}, "/candidate", "candidate: unknown key; did you mean 'candidates'?"),
        ({"candidates": [{"item_id": 1}, 3]}, "/candidates/1", "candidates[1]: expected an object, got 3"),
        ({"candidates": [{}]}, "/candidates/0/item_id", "candidates[0].item_id: required, but not given"),
        ({"candidates": {"price": [1.0]}}, "/candidates/item_id/0", "candidates[0].item_id: required, but not given"),
        ({"candidates": items(4, 2, 4)}, "/candidates/2/item_id", "candidates[2].item_id: 4 is candidate 0 already"),
        (
            {"candidates": {"item_id": [4, 4]}},
            "/candidates/item_id/1",
            "candidates[1].item_id: 4 is candidate 0 already",
        ),
        (
            {"candidates": {"item_id": [1, 2], "price": [1.0]}},
            "/candidates/price",
            "candidates.price: expected 2 values like the longest column, got 1",
        ),
        (
            {"candidates": {"item_id": [1], "price": 1.0}},
            "/candidates/price",
            "candidates.price: expected a list with a value per candidate, got 1.0",
        ),
        (
            {"candidates": [{"item_id": 1, "prize": 2}]},
            "/candidates/0/prize",
            "candidates.prize: not a feature of the spec; did you mean 'price'?",
        ),
        (
            {"candidates": [{"item_id": 1}, {"item_id": 2, "price": "9"}]},
            "/candidates/1/price",
            "candidates[1].price: expected a number, got '9'",
        ),
        (
            {"candidates": [{"item_id": 1, "price": {"a": 1}}]},
            "/candidates/0/price",
            "candidates[0].price: expected a number, got an object",
        ),
        (
            {"context": {"user_id": "bob"}, "candidates": CANDIDATES},
            "/context/user_id",
            "context.user_id: expected an id, got 'bob'",
        ),
        (
            {"context": {"hour": 3}, "candidates": CANDIDATES},
            "/context/hour",
            "context.hour: computed from the time of the request; leave it out",
        ),
        (
            {"context": {"a/b~c": 3}, "candidates": CANDIDATES},
            "/context/a~1b~0c",
            "context.a/b~c: not a feature of the spec",
        ),
        ({"context": [], "candidates": []}, "/context", "context: expected an object, got []"),
        ({"time": "soon", "candidates": []}, "/time", f"time: expected {MOMENT}, got 'soon'"),
        ({"time": 3, "candidates": []}, "/time", f"time: expected {MOMENT}, got 3"),
        (
            {"time": "2026-11-20T08:30:00", "candidates": []},
            "/time",
            f"time: expected {MOMENT}, got '2026-11-20T08:30:00'",
        ),
        (
            {"request_id": "a\nb", "candidates": []},
            "/request_id",
            "request_id: expected 1 to 128 printable ASCII characters, got 'a\\nb'",
        ),
        ({"options": 3, "candidates": []}, "/options", "options: expected an object, got 3"),
        (
            {"options": {"topk": 3}, "candidates": []},
            "/options/topk",
            "options.topk: unknown key; did you mean 'top_k'?",
        ),
        (
            {"options": {"top_k": 0}, "candidates": []},
            "/options/top_k",
            "options.top_k: expected a whole number from 1, got 0",
        ),
    ],
)
def test_what_does_not_fit_the_spec_is_422(parser, request_, pointer, message):
    """Where it is, as a JSON pointer, and what was expected, in the spec's dotted names."""
    error = refused(parser, request_)
    assert error.status == 422
    assert error.problems == [(pointer, message)]


def test_several_mistakes_are_told_at_once(parser):
    """Up to ten of them."""
    error = refused(parser, {"context": {f"x{i}": 1 for i in range(50)}, "candidates": []})
    assert len(error.problems) == 10


def test_a_huge_number_is_shown_short(parser):
    """Ten thousand digits are JSON; they are no id, and no reason to fail."""
    error = refused(parser, b'{"candidates": [{"item_id": ' + b"9" * 10_000 + b"}]}")
    assert error.status in (400, 422)
    assert len(str(error)) < 200


def test_too_many_candidates_are_413(parser):
    """In rows or in columns."""
    ids = list(range(10_000))
    for candidates in (items(*ids), {"item_id": ids}):
        error = refused(parser, {"candidates": candidates})
        assert (error.status, error.problems[0][0]) == (413, "/candidates")
        assert str(error) == "candidates: expected at most 2000, got 10000"


def test_any_text_can_be_an_id_or_a_category(parser):
    """NUL and right-to-left text are text."""
    request = read(parser, {"context": {"city": "a\0b\u202e"}, "candidates": []})
    assert request.context["city"].values.to_pylist() == ["a\0b\u202e"]


TEXT = st.text("ab/~\0\n\u202e\U0001f600", max_size=3)
NAMES = st.sampled_from(["item_id", "price", "user_id", "city", "x"]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("context", "candidates", "time", "options", "x"), JSON)))
def test_whatever_json_comes_it_is_read_or_refused(parser, request_):
    """No input raises anything but RequestError, and no error text is long or has a control character."""
    messages = []
    try:
        read(parser, request_)
    except RequestError as error:
        messages = [message for _, message in error.problems]
    assert all(len(message) < 300 and message.isprintable() for message in messages)


@given(st.binary(max_size=40))
def test_whatever_bytes_come_they_are_read_or_refused(parser, body):
    """Bytes that are no JSON at all likewise."""
    with pytest.raises(RequestError):
        read(parser, b"[" + body)


def test_a_problem_is_what_rfc_9457_says():
    """Status, title, detail, and a pointer to every mistake."""
    body = json.loads(problem(422, "No", [("/a", "a: wrong"), ("/b", "b: wrong")]))
    assert body == {
        "type": "about:blank",
        "status": 422,
        "title": "No",
        "detail": "2 problems, the first: a: wrong",
        "errors": [{"pointer": "/a", "message": "a: wrong"}, {"pointer": "/b", "message": "b: wrong"}],
    }
    assert json.loads(problem(404, "No such page", []))["detail"] == "No such page"


def test_a_label_is_one_that_can_be_asked_for(ask):
    """Stable, where nothing has a label; others are not here, and a shadow answers nobody."""
    asked = {**IDS, "candidates": items(3)}
    assert ask(**asked, label="stable")["candidates"] == ask(**asked)["candidates"]
    for label, status in [("canary", 404), ("shadow", 422), (3, 422), (["canary"], 422)]:
        with pytest.raises(RequestError) as refused:
            ask(**asked, label=label)
        assert refused.value.status == status
