"""A synthetic shop: impressions, clicks and purchases drawn from known probabilities, any size, seeded.

Users have tastes over categories, a price sensitivity and a readiness to click and buy; tastes depend on the age
group. Items have a category, brand, price and a latent quality. A session has an intent (a category) and a few
requests; a request shows items by popularity and intent. The intent is logged in the column `section` in most sessions;
the others enter by the front page, where it is empty.

    P(click)         = sigmoid(-2.8 + readiness + taste + quality - price + intent - position + hidden - rival)
    P(buy | click)   = sigmoid(-2.8 + readiness + taste / 2 + quality - price + hidden)

`hidden` is an unlogged confounder of click and purchase, independent per impression; its scale is an option, 0 by
default. `rival` is `rivalry` times how far the best other candidate of the request is above a quality of 1.5. The true
probabilities are columns (p_click, p_buy_given_click, p_buy), to compare a model with.

`read` draws a whole log; `opened`, `visits` and `impressions` are its steps, for drawing a log of any length one period
at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from features.logs.logs import Logs
from features.logs.timestamps import MOMENT
from rec.spec import Positive, Spec, Strict, Timestamp

_CATEGORIES = [
    "books",
    "music",
    "games",
    "garden",
    "kitchen",
    "shoes",
    "coats",
    "toys",
    "bikes",
    "phones",
    "lamps",
    "tea",
]
_CITIES = ["Aarhus", "Bergen", "Cork", "Delft", "Evora", "Faro", "Ghent", "Husum"]
_BRANDS = 40
_DEVICES = ["phone", "tablet", "desktop"]
_USUAL = 1.5  # quality of the best candidate of a request, about
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
# share of a day's sessions that begin in each hour
_HOURS = np.array([1, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 7, 6, 6, 7, 8, 10, 12, 12, 10, 6, 3], float)


class Options(Strict):
    """The size of the shop and its log, the seed, and hidden confounding."""

    users: Positive = Field(default=2000, description="how many there are")
    items: Positive = Field(default=1000, description="how many there are")
    days: Annotated[int, Field(ge=1, le=36_500)] = Field(default=14, description="how long the log is")
    requests: Annotated[float, Field(gt=0)] = Field(default=6.0, description="per user over all days, on average")
    candidates: Positive = Field(default=10, description="per request, on average")
    hidden: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="size of what moves both a click and a purchase and is in no column, in log odds"
    )
    rivalry: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="what the best other candidate of a request takes from a click, in log odds per quality",
    )
    start: Timestamp = Field(default=datetime(2026, 3, 2, tzinfo=UTC), description="the first timestamp")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(default=7, description="the same seed draws the same shop")


@dataclass(frozen=True)
class Shop:
    """Users [U] and items [I] as logged, and latent variables: taste [U, C], the rest [U] or [I]."""

    users: pl.DataFrame
    items: pl.DataFrame
    taste: np.ndarray
    thrift: np.ndarray
    ready_click: np.ndarray
    ready_buy: np.ndarray
    active: np.ndarray
    category: np.ndarray
    price: np.ndarray
    quality: np.ndarray
    seen: np.ndarray


def read(options: Options, _spec: Spec, _base: Path) -> Logs:
    """The shop's impressions, users and items; the same options give the same rows."""
    rng = np.random.default_rng(options.seed)
    shop = opened(options, rng)
    requests = _requests(options, shop, rng)
    shown = impressions(options, shop, requests, rng)
    return Logs.whole(shown.lazy(), shop.users.lazy(), shop.items.lazy())


