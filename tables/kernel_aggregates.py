"""Aggregates: one opcode each, read from what `kernel_windows` and `kernel_tags` have found for an event.

Everything is integer until the last step, so a feature does not depend on the order of its sums. NaN means "nothing to
say": the mean of no events, the time since nothing; counts and sums of nothing are 0.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tables.kernel_memory import compiled, integer
from tables.kernel_tags import NEVER, same_device
from tables.layout import (
    COUNT,
    DAY_MS,
    DEVICES,
    FLAG_BITS,
    FRAUD_TYPES,
    HOUR_MS,
    LANES_HIGH,
    LANES_LOW,
    MAXIMUM,
    PANES,
    SQUARE_HH,
    SQUARE_HL,
    SQUARE_LL,
    TOTAL,
)
from tables.plan import Opcode, Period

if TYPE_CHECKING:
    from tables.layout import Array, Record, State
    from tables.plan import Plan

__all__ = ["Findings", "value_of"]

LOOK_BACK = 64
"""How many of the newest events RUN, RISING and REPEATS look at."""

GROWTH_EVENTS = 5
"""How many events before the last one GROWTH compares it with."""

BRASILIA_MS = -3 * HOUR_MS
"""UTC-3; no daylight saving time since 2019."""


class Findings(NamedTuple):
    """What was found for one event before it counts; overwritten for each event.

    Parameters
    ----------
    measures
        int64, shape (LOG_COUNT, WINDOWS, MEASURES).
    flagged
        int64, shape (LOG_COUNT, WINDOWS, COUNTED_FLAGS): the panes' share, 0 without panes.
    heads
        int64, shape (LOG_COUNT,): events of the log that are not later than this one.
    last_met
        int64, shape (TAG_SETS,): when the counterparty or device was last met, NEVER.
    met
        uint8, shape (TAG_SETS,): whether it was met before.
    distinct
        float64, shape (TAG_SETS, DISTINCT_WINDOWS).
    """

    measures: Array
    flagged: Array
    heads: Array
    last_met: Array
    met: Array
    distinct: Array


@compiled
def value_of(state: State, plan: Plan, findings: Findings, slot: int, event: Record, operation: Record) -> float:
    """Return one base feature of one event."""
    code = operation.opcode
    if code <= Opcode.FLAG_SHARE:
        return window_value(findings, operation)
    if code <= Opcode.REPEATS:
        return log_value(state, plan, findings, slot, event, operation)
    if code <= Opcode.SAME_DEVICE:
        return tag_value(state, findings, slot, event, operation)
    return row_value(state, slot, event, operation)


# One return for each opcode: a table of functions would cost an indirect call for each feature of each event.
@compiled
def window_value(findings: Findings, operation: Record) -> float:  # noqa: PLR0911 (see above)
    """Return an aggregate of one window."""
    code = operation.opcode
    m = findings.measures[operation.log, operation.window]
    count = np.float64(m[COUNT])
    if code == Opcode.COUNT:
        return count
    if code == Opcode.SUM:
        return np.float64(m[TOTAL])
    if code >= Opcode.FLAG_COUNT:
        bit = operation.argument
        lanes = m[LANES_LOW] if bit < 4 else m[LANES_HIGH]
        flagged = np.float64(
            (lanes >> (16 * (bit & 3)) & 0xFFFF) + findings.flagged[operation.log, operation.window, bit]
        )
        if code == Opcode.FLAG_COUNT:
            return flagged
        return flagged / count if count > 0 else np.nan
    if count == 0:
        return np.nan
    if code == Opcode.MEAN:
        return np.float64(m[TOTAL]) / count
    if code == Opcode.MAX:
        return np.float64(m[MAXIMUM])
    return deviation(m)


@compiled
def deviation(m: Array) -> float:
    """Return the population standard deviation of a window, NaN for fewer than two events.

    sqrt(n * squares - total ** 2) / n, where the integer under the root is exact: 128 bits, as two uint64.
    """
    n = np.uint64(m[COUNT])
    if m[COUNT] < 2:
        return np.nan
    hh, hl, ll = np.uint64(m[SQUARE_HH]), np.uint64(m[SQUARE_HL]), np.uint64(m[SQUARE_LL])
    # The squares are hh * 2**44 + hl * 2**23 + ll, with LIMB_BITS = 22
    low = hh << np.uint64(44)
    high = hh >> np.uint64(20)
    part = hl << np.uint64(23)
    low += part
    high += (hl >> np.uint64(41)) + np.uint64(low < part)
    low += ll
    high += np.uint64(low < ll)
    product_high, product_low = multiply(n, low)
    product_high += n * high
    square_high, square_low = multiply(np.uint64(m[TOTAL]), np.uint64(m[TOTAL]))
    under_high = product_high - square_high - np.uint64(product_low < square_low)
    under_low = product_low - square_low
    if integer(under_high) < 0:  # only where panes were cut in proportion
        return 0.0
    return float(np.sqrt(np.float64(under_high) * 2.0**64 + np.float64(under_low)) / np.float64(n))


@compiled
def multiply(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the 128-bit product of two uint64 as (high, low)."""
    half = np.uint64(32)
    mask = np.uint64(0xFFFFFFFF)
    a_high, a_low, b_high, b_low = a >> half, a & mask, b >> half, b & mask
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> half) + (other >> half), (other << half) | (low & mask)


