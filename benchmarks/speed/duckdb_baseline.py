"""The features of specs/shop.toml in DuckDB: running sums over windows, ASOF JOIN for what was known, `list` of rows.

Whatever is counted was known strictly before the request began: an impression when it is shown, a click 10 minutes and
a purchase 2 days after it. The result are session tables of the same columns, one Arrow file per split.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow as pa

from rec.atomic import flush

LAG = {"now": "0 seconds", "click": "10 minutes", "buy": "2 days"}
SPLITS = {
    "train": ("1970-01-01", "2026-03-12"),
    "validation": ("2026-03-12", "2026-03-14"),
    "test": ("2026-03-14", "2100-01-01"),
}
READ = """CREATE VIEW raw AS SELECT * FROM read_parquet('{shop}/impressions/*.parquet');
    CREATE TABLE items AS SELECT * REPLACE (price::FLOAT AS price) FROM read_parquet('{shop}/items.parquet');
    CREATE TABLE users AS SELECT * REPLACE (age::FLOAT AS age) FROM read_parquet('{shop}/users.parquet');
    SET VARIABLE last = (SELECT max(greatest(time, click_time, buy_time)) FROM raw)"""
BASE = """CREATE TABLE base_{event} AS SELECT hour, (sum(y) OVER w + 1) / (sum(n) OVER w + 2) AS base FROM (
    SELECT date_trunc('hour', time + INTERVAL {lag}) AS hour, count(*) AS n, sum({event}) AS y FROM raw GROUP BY hour)
    WINDOW w AS (ORDER BY hour ROWS UNBOUNDED PRECEDING)"""
REQUESTS = """CREATE TABLE requests AS
    SELECT row_number() OVER () AS request, a.*, c.base AS click_base, b.base AS buy_base FROM (
        SELECT request_id, any_value(user_id) AS user_id, min(time) AS begin, any_value(device) AS device,
            any_value(section) AS section, count(*) AS size FROM raw GROUP BY request_id) a
    ASOF LEFT JOIN base_click c ON date_trunc('hour', begin) > c.hour
    ASOF LEFT JOIN base_buy b ON date_trunc('hour', begin) > b.hour"""
LOG = """CREATE TABLE log AS SELECT row_number() OVER () AS line, request, begin, click_base, buy_base, raw.user_id,
        item_id, seller_id, category, brand, price, listed, time, position, p_click, p_buy, click, buy
    FROM raw JOIN requests USING (request_id) LEFT JOIN items USING (item_id)"""
PAST = """CREATE TABLE past_{key} AS SELECT {key}, time, count(*) OVER w AS shown, sum(click::DOUBLE) OVER w AS click,
        sum(buy::DOUBLE) OVER w AS buy
    FROM log WINDOW w AS (PARTITION BY {key} ORDER BY time RANGE UNBOUNDED PRECEDING)"""
CLICKS = """CREATE TABLE clicks AS
    SELECT user_id, time, list(item_id) OVER w AS clicked, list(category) OVER w AS categories
    FROM log WHERE click = 1 WINDOW w AS (PARTITION BY user_id ORDER BY time ROWS 19 PRECEDING)"""
CONTEXTS = """CREATE TABLE contexts AS SELECT request, size, request_id, begin, struct_pack(
        user_id := a.user_id, age, city, device, section, member := joined, clicked := coalesce(clicked, []),
        categories := coalesce(categories, []), user_shown := coalesce(shown, 0)::FLOAT, user_click, user_buy
    ) AS context
    FROM (SELECT a.*, clicked, categories, user_id_now.shown, {click}, {buy} FROM requests a {now} {by_click} {by_buy}
        ASOF LEFT JOIN clicks h ON a.user_id = h.user_id AND a.begin - INTERVAL 10 MINUTES > h.time) a
    LEFT JOIN users USING (user_id)"""
ITEM = """CREATE TABLE item AS SELECT line, coalesce(item_id_now.shown, 0)::FLOAT AS item_shown, {click}, {buy}
    FROM (SELECT line, item_id, begin, click_base, buy_base FROM log) a {now} {by_click} {by_buy}"""
SELLER = """CREATE TABLE seller AS SELECT line, {buy}
    FROM (SELECT line, seller_id, begin, buy_base FROM log) a {by_buy}"""
CANDIDATES = """SELECT item_id, category, brand, seller_id, price, listed, item_shown, item_click, item_buy, seller_buy,
        position, p_click, p_buy,
        if(time + INTERVAL 10 MINUTES <= getvariable('last'), click, -1)::TINYINT AS click,
        if(time + INTERVAL 2 DAYS <= getvariable('last'), buy, -1)::TINYINT AS buy
    FROM log JOIN item USING (line) JOIN seller USING (line) WHERE begin >= '{low}' AND begin < '{high}'
    ORDER BY request, time"""
CHOSEN = """SELECT request_id, begin AS time, context, size FROM contexts
    WHERE begin >= '{low}' AND begin < '{high}' ORDER BY request"""


def features(shop: Path, out: Path) -> int:
    """Write train, validation and test to `out`; how many candidates there are."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    database.execute(READ.format(shop=shop))
    for event in ("click", "buy"):
        database.execute(BASE.format(event=event, lag=LAG[event]))
    for statement in (REQUESTS, LOG, *(PAST.format(key=key) for key in ("user_id", "item_id", "seller_id")), CLICKS):
        database.execute(statement)
    database.execute(CONTEXTS.format(**_parts("user_id", {"click": 20, "buy": 20})))
    database.execute(ITEM.format(**_parts("item_id", {"click": 20, "buy": 100})))
    database.execute(SELLER.format(**_parts("seller_id", {"buy": 100})))
    database.execute("SET preserve_insertion_order = true")
    out.mkdir(parents=True)
    return sum(_write(database, out / f"{name}.arrow", *edges) for name, edges in SPLITS.items())


def _parts(key: str, priors: dict[str, int]) -> dict[str, str]:
    """The rates of a key, and the joins by which they are known."""
    joins = {("now" if lag == "now" else f"by_{lag}"): _seen(key, lag) for lag in ("now", *priors)}
    return joins | {event: _rate(key, event, prior) for event, prior in priors.items()}


def _seen(key: str, lag: str) -> str:
    """The running sums of a key, as of just before a request less a lag."""
    known = f"ASOF LEFT JOIN past_{key} {key}_{lag} ON a.{key} = {key}_{lag}.{key}"
    return f"{known} AND a.begin - INTERVAL {LAG[lag]} > {key}_{lag}.time"


def _rate(key: str, event: str, prior: int) -> str:
    """The key's rate of an event before, drawn towards that of everybody."""
    happened = f"coalesce({key}_{event}.{event}, 0) + {prior} * a.{event}_base"
    shown = f"coalesce({key}_{event}.shown, 0) + {prior}"
    return f"(({happened}) / ({shown}))::FLOAT AS {key.removesuffix('_id')}_{event}"


def _write(database: duckdb.DuckDBPyConnection, path: Path, low: str, high: str) -> int:
    rows = database.sql(CANDIDATES.format(low=low, high=high)).to_arrow_table().combine_chunks()
    requests = database.sql(CHOSEN.format(low=low, high=high)).to_arrow_table()
    offsets = pa.array([0, *accumulate(requests["size"].to_pylist())], pa.int32())
    structs = rows.to_struct_array().combine_chunks() if rows.num_rows else pa.nulls(0)
    requests = requests.drop_columns("size").append_column("candidates", pa.ListArray.from_arrays(offsets, structs))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, requests.schema) as file:
        file.write_table(requests)
    flush(path)
    return rows.num_rows
