"""The state of a store as a build leaves it: put aside by partitions of users and buckets of keys, then made one.

    of_partition   impressions that may still change something, totals of keys that name the user, histories, sessions
    of_bucket      totals of the other keys
    write          all of it below each other, as `features.state` loads it

The state is of the moment after the last impression. What came after, such as a purchase that the logs already know,
stands in the impressions that may still change something, and enters when the store's clock gets there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from features import keys, state
from features.counts import Past
from features.feeding import CODE, Made
from features.history import bucketed, flat
from features.hours import Hours
from features.job import Job
from features.latest import KEY, SEEN, fields, table_of
from features.memory import Memory, Remembered
from features.moments import TIME
from features.running import Totals, totals_table, track_table
from features.sessions import Sessions
from features.shard import PLACE, Shard, key_of
from features.sittings import Requests, Sittings, who_sits
from rec import columns_lists
