"""An index that grows a part at a time finds every row at any time."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tables.growth import IndexGrowth, longer, zeros
from tables.layout import CELL_DTYPE, EVENT_DTYPE
from tables.profiles import Profiles

if TYPE_CHECKING:
    from tables.layout import Array

START_MS = 1_773_526_380_000
STATM = Path("/proc/self/statm")


def _pay(profiles: Profiles, keys: Array, at_ms: int) -> Array:
    events = np.zeros(len(keys), EVENT_DTYPE)
    events["key"], events["timestamp"], events["other"], events["amount"] = keys, at_ms, 2, 100
    events["wants_features"] = events["counts"] = 1
    features = profiles.update(events)
    profiles.export_dirty()
    profiles.clear_dirty()
    return features


def _evict(profiles: Profiles, idle_before_ms: int, keep: int = 0) -> list[int]:
    keys, _ = profiles.evict(idle_before_ms, keep)
    return [int.from_bytes(key, "little") for key in keys]


class TestArrays:
    """Memory in address space."""

    def test_zeros_have_type_and_axes_of_what_they_stand_in_for(self) -> None:
        """Records and blocks alike; they can be written."""
        assert not zeros(7, np.ones((1, 2, 3), np.int64)).any()
        assert zeros(7, np.ones((1, 2, 3), np.int64)).shape == (7, 2, 3)
        cells = zeros(3, np.zeros(1, CELL_DTYPE))
        cells["value"] = 5
        assert cells.tolist() == [(0, 5)] * 3

    def test_what_was_there_stays_in_front(self) -> None:
        """Zeros come behind it."""
        assert longer(np.arange(1, 4), 5).tolist() == [1, 2, 3, 0, 0]

    @pytest.mark.skipif(not STATM.exists(), reason="where Linux tells how much memory is in use")
    def test_address_space_is_no_memory(self) -> None:
        """Four gigabytes cost two pages."""
        before = int(STATM.read_text().split()[1])
        try:
            array = zeros(1 << 29, np.zeros(1, np.int64))
        except OSError:
            pytest.skip("this system does not overcommit")
        array[-1] = 1
        assert array[[0, 1 << 28, -1]].tolist() == [0, 0, 1]
        used = (int(STATM.read_text().split()[1]) - before) * resource.getpagesize()
        assert used < 64 << 20, "of 4096 MiB, and huge pages have 2 MiB each"


class TestIndexGrowth:
    """A part with each batch."""

    def test_rows_that_come_and_go_meanwhile_are_found(self) -> None:
        """New slots, slots given back and used again on either side of what has moved, rows that leave."""
        profiles = Profiles("payer")
        _pay(profiles, np.arange(1, 6001), START_MS)
        _pay(profiles, np.arange(5001, 8001), START_MS + 10**9)
        assert set(_evict(profiles, START_MS + 5)) == set(range(1, 5001))  # their slots are free
        live, next_key, half = set(range(5001, 8001)), 10_000, len(profiles._state.index_hashes) // 2
        gone: set[int] = set()
        parts = reused = 0
        while len(profiles) < half + 700:
            keys = np.arange(next_key, next_key + 30)
            next_key += 30
            _pay(profiles, keys, START_MS + next_key)
            live |= set(keys.tolist())
            moved = profiles._growth.moved
            if moved > 1:
                parts += 1
                reused += int((profiles._slots(keys) < moved).sum())
                gone |= set(_evict(profiles, START_MS + next_key, keep=len(profiles) - 5))
                live -= gone
            slots = profiles._slots(np.array(sorted(live), np.uint64))
            assert len(np.unique(slots)) == len(live)
            assert slots.min() > 0
            assert not profiles._slots(np.array(sorted(gone), np.uint64)).any()
        assert len(profiles) == len(live)
        assert min(parts, reused, len(gone)) > 3

    def test_an_index_is_never_full(self) -> None:
        """A batch greater than the larger index was made for ends in one that is greater still."""
        profiles = Profiles("payer")
        _pay(profiles, np.arange(1, 32_001), START_MS)
        _pay(profiles, np.arange(32_001, 33_501), START_MS)
        assert profiles._growth.moved > 1
        _pay(profiles, np.arange(100_000, 300_000), START_MS)
        assert profiles._growth.moved == 1
        assert 2 * len(profiles) <= len(profiles._state.index_hashes)
        assert (profiles._slots(np.arange(100_000, 300_000, dtype=np.uint64)) > 0).all()

    def test_a_step_is_small(self) -> None:
        """It moves at most four slots for each row that may come, and a thousand."""
        profiles = Profiles("payer")
        growth = IndexGrowth()
        _pay(profiles, np.arange(1, 20_001), START_MS)
        full = profiles._state._replace(index_hashes=np.zeros(1 << 15, np.uint64), index_slots=np.zeros(1 << 15, "u4"))
        moved = []
        while len((full := growth.make_room(full, 500)).index_hashes) == 1 << 15:
            moved.append(growth.moved)
        assert moved == list(range(3025, 20_001, 3024))
