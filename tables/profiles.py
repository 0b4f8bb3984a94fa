"""One partition's rows: update, query, export, restore, evict.

The arrays grow between events only. Time comes from the events; nothing here reads a clock.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from app.domain.byte_column import ByteColumn
from tables import kernel
from tables.catalog import CATALOG, Catalog
from tables.growth import IndexGrowth, longer
from tables.kernel_blobs import BLOB_WORDS_MIN, PROBLEMS
from tables.layout import (
    CLEAN,
    EVENT_DTYPE,
    EXPORTED,
    FRAUD_TYPES,
    PANES,
    ROWS_DIRTY,
    ROWS_LIVE,
    SKETCH_WORDS,
    SLOTS_FREE,
    SLOTS_USED,
    Array,
    new_state,
    pool_views,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BlobError", "ColdRows", "Profiles"]

ROOM_CELLS = 4096
ROOM_BLOCKS = 32
"""More than one event can take from a pool, see `kernel_memory.has_room`."""

RESERVED_ROWS = 1 << 22
"""Address space of a new partition, about 3 GB; no memory. Up to so many rows, nothing is ever copied to grow."""

EVICTION_SLOTS = 1 << 17
"""Slots that one call of `evict` looks at."""


def _name(keys: ByteColumn, place: int) -> str:
    return (keys[place] or b"").hex()


class BlobError(ValueError):
    """A row's blob is damaged, or was written by another catalog or layout: its state must not be used."""


class ColdRows(Protocol):
    """Where rows lie that have left memory."""

    def load(self, hashes: Array) -> Mapping[int, bytes]:
        """Return the blobs of those keys (uint64, shape (n,)) that are known, by key."""

    def discard(self, hashes: Array) -> None:
        """Forget those keys (uint64, shape (n,)): their rows come to memory by another way."""


