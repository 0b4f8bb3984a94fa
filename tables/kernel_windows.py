"""Event logs and their sliding windows.

A log holds its events in order of time, equal times in order of arrival. A short log is scanned. A long one keeps, for
each window, the position of its first event (the tail) and exact running sums; all windows end at one position (the
head). `slide` moves tails and head to any time, forwards or back, so a late event costs what it is late by and no more.
Running sums are a function of log and time alone: they are not saved, and recovery rebuilds them.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tables.kernel_memory import (
    allocate_cells,
    allocate_panes,
    allocate_windows,
    compiled,
    copy,
    free_cells,
    integer,
)
from tables.kernel_panes import measure_panes, spill
from tables.layout import (
    COUNT,
    FLAG_BITS,
    GRACE_MS,
    LANES_HIGH,
    LANES_LOW,
    LIMB_BITS,
    LONGEST_MS,
    MAXIMUM,
    SQUARE_HH,
    SQUARE_HL,
    SQUARE_LL,
    TAIL,
    TOTAL,
    WINDOWS,
)

if TYPE_CHECKING:
    from tables.layout import Array, Record, State
    from tables.plan import Plan

__all__ = ["insert", "measure", "rebuild"]

_LOW = (1 << LIMB_BITS) - 1


@compiled
def scan(state: State, plan: Plan, log: Record, at: int, measures: Array) -> int:
    """Measure every window of a log by walking it back from its newest event.

    Parameters
    ----------
    measures
        int64, shape (WINDOWS, MEASURES); written.

    Returns
    -------
    The head: how many events have a timestamp <= `at`.
    """
    block = integer(log.block)
    position = integer(log.length) - 1
    while position >= 0 and state.cells[block + position].timestamp > at:
        position -= 1
    head = position + 1
    window = count = total = hh = hl = ll = maximum = lanes_low = lanes_high = 0
    while window < WINDOWS:
        age = at - state.cells[block + position].timestamp if position >= 0 else LONGEST_MS
        while window < WINDOWS and age >= plan.widths_ms[window]:
            m = measures[window]
            m[COUNT], m[TOTAL], m[MAXIMUM], m[LANES_LOW], m[LANES_HIGH] = count, total, maximum, lanes_low, lanes_high
            m[SQUARE_HH], m[SQUARE_HL], m[SQUARE_LL] = hh, hl, ll
            window += 1
        if window == WINDOWS:
            break
        value = state.cells[block + position].value
        amount = value >> FLAG_BITS
        high, low = amount >> LIMB_BITS, amount & _LOW
        count, total, maximum = count + 1, total + amount, max(maximum, amount)
        hh, hl, ll = hh + high * high, hl + high * low, ll + low * low
        lanes_low += plan.lanes[value & 15]
        lanes_high += plan.lanes[(value >> 4) & 15]
        position -= 1
    return head


@compiled
def change(plan: Plan, sums: Array, value: int, sign: int) -> None:
    """Let one event enter (sign 1) or leave (-1) the running sums of a window; the maximum is the caller's."""
    amount = value >> FLAG_BITS
    high, low = amount >> LIMB_BITS, amount & _LOW
    sums[TOTAL] += sign * amount
    sums[SQUARE_HH] += sign * high * high
    sums[SQUARE_HL] += sign * high * low
    sums[SQUARE_LL] += sign * low * low
    sums[LANES_LOW] += sign * plan.lanes[value & 15]
    sums[LANES_HIGH] += sign * plan.lanes[(value >> 4) & 15]


@compiled
def rebuild(state: State, plan: Plan, log: Record, at: int, measures: Array) -> None:
    """Compute the running sums of a long log from its events; `measures` is scratch."""
    windows = state.windows[log.windows]
    head = scan(state, plan, log, at, measures)
    for w in range(WINDOWS):
        copy(windows[w], measures[w])
        windows[w, TAIL] = head - measures[w, COUNT]
    windows[WINDOWS, TAIL] = head


@compiled
def slide(state: State, plan: Plan, log: Record, at: int) -> None:
    """Move tails and head of a long log to a time."""
    windows = state.windows[log.windows]
    block = integer(log.block)
    for w in range(WINDOWS):  # tails back first: whatever the head then passes lies inside every window
        tail = windows[w, TAIL]
        while tail > 0 and state.cells[block + tail - 1].timestamp > at - plan.widths_ms[w]:
            tail -= 1
            value = state.cells[block + tail].value
            change(plan, windows[w], value, 1)
            windows[w, MAXIMUM] = max(windows[w, MAXIMUM], value >> FLAG_BITS)
        windows[w, TAIL] = tail
    stale = move_head(state, plan, log, at)
    head = windows[WINDOWS, TAIL]
    for w in range(WINDOWS):
        tail = windows[w, TAIL]
        while tail < head and state.cells[block + tail].timestamp <= at - plan.widths_ms[w]:
            value = state.cells[block + tail].value
            change(plan, windows[w], value, -1)
            if value >> FLAG_BITS >= windows[w, MAXIMUM]:
                stale |= 1 << w
            tail += 1
        windows[w, TAIL] = tail
        if stale >> w & 1:  # the greatest amount may have left: find the next
            maximum = 0
            for position in range(tail, head):
                maximum = max(maximum, state.cells[block + position].value >> FLAG_BITS)
            windows[w, MAXIMUM] = maximum


