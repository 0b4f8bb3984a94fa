"""Rows to self-contained blobs and back.

A blob is int64 words: fingerprint, checksum, the row, then what its blocks hold, in a fixed order. Positions of blocks
are no part of it, only whether there is one; capacities are, so that a restored row goes on as the first would have.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tables.kernel_memory import (
    allocate_cells,
    allocate_panes,
    allocate_sketch,
    allocate_windows,
    compiled,
    find_or_create,
    integer,
    release_blocks,
)
from tables.kernel_windows import rebuild
from tables.layout import (
    HEADER_DTYPE,
    LOG_COUNT,
    LOG_DTYPE,
    LOG_LEVEL_MAX,
    PANE_DTYPE,
    PANES,
    ROW_DTYPE,
    SKETCH_WORDS,
    TAG_SETS,
    TAGS_DTYPE,
)

if TYPE_CHECKING:
    from tables.layout import Array, Record, State
    from tables.plan import Plan

__all__ = ["BLOB_WORDS_MIN", "PROBLEMS", "read_blob", "row_words", "write_row"]

ROW_AT = 2
ROW_WORDS = ROW_DTYPE.itemsize // 8
BLOB_WORDS_MIN = ROW_AT + ROW_WORDS
PANE_WORDS = PANE_DTYPE.itemsize // 8

LOG_AT = HEADER_DTYPE.itemsize // 8
LOG_WORDS = LOG_DTYPE.itemsize // 8
TAGS_AT = LOG_AT + LOG_COUNT * LOG_WORDS
TAGS_WORDS = TAGS_DTYPE.itemsize // 8

PROBLEMS = ("", "fingerprint", "checksum", "key", "length")
SOUND, FOREIGN, DAMAGED, MISNAMED, MISSHAPEN = range(5)

_LOW_HALF = 0xFFFFFFFF
_MIX = 0x2545F4914F6CDD1D


@compiled
def row_words(state: State, slot: int) -> int:
    """Return the length of a row's blob in words."""
    words = BLOB_WORDS_MIN
    for k in range(LOG_COUNT):
        log = state.logs[slot, k]
        words += 2 * integer(log.length) + PANE_WORDS * integer(log.pane_count)
    for k in range(TAG_SETS):
        tags = state.tags[slot, k]
        words += 2 * integer(tags.length) + SKETCH_WORDS * (integer(tags.counter != 0) + integer(tags.bloom != 0))
    return words


@compiled
def presence(words: Array, at: int) -> None:
    """Replace the block positions in a row's words by 1, or 0 for none."""
    for k in range(LOG_COUNT):  # block and windows share a word; panes has the events ever seen above it
        word = at + LOG_AT + k * LOG_WORDS
        words[word] = has_block(words[word]) | has_block(words[word] >> 32) << 32
        words[word + 1] = has_block(words[word + 1]) | words[word + 1] & ~_LOW_HALF
    for k in range(TAG_SETS):  # block and counter share a word; bloom has the lengths above it
        word = at + TAGS_AT + k * TAGS_WORDS
        words[word] = has_block(words[word]) | has_block(words[word] >> 32) << 32
        words[word + 1] = has_block(words[word + 1]) | words[word + 1] & ~_LOW_HALF


@compiled
def has_block(word: int) -> int:
    """Return 1 where the low half of a word names a block."""
    return integer(word & _LOW_HALF != 0)


@compiled
def checksum(words: Array, start: int, end: int) -> int:
    """Return a checksum: it finds damage, not malice."""
    # Four chains side by side: each step of one waits for its multiplication.
    first, second, third, fourth = end - start, 1, 2, 3
    at = start
    while at + 4 <= end:
        first = mixed(first, words[at])
        second = mixed(second, words[at + 1])
        third = mixed(third, words[at + 2])
        fourth = mixed(fourth, words[at + 3])
        at += 4
    for k in range(at, end):
        first = mixed(first, words[k])
    return mixed(mixed(mixed(first, second), third), fourth)


@compiled
def mixed(result: int, word: int) -> int:
    """Return a checksum after one more word."""
    result = (result ^ word) * _MIX
    return result ^ (result >> 29)


@compiled
def copy_words(target: Array, at: int, source: Array, start: int, count: int) -> int:
    """Copy words; return the position behind them in the target."""
    for k in range(count):
        target[at + k] = source[start + k]
    return at + count


