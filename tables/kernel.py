"""The compiled entry points: events in, features out; rows to blobs and back.

Numba caches compiled code by a function's own file, and would not notice an edit in the files that it calls. So the
digest of all kernel files is in the closure of each entry point, and with it in the key of Numba's cache.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from numba import njit

from tables import (
    kernel_aggregates,
    kernel_blobs,
    kernel_memory,
    kernel_panes,
    kernel_tags,
    kernel_windows,
    layout,
    plan,
)
from tables.kernel_aggregates import Findings, value_of
from tables.kernel_blobs import read_blob, row_words, write_row
from tables.kernel_memory import (
    OPTIONS,
    compiled,
    drop_row,
    find,
    find_or_create,
    has_room,
    integer,
    mark_dirty,
)
from tables.kernel_tags import NEVER, distinct, last_met, met_before, touch_counterparty, touch_device
from tables.kernel_windows import insert, measure
from tables.layout import (
    COUNTED_FLAGS,
    DEVICES,
    DISTINCT_WINDOWS,
    FLAG_BITS,
    FLAGS,
    LOG_COUNT,
    MEASURES,
    TAG_SETS,
    WINDOWS,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tables.layout import Array, Record, State
    from tables.plan import Plan

    F = TypeVar("F", bound=Callable[..., Any])
else:
    F = TypeVar("F")

__all__ = [
    "drop_rows",
    "export_rows",
    "mark_keys",
    "measure_rows",
    "new_findings",
    "resolve",
    "restore_rows",
    "run",
]

NEW_COUNTERPARTY = 1 << FLAGS.index("NEW_COUNTERPARTY")
NEW_DEVICE = 1 << FLAGS.index("NEW_DEVICE")

MARKS_MAX = 65_535

_DEVICE_PART = np.uint64(0xFFFFFFFF00000000)
_COUNTERPARTY_SHIFT = np.uint64(32)


def _digest() -> int:
    modules = (kernel_aggregates, kernel_blobs, kernel_memory, kernel_panes, kernel_tags, kernel_windows, layout, plan)
    files = sorted(Path(str(module.__file__)) for module in modules)
    return int.from_bytes(hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()[:7])


SOURCES = _digest()


def cached(function: F) -> F:
    """Compile an entry point with Numba, keeping the machine code on disk."""
    return cast("F", njit(function, cache=True, **OPTIONS))


def new_findings() -> Findings:
    """Return scratch for the findings of one event."""
    return Findings(
        measures=np.zeros((LOG_COUNT, WINDOWS, MEASURES), np.int64),
        flagged=np.zeros((LOG_COUNT, WINDOWS, COUNTED_FLAGS), np.int64),
        heads=np.zeros(LOG_COUNT, np.int64),
        last_met=np.zeros(TAG_SETS, np.int64),
        met=np.zeros(TAG_SETS, np.uint8),
        distinct=np.zeros((TAG_SETS, DISTINCT_WINDOWS), np.float64),
    )


@compiled
def device_tag(plan: Plan, event: Record) -> np.uint64:
    """Return what the device set remembers: the device, or half of it and half of the counterparty that used it."""
    if plan.device_pairs == 0:
        return np.uint64(event.device)
    return np.uint64((event.device & _DEVICE_PART) | (event.other >> _COUNTERPARTY_SHIFT))


@compiled
def look(state: State, plan: Plan, findings: Findings, slot: int, event: Record) -> None:
    """Find all that the features of an event, or its entry into the row, may need."""
    wanted = event.wants_features
    for k in range(plan.logs):
        if wanted or k == event.log:
            log = state.logs[slot, k]
            if log.panes == 0:
                findings.flagged[k] = 0
            findings.heads[k] = measure(state, plan, log, event.timestamp, findings.measures[k], findings.flagged[k])
            tags = state.tags[slot, k]
            findings.last_met[k] = last_met(state, tags, event.other)
            findings.met[k] = met_before(state, tags, event.other, findings.last_met[k])
    tags = state.tags[slot, DEVICES]
    tag = device_tag(plan, event)
    findings.last_met[DEVICES] = last_met(state, tags, tag)
    findings.met[DEVICES] = findings.last_met[DEVICES] != NEVER
    if wanted:
        for k in range(TAG_SETS):
            if plan.distinct_sets >> k & 1:
                distinct(state, plan, state.tags[slot, k], event.timestamp, findings.distinct[k])


@compiled
def enter(state: State, plan: Plan, findings: Findings, slot: int, event: Record) -> None:
    """Enter an event into its row, after `look`."""
    k = integer(event.log)
    value = (event.amount << FLAG_BITS) | integer(event.flags)
    if findings.met[k] == 0:
        value |= NEW_COUNTERPARTY
    if event.device != 0 and k == 0:
        if findings.met[DEVICES] == 0:
            value |= NEW_DEVICE
        touch_device(state, plan, state.tags[slot, DEVICES], device_tag(plan, event), event.timestamp)
    insert(state, plan, state.logs[slot, k], findings.heads[k], event.timestamp, value, findings.measures[k])
    touch_counterparty(state, plan, state.tags[slot, k], event.other, event.timestamp)
    header = state.headers[slot]
    if header.first_timestamp == 0 or event.timestamp < header.first_timestamp:
        header.first_timestamp = event.timestamp
    state.touched_ms[slot] = max(state.touched_ms[slot], event.timestamp)
    mark_dirty(state, slot)


def _resolve(sources: int) -> Callable[[State, Array, Array, int], int]:
    @cached
    def resolve(state: State, events: Array, slots: Array, create: int) -> int:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        unknown = 0
        for i in range(len(events)):
            event = events[i]
            slot = find(state, event.key)
            if slot == 0:
                if create and event.counts:
                    slot = find_or_create(state, event.key)
                elif event.counts or event.wants_features:
                    unknown += 1
            slots[i] = slot
        return unknown

    return resolve


def _run(sources: int) -> Callable[[State, Plan, Findings, Array, Array, Array, int], int]:
    @cached
    def run(
        state: State, plan: Plan, findings: Findings, events: Array, slots: Array, features: Array, start: int
    ) -> int:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        for i in range(start, len(events)):
            if not has_room(state):
                return i
            event = events[i]
            slot = slots[i]
            if event.wants_features == 0 and event.counts == 0:
                continue
            look(state, plan, findings, slot, event)
            if event.wants_features:
                for k in range(len(plan.operations)):
                    operation = plan.operations[k]
                    features[i, operation.column] = value_of(state, plan, findings, slot, event, operation)
            if event.counts:
                enter(state, plan, findings, slot, event)
        return len(events)

    return run


def _measure_rows(sources: int) -> Callable[[State, Array, Array], int]:
    @cached
    def measure_rows(state: State, slots: Array, ends: Array) -> int:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        total = 0
        for i in range(len(slots)):
            total += row_words(state, slots[i])
            ends[i] = total
        return total

    return measure_rows


def _export_rows(sources: int) -> Callable[[State, Array, int, Array], None]:
    @cached
    def export_rows(state: State, slots: Array, fingerprint: int, words: Array) -> None:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        at = 0
        for i in range(len(slots)):
            at = write_row(state, slots[i], fingerprint, words, at)

    return export_rows


def _restore_rows(sources: int) -> Callable[[State, Plan, Findings, Array, Array, Array, int, int], tuple[int, int]]:
    @cached
    def restore_rows(
        state: State,
        plan: Plan,
        findings: Findings,
        words: Array,
        ends: Array,
        keys: Array,
        fingerprint: int,
        start: int,
    ) -> tuple[int, int]:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        begin = ends[start - 1] if start > 0 else 0
        for i in range(start, len(keys)):
            if not has_room(state):
                return i, 0
            problem = read_blob(state, plan, words, begin, ends[i], keys[i], fingerprint, findings.measures[0])
            if problem:
                return i, problem
            begin = ends[i]
        return len(keys), 0

    return restore_rows


def _drop_rows(sources: int) -> Callable[[State, Array], None]:
    @cached
    def drop_rows(state: State, slots: Array) -> None:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        for i in range(len(slots)):
            drop_row(state, slots[i])

    return drop_rows


def _mark_keys(sources: int) -> Callable[[State, Array, int, int, Array], None]:
    @cached
    def mark_keys(state: State, keys: Array, fraud_type: int, delta: int, timestamps: Array) -> None:
        sources  # noqa: B018 (names the digest in the closure: see the module's docstring)
        for i in range(len(keys)):
            slot = find_or_create(state, keys[i])
            header = state.headers[slot]
            header.marks[fraud_type] = min(max(integer(header.marks[fraud_type]) + delta, 0), MARKS_MAX)
            marks = 0
            for k in range(len(header.marks)):
                marks += header.marks[k]
            if marks == 0:
                header.marked_at = 0
            elif delta > 0:
                header.marked_at = max(header.marked_at, timestamps[i])
            state.touched_ms[slot] = max(state.touched_ms[slot], timestamps[i])
            mark_dirty(state, slot)

    return mark_keys


resolve = _resolve(SOURCES)
"""resolve(state, events, slots, create) -> events whose key has no row; slots (n,) written, 0 for no row."""

run = _run(SOURCES)
"""run(state, plan, findings, events, slots, features, start) -> the event at which the pools must grow, or n."""

measure_rows = _measure_rows(SOURCES)
"""measure_rows(state, slots, ends) -> words; ends (n,) written: where each row's blob ends, in words."""

export_rows = _export_rows(SOURCES)
"""export_rows(state, slots, fingerprint, words): writes the blobs one after the other."""

restore_rows = _restore_rows(SOURCES)
"""restore_rows(state, plan, findings, words, ends, keys, fingerprint, start) -> (row where it stopped, problem)."""

drop_rows = _drop_rows(SOURCES)
"""drop_rows(state, slots): forgets rows."""

mark_keys = _mark_keys(SOURCES)
"""mark_keys(state, keys, fraud_type, delta, timestamps): counts confirmed-fraud markers up or down."""
