"""What a count or a rate may not be, said with its path."""

from __future__ import annotations

import pytest

from rec import spec as specs
from rec.errors import SpecError
from tests.rec.spec.test_spec import COUNT, SHOWN

BAD = [
    (COUNT + 'per = "u", half_life = "0s" }', "context.x.half_life: expected longer than 0s"),
    (
        COUNT + 'per = "u", half_life = "1h", window = "1d" }',
        "context.x.window: what decays has no end; give half_life or window, not both",
    ),
    (
        COUNT + 'per = "u", half_life = "1h", windows = ["1d"] }',
        "context.x.windows: what decays has no end; give half_life or windows, not both",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "since", half_life = "1h" }',
        "context.x.half_life: only for make = 'count' or 'rate', got 'since'",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "coec", per = "u" }',
        "context.x.task: coec needs the task whose events are counted",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "expected", per = "u", task = "click" }',
        "context.x.task: expected is of all impressions, whatever came of them; leave it out, or make it 'coec'",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "expected", per = "u", column = "v" }',
        "context.x.column: 'expected' is made of the sizes of requests; leave it out",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "expected", per = "u", half_life = "1h" }',
        "context.x.half_life: only for make = 'count' or 'rate', got 'expected'",
    ),
    (
        SHOWN + 'x = { kind = "number", make = "expected", per = "u", prior = 2.0 }',
        "context.x.prior: only for make = 'rate' or 'coec', got 'expected'",
    ),
    (SHOWN + 'x = { kind = "number", make = "expected" }', "context.x.per: expected needs the column whose past is"),
    (
        COUNT + 'per = ["u", "city"], matching = "v" }',
        "context.x.matching: expected as many as per, 2 columns, got 'v'",
    ),
    (SHOWN + 'x = { kind = "number", matching = "v" }', "context.x.matching: only for make = 'count' or 'rate' or"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_wrong_number_of_the_past_is_refused_with_its_path(text, message):
    """Where, what was expected, and what came."""
    with pytest.raises(SpecError) as caught:
        specs.parse(text)
    assert message in str(caught.value)
