"""Numbers of the past as ids; what a history holds is tested against the slow twin (test_twins.py)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.transforms.history import bucketed
from tests.reference.features import bucket


@pytest.mark.parametrize(("number", "expected"), [(-3, 1), (0, 1), (1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (1023, 11)])
def test_a_bucket_is_a_power_of_two(number, expected):
    """Twice as much is the next bucket; what is below nothing is nothing."""
    assert bucketed(np.array([number])).tolist() == [expected]


@given(st.lists(st.integers(-5, 2**52) | st.floats(-5, 1e12)))
def test_buckets_are_those_of_the_slow_twin(numbers):
    """1 + floor(log2(1 + n)), of whole numbers and others."""
    assert bucketed(np.array(numbers, float)).tolist() == [bucket(number) for number in numbers]
