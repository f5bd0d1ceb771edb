"""Census-Income (KDD) 1994-1995, UCI data set 117: one person per row, one request per person.

Reads `census_train.parquet` and `census_test.parquet` of a folder and adds the column `split`: all of the training file
trains, the test file is split 1:1 at random into validation and test, as in keras-mmoe and later work. The seed is
fixed, so the split is reproducible.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
from pydantic import Field

from features.logs.files import table
from features.logs.logs import Logs, collect
from rec.spec import Spec, Strict

_SEED = 1994


class Options(Strict):
    """The folder of the files."""

    root: str = Field(description="the folder with census_train.parquet and census_test.parquet")


def read(options: Options, _spec: Spec, base: Path) -> Logs:
    """All rows of both files, with spaces around words removed."""
    train = table(f"{options.root}/census_train.parquet", base, "source.root").with_columns(split=pl.lit("train"))
    test = collect(table(f"{options.root}/census_test.parquet", base, "source.root"), "source.root")
    half = np.random.default_rng(_SEED).permutation(len(test)) < len(test) // 2
    test = test.with_columns(split=pl.when(pl.Series(half)).then(pl.lit("validation")).otherwise(pl.lit("test")))
    return Logs.whole(
        pl.concat([train, test.lazy()], how="vertical_relaxed").with_columns(cs.string().str.strip_chars())
    )
