"""Memory of the kernel: pools of blocks, the index from hash to slot, and rows that come and go.

Only `tables/kernel.py` has compiled entry points that are cached; it names this file's digest in their cache key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import njit

from tables.layout import (
    CELLS,
    DIRTY,
    LOG_COUNT,
    PANE_BLOCKS,
    PANES,
    ROWS_DIRTY,
    ROWS_LIVE,
    SKETCH_BLOCKS,
    SKETCH_WORDS,
    SLOTS_FREE,
    SLOTS_USED,
    TAG_SETS,
    WINDOW_BLOCKS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.layout import Array, State

    F = TypeVar("F", bound=Callable[..., Any])
else:
    F = TypeVar("F")

__all__ = [
    "OPTIONS",
    "allocate_cells",
    "allocate_panes",
    "allocate_sketch",
    "allocate_windows",
    "compiled",
    "copy",
    "drop_row",
    "find",
    "find_or_create",
    "free_cells",
    "free_windows",
    "has_room",
    "index_insert",
    "integer",
    "mark_dirty",
    "release_blocks",
]


OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
"""A division by zero raises nothing; and references are not counted.

A state is 28 arrays. Counting their references at each call made an event forty times slower, and passing them on the
stack ten times, hence `forceinline`. The price: compiled code here can allocate no array, so scratch is an argument.
"""

if TYPE_CHECKING:

    def integer(value: Any) -> int:  # noqa: ANN401 (any number)
        """Return an int64, also in machine code: arithmetic of unsigned and signed integers would become float."""
else:
    integer = np.int64


def compiled(function: F) -> F:
    """Compile with Numba, and keep the type for mypy."""
    return cast("F", njit(function, forceinline=True, **OPTIONS))


@compiled
def copy(target: Array, source: Array) -> None:
    """Copy words: an assignment of arrays would allocate, in case they overlap."""
    for k in range(len(target)):
        target[k] = source[k]


@compiled
def allocate(state: State, links: Array, pool: int, level: int, size: int, stride: int) -> int:
    """Take a block given back, else fresh space. A block given back holds the next one's position in its first word."""
    block = state.free[pool, level]
    if block != 0:
        state.free[pool, level] = links[block * stride]
        return integer(block)
    block = state.tops[pool]
    state.tops[pool] = block + size
    return integer(block)


@compiled
def release(state: State, links: Array, pool: int, level: int, stride: int, block: int) -> None:
    """Give a block back."""
    links[block * stride] = state.free[pool, level]
    state.free[pool, level] = block


@compiled
def allocate_cells(state: State, level: int) -> int:
    """Take 2 << level cells."""
    return allocate(state, state.cell_links, CELLS, level, 2 << level, 1)


@compiled
def free_cells(state: State, level: int, block: int) -> None:
    """Give cells back."""
    release(state, state.cell_links, CELLS, level, 1, block)


@compiled
def allocate_windows(state: State) -> int:
    """Take the running sums of one log."""
    return allocate(state, state.window_links, WINDOW_BLOCKS, 0, 1, 1)


@compiled
def allocate_panes(state: State) -> int:
    """Take the panes of one log."""
    return allocate(state, state.pane_links, PANE_BLOCKS, 0, 1, PANES)


@compiled
def allocate_sketch(state: State) -> int:
    """Take an empty sketch."""
    block = allocate(state, state.sketch_links, SKETCH_BLOCKS, 0, 1, SKETCH_WORDS)
    state.sketches[block * SKETCH_WORDS : (block + 1) * SKETCH_WORDS] = 0
    return block


@compiled
def has_room(state: State) -> bool:
    """Whether the pools can take whatever one event may ask for: Python grows them between two events, never inside."""
    # Two logs of 512 cells would be the most; tag sets add three times 64.
    return bool(
        state.tops[CELLS] + 2048 <= len(state.cells)
        and state.tops[WINDOW_BLOCKS] + LOG_COUNT <= len(state.windows)
        and (state.tops[PANE_BLOCKS] + LOG_COUNT) * PANES <= len(state.panes)
        and (state.tops[SKETCH_BLOCKS] + 2 * TAG_SETS) * SKETCH_WORDS <= len(state.sketches)
    )


