"""Specs drawn by hypothesis, with features of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from rec.spec import Spec, parse

# features that may be drawn; after the brace stand the settings that are drawn for them
CONTEXT = """
city = { kind = "id", values = "string" }
age = { kind = "number" }
home = { kind = "id", values = "string" }
likes = { kind = "ids" }
query = { kind = "ids", make = "tokens", values = "string" }
hour = { kind = "id", make = "hour" }
before = { kind = "number", make = "session_requests" }
so_far = { kind = "number", make = "session_seconds", scale = "quantile", buckets = 4 }
seen = { kind = "ids", make = "history", table = "item"VALUES } task last
sorts = { kind = "ids", make = "history", column = "category", values = "string" } task last
stays = { kind = "ids", make = "history", column = "dwell", buckets = true } dwelt last
ago = { kind = "ids", make = "gaps" } task last
user_n = { kind = "number", make = "count", per = "user" } task window
user_r = { kind = "number", make = "rate", per = "user" } some window prior
user_s = { kind = "number", make = "since" } task
user_f = { kind = "number", make = "since_first" } task
user_v = { kind = "number", make = "mean", per = "user", column = "price" } task window
home_v = { kind = "number", make = "sum", per = "home", column = "dwell" } dwelt window
user_x = { kind = "number", make = "expected", per = "user" } window
where_x = { kind = "number", make = "coec", per = ["user", "city"] } some window prior
user_d = { kind = "number", make = "count", per = "user" } task half
page_v = { kind = "number", make = "mean", per = "page", matching = "item", column = "price" } task window
home_n = { kind = "number", make = "count", per = "home" } task window
home_m = { kind = "number", make = "count", per = ["user", "home"] } task window
sort_m = { kind = "number", make = "count", per = "category" } task window
where_r = { kind = "number", make = "rate", per = ["city", "home"] } some window prior
""".strip().splitlines()
CANDIDATES = """
category = { kind = "id", values = "string" }
price = { kind = "number" }
listed = { kind = "number", make = "age" }
picture = { kind = "vector", size = 2 }
place = { kind = "kept" }
tags = { kind = "ids" }
moved = { kind = "number", make = "age", column = "moved_time" }
item_n = { kind = "number", make = "count", per = "item" } task window
page_n = { kind = "number", make = "count", per = "item", matching = "page" } task window
page_r = { kind = "number", make = "rate", per = "item", matching = "page" } some window prior
page_s = { kind = "number", make = "since", per = "item", matching = "page" } task
page_d = { kind = "number", make = "count", per = "item", matching = "page" } task half
taste_p = { kind = "number", make = "count", per = ["user", "item"], matching = ["user", "page"] } task window
item_x = { kind = "number", make = "expected", per = "item" } windows
item_y = { kind = "number", make = "coec", per = "item" } some windows prior
page_x = { kind = "number", make = "expected", per = "item", matching = "page" } window
page_y = { kind = "number", make = "coec", per = "item", matching = "page" } some window prior
item_m = { kind = "number", make = "count", per = "item" } task windows
item_r = { kind = "number", make = "rate", per = "item" } some windows prior
item_c = { kind = "number", make = "rate", per = "item", task = "long", given = "click" } windows prior
item_o = { kind = "number", make = "rate", per = "item", task = "click", given = "save" } window prior
item_d = { kind = "number", make = "rate", per = "item" } some half prior
item_e = { kind = "number", make = "rate", per = "item", task = "long", given = "click" } half prior
taste_d = { kind = "number", make = "count", per = ["user", "category"] } task half
item_q = { kind = "number", make = "rate", per = "item", scale = "quantile" } some prior
user_item = { kind = "id", make = "cross", of = ["user", "item"], rows = 50 }
item_s = { kind = "number", make = "since", per = "item" } task
item_f = { kind = "number", make = "since_first", per = "item" } task
item_v = { kind = "number", make = "last", per = "item", column = "dwell" } dwelt windows
age_v = { kind = "number", make = "mean", per = "item", column = "age" } task windows
taste_v = { kind = "number", make = "last", per = ["user", "category"], column = "price" } task window
taste_w = { kind = "number", make = "sum", per = ["user", "category"], column = "price" } task window
sort_n = { kind = "number", make = "count", per = "category" } task window
taste_n = { kind = "number", make = "count", per = ["user", "category"] } task window
taste_r = { kind = "number", make = "rate", per = ["user", "category"] } some windows prior
taste_s = { kind = "number", make = "since", per = ["user", "item"] } task
local_r = { kind = "number", make = "rate", per = ["city", "item"] } some prior
""".strip().splitlines()
NEEDS_USER = ("age", "home", "likes", "before", "so_far", "seen", "sorts", "stays", "ago", "user", "where", "taste")
LONG = ["0s", "2s", "5s", "1h"]  # how long until an outcome is known


def _feature(draw: st.DrawFn, line: str, behaviours: list[str]) -> str:
    """A line of the spec with its settings drawn."""
    body, _, words = line.rpartition("}")
    some = f'task = "{draw(st.sampled_from(behaviours))}"'
    window = draw(st.sampled_from(["1s", "3s", "1h", "2h"]))
    windows = draw(st.lists(st.sampled_from(["1s", "3s", "1h", "ever"]), unique=True, min_size=1, max_size=3))
    settings = {
        "some": some,
        "task": draw(st.sampled_from(["", some])),
        "dwelt": f'task = "{draw(st.sampled_from(["click", "long"]))}"',  # nobody knows it before
        "window": draw(st.sampled_from(["", f'window = "{window}"'])),
        "windows": f"windows = {windows}".replace("'", '"'),
        "half": f'half_life = "{draw(st.sampled_from(["1s", "2s", "7s", "1h"]))}"',
        "last": f"last = {draw(st.integers(1, 3))}",
        "prior": f"prior = {draw(st.sampled_from([0.5, 20.0]))}",
    }
    return ", ".join([body.rstrip(), *(settings[word] for word in words.split() if settings[word])]) + " }"


def _some(draw: st.DrawFn, pool: list[str]) -> list[str]:
    size = min(2, len(pool))
    return draw(st.lists(st.sampled_from(pool), unique=True, min_size=size, max_size=7)) if pool else []


@st.composite
def specs(draw: st.DrawFn, *, keys: list[str], text: bool, sampled: bool, only: tuple[str, ...]) -> Spec:
    """A spec of some keys; `text` when users and items are called by words, `sampled` when negatives are sampled.

    Its features are any, or those whose names begin as one of `only`.
    """
    click, buy, save = draw(st.sampled_from(LONG)), draw(st.sampled_from(LONG)), draw(st.sampled_from(LONG))
    child = min(click, buy, key=LONG.index)  # an event that is late for its child is late for the parent
    happening = ["click", "long", "save"]
    pools = [
        [line for line in pool if line.startswith(only) and ("user" in keys or not line.startswith(NEEDS_USER))]
        for pool in (CONTEXT, CANDIDATES)
    ]
    context, candidates = ([_feature(draw, line, happening) for line in _some(draw, pool)] for pool in pools)
    columns = {"request": "rid", "session": "sid"}
    named = ", ".join(f'{key} = "{columns.get(key, key)}"' for key in keys)
    values = ', values = "string"' if text else ""
    end = draw(st.sampled_from(["", "", "end = 2026-03-01T02:00:03Z\n", "end = 2026-03-01T02:00:02.999999Z\n"]))
    negatives = "negatives = 0.5" if sampled else ""
    times = draw(st.sampled_from(["", "", "\ntime = false"]))
    lines = [
        'name = "drawn"',
        f'keys = {{ {named}, time_unit = "us" }}',
        f'requests = {{ gap = "{draw(st.integers(0, 4))}s" }}',
        f'sessions = {{ gap = "{draw(st.sampled_from(["1s", "3s", "1h"]))}" }}' if "user" in keys else "",
        "split = { validation = 2026-03-01T01:00:00Z, test = 2026-03-01T02:00:00Z }",
        "[logs]",
        f'bad_rows = 1.0\n{end}duplicates = "{draw(st.sampled_from(["drop", "drop", "keep"]))}"',
        "[context]",
        f'user = {{ kind = "id"{values} }}' if "user" in keys else "",
        *(line.replace("VALUES", values) for line in context),
        "[candidates]",
        f'item = {{ kind = "id"{values} }}',
        *candidates,
        f'[events.save]\nlabel = "mood = 3"\nwindow = "{save}"',
        f'[tasks.click]\nlabel = "clicked = 1"\nwindow = "{click}"\n{negatives}{times}',
        f'[tasks.long]\nlabel = "clicked = 1 AND dwell >= 3"\nwindow = "{child}"\ngiven = "click"{times}',
    ]
    if draw(st.booleans()):
        lines.append('[tasks.stay]\nlabel = "CASE WHEN clicked = 1 THEN dwell END"\npredict = "log"\ngiven = "click"')
        lines.append(f'window = "{child}"')
    return parse("\n".join(lines))
