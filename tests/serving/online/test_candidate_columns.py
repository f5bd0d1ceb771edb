"""What a body costs: CPU in proportion to its bytes, whatever its shape."""

from __future__ import annotations

import time

import pytest

from serving.online.parse import RequestParser
from serving.online.problems import RequestError

MOST = 3e-6  # seconds of CPU per byte; a body that builds before it checks needs ten times as much
MANY = 20_000


def many(pattern, count=MANY, between=","):
    """A pattern once per number below a count."""
    return between.join(pattern % index for index in range(count))


def nested(depth):
    """A list in a list in a list."""
    return "[" * depth + "]" * depth


CONTEXT = '{"candidates": [], "context": {%s}}'
SHAPES = {
    "rows of names": '{{"candidates": [{}]}}'.format(",".join(["{" + many('"n%d": 1', 2_000) + "}"] * 25)),
    "rows of other names": '{{"candidates": [{}]}}'.format(many('{"n%d": 1}', 2_000)),
    "columns of names": '{{"candidates": {{{}}}}}'.format(many('"n%d": [1]')),
    "names of the context": CONTEXT % many('"n%d": 1'),
    "names on top": "{{{}}}".format(many('"n%d": 1')),
    "names of options": '{{"candidates": [], "options": {{{}}}}}'.format(many('"n%d": 1')),
    "a long key": '{"candidates": [{"%s": 1}]}' % ("k" * 200_000),
    "a long key of the context": CONTEXT % ('"%s": 1' % ("k" * 200_000)),
    "a long key on top": '{"%s": 1}' % ("k" * 200_000),
    "a long integer": CONTEXT % ('"user_id": %s' % ("9" * 200_000)),
    "long integers": CONTEXT % ('"clicked": [{}]'.format(",".join(["9" * 4_000] * 50))),
    "a long fraction": CONTEXT % ('"age": 0.%s' % ("1" * 200_000)),
    "a long exponent": CONTEXT % ('"age": 1%se-200000' % ("0" * 200_000)),
    "a long text": CONTEXT % ('"user_id": "%s"' % ("\\u0001" * 40_000)),
    "a long time": '{"candidates": [], "time": "%s"}' % ("1" * 200_000),
    "a wide list": CONTEXT % ('"clicked": [{}]'.format(many("%d", 50_000))),
    "a wide list of nothing": CONTEXT % ('"clicked": [{}]'.format(many("null%.0d", 50_000))),
    "a wide list in the place of an id": CONTEXT % ('"user_id": [{}]'.format(many("%d", 50_000))),
    "deep lists": CONTEXT % ('"user_id": [{}]'.format(",".join([nested(300)] * 300))),
    "the same candidate": '{{"candidates": [{}]}}'.format(",".join(['{"item_id": 1}'] * 2_000)),
    "candidates of nothing": '{{"candidates": [{}]}}'.format(",".join(["{}"] * 20_000)),
}


@pytest.fixture(scope="module")
def parser(spec):
    """Reads requests of the tiny shop, and has read one."""
    parser = RequestParser(spec)
    parser.parse(b'{"candidates": [{"item_id": 1, "price": 2}], "context": {"clicked": [1]}}', 0, lambda: "id")
    return parser


def answer(parser, body):
    """The status and the text that a body gets."""
    try:
        parser.parse(body, 0, lambda: "id")
    except RequestError as error:
        return error.status, str(error)
    return 200, ""


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_costs_what_its_bytes_cost(parser, shape):
    """The CPU of one thread, the better of two readings; and the answer is short."""
    body = SHAPES[shape].encode()
    seconds = []
    for _ in range(2):
        began = time.thread_time()
        status, text = answer(parser, body)
        seconds.append(time.thread_time() - began)
    assert status in (200, 400, 413, 422)
    assert len(text) < 3_000
    assert min(seconds) < 0.002 + MOST * len(body)


@pytest.mark.parametrize("depth", [40, 900, 980, 5_000, 200_000])
@pytest.mark.parametrize("body", [CONTEXT % '"user_id": %s', "%s", '{"candidates": %s}', '{"candidates": [], "x": %s}'])
def test_a_body_that_is_too_deep_is_400(parser, body, depth):
    """Whether the reader of JSON bears it or not, and wherever it is deep."""
    assert answer(parser, (body % nested(depth)).encode())[0] == 400
