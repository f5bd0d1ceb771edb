"""The share of a request that each of its impressions is: 1 over how many were shown by then.

A request of five impressions expects a click on each with 1/5, whichever it is: the sum over a key's impressions is its
expected clicks (EC), and clicks over these are COEC (Zhang and Jones, Comparing click logs and editorial labels for
training query rewriting, 2007, whose expectation is by position).

The size is that of the request up to and including the impression's own timestamp: what comes later is not known to a
request that sees the impression.
"""

from __future__ import annotations

import numpy as np

from features.sweep.event_queue import in_order

UNIT = 1_163_962_800  # of one: 1/size is whole for sizes up to 20, and for 24, 25, 30, 40, 50, 100


def shares(size: np.ndarray) -> np.ndarray:
    """1 over sizes [n], as whole numbers of 1 / UNIT.

    >>> shares(np.array([1, 3])) / UNIT
    array([1.        , 0.33333333])
    """
    return (2 * UNIT + size) // (2 * size)


def sizes(request: np.ndarray, time: np.ndarray, total: np.ndarray) -> np.ndarray:
    """How many impressions of its request were shown by the time of each [n] int64.

    `total` [n] is how many its request has in all; those that are not among these [n] were earlier than all that are.

    >>> sizes(np.array([1, 1, 1, 2]), np.array([5, 5, 8, 8]), np.array([3, 3, 3, 1]))
    array([2, 2, 3, 1])
    """
    order = np.arange(len(time)) if in_order(request, time) else np.lexsort((time, request))
    request, time = request[order], time[order]
    begins = np.diff(request, prepend=request[:1]) != 0
    last_of_request = _ends(begins)
    last_of_moment = _ends(begins | (np.diff(time, prepend=time[:1]) != 0))
    size = np.empty(len(order), np.int64)
    size[order] = total[order] - (last_of_request - last_of_moment)
    return size


def _ends(begins: np.ndarray) -> np.ndarray:
    """Where the run of each place [n] ends, of runs that begin at some of them."""
    ends = np.append(np.flatnonzero(begins), len(begins))
    return ends[np.searchsorted(ends, np.arange(len(begins)), side="right")]
