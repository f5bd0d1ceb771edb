"""Open Bandit (Saito et al., NeurIPS 2021): fashion items shown in three slots of a shop's front page, and clicks.

Reads `<policy>_<campaign>.parquet` and `<policy>_<campaign>_item_context.parquet` of a folder. The log has no user id,
but four hashed user attributes, and one column of past clicks per item (`user-item_affinity_<item>`), of which
`affinity` is that of the shown item. `propensity_score` is the logging policy's probability of that choice, and
`position` the slot; both are for off-policy evaluation, not model inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from features.logs.files import table
from features.logs.logs import Logs, collect
from rec.spec import Spec, Strict

_AFFINITY = "user-item_affinity_"


class Options(Strict):
    """The folder, the logging policy (uniformly random or Bernoulli Thompson sampling), and the campaign."""

    root: str = Field(description="the folder with the Parquet files")
    policy: Literal["random", "bts"] = Field(
        default="random", description="who chose: random, or Bernoulli Thompson sampling"
    )
    campaign: Literal["all", "men", "women"] = Field(default="all", description="whose clothes")


def read(options: Options, _spec: Spec, base: Path) -> Logs:
    """Impressions with the affinity of the shown item, and items."""
    stem = f"{options.root}/{options.policy}_{options.campaign}"
    rows = collect(table(f"{stem}.parquet", base, "source.root"), "source.root")
    affinity_NI = rows.select(pl.col(f"^{_AFFINITY}.*$")).to_numpy()
    item_of = [int(column.removeprefix(_AFFINITY)) for column in rows.columns if column.startswith(_AFFINITY)]
    place = rows["item_id"].replace_strict(item_of, range(len(item_of)), return_dtype=pl.Int64).to_numpy()
    shown = pl.Series("affinity", affinity_NI[range(len(rows)), place])
    items = table(f"{stem}_item_context.parquet", base, "source.root")
    return Logs.whole(
        rows.select(pl.exclude(f"^{_AFFINITY}.*$")).with_columns(shown).lazy(), None, items.select(pl.exclude(""))
    )
