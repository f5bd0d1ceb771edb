"""Usual names of outcome columns: is_like, purchased, watch_time, scroll_percentage, next_read_time, dwell."""

from __future__ import annotations

import re

_EVENT = (
    r"click|clicked|buy|bought|purchase|purchased|order|ordered|convert|converted|conversion|like|liked|dislike|cart|carted|"
    r"add_to_cart|addtocart|fav|favou?rite|share|shared|follow|followed|comment|commented|forward|hate|read|view|viewed|"
    r"long_view|watch|watched|install|installed|book|booked|booking|subscribe|subscribed|label|target|y|success|rated|"
    r"profile_enter|skip|skipped|report|reported|download|downloaded|finish|finished|complete|completed|play|played|save|saved|"
    r"hide|hidden|return|returned|refund|refunded|checkout|signup|sign_up|engaged|engagement"
)
_BEFORE = r"(is|has|was|did)_"
EVENT = re.compile(rf"({_BEFORE})?({_EVENT})(_label|_flag)?|label_\w+", re.IGNORECASE)
_DONE = r"read|scroll|view|watch|play|listen|stay|dwell|visit|engage|engagement|complete|completion|finish|progress"
AMOUNT = re.compile(
    r"(\w+_)?(dwell|dwell_time|duration_watched|watch_time|watch_ratio|play_time|play_duration|stay|stay_time|seconds_read|"
    r"revenue|paid|amount|rating|reward|comment_stay_time|profile_stay_time|time_spent|time_on_(page|site|item|screen)|"
    rf"({_DONE})(ed|d|ing)?_?(time|duration|secs?|seconds|ms|millis|percent|percentage|pct|depth|ratio|progress|fraction)|"
    rf"(time|secs?|seconds|ms|minutes|percent|percentage|pct|ratio)_({_DONE})(ed|d|en)?)(_\w+)?|"
    r"next_\w+",
    re.IGNORECASE,
)


def looks_like_outcome(column: str) -> bool:
    """Whether a name is that of an event, or of its duration, count or value.

    >>> [looks_like_outcome(name) for name in ("is_like", "scroll_percentage", "watch_time_ms", "device", "is_weekend")]
    [True, True, True, False, False]
    """
    return EVENT.fullmatch(column) is not None or AMOUNT.fullmatch(column) is not None
