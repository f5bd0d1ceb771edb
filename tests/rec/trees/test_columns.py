from __future__ import annotations

import numpy as np

from rec.request import RequestBatch
from rec.spec import parse
from rec.trees import columns

SPEC = parse("""
name = "columns"
[keys]
time = "t"
[context]
seen = { kind = "ids", table = "item", last = 3 }
page = { kind = "id", table = "item" }
hour = { kind = "id", make = "hour" }
[candidates]
item = { kind = "id" }
place = { kind = "id", bias = true }
price = { kind = "number" }
age = { kind = "number", scale = "quantile" }
taste = { kind = "vector", size = 2 }
note = { kind = "kept" }
[tasks.click]
label = "click"
""")
BATCH = RequestBatch(
    2,
    {"seen": np.array([[0, 2, 3], [0, 0, 0]]), "page": np.array([3, 0]), "hour": np.array([4, 0])},
    {
        "item": np.array([3, 2, 0]),
        "place": np.array([1, 2, 1]),
        "price": np.float32([1.5, np.nan, 2]),
        "age": np.array([0, 2, 5]),
        "taste": np.float32([[1, 2], [3, 4], [5, 6]]),
    },
    np.array([0, 0, 1]),
)
NAN = np.nan


def test_every_column_is_what_its_name_says():
    """Ids by frequency, lists by length and last id, ids that occur in lists, buckets and hours in order, no bias."""
    wanted = columns.columns(SPEC)
    codes = columns.codes_of(columns.counted([BATCH], wanted, {"item": 5}), 2)
    assert codes["item"][1:].tolist() == [3, 2, 1, 3]  # 3 occurs three times, 2 twice, 1 and 4 never
    made = dict(zip([c.name for c in wanted], columns.matrix(BATCH, wanted, codes).T, strict=True))
    expected = {
        "context.seen (length)": [2, 2, 0],
        "context.seen (newest)": [1, 1, NAN],
        "context.page": [1, 1, NAN],
        "context.hour": [4, 4, NAN],
        "candidates.item": [1, 2, NAN],
        "candidates.price": [1.5, NAN, 2],
        "candidates.age": [NAN, 2, 5],
        "candidates.taste (0)": [1, 3, 5],
        "candidates.taste (1)": [2, 4, 6],
        "candidates.item (seen)": [1, 1, 0],
        "candidates.item (page)": [1, 0, 0],
    }
    assert list(made) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(made[name], np.float32(values), err_msg=name)
