"""What a Parquet file says of its row groups: where a large one may be cut, and the range of each column."""

from __future__ import annotations

import pyarrow.parquet as pq


def edges(about: pq.FileMetaData | None, rows: int, most: int) -> list[int]:
    """Where pieces of about `most` rows begin, and the end; of Parquet between row groups: none is read twice."""
    if rows <= most:
        return [0, rows]
    if about is None:
        return [*range(0, rows, most), rows]
    borders, done = [0], 0
    for group in range(about.num_row_groups):
        done += about.row_group(group).num_rows
        if done - borders[-1] >= most or (group == about.num_row_groups - 1 and done > borders[-1]):
            borders.append(done)
    return borders


def spans(about: pq.FileMetaData, first: int, last: int) -> dict[str, tuple[object, object]]:
    """The least and the largest value of every flat column in some rows, of those columns of which the file says it."""
    groups, done = [], 0
    for place in range(about.num_row_groups):
        group = about.row_group(place)
        if done < last and done + group.num_rows > first:
            groups.append(group)
        done += group.num_rows
    ranges: dict[str, tuple[object, object]] = {}
    for place in range(about.num_columns):
        statistics = [group.column(place).statistics for group in groups]
        if statistics and all(column is not None and column.has_min_max for column in statistics):
            ranges[about.schema.column(place).path] = (
                min(column.min for column in statistics),
                max(column.max for column in statistics),
            )
    return ranges