def opened(options: Options, rng: np.random.Generator) -> Shop:
    """The users and the items."""
    users, items, kinds = options.users, options.items, len(_CATEGORIES)
    age = rng.integers(16, 80, users)
    by_age = rng.normal(0, 0.8, (4, kinds))
    category = rng.choice(kinds, items, p=rng.dirichlet(np.full(kinds, 5.0)))
    quality = rng.normal(0, 1, items)
    price = rng.normal(0, 1, items)
    brand = (category * 3 + rng.integers(0, 8, items)) % _BRANDS
    start = int(options.start.timestamp()) * _SECOND
    joined = start - rng.integers(1, 900, users) * _DAY
    listed = start - rng.integers(1, 400, items) * _DAY
    user_table = {
        "user_id": np.arange(1, users + 1),
        "age": _some_null(pl.Series(age), 0.1, rng),
        "city": _some_null(pl.Series(_CITIES).gather(rng.integers(0, len(_CITIES), users)), 0.05, rng),
        "joined": pl.Series(joined).cast(MOMENT),
    }
    item_table = {
        "item_id": np.arange(1, items + 1),
        "category": pl.Series(_CATEGORIES).gather(category),
        "brand": _some_null(pl.Series([f"brand {n:02d}" for n in range(_BRANDS)]).gather(brand), 0.08, rng),
        "seller_id": rng.integers(1, max(2, items // 12) + 1, items),
        "price": np.exp(3 + 0.08 * category + 0.7 * price).round(2),
        "listed": pl.Series(listed).cast(MOMENT),
    }
    return Shop(
        users=pl.DataFrame(user_table),
        items=pl.DataFrame(item_table),
        taste=by_age[(age - 16) // 16] + rng.normal(0, 0.7, (users, kinds)),
        thrift=rng.normal(0.3, 0.4, users),
        ready_click=rng.normal(0, 0.6, users),
        ready_buy=rng.normal(0, 0.6, users),
        active=rng.lognormal(0, 0.9, users),
        category=category,
        price=price,
        quality=quality,
        seen=np.exp(0.4 * quality + rng.normal(0, 0.8, items)),
    )


def _requests(options: Options, shop: Shop, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The requests of all days, grouped by session, not in order of time."""
    sessions = max(1, round(options.users * options.requests / 2))
    pages, user = _visitors(shop, sessions, rng)
    hour = rng.choice(24, sessions, p=_HOURS / _HOURS.sum())
    begin = rng.integers(0, options.days, sessions) * _DAY + (hour * 3600 + rng.random(sessions) * 3600) * _SECOND
    return _pages(options, shop, begin=begin, pages=pages, user=user, rng=rng)


def visits(
    options: Options, shop: Shop, stretch: tuple[float, float], sessions: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The requests of the sessions that begin between two shares (0 to 1) of the log's period."""
    pages, user = _visitors(shop, sessions, rng)
    edges = np.concatenate([[0.0], np.cumsum(np.tile(_HOURS, options.days))])
    begin = np.interp(edges[-1] * rng.uniform(*stretch, sessions), edges, np.arange(len(edges))) * 3600 * _SECOND
    return _pages(options, shop, begin=begin, pages=pages, user=user, rng=rng)


def _visitors(shop: Shop, sessions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The number of pages of each session, and its user."""
    pages = 1 + rng.poisson(1.0, sessions)
    return pages, rng.choice(len(shop.active), sessions, p=shop.active / shop.active.sum())


def _pages(
    options: Options, shop: Shop, *, begin: np.ndarray, pages: np.ndarray, user: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One entry per request [R]: user, timestamp, device, intent, number of candidates; a few make a session."""
    sessions = len(begin)
    # people come for what they like
    liking = np.exp(shop.taste[user] - shop.taste[user].max(1, keepdims=True))
    intent = _draw_rows(liking, rng)
    device = rng.choice(3, sessions, p=[0.6, 0.1, 0.3])
    of_session = np.repeat(np.arange(sessions), pages)
    page = np.arange(len(of_session)) - np.repeat(np.cumsum(pages) - pages, pages)
    pause = rng.exponential(60 * _SECOND, len(of_session)) + 90 * _SECOND
    return {
        "user": user[of_session],
        "time": (begin[of_session] + page * 240 * _SECOND + pause).astype(np.int64)
        + int(options.start.timestamp()) * _SECOND,
        "device": device[of_session],
        "intent": intent[of_session],
        "front_page": (rng.random(sessions) < 0.4)[of_session],
        "size": 1 + rng.binomial(2 * (options.candidates - 1), 0.5, len(of_session)),
    }


def impressions(
    options: Options, shop: Shop, requests: dict[str, np.ndarray], rng: np.random.Generator, *, before: int = 0
) -> pl.DataFrame:
    """The impressions of each request with their outcomes; `before` is the number of requests drawn earlier."""
    size = requests["size"]
    request = np.repeat(np.arange(len(size)), size)
    position = np.arange(len(request)) - np.repeat(np.cumsum(size) - size, size)
    item = _shown(shop, requests["intent"][request], rng)
    keep = _first_of_pair(request, item)
    request, position, item = request[keep], position[keep], item[keep]
    user = requests["user"][request]
    # from a generator of its own, so that who is shown what does not depend on it
    hidden = options.hidden * np.random.default_rng([options.seed, 1 + before]).normal(0, 1, len(item))
    odds = _log_odds(shop, user, item, requests["intent"][request], position)
    odds[0][:] -= options.rivalry * _above_usual(shop.quality[item], request)
    p_click, p_buy = (1 / (1 + np.exp(-(logit + hidden))) for logit in odds)
    clicked = rng.random(len(item)) < p_click
    bought = clicked & (rng.random(len(item)) < p_buy)
    time = requests["time"][request] + position * _SECOND // 5
    click_time = time + ((2 + rng.exponential(20, len(item))).clip(max=500) * _SECOND).astype(np.int64)
    buy_time = click_time + (rng.exponential(0.3, len(item)).clip(max=1.9) * _DAY).astype(np.int64)
    section = pl.Series(_CATEGORIES).gather(requests["intent"][request])
    return pl.DataFrame(
        {
            "request_id": pl.Series(before + request + 1).cast(pl.String).str.zfill(8),
            "user_id": user + 1,
            "item_id": item + 1,
            "time": pl.Series(time).cast(MOMENT),
            "position": position + 1,
            "device": pl.Series(_DEVICES).gather(requests["device"][request]),
            "section": section.set(pl.Series(requests["front_page"][request]), None),
            "click": clicked.astype(np.int8),
            "click_time": _where(clicked, click_time),
            "buy": bought.astype(np.int8),
            "buy_time": _where(bought, buy_time),
            "p_click": p_click,
            "p_buy_given_click": p_buy,
            "p_buy": p_click * p_buy,
        }
    )


def _log_odds(
    shop: Shop, user: np.ndarray, item: np.ndarray, intent: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log odds of a click, and of a purchase given a click, of every impression [N], without the hidden part."""
    category = shop.category[item]
    taste, dear = shop.taste[user, category], shop.thrift[user] * shop.price[item]
    click = -2.8 + shop.ready_click[user] + 0.8 * taste + 0.7 * shop.quality[item] - 0.5 * dear
    click += 0.9 * (category == intent) - 0.35 * np.log1p(position)
    buy = -2.8 + shop.ready_buy[user] + 0.5 * taste + 0.6 * shop.quality[item] - 1.2 * dear
    return click, buy


def _above_usual(quality_N: np.ndarray, request_N: np.ndarray) -> np.ndarray:
    """How far the best other candidate of each request is above a quality of _USUAL [N]; 0 where there is none."""
    best_N = _best_other(quality_N, request_N)
    return np.where(np.isnan(best_N), 0.0, best_N - _USUAL)


def _best_other(quality_N: np.ndarray, request_N: np.ndarray) -> np.ndarray:
    """The largest quality among the other candidates of each one's request [N]; NaN where there is none."""
    order = np.lexsort((quality_N, request_N))
    last = np.r_[np.flatnonzero(np.diff(request_N[order])), len(order) - 1]  # the best of each request
    alone = np.r_[True, np.diff(last) == 1] if len(last) else np.zeros(0, bool)
    alone[:1] = last[:1] == 0
    second = np.where(alone, np.nan, quality_N[order[last - ~alone]])
    _, number_N = np.unique(request_N, return_inverse=True)
    best_N = np.where(alone, np.nan, quality_N[order[last]])[number_N]
    best_N[order[last]] = second
    return best_N


def _shown(shop: Shop, intent_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An item per impression, by popularity; half of them from the session's category."""
    item = rng.choice(len(shop.seen), len(intent_N), p=shop.seen / shop.seen.sum())
    about = rng.random(len(intent_N)) < 0.5
    for category in range(len(_CATEGORIES)):
        weight = np.where(shop.category == category, shop.seen, 0)
        places = np.flatnonzero(about & (intent_N == category))
        if weight.any():
            item[places] = rng.choice(len(weight), len(places), p=weight / weight.sum())
    return item


def _first_of_pair(request: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Indices of the first impression of each item in each request, in order."""
    return np.sort(np.unique(request * (item.max() + 1) + item, return_index=True)[1])


def _draw_rows(weight_RC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A categorical draw per row, by its weights."""
    edges = np.cumsum(weight_RC, axis=1)
    return (rng.random((len(edges), 1)) * edges[:, -1:] > edges).sum(1)


def _some_null(values: pl.Series, share: float, rng: np.random.Generator) -> pl.Series:
    return values.set(pl.Series(rng.random(len(values)) < share), None)


def _where(happened: np.ndarray, time: np.ndarray) -> pl.Series:
    return pl.Series(time).set(pl.Series(~happened), None).cast(MOMENT)
