"""Health figures as one would work them out on paper: one candidate, one gate, one activation at a time."""

from __future__ import annotations

import math


def weights(batches):
    """Mean weight of every gate on every expert [G][E] over batches of [N][G][E]."""
    rows = [row for batch in batches for row in batch]
    gates, experts = range(len(rows[0])), range(len(rows[0][0]))
    return [[sum(row[g][e] for row in rows) / len(rows) for e in experts] for g in gates]


def entropy(batches, sees):
    """Mean entropy of every gate [G] over the logarithm of how many experts it sees."""
    rows = [row for batch in batches for row in batch]
    out = []
    for g, seen in enumerate(sees):
        bits = [-sum(w * math.log(w) for w in row[g] if w > 0) for row in rows]
        out.append(sum(bits) / len(rows) / math.log(sum(seen)))
    return out


def near_zero(batches, *, share=0.01):
    """Share of activations of every expert [E], over batches of [E][N][H], that are tiny beside their batch."""
    count, total = [0] * len(batches[0]), 0
    for batch in batches:
        every = [a for expert in batch for row in expert for a in row]
        limit = share * math.sqrt(sum(a * a for a in every) / len(every))
        total += len(every) // len(batch)
        for e, expert in enumerate(batch):
            count[e] += sum(abs(a) <= limit for row in expert for a in row)
    return [c / total for c in count]