@compiled
def write_row(state: State, slot: int, fingerprint: int, words: Array, start: int) -> int:
    """Write a row's blob; return the position behind it."""
    at = copy_words(words, start + ROW_AT, state.row_words[slot], 0, ROW_WORDS)
    presence(words, start + ROW_AT)
    for k in range(LOG_COUNT):
        log = state.logs[slot, k]
        at = copy_words(words, at, state.cell_words, 2 * integer(log.block), 2 * integer(log.length))
        for pane in range(integer(log.pane_count)):
            at = copy_words(words, at, state.pane_words[integer(log.panes) * PANES + pane], 0, PANE_WORDS)
    for k in range(TAG_SETS):
        tags = state.tags[slot, k]
        at = copy_words(words, at, state.cell_words, 2 * integer(tags.block), 2 * integer(tags.length))
        if tags.counter != 0:
            at = copy_words(words, at, state.sketch_links, integer(tags.counter) * SKETCH_WORDS, SKETCH_WORDS)
        if tags.bloom != 0:
            at = copy_words(words, at, state.sketch_links, integer(tags.bloom) * SKETCH_WORDS, SKETCH_WORDS)
    words[start] = fingerprint
    words[start + 1] = checksum(words, start + ROW_AT, at)
    return at


@compiled
def read_blob(
    state: State, plan: Plan, words: Array, start: int, end: int, key: np.uint64, fingerprint: int, scratch: Array
) -> int:
    """Restore one row, in place of what the key had; return a position in PROBLEMS.

    Parameters
    ----------
    scratch
        int64, shape (WINDOWS, MEASURES).
    """
    if words[start] != fingerprint:
        return FOREIGN
    if words[start + 1] != checksum(words, start + ROW_AT, end):
        return DAMAGED
    if np.uint64(words[start + ROW_AT]) != key:
        return MISNAMED
    slot = find_or_create(state, key)
    release_blocks(state, slot)
    at = start + ROW_AT + ROW_WORDS
    copy_words(state.row_words[slot], 0, words, start + ROW_AT, ROW_WORDS)
    if row_words(state, slot) != end - start or not levels_fit(state, slot):
        state.row_words[slot, 1:] = 0
        return MISSHAPEN
    state.touched_ms[slot] = state.headers[slot].marked_at
    for k in range(LOG_COUNT):
        at = read_log(state, plan, slot, k, words, at, scratch)
    for k in range(TAG_SETS):
        at = read_tags(state, state.tags[slot, k], words, at)
    return SOUND


@compiled
def read_log(state: State, plan: Plan, slot: int, k: int, words: Array, at: int, scratch: Array) -> int:
    """Restore the blocks of one log; return the position behind them."""
    log = state.logs[slot, k]
    length = integer(log.length)
    if log.block != 0:
        log.block = allocate_cells(state, integer(log.level))
    copy_words(state.cell_words, 2 * integer(log.block), words, at, 2 * length)
    at += 2 * length
    newest = state.cells[integer(log.block) + length - 1].timestamp if length > 0 else 0
    state.touched_ms[slot] = max(state.touched_ms[slot], newest)
    if log.windows != 0:
        log.windows = allocate_windows(state)
        rebuild(state, plan, log, newest, scratch)
    if log.panes != 0:
        log.panes = allocate_panes(state)
    for pane in range(integer(log.pane_count)):
        copy_words(state.pane_words[integer(log.panes) * PANES + pane], 0, words, at, PANE_WORDS)
        at += PANE_WORDS
    return at


@compiled
def read_tags(state: State, tags: Record, words: Array, at: int) -> int:
    """Restore the blocks of one tag set; return the position behind them."""
    if tags.block != 0:
        tags.block = allocate_cells(state, integer(tags.level))
    copy_words(state.cell_words, 2 * integer(tags.block), words, at, 2 * integer(tags.length))
    at += 2 * integer(tags.length)
    if tags.counter != 0:
        tags.counter = allocate_sketch(state)
        copy_words(state.sketch_links, integer(tags.counter) * SKETCH_WORDS, words, at, SKETCH_WORDS)
        at += SKETCH_WORDS
    if tags.bloom != 0:
        tags.bloom = allocate_sketch(state)
        copy_words(state.sketch_links, integer(tags.bloom) * SKETCH_WORDS, words, at, SKETCH_WORDS)
        at += SKETCH_WORDS
    return at


@compiled
def levels_fit(state: State, slot: int) -> bool:
    """Return whether the lengths of a row agree with its capacities."""
    for k in range(LOG_COUNT):
        log = state.logs[slot, k]
        if log.level > LOG_LEVEL_MAX or log.length > 2 << log.level or log.pane_count > PANES:
            return False
        if (log.block == 0 and log.length > 0) or (log.panes == 0 and log.pane_count > 0):
            return False
    for k in range(TAG_SETS):
        tags = state.tags[slot, k]
        if tags.level > LOG_LEVEL_MAX or tags.length > 2 << tags.level or (tags.block == 0 and tags.length > 0):
            return False
    return True
