"""Condensed history: where a log has overflowed, its oldest events live on as panes.

A pane knows its oldest and newest timestamp, exact sums, and nothing in between. So a window is exact but for the one
pane that its edge cuts, which counts in proportion to time. A pane's span is at most a fixed share of the smallest
window that its age fits in (SHARE, doubled where PANES do not suffice), which bounds how far an edge can be blurred.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tables.kernel_memory import compiled, copy, integer
from tables.layout import (
    COUNT,
    COUNTED_FLAGS,
    FLAG_BITS,
    GRACE_MS,
    LIMB_BITS,
    LONGEST_MS,
    MAXIMUM,
    PANES,
    SQUARE_HH,
    SQUARE_HL,
    SQUARE_LL,
    TOTAL,
    WINDOWS,
)

if TYPE_CHECKING:
    from tables.layout import Array, Record, State
    from tables.plan import Plan

__all__ = ["measure_panes", "spill"]

SHARE = 32
"""A pane spans at most 1/32 of its window, before any doubling."""

_LOW = (1 << LIMB_BITS) - 1


@compiled
def measure_panes(state: State, plan: Plan, log: Record, at: int, measures: Array, flagged: Array) -> None:
    """Add the panes of a log to what its events have measured.

    Parameters
    ----------
    measures
        int64, shape (WINDOWS, MEASURES); added to. A pane that an edge cuts adds the share of its span inside.
    flagged
        int64, shape (WINDOWS, COUNTED_FLAGS); written: the panes' counts of flags.
    """
    flagged[:] = 0
    base = integer(log.panes) * PANES
    for k in range(integer(log.pane_count)):
        pane = state.panes[base + k]
        if pane.first > at:
            break
        for w in range(WINDOWS - 1, -1, -1):
            edge = at - plan.widths_ms[w]
            if pane.last <= edge:
                break
            share = 1.0
            if pane.first <= edge:
                share = (pane.last - edge) / (pane.last - pane.first + 1.0)
            m = measures[w]
            m[COUNT] += partial(pane.count, share)
            m[TOTAL] += partial(pane.total, share)
            m[SQUARE_HH] += partial(pane.square_hh, share)
            m[SQUARE_HL] += partial(pane.square_hl, share)
            m[SQUARE_LL] += partial(pane.square_ll, share)
            m[MAXIMUM] = max(m[MAXIMUM], pane.maximum)
            for bit in range(COUNTED_FLAGS):
                flagged[w, bit] += partial(integer(pane.flagged[bit]), share)


@compiled
def partial(amount: int, share: float) -> int:
    """Return a share of an integer, the whole of it exactly."""
    if share == 1.0:
        return amount
    return integer(amount * share + 0.5)


@compiled
def widest(plan: Plan, age: int, factor: int) -> int:
    """Return how long a pane of this age may span."""
    for w in range(WINDOWS):
        if age < plan.widths_ms[w]:
            return integer(plan.widths_ms[w] * factor // SHARE)
    return LONGEST_MS * factor // SHARE


@compiled
def spill(state: State, plan: Plan, log: Record, timestamp: int, value: int, newest: int) -> None:
    """Move one event from the log into the panes, where it widens a pane or begins one.

    Parameters
    ----------
    newest
        Newest timestamp of the log: a pane's age is counted from it.
    """
    base = integer(log.panes) * PANES
    if log.pane_count == PANES:
        condense(state, plan, log, newest)
    k = integer(log.pane_count) - 1
    while k >= 0 and state.panes[base + k].first > timestamp:
        k -= 1
    # k is the last pane that begins no later: the event goes into it, or begins a pane behind it.
    if k >= 0:
        span = timestamp - state.panes[base + k].first
        if timestamp <= state.panes[base + k].last or span <= widest(plan, newest - timestamp, 1):
            add_to_pane(state, plan, base + k, timestamp, value)
            return
    count = integer(log.pane_count)
    for j in range(count - 1, k, -1):
        copy(state.pane_words[base + j + 1], state.pane_words[base + j])
    state.pane_words[base + k + 1] = 0
    state.panes[base + k + 1].first = timestamp
    log.pane_count = count + 1
    add_to_pane(state, plan, base + k + 1, timestamp, value)


@compiled
def add_to_pane(state: State, plan: Plan, position: int, timestamp: int, value: int) -> None:
    """Count one event in a pane that begins no later than it."""
    pane = state.panes[position]
    amount = value >> FLAG_BITS
    high, low = amount >> LIMB_BITS, amount & _LOW
    pane.last = max(pane.last, timestamp)
    pane.count += 1
    pane.total += amount
    pane.square_hh += high * high
    pane.square_hl += high * low
    pane.square_ll += low * low
    pane.maximum = max(pane.maximum, amount)
    for bit in range(COUNTED_FLAGS):
        pane.flagged[bit] += value >> bit & 1
    for k in range(len(plan.periods)):
        if value & plan.periods[k].mask == plan.periods[k].wanted:
            pane.period_totals[k] += amount


@compiled
def condense(state: State, plan: Plan, log: Record, newest: int) -> None:
    """Forget panes that no window can see, and merge neighbours until a quarter of the panes is free."""
    base = integer(log.panes) * PANES
    count = integer(log.pane_count)
    expired = 0
    while expired < count and state.panes[base + expired].last <= newest - LONGEST_MS - GRACE_MS:
        expired += 1
    for k in range(expired, count):
        copy(state.pane_words[base + k - expired], state.pane_words[base + k])
    count -= expired
    factor = 1
    while count > PANES - PANES // 4:
        kept = 0
        for k in range(1, count):
            age = newest - state.panes[base + k].last
            span = state.panes[base + k].last - state.panes[base + kept].first
            if span <= widest(plan, age, factor):
                merge(state, base + kept, base + k)
            else:
                kept += 1
                copy(state.pane_words[base + kept], state.pane_words[base + k])
        count = kept + 1
        factor *= 2
    log.pane_count = count


@compiled
def merge(state: State, into: int, source: int) -> None:
    """Add a pane to its older neighbour."""
    pane, other = state.panes[into], state.panes[source]
    pane.last = max(pane.last, other.last)
    pane.count += other.count
    pane.total += other.total
    pane.square_hh += other.square_hh
    pane.square_hl += other.square_hl
    pane.square_ll += other.square_ll
    pane.maximum = max(pane.maximum, other.maximum)
    for k in range(len(pane.period_totals)):
        pane.period_totals[k] += other.period_totals[k]
    for bit in range(COUNTED_FLAGS):
        pane.flagged[bit] += other.flagged[bit]