@compiled
def move_head(state: State, plan: Plan, log: Record, at: int) -> int:
    """Move the head of a long log to a time; return the windows, as bits, whose maximum may have left."""
    windows = state.windows[log.windows]
    block = integer(log.block)
    head = windows[WINDOWS, TAIL]
    stale = 0
    while head < log.length and state.cells[block + head].timestamp <= at:
        value = state.cells[block + head].value
        for w in range(WINDOWS):
            change(plan, windows[w], value, 1)
            windows[w, MAXIMUM] = max(windows[w, MAXIMUM], value >> FLAG_BITS)
        head += 1
    while head > 0 and state.cells[block + head - 1].timestamp > at:
        head -= 1
        value = state.cells[block + head].value
        for w in range(WINDOWS):
            change(plan, windows[w], value, -1)
            if value >> FLAG_BITS >= windows[w, MAXIMUM]:
                stale |= 1 << w
    windows[WINDOWS, TAIL] = head
    return stale


@compiled
def measure(state: State, plan: Plan, log: Record, at: int, measures: Array, flagged: Array) -> int:
    """Measure every window of a log at a time.

    Parameters
    ----------
    measures
        int64, shape (WINDOWS, MEASURES); written.
    flagged
        int64, shape (WINDOWS, COUNTED_FLAGS); written only for a log with panes: their counts of flags.

    Returns
    -------
    The head: how many events of the log have a timestamp <= `at`.
    """
    if log.windows == 0:
        head = scan(state, plan, log, at, measures)
    else:
        slide(state, plan, log, at)
        windows = state.windows[log.windows]
        head = windows[WINDOWS, TAIL]
        for w in range(WINDOWS):
            copy(measures[w], windows[w])
            measures[w, COUNT] = head - windows[w, TAIL]
    if log.panes != 0:
        measure_panes(state, plan, log, at, measures, flagged)
    return head


@compiled
def insert(state: State, plan: Plan, log: Record, head: int, timestamp: int, value: int, measures: Array) -> None:
    """Enter an event at the head, which `measure` has just found for its timestamp.

    Parameters
    ----------
    measures
        int64, shape (WINDOWS, MEASURES): scratch.
    """
    if log.block == 0:
        log.block = allocate_cells(state, 0)
    if log.length == 2 << log.level:
        head = make_room(state, plan, log, head, timestamp, measures)
    block = integer(log.block)
    for position in range(integer(log.length), head, -1):
        state.cells[block + position] = state.cells[block + position - 1]
    state.cells[block + head].timestamp = timestamp
    state.cells[block + head].value = value
    log.length += 1
    log.seen += 1
    log.flags_seen |= value & ((1 << FLAG_BITS) - 1)
    if log.windows != 0:
        windows = state.windows[log.windows]
        for w in range(WINDOWS):
            change(plan, windows[w], value, 1)
            windows[w, MAXIMUM] = max(windows[w, MAXIMUM], value >> FLAG_BITS)
        windows[WINDOWS, TAIL] = head + 1


@compiled
def make_room(state: State, plan: Plan, log: Record, head: int, timestamp: int, measures: Array) -> int:
    """Free cells of a full log: drop what no window can see, else take a larger block, else condense the oldest.

    Returns
    -------
    The head in the new positions.
    """
    block, length, level = integer(log.block), integer(log.length), integer(log.level)
    newest = max(timestamp, state.cells[block + length - 1].timestamp)
    expired = 0
    while expired < length and state.cells[block + expired].timestamp <= newest - LONGEST_MS - GRACE_MS:
        expired += 1
    expired = max(expired - 1, 0)  # the newest of them stays: a late event may ask when the last one was
    dropped = expired
    if expired * 4 < length:
        if level < plan.log_level:
            log.block = allocate_cells(state, level + 1)
            for position in range(length):
                state.cells[log.block + position] = state.cells[block + position]
            free_cells(state, level, block)
            log.level = level + 1
            if log.windows == 0 and log.level > plan.scan_level:
                log.windows = allocate_windows(state)
                rebuild(state, plan, log, timestamp, measures)
            return head
        if log.panes == 0:
            log.panes = allocate_panes(state)
        dropped = length // 4
        for position in range(expired, dropped):
            cell = state.cells[block + position]
            spill(state, plan, log, cell.timestamp, cell.value, newest)
    for position in range(dropped, length):
        state.cells[block + position - dropped] = state.cells[block + position]
    log.length = length - dropped
    if log.windows != 0:
        rebuild(state, plan, log, timestamp, measures)
    return max(head - dropped, 0)