class Profiles:
    """The rows of one partition of one stage.

    Parameters
    ----------
    stage
        "receiver" or "payer".
    catalog
        What to compute.
    cold
        Asked for keys that are not in memory; None where rows never leave it.
    reserve
        Rows for which address space is taken at the start, where the system grants it. Beyond it, arrays are copied
        to grow, which pauses for a second at 4 million rows.

    Examples
    --------
    >>> profiles = Profiles("payer")
    >>> events = np.zeros(2, EVENT_DTYPE)
    >>> events["key"], events["other"], events["amount"], events["timestamp"] = 7, 8, 150_00, [1_767_225_600_000] * 2
    >>> events["wants_features"] = events["counts"] = 1
    >>> position = CATALOG.positions("payer")["payer_sent_sum_1h"]
    >>> profiles.update(events)[:, position].tolist()
    [0.0, 15000.0]
    """

    def __init__(
        self, stage: str, catalog: Catalog = CATALOG, cold: ColdRows | None = None, reserve: int = RESERVED_ROWS
    ) -> None:
        self.stage = stage
        self.catalog = catalog
        self.cold = cold
        self._plan = catalog.plan(stage)
        self._fingerprint = catalog.state_fingerprint(stage)
        self._width = len(catalog.stage_features(stage))
        self._state = new_state(2, ROOM_CELLS, ROOM_BLOCKS, ROOM_BLOCKS, sketches=ROOM_BLOCKS)
        self._growth = IndexGrowth()
        self._hand = 1
        self._findings = kernel.new_findings()
        self._exported: list[Array] = []
        with contextlib.suppress(OSError):  # then every array grows by doubling, as beyond the reserve
            self._lengthen(
                rows=reserve,
                cells=ROOM_CELLS + 16 * reserve,
                windows=ROOM_BLOCKS + reserve // 4,
                panes=ROOM_BLOCKS + reserve // 64,
                sketches=ROOM_BLOCKS + reserve // 8,
            )

    def __len__(self) -> int:
        """Return the number of rows in memory."""
        return int(self._state.counts[ROWS_LIVE])

    @property
    def dirty(self) -> int:
        """Rows that changed since they were last exported."""
        return int(self._state.counts[ROWS_DIRTY])

    def dirty_bytes(self) -> int:
        """Bytes of the blobs of these rows: a tenth of a microsecond each to find out."""
        slots = self._state.dirty_slots[: self.dirty]
        return 8 * int(kernel.measure_rows(self._state, slots, np.empty(len(slots), np.int64)))

    @property
    def nbytes(self) -> int:
        """Bytes in use by rows, blocks and index, without the reserve of growing arrays."""
        state = self._state
        per_block = (16, state.windows[0].nbytes, state.panes.itemsize * PANES, 8 * SKETCH_WORDS)
        blocks = sum(int(top) * size for top, size in zip(state.tops, per_block, strict=True))
        slots = (state.rows.itemsize + 1 + 3 * 8) * int(state.counts[SLOTS_USED])
        return int(blocks + slots + state.index_hashes.nbytes + state.index_slots.nbytes)

    def update(self, events: Array) -> Array:
        """Read each event's features, then enter it into its row, in the order given.

        Parameters
        ----------
        events
            EVENT_DTYPE, shape (n,), keys not 0.

        Returns
        -------
        float32, shape (n, features of the stage); NaN rows for events that want none.

        Raises
        ------
        ValueError
            For another dtype, a key of 0, or an unknown log.
        BlobError
            Where a cold row cannot be read.
        """
        self._check(events)
        features = np.full((len(events), self._width), np.nan, np.float32)
        slots = self._resolve(events)
        done = kernel.run(self._state, self._plan, self._findings, events, slots, features, 0)
        while done < len(events):
            self._grow_pools()
            done = kernel.run(self._state, self._plan, self._findings, events, slots, features, done)
        return features

    def _check(self, events: Array) -> None:
        if events.dtype != EVENT_DTYPE:
            raise ValueError(f"events: expected EVENT_DTYPE, got {events.dtype}")
        if len(events) and not events["key"].all():
            raise ValueError("events: expected keys other than 0, got 0, which stands for a missing identifier")
        if len(events) and int(events["log"].max()) >= self._plan.logs:
            raise ValueError(f"events: expected log < {self._plan.logs}, got {int(events['log'].max())}")

    def _resolve(self, events: Array) -> Array:
        """Return each event's slot; rows that are cold come back, rows that are new begin."""
        self._grow_rows(len(events))
        slots = np.empty(len(events), np.int64)
        if self.cold is not None and kernel.resolve(self._state, events, slots, 0):
            self._warm(np.unique(events["key"][slots == 0]))
        kernel.resolve(self._state, events, slots, 1)
        return slots

    def _warm(self, hashes: Array) -> None:
        if self.cold is None or not len(hashes):
            return
        blobs = self.cold.load(hashes)
        if blobs:
            self.restore([int(key).to_bytes(8, "little") for key in blobs], list(blobs.values()))

    def mark(self, hashes: Array, fraud_type: str, delta: int, timestamps_ms: Array) -> None:
        """Count confirmed-fraud markers up (delta 1) or, when one is cancelled, down (-1).

        Parameters
        ----------
        hashes
            uint64, shape (n,): keys; a key without a row gets one.
        fraud_type
            One of FRAUD_TYPES.
        delta
            By how much each count changes; counts stay within 0 and 65,535.
        timestamps_ms
            int64, shape (n,): when the marker was registered. Once the last marker is cancelled, its time is too.

        Raises
        ------
        ValueError
            For an unknown fraud type.
        """
        if fraud_type not in FRAUD_TYPES:
            raise ValueError(f"fraud_type: expected one of {', '.join(FRAUD_TYPES)}, got {fraud_type!r}")
        keys = np.ascontiguousarray(hashes, np.uint64)
        self._warm(self._missing(keys))
        self._grow_rows(len(keys))
        position = FRAUD_TYPES.index(fraud_type)
        kernel.mark_keys(self._state, keys, position, delta, np.ascontiguousarray(timestamps_ms, np.int64))

    def _missing(self, keys: Array) -> Array:
        return np.unique(keys[self._slots(keys) == 0])

    def _slots(self, keys: Array) -> Array:
        events = np.zeros(len(keys), EVENT_DTYPE)
        events["key"] = keys
        slots = np.empty(len(keys), np.int64)
        kernel.resolve(self._state, events, slots, 0)
        return slots

    def query(self, key: int, at_ms: int, other: int = 0, device: int = 0, amount: int = 0) -> dict[str, Any] | None:
        """Return what is known of one key at a time, None where nothing is.

        Parameters
        ----------
        key, other, device
            Hashes; a counterparty and a device fill in the features of pairs.
        at_ms
            The windows end here.
        amount
            Centavos, for the features that compare amounts.

        Returns
        -------
        Features by name, None for missing.
        """
        event = np.zeros(1, EVENT_DTYPE)
        event["key"], event["other"], event["device"] = key, other, device
        event["timestamp"], event["amount"], event["wants_features"] = at_ms, amount, 1
        self._warm(self._missing(event["key"]))
        if self._slots(event["key"])[0] == 0:
            return None
        names = self.catalog.positions(self.stage)
        values = self.update(event)[0].tolist()
        return {name: None if values[i] != values[i] else values[i] for name, i in names.items()}

    def export_dirty(self, limit: int | None = None) -> tuple[ByteColumn, ByteColumn]:
        """Return keys and blobs of changed rows, those that changed first in front.

        They count as exported until `clear_dirty` says that the changelog has them; a row that changes in between is
        dirty again.
        """
        state = self._state
        count = self.dirty if limit is None else min(limit, self.dirty)
        slots = state.dirty_slots[:count].copy()
        left = self.dirty - count
        state.dirty_slots[:left] = state.dirty_slots[count : count + left].copy()
        state.counts[ROWS_DIRTY] = left
        state.dirty[slots] = EXPORTED
        self._exported.append(slots)
        return self._export(slots)

    def clear_dirty(self) -> None:
        """Note that the changelog has all that was exported."""
        for slots in self._exported:
            clean = slots[self._state.dirty[slots] == EXPORTED]
            self._state.dirty[clean] = CLEAN
        self._exported.clear()

    def _export(self, slots: Array) -> tuple[ByteColumn, ByteColumn]:
        state = self._state
        ends = np.empty(len(slots), np.int64)
        words = np.empty(kernel.measure_rows(state, slots, ends), np.int64)
        kernel.export_rows(state, slots, self._fingerprint, words)
        lengths = np.diff(ends, prepend=0) * 8
        values = ByteColumn(words.view(np.uint8), ends * 8 - lengths, lengths)
        return ByteColumn.fixed(state.headers["hash"][slots]), values

    def restore(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Take up blobs in log order; a later one of a key replaces an earlier one. Rows restored are clean.

        Raises
        ------
        BlobError
            For a blob that is damaged, belongs to another key, or was written by another catalog or layout.
        """
        named, blobs = ByteColumn.of(keys), ByteColumn.of(values)
        lengths = blobs.lengths
        wrong = np.flatnonzero((lengths % 8 != 0) | (lengths < 8 * BLOB_WORDS_MIN))
        if len(wrong):
            raise BlobError(f"row {_name(named, wrong[0])}: expected a blob, got {lengths[wrong[0]]} bytes")
        words = blobs.packed().view(np.int64)
        if len(named) != len(lengths) or (named.lengths != 8).any():
            raise BlobError(f"rows: expected one key of 8 bytes for each of {len(lengths)} values, got {len(named)}")
        hashes = named.packed().view(np.uint64)
        if self.cold is not None:
            self.cold.discard(hashes)
        self._grow_rows(len(hashes))
        ends = np.cumsum(lengths // 8)
        done = 0
        while done < len(hashes):
            self._grow_pools()
            done, problem = kernel.restore_rows(
                self._state, self._plan, self._findings, words, ends, hashes, self._fingerprint, done
            )
            if problem:
                raise BlobError(
                    f"row {_name(named, done)}: expected the {PROBLEMS[problem]} of stage {self.stage}, catalog "
                    f"{self.catalog.fingerprint[:12]}, got another: restore it with the version that wrote it"
                )

    def evict(self, idle_before_ms: int, keep: int = 0) -> tuple[list[bytes], list[bytes]]:
        """Let clean rows without a recent event leave memory.

        A call looks at `EVICTION_SLOTS` slots, going on where the last one ended, so that it takes a few milliseconds
        however many rows there are; of the rows that it looks at, the idlest go first.

        Parameters
        ----------
        idle_before_ms
            Only rows whose newest event is older leave.
        keep
            No more leave once only this many rows are in memory.

        Returns
        -------
        Keys and blobs of the rows that left: the caller keeps them where `cold` finds them again.
        """
        state = self._state
        used = int(state.counts[SLOTS_USED])
        start = max(self._hand if self._hand < used else 1, self._growth.moved)
        past = min(start + EVICTION_SLOTS, used)
        self._hand = past if past < used else 1
        touched_ms = state.touched_ms[start:past]  # 0: a free slot
        idle = (touched_ms != 0) & (touched_ms < idle_before_ms) & (state.dirty[start:past] == CLEAN)
        slots = np.flatnonzero(idle)
        most = max(len(self) - keep, 0)
        if len(slots) > most:
            slots = slots[np.argpartition(touched_ms[slots], most)[:most]]
        slots = start + slots[np.argsort(touched_ms[slots], kind="stable")]
        keys, blobs = self._export(slots)
        self._growth.catch_up(state)
        kernel.drop_rows(state, slots)
        self._growth.catch_up(state)
        return cast("list[bytes]", list(keys)), cast("list[bytes]", list(blobs))

    def _grow_rows(self, count: int) -> None:
        """Make room for this many new rows."""
        counts, size = self._state.counts, len(self._state.rows)
        needed = int(counts[SLOTS_USED]) + max(count - int(counts[SLOTS_FREE]), 0) + 1
        if needed > size:
            self._lengthen(rows=max(needed, 2 * size))
        self._state = self._growth.make_room(self._state, count)

    def _grow_pools(self) -> None:
        """Double each pool that has little room left."""
        tops, pools = self._state.tops, self._pools()
        rooms = (ROOM_CELLS, ROOM_BLOCKS, ROOM_BLOCKS, ROOM_BLOCKS)
        short = {
            name: 2 * size
            for top, room, (name, size) in zip(tops, rooms, pools.items(), strict=True)
            if int(top) + room > size
        }
        if short:
            self._lengthen(**short)

    def _pools(self) -> dict[str, int]:
        """Cells, or blocks, of each pool, in the order of `State.tops`."""
        state = self._state
        panes, sketches = len(state.panes) // PANES, len(state.sketches) // SKETCH_WORDS
        return {"cells": len(state.cells), "windows": len(state.windows), "panes": panes, "sketches": sketches}

    def _lengthen(self, rows: int = 0, cells: int = 0, windows: int = 0, panes: int = 0, sketches: int = 0) -> None:
        """Bring rows, cells and blocks to at least these numbers."""
        state = self._state
        pools = (state.rows, state.cells, state.windows, state.panes, state.sketches)
        sizes = (rows, cells, windows, panes * PANES, sketches * SKETCH_WORDS)
        longer_pools = [
            longer(pool, size) if size > len(pool) else pool for pool, size in zip(pools, sizes, strict=True)
        ]
        per_slot = ("dirty", "dirty_slots", "touched_ms", "free_slots") if rows > len(state.rows) else ()
        self._state = state._replace(
            **{name: longer(getattr(state, name), rows) for name in per_slot}, **pool_views(*longer_pools)
        )
