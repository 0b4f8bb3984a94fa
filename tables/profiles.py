"""One partition's rows: update, query, export, restore, evict.

The arrays grow by doubling, between events only. Time comes from the events; nothing here reads a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tables import kernel
from tables.catalog import CATALOG, Catalog
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


class BlobError(ValueError):
    """A row's blob is damaged, or was written by another catalog or layout: its state must not be used."""


class ColdRows(Protocol):
    """Where rows lie that have left memory."""

    def load(self, hashes: Array) -> Mapping[int, bytes]:
        """Return the blobs of those keys (uint64, shape (n,)) that are known, by key."""


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
        Rows for which address space is taken at the start. Memory is not touched before it is used, so a generous
        reserve costs nothing, and saves the pause of a tenth of a second in which 200,000 rows are copied to grow.

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
        self, stage: str, catalog: Catalog = CATALOG, cold: ColdRows | None = None, reserve: int = 1024
    ) -> None:
        self.stage = stage
        self.catalog = catalog
        self.cold = cold
        self._plan = catalog.plan(stage)
        self._fingerprint = catalog.state_fingerprint(stage)
        self._width = len(catalog.stage_features(stage))
        slots = 1 << max(reserve - 1, 1).bit_length()
        windows, panes = ROOM_BLOCKS + slots // 32, ROOM_BLOCKS + slots // 512
        self._state = new_state(slots, ROOM_CELLS + 16 * slots, windows, panes, sketches=windows)
        self._findings = kernel.new_findings()
        self._exported: list[Array] = []

    def __len__(self) -> int:
        """Return the number of rows in memory."""
        return int(self._state.counts[ROWS_LIVE])

    @property
    def dirty(self) -> int:
        """Rows that changed since they were last exported."""
        return int(self._state.counts[ROWS_DIRTY])

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

    def export_dirty(self, limit: int | None = None) -> tuple[list[bytes], list[bytes]]:
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

    def _export(self, slots: Array) -> tuple[list[bytes], list[bytes]]:
        state = self._state
        ends = np.empty(len(slots), np.int64)
        words = np.empty(kernel.measure_rows(state, slots, ends), np.int64)
        kernel.export_rows(state, slots, self._fingerprint, words)
        raw = words.tobytes()
        stops = (ends * 8).tolist()
        values = [raw[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)] if stops else []
        hashes = state.headers["hash"][slots].tobytes()
        return [hashes[i : i + 8] for i in range(0, len(hashes), 8)], values

    def restore(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take up blobs in log order; a later one of a key replaces an earlier one. Rows restored are clean.

        Raises
        ------
        BlobError
            For a blob that is damaged, belongs to another key, or was written by another catalog or layout.
        """
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        wrong = np.flatnonzero((lengths % 8 != 0) | (lengths < 8 * BLOB_WORDS_MIN))
        if len(wrong):
            raise BlobError(f"row {keys[wrong[0]].hex()}: expected a blob, got {lengths[wrong[0]]} bytes")
        words = np.frombuffer(b"".join(values), np.int64)
        hashes = np.frombuffer(b"".join(keys), np.uint64)
        if len(hashes) != len(lengths):
            raise BlobError(f"rows: expected one key of 8 bytes for each of {len(lengths)} values, got {len(hashes)}")
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
                    f"row {keys[done].hex()}: expected the {PROBLEMS[problem]} of stage {self.stage}, catalog "
                    f"{self.catalog.fingerprint[:12]}, got another: restore it with the version that wrote it"
                )

    def evict(self, idle_before_ms: int, keep: int = 0) -> tuple[list[bytes], list[bytes]]:
        """Let clean rows without a recent event leave memory; the idlest go first.

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
        idle = (
            (state.headers["hash"][:used] != 0)
            & (state.dirty[:used] == CLEAN)
            & (state.touched_ms[:used] < idle_before_ms)
        )
        slots = np.flatnonzero(idle)
        most = max(len(self) - keep, 0)
        if len(slots) > most:
            slots = slots[np.argsort(state.touched_ms[slots], kind="stable")[:most]]
        exported = self._export(slots)
        kernel.drop_rows(state, slots)
        return exported

    def _grow_rows(self, count: int) -> None:
        """Make room for this many new rows."""
        state = self._state
        size = len(state.rows)
        needed = int(state.counts[SLOTS_USED]) + max(count - int(state.counts[SLOTS_FREE]), 0) + 1
        if needed <= size:
            return
        while size < needed:
            size *= 2
        rows = _longer(state.rows, size)
        index_hashes = np.zeros(2 * size, np.uint64)
        index_slots = np.zeros(2 * size, np.uint32)
        state = state._replace(
            **{
                name: _longer(getattr(state, name), size)
                for name in ("dirty", "dirty_slots", "touched_ms", "free_slots")
            },
            **pool_views(rows, state.cells, state.windows, state.panes, state.sketches),
            index_hashes=index_hashes,
            index_slots=index_slots,
        )
        kernel.rebuild_index(state)
        self._state = state

    def _grow_pools(self) -> None:
        """Double each pool that has little room left."""
        state = self._state
        sizes = (len(state.cells), len(state.windows), len(state.panes) // PANES, len(state.sketches) // SKETCH_WORDS)
        rooms = (ROOM_CELLS, ROOM_BLOCKS, ROOM_BLOCKS, ROOM_BLOCKS)
        if all(int(top) + room <= size for top, room, size in zip(state.tops, rooms, sizes, strict=True)):
            return
        cells, windows, panes, sketches = (
            pool if int(top) + room <= size else _longer(pool, 2 * len(pool))
            for pool, top, room, size in zip(
                (state.cells, state.windows, state.panes, state.sketches), state.tops, rooms, sizes, strict=True
            )
        )
        self._state = state._replace(**pool_views(state.rows, cells, windows, panes, sketches))


def _longer(array: Array, length: int) -> Array:
    """Return the array with zeros behind it."""
    longer = np.zeros((length, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
