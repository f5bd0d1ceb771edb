"""KuaiRand-Pure (Gao et al., CIKM 2022): short videos shown to users, with twelve kinds of feedback.

Reads `log_standard_*.parquet`, `user_features_pure.parquet` and `video_features_basic_pure.parquet` of a folder.

About 2.4% of the log's rows repeat another row in every column. Same user, video, millisecond and outcome: one
impression logged twice, so the repeat is dropped; it would count twice in rates and in confidence intervals. Papers
that kept the repeats have a test set larger by that much.

The table of videos has `tags` (a list) beside `tag` (the first of them).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import Field

from features.logs.files import table
from features.logs.logs import Logs
from rec.spec import Spec, Strict


class Options(Strict):
    """The folder of the files."""

    root: str = Field(description="the folder with the three kinds of Parquet file")


def read(options: Options, _spec: Spec, base: Path) -> Logs:
    """Impressions without exact repeats, users, and videos as items."""
    tags = pl.col("tag").str.split(",").cast(pl.List(pl.Int64))
    videos = table(f"{options.root}/video_features_basic_pure.parquet", base, "source.root")
    return Logs.whole(
        table(f"{options.root}/log_standard_*.parquet", base, "source.root").unique(maintain_order=True),
        table(f"{options.root}/user_features_pure.parquet", base, "source.root"),
        videos.with_columns(tags.alias("tags"), tags.list.first().alias("tag")),
    )
