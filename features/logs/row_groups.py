"""What a Parquet file says of its row groups: where a large one may be cut, and the range of each column."""

from __future__ import annotations

import pyarrow.parquet as pq


def edges(about: pq.FileMetaData | None, rows: int, most: int) -> list[int]:
    """Where pieces of about `most` rows begin, and the end; of Parquet between row groups: none is read twice."""
    if rows <= most:
        return [0, rows]
    if about is None:
        return [*range(0, rows, most), rows]
    found, done = [0], 0
    for group in range(about.num_row_groups):
        done += about.row_group(group).num_rows
        if done - found[-1] >= most or (group == about.num_row_groups - 1 and done > found[-1]):
            found.append(done)
    return found


def spans(about: pq.FileMetaData, first: int, last: int) -> dict[str, tuple[object, object]]:
    """The least and the largest value of every flat column in some rows, of those columns of which the file says it."""
    groups, done = [], 0
    for place in range(about.num_row_groups):
        group = about.row_group(place)
        if done < last and done + group.num_rows > first:
            groups.append(group)
        done += group.num_rows
    found: dict[str, tuple[object, object]] = {}
    for place in range(about.num_columns):
        told = [group.column(place).statistics for group in groups]
        if told and all(one is not None and one.has_min_max for one in told):
            found[about.schema.column(place).path] = (min(one.min for one in told), max(one.max for one in told))
    return found