@compiled
def find(state: State, key: np.uint64) -> int:
    """Return the slot of a key, 0 where there is none."""
    mask = len(state.index_hashes) - 1
    place = integer(key) & mask
    while state.index_hashes[place] != np.uint64(0):
        if state.index_hashes[place] == key:
            return integer(state.index_slots[place])
        place = (place + 1) & mask
    return 0


@compiled
def index_insert(hashes: Array, slots: Array, key: np.uint64, slot: int) -> None:
    """Enter a key that the index lacks."""
    mask = len(hashes) - 1
    place = integer(key) & mask
    while hashes[place] != np.uint64(0):
        place = (place + 1) & mask
    hashes[place] = key
    slots[place] = slot


@compiled
def index_remove(state: State, key: np.uint64) -> None:
    """Take a key out, moving later ones of its chain up so that no tombstone remains."""
    mask = len(state.index_hashes) - 1
    hole = integer(key) & mask
    while state.index_hashes[hole] != key:
        hole = (hole + 1) & mask
    place = hole
    while True:
        place = (place + 1) & mask
        mover = state.index_hashes[place]
        if mover == np.uint64(0):
            break
        home = integer(mover) & mask
        # The mover may fill the hole unless its home lies behind the hole, going round.
        if ((place - home) & mask) >= ((place - hole) & mask):
            state.index_hashes[hole] = mover
            state.index_slots[hole] = state.index_slots[place]
            hole = place
    state.index_hashes[hole] = np.uint64(0)


@compiled
def find_or_create(state: State, key: np.uint64) -> int:
    """Return the slot of a key, a fresh and empty one where there was none. The caller has made room."""
    slot = find(state, key)
    if slot != 0:
        return slot
    if state.counts[SLOTS_FREE] > 0:
        state.counts[SLOTS_FREE] -= 1
        slot = state.free_slots[state.counts[SLOTS_FREE]]
    else:
        slot = state.counts[SLOTS_USED]
        state.counts[SLOTS_USED] = slot + 1
    state.headers[slot].hash = key
    state.counts[ROWS_LIVE] += 1
    index_insert(state.index_hashes, state.index_slots, key, slot)
    return integer(slot)


@compiled
def release_blocks(state: State, slot: int) -> None:
    """Give back all blocks of a row, and clear it."""
    for k in range(LOG_COUNT):
        log = state.logs[slot, k]
        if log.block != 0:
            free_cells(state, log.level, log.block)
        if log.windows != 0:
            free_windows(state, log.windows)
        if log.panes != 0:
            release(state, state.pane_links, PANE_BLOCKS, 0, PANES, log.panes)
    for k in range(TAG_SETS):
        tags = state.tags[slot, k]
        if tags.block != 0:
            free_cells(state, tags.level, tags.block)
        if tags.counter != 0:
            release(state, state.sketch_links, SKETCH_BLOCKS, 0, SKETCH_WORDS, tags.counter)
        if tags.bloom != 0:
            release(state, state.sketch_links, SKETCH_BLOCKS, 0, SKETCH_WORDS, tags.bloom)
    state.row_words[slot, :] = 0


@compiled
def free_windows(state: State, block: int) -> None:
    """Give the running sums of one log back."""
    release(state, state.window_links, WINDOW_BLOCKS, 0, 1, block)


@compiled
def drop_row(state: State, slot: int) -> None:
    """Forget a row: its slot and blocks are free for others."""
    index_remove(state, state.headers[slot].hash)
    release_blocks(state, slot)
    state.touched_ms[slot] = 0
    state.free_slots[state.counts[SLOTS_FREE]] = slot
    state.counts[SLOTS_FREE] += 1
    state.counts[ROWS_LIVE] -= 1


@compiled
def mark_dirty(state: State, slot: int) -> None:
    """Note that a row differs from what the changelog has."""
    if state.dirty[slot] != DIRTY:
        state.dirty[slot] = DIRTY
        state.dirty_slots[state.counts[ROWS_DIRTY]] = slot
        state.counts[ROWS_DIRTY] += 1