@compiled
def log_value(  # noqa: PLR0911 (as in window_value)
    state: State, plan: Plan, findings: Findings, slot: int, event: Record, operation: Record
) -> float:
    """Return an aggregate of one log that no window sum holds."""
    code = operation.opcode
    log = state.logs[slot, operation.log]
    head = findings.heads[operation.log]
    if code == Opcode.PERIOD_SUM:
        return period_sum(state, plan, log, head, event.timestamp, operation.argument)
    if code == Opcode.SINCE_LAST:
        return since_last(state, log, head, event.timestamp)
    if code == Opcode.SEEN:
        return np.float64(log.seen)
    edge = event.timestamp - operation.width_ms
    if code == Opcode.RUN:
        return run(state, log, head, edge, operation.argument)
    if code == Opcode.RISING:
        return rising(state, log, head, edge)
    if code == Opcode.GROWTH:
        return growth(state, log, head, edge)
    return repeats(state, log, head, edge, event.amount)


@compiled
def period_start(kind: int, at: int) -> int:
    """Return when the current calendar period began, or a time after `at` where there is none now."""
    local = at + BRASILIA_MS
    midnight = local - local % DAY_MS
    hour = (local - midnight) // HOUR_MS
    if kind == Period.DAY:
        start = midnight
    elif kind == Period.DAYTIME:
        start = midnight + (6 * HOUR_MS if 6 <= hour < 20 else DAY_MS)
    elif hour >= 20:
        start = midnight + 20 * HOUR_MS
    else:
        start = midnight - 4 * HOUR_MS if hour < 6 else midnight + DAY_MS
    return start - BRASILIA_MS


@compiled
def period_sum(state: State, plan: Plan, log: Record, head: int, at: int, number: int) -> float:
    """Return the sum of the flagged events of the current calendar period, before this event.

    Condensed history counts whole panes, so that a legal limit is never under-counted.
    """
    period = plan.periods[number]
    if log.flags_seen & period.wanted != period.wanted:
        return 0.0
    start = period_start(period.kind, at)
    block = integer(log.block)
    total = 0
    position = head - 1
    while position >= 0 and state.cells[block + position].timestamp >= start:
        value = state.cells[block + position].value
        if value & period.mask == period.wanted:
            total += value >> FLAG_BITS
        position -= 1
    if log.panes != 0 and start <= at:
        base = integer(log.panes) * PANES
        for k in range(integer(log.pane_count)):
            pane = state.panes[base + k]
            if pane.last >= start and pane.first <= at:
                total += pane.period_totals[number]
    return np.float64(total)


