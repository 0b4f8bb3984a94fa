"""Memory that grows without a pause: address space taken ahead, and an index that becomes larger step by step."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from tables.kernel import cached
from tables.layout import ROWS_LIVE, SLOTS_FREE, SLOTS_USED, Array

if TYPE_CHECKING:
    from tables.layout import State

__all__ = ["IndexGrowth", "longer", "zeros"]

_SMALL_BYTES = 4 << 20
"""Of each array, what lies in small pages: one of 2 MB for each array of each partition would be a gigabyte."""


def zeros(length: int, like: Array) -> Array:
    """Return zeros of the type and further axes of an array, in memory that is not touched before it is used.

    Raises
    ------
    OSError
        Where the system does not grant the address space.
    """
    row_bytes = like.itemsize * int(np.prod(like.shape[1:]))
    memory = mmap.mmap(-1, length * row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if len(memory) > _SMALL_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE, _SMALL_BYTES, len(memory) - _SMALL_BYTES)
    array: Array = np.frombuffer(memory, like.dtype).reshape(length, *like.shape[1:])
    return array


def longer(array: Array, length: int) -> Array:
    """Return the array with zeros behind it."""
    extended = zeros(length, array)
    extended[: len(array)] = array
    return extended


@cached
def _enter(hashes: Array, slots: Array, keys: Array, rows: Array) -> None:
    """Enter keys other than 0 that an index lacks, as `kernel_memory.find` finds them."""
    mask = np.uint64(len(hashes) - 1)
    for i in range(len(keys)):
        if keys[i] != np.uint64(0):
            place = keys[i] & mask
            while hashes[place] != np.uint64(0):
                place = (place + np.uint64(1)) & mask
            hashes[place] = keys[i]
            slots[place] = rows[i]


class IndexGrowth:
    """Fills a larger index beside the one in use, a part with each batch, and puts it in force once it is whole.

    First its memory is touched, part by part: keys go anywhere, and to give it out took the system 1.5 ms a MB where
    that was measured. Then rows are entered by slot, which they keep: what lies below `moved` is in the larger index
    too. Keys that come meanwhile take slots above it, or slots given back, which `catch_up` enters. Rows below `moved`
    must not be dropped.
    """

    def __init__(self) -> None:
        self.moved = 1  # slot 0 is no row
        self._larger: tuple[Array, Array] | None = None  # hashes and slots
        self._touched = 0
        self._free = 0
        # Numba compiles at the first call: better now than when the first index is full.
        _enter(np.zeros(1, np.uint64), np.zeros(1, np.uint32), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    def make_room(self, state: State, count: int) -> State:
        """Return the state with an index that can take this many more keys, moving a part of it where it must grow."""
        places = len(state.index_hashes)
        keys = int(state.counts[ROWS_LIVE]) + count
        if self._larger is None:
            if 2 * keys <= places:
                return state
            size = 1 << (2 * keys - 1).bit_length()
            self._larger = zeros(size, state.index_hashes), zeros(size, state.index_slots)
            self._touched, self._free = 0, int(state.counts[SLOTS_FREE])
        # So many for each new key that an index half full is replaced before it is three quarters full.
        hurry = 4 * keys > 3 * places
        hashes, slots = self._larger
        touched = len(hashes) if hurry else min(self._touched + (1 << 16) + 64 * count, len(hashes))
        hashes[self._touched : touched] = slots[self._touched : touched] = 0
        self._touched = touched
        if touched < len(hashes):
            return state
        self.catch_up(state)
        used = int(state.counts[SLOTS_USED])
        past = used if hurry else min(used, self.moved + 1024 + 4 * count)
        self._copy(state, np.arange(self.moved, past))
        self.moved = past
        if past < used:
            return state
        self.moved, self._larger = 1, None
        # A batch may need more room than the larger index was made for.
        return self.make_room(state._replace(index_hashes=hashes, index_slots=slots), count)

    def catch_up(self, state: State) -> None:
        """Take note of slots given back, and of those used again: before rows are dropped, and after it."""
        free = int(state.counts[SLOTS_FREE])
        if self._larger is not None:
            again = state.free_slots[free : self._free]  # a stack: what was taken from it still lies there
            self._copy(state, again[again < self.moved])
        self._free = free

    def _copy(self, state: State, rows: Array) -> None:
        if self._larger is not None:
            _enter(*self._larger, state.headers["hash"][rows], rows)
