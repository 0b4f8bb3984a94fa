"""Tag sets: which counterparties and devices a key has met, and when last.

A set is exact up to 2 << tag_level tags. Beyond, counterparties go into a linear counter (256 slots, each the newest
second of the tags that hash to it: standard error 5 % at 100 tags, 6.5 % at 500, 11 % at 1,000, and never more than
1,420) and a Bloom filter of two generations (the newest 384 to 768 tags; a stranger is taken for known in at most
1.3 %). Devices are few: there the tag met longest ago gives way. All of it is part of the row, so recovery is exact.

A tag counts in a window while its newest event is younger than the window, seen from the event's time.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tables.kernel_memory import allocate_cells, allocate_sketch, compiled, free_cells, integer
from tables.layout import DISTINCT_WINDOWS, GRACE_MS, LONGEST_MS, SKETCH_WORDS

if TYPE_CHECKING:
    from tables.layout import Array, Record, State
    from tables.plan import Plan

__all__ = ["NEVER", "distinct", "last_met", "met_before", "same_device", "touch_counterparty", "touch_device"]

NEVER = -1
"""Instead of a timestamp."""

COUNTER_SLOTS = 256
COUNTER_EPOCH_S = 1_577_836_800 - 1
"""A slot holds whole seconds since just before the oldest timestamp that the decoder accepts, so that 0 means empty."""

GENERATION_WORDS = SKETCH_WORDS // 2
GENERATION_TAGS = 384
BLOOM_BITS = 64 * GENERATION_WORDS
BLOOM_HASHES = 6

_PAIR_MASK = np.uint64(0xFFFFFFFF00000000)


@compiled
def last_met(state: State, tags: Record, tag: np.uint64) -> int:
    """Return when a tag was last met, NEVER where the exact set does not hold it."""
    block = integer(tags.block)
    wanted = integer(tag)
    for k in range(integer(tags.length)):
        if state.cells[block + k].value == wanted:
            return integer(state.cells[block + k].timestamp)
    return NEVER


@compiled
def met_before(state: State, tags: Record, tag: np.uint64, last: int) -> bool:
    """Return whether a tag was met before, where `last_met` said when."""
    if last != NEVER:
        return True
    if tags.bloom == 0:
        return False
    base = integer(tags.bloom) * SKETCH_WORDS
    return bloom_holds(state, base, tag) or bloom_holds(state, base + GENERATION_WORDS, tag)


@compiled
def distinct(state: State, plan: Plan, tags: Record, at: int, counts: Array) -> None:
    """Count the tags met in each window.

    Parameters
    ----------
    counts
        float64, shape (DISTINCT_WINDOWS,); written.
    """
    if tags.counter != 0:
        base = integer(tags.counter) * SKETCH_WORDS * 2
        slots = state.seconds[base : base + COUNTER_SLOTS]
        for w in range(DISTINCT_WINDOWS):
            edge = np.uint32(max((at - plan.distinct_ms[w]) // 1000 - COUNTER_EPOCH_S, 0))
            taken = np.uint32(0)  # 32 bits throughout, so that eight slots are compared at once
            for k in range(COUNTER_SLOTS):
                taken += np.uint32(slots[k] > edge)
            counts[w] = linear_count(integer(taken))
        return
    block = integer(tags.block)
    for w in range(DISTINCT_WINDOWS):
        edge = at - plan.distinct_ms[w]
        met = 0
        for k in range(integer(tags.length)):
            met += state.cells[block + k].timestamp > edge
        counts[w] = met


@compiled
def linear_count(taken: int) -> float:
    """Estimate how many tags have taken this many of the slots."""
    free = max(COUNTER_SLOTS - taken, 1)
    return float(np.floor(COUNTER_SLOTS * np.log(COUNTER_SLOTS / free) + 0.5))


@compiled
def same_device(state: State, tags: Record, pair: np.uint64, at: int) -> int:
    """Count the counterparties that used a device within the longest window, at a receiver."""
    block = integer(tags.block)
    wanted = pair & _PAIR_MASK
    counterparties = 0
    for k in range(integer(tags.length)):
        cell = state.cells[block + k]
        counterparties += np.uint64(cell.value) & _PAIR_MASK == wanted and cell.timestamp > at - LONGEST_MS
    return counterparties


@compiled
def touch_counterparty(state: State, plan: Plan, tags: Record, tag: np.uint64, at: int) -> None:
    """Note that a counterparty was met."""
    if tags.counter != 0:
        count_tag(state, tags, tag, at)
        remember(state, tags, tag)
        return
    if refresh(state, tags, tag, at):
        return
    if tags.block == 0 or tags.length == 2 << tags.level:
        if tags.block == 0 or tags.level < plan.tag_level:
            grow(state, tags)
        else:
            forget_old(state, tags, at)
            if tags.length * 4 > (2 << tags.level) * 3:
                count_all(state, tags)
                count_tag(state, tags, tag, at)
                remember(state, tags, tag)
                return
    append(state, tags, tag, at)


@compiled
def touch_device(state: State, plan: Plan, tags: Record, tag: np.uint64, at: int) -> None:
    """Note that a device was used; in a full set the one used longest ago gives way."""
    if refresh(state, tags, tag, at):
        return
    if tags.block == 0 or tags.length == 2 << tags.level:
        if tags.block == 0 or tags.level < plan.device_level:
            grow(state, tags)
        else:
            block = integer(tags.block)
            oldest = 0
            for k in range(1, integer(tags.length)):
                if state.cells[block + k].timestamp < state.cells[block + oldest].timestamp:
                    oldest = k
            state.cells[block + oldest].timestamp = at
            state.cells[block + oldest].value = integer(tag)
            return
    append(state, tags, tag, at)


@compiled
def refresh(state: State, tags: Record, tag: np.uint64, at: int) -> bool:
    """Renew a tag that the set holds; return whether it does."""
    block = integer(tags.block)
    wanted = integer(tag)
    for k in range(integer(tags.length)):
        if state.cells[block + k].value == wanted:
            state.cells[block + k].timestamp = max(state.cells[block + k].timestamp, at)
            return True
    return False


@compiled
def append(state: State, tags: Record, tag: np.uint64, at: int) -> None:
    """Add a tag to a set that has room."""
    cell = state.cells[integer(tags.block) + integer(tags.length)]
    cell.timestamp = at
    cell.value = integer(tag)
    tags.length += 1


@compiled
def grow(state: State, tags: Record) -> None:
    """Give a set its first block, or one twice as large."""
    if tags.block == 0:
        tags.block = allocate_cells(state, 0)
        return
    level = integer(tags.level)
    block = allocate_cells(state, level + 1)
    for k in range(integer(tags.length)):
        state.cells[block + k] = state.cells[tags.block + k]
    free_cells(state, level, integer(tags.block))
    tags.block = block
    tags.level = level + 1


@compiled
def forget_old(state: State, tags: Record, at: int) -> None:
    """Move the tags that no window counts any more into the Bloom filter."""
    block = integer(tags.block)
    kept = 0
    for k in range(integer(tags.length)):
        cell = state.cells[block + k]
        if cell.timestamp > at - LONGEST_MS - GRACE_MS:
            state.cells[block + kept] = cell
            kept += 1
        else:
            remember(state, tags, np.uint64(cell.value))
    tags.length = kept


@compiled
def count_all(state: State, tags: Record) -> None:
    """Turn an exact set into a linear counter."""
    tags.counter = allocate_sketch(state)
    block = integer(tags.block)
    for k in range(integer(tags.length)):
        tag = np.uint64(state.cells[block + k].value)
        count_tag(state, tags, tag, state.cells[block + k].timestamp)
        remember(state, tags, tag)
    free_cells(state, integer(tags.level), block)
    tags.block = 0
    tags.length = 0
    tags.level = 0


@compiled
def count_tag(state: State, tags: Record, tag: np.uint64, at: int) -> None:
    """Enter a tag into the linear counter."""
    # The high bits: the low ones place the key in the index, and Bloom takes the middle.
    place = integer(tags.counter) * SKETCH_WORDS * 2 + integer(tag >> np.uint64(56))
    second = at // 1000 - COUNTER_EPOCH_S
    if second > integer(state.seconds[place]):
        state.seconds[place] = second


@compiled
def bloom_holds(state: State, base: int, tag: np.uint64) -> bool:
    """Return whether a generation of the Bloom filter holds a tag."""
    step = (tag >> np.uint64(32)) | np.uint64(1)
    mixed = tag
    for _ in range(BLOOM_HASHES):
        bit = integer(mixed) & (BLOOM_BITS - 1)
        if state.sketches[base + (bit >> 6)] >> np.uint64(bit & 63) & np.uint64(1) == np.uint64(0):
            return False
        mixed += step
    return True


@compiled
def remember(state: State, tags: Record, tag: np.uint64) -> None:
    """Enter a tag into the Bloom filter; its newer generation becomes the older one when it is full."""
    if tags.bloom == 0:
        tags.bloom = allocate_sketch(state)
    base = integer(tags.bloom) * SKETCH_WORDS
    if bloom_holds(state, base, tag):
        return
    if tags.bloom_length == GENERATION_TAGS:
        for k in range(GENERATION_WORDS):
            state.sketches[base + GENERATION_WORDS + k] = state.sketches[base + k]
            state.sketches[base + k] = 0
        tags.bloom_length = 0
    step = (tag >> np.uint64(32)) | np.uint64(1)
    mixed = tag
    for _ in range(BLOOM_HASHES):
        bit = integer(mixed) & (BLOOM_BITS - 1)
        state.sketches[base + (bit >> 6)] |= np.uint64(1) << np.uint64(bit & 63)
        mixed += step
    tags.bloom_length += 1