@compiled
def since_last(state: State, log: Record, head: int, at: int) -> float:
    """Return the time since the newest event that is not later."""
    if head > 0:
        return np.float64(at - state.cells[integer(log.block) + head - 1].timestamp)
    if log.panes != 0:
        base = integer(log.panes) * PANES
        for k in range(integer(log.pane_count) - 1, -1, -1):
            if state.panes[base + k].first <= at:
                return np.float64(max(at - state.panes[base + k].last, 0))
    return np.nan


@compiled
def run(state: State, log: Record, head: int, edge: int, mask: int) -> float:
    """Return how many of the last events in a row carry all these flags."""
    block = integer(log.block)
    length = 0
    for position in range(head - 1, max(head - 1 - LOOK_BACK, -1), -1):
        cell = state.cells[block + position]
        if cell.timestamp <= edge or cell.value & mask != mask:
            break
        length += 1
    return np.float64(length)


@compiled
def rising(state: State, log: Record, head: int, edge: int) -> float:
    """Return how many of the last events in a row were each larger than the one before."""
    block = integer(log.block)
    length = 0
    for position in range(head - 1, max(head - 1 - LOOK_BACK, 0), -1):
        cell, before = state.cells[block + position], state.cells[block + position - 1]
        if before.timestamp <= edge or cell.value >> FLAG_BITS <= before.value >> FLAG_BITS:
            break
        length += 1
    return np.float64(length)


@compiled
def growth(state: State, log: Record, head: int, edge: int) -> float:
    """Return the last amount over the mean of up to five amounts before it, NaN for fewer than two events."""
    block = integer(log.block)
    total = 0
    count = 0
    for position in range(head - 2, max(head - 2 - GROWTH_EVENTS, -1), -1):
        cell = state.cells[block + position]
        if cell.timestamp <= edge:
            break
        total += cell.value >> FLAG_BITS
        count += 1
    if count == 0:
        return np.nan
    return np.float64(state.cells[block + head - 1].value >> FLAG_BITS) * count / total


@compiled
def repeats(state: State, log: Record, head: int, edge: int, amount: int) -> float:
    """Return how many of the last events in the window had this event's very amount."""
    block = integer(log.block)
    equal = 0
    for position in range(head - 1, max(head - 1 - LOOK_BACK, -1), -1):
        cell = state.cells[block + position]
        if cell.timestamp <= edge:
            break
        equal += cell.value >> FLAG_BITS == amount
    return np.float64(equal)


@compiled
def tag_value(state: State, findings: Findings, slot: int, event: Record, operation: Record) -> float:
    """Return an aggregate of one tag set."""
    code = operation.opcode
    which = operation.log
    if code == Opcode.DISTINCT:
        return float(findings.distinct[which, operation.window])
    if which == DEVICES and event.device == 0:
        return np.nan
    if code == Opcode.FIRST_TIME:
        return float(1 - findings.met[which])
    if code == Opcode.MET:
        return np.float64(findings.met[which])
    if code == Opcode.SINCE_PAIR:
        last = findings.last_met[which]
        return np.nan if last == NEVER else np.float64(max(event.timestamp - last, 0))
    return np.float64(same_device(state, state.tags[slot, which], event.device, event.timestamp))


@compiled
def row_value(state: State, slot: int, event: Record, operation: Record) -> float:
    """Return an aggregate of the row's header."""
    code = operation.opcode
    header = state.headers[slot]
    if code == Opcode.AGE:
        first = header.first_timestamp
        return np.float64(max(event.timestamp - first, 0)) if first > 0 else np.nan
    if code == Opcode.SINCE_MARK:
        marked_at = header.marked_at
        return np.float64(max(event.timestamp - marked_at, 0)) if marked_at > 0 else np.nan
    if operation.argument >= 0:
        return np.float64(header.marks[operation.argument])
    marks = 0
    for k in range(len(FRAUD_TYPES)):
        marks += header.marks[k]
    return np.float64(marks)
