"""The memory of one partition: structured dtypes with named fields, and the arrays that hold them.

A key owns one fixed ROW and, in the pools, blocks that grow with its history: event logs and tag sets in `cells`,
running sums in `windows`, condensed history in `panes`, sketches in `sketches`. Everything in a row is an integer, so
replay, batch splits and recovery are bit-identical. Changing a dtype or a flag here means raising LAYOUT_VERSION.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Record = Any
"""One record of a structured array; mypy cannot see its fields."""

LAYOUT_VERSION = 1
"""Part of the catalog's fingerprint: state that was written under another layout is never read."""

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

WINDOWS_MS = (MINUTE_MS, 5 * MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
"""The sliding windows, ascending. A window of width W at time t holds the events with timestamp in (t - W, t]."""

WINDOWS = len(WINDOWS_MS)
LONGEST_MS = WINDOWS_MS[-1]

DISTINCT_WINDOWS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
"""Windows over which distinct counterparties and devices are counted, ascending."""

DISTINCT_WINDOWS = len(DISTINCT_WINDOWS_MS)

GRACE_MS = 2 * HOUR_MS
"""How late an event may be and still find every earlier one: nothing younger than 30 days + this is dropped."""

LOGS: dict[str, tuple[str, ...]] = {"receiver": ("received",), "payer": ("sent", "credited")}
"""Event logs of each stage, by position."""

LOG_COUNT = 2

FLAGS = (
    # The first eight are counted in every window.
    "NIGHT",  # 20:00-06:00 in Brasilia
    "NEAR_LIMIT",  # 80 to 100 % of the payer's limit
    "ROUND",  # a multiple of R$ 50
    "NEW_COUNTERPARTY",  # set by the kernel: first event with this counterparty
    "NEW_DEVICE",  # set by the kernel: first event from this device
    "RECEIVER_MARKED",  # the receiver carried a confirmed-fraud marker when it was paid
    "STATIC_QR",
    "LEGAL_PAYER",
    # The others are looked up in the log only.
    "NATURAL_PAIR",  # payer and receiver are different natural persons
    "UNREGISTERED_DEVICE",
    "CASH",  # Pix Saque or Pix Troco
)
"""Flags of an event, bit by position."""

COUNTED_FLAGS = 8
FLAG_BITS = 16
"""Low bits of a log entry's value that hold its flags; the amount lies above them."""

FRAUD_TYPES = ("APPLICATION_FRAUD", "MULE_ACCOUNT", "SCAMMER_ACCOUNT", "OTHER")
"""Confirmed-fraud markers of a key, by position."""

PERIODS_MAX = 4
"""Calendar sums that a condensed history still separates."""

EVENT_DTYPE = np.dtype(
    [
        ("key", "u8"),  # keyed hash: whose row
        ("other", "u8"),  # keyed hash of the counterparty
        ("device", "u8"),  # keyed hash, 0 where there is none
        ("timestamp", "i8"),  # epoch ms
        ("amount", "i8"),  # centavos, 1 to 10**13
        ("flags", "u2"),  # bits of FLAGS
        ("log", "u1"),  # position in LOGS[stage]
        ("wants_features", "u1"),  # read the features, before the event counts
        ("counts", "u1"),  # enter the event into the row
    ],
    align=True,
)
"""One event of one key: what `Profiles.update` takes."""

CELL_DTYPE = np.dtype([("timestamp", "i8"), ("value", "i8")])
"""Log: value = amount << FLAG_BITS | flags. Tag set: value = hash of counterparty or device, timestamp = its newest."""

LOG_DTYPE = np.dtype(
    [
        ("block", "u4"),  # first cell; 0: none
        ("windows", "u4"),  # block of running sums; 0: the log is small enough to scan
        ("panes", "u4"),  # block of condensed history; 0: none
        ("seen", "u4"),  # events ever
        ("length", "u2"),  # cells in use, in order of time
        ("flags_seen", "u2"),  # flags of any event ever
        ("level", "u1"),  # the block holds 2 << level cells
        ("pane_count", "u1"),
    ],
    align=True,
)

TAGS_DTYPE = np.dtype(
    [
        ("block", "u4"),  # first cell of the exact set; 0: none
        ("counter", "u4"),  # linear counter, once the set has overflowed; 0: none
        ("bloom", "u4"),  # memory of tags that the set no longer holds; 0: none
        ("bloom_length", "u2"),  # tags in the newer generation
        ("length", "u1"),  # cells in use
        ("level", "u1"),  # the block holds 2 << level cells
    ],
    align=True,
)

HEADER_DTYPE = np.dtype(
    [
        ("hash", "u8"),  # 0: the row is free
        ("first_timestamp", "i8"),  # oldest event, 0: none
        ("marked_at", "i8"),  # newest confirmed-fraud marker, 0: none
        ("marks", "u2", (len(FRAUD_TYPES),)),
    ],
    align=True,
)

TAG_SETS = 3
DEVICES = 2
"""Tag sets of a row: counterparties of log 0, of log 1, and devices."""

ROW_DTYPE = np.dtype(
    [("header", HEADER_DTYPE), ("logs", LOG_DTYPE, (LOG_COUNT,)), ("tags", TAGS_DTYPE, (TAG_SETS,))], align=True
)
"""What every key has: 128 bytes, two cache lines."""

MEASURES = 8
COUNT, TOTAL, SQUARE_HH, SQUARE_HL, SQUARE_LL, MAXIMUM, LANES_LOW, LANES_HIGH = range(MEASURES)
"""What is summed over a window, by position in an int64 array.

Squares are summed in three limbs, amount = high << LIMB_BITS | low: one int64 overflows at the first amount of 10**13.
A lane counts one flag in 16 bits, so that one addition updates the counts of four flags.
"""

TAIL = COUNT
"""In running sums, instead of the count: position of the first event inside the window."""

LIMB_BITS = 22

PANE_DTYPE = np.dtype(
    [
        ("first", "i8"),  # oldest timestamp
        ("last", "i8"),  # newest timestamp
        ("count", "i8"),
        ("total", "i8"),
        ("square_hh", "i8"),
        ("square_hl", "i8"),
        ("square_ll", "i8"),
        ("maximum", "i8"),
        ("period_totals", "i8", (PERIODS_MAX,)),
        ("flagged", "u4", (COUNTED_FLAGS,)),
    ]
)
"""Events that no longer fit the log, condensed: 128 bytes."""

WINDOW_RECORDS = WINDOWS + 1
"""Running sums of a long log: every window, and one of width 0, whose tail is the log's head."""

PANES = 64
SKETCH_WORDS = 128
"""A sketch block: 2 Bloom generations of 64 words, or a linear counter of 256 slots of 4 bytes."""

LOG_LEVEL_SCAN = 4
"""Logs up to 2 << 4 = 32 cells are scanned; longer ones keep running sums."""

LOG_LEVEL_MAX = 8
"""512 events are kept exactly."""

TAG_LEVEL_MAX = 5
"""64 counterparties are kept exactly."""

POOLS = 4
CELLS, WINDOW_BLOCKS, PANE_BLOCKS, SKETCH_BLOCKS = range(POOLS)
LEVELS = LOG_LEVEL_MAX + 1

CLEAN, DIRTY, EXPORTED = range(3)
"""Of a row: as the changelog has it; changed since; handed to the changelog, not yet acknowledged."""

COUNTS = 5
SLOTS_USED, ROWS_LIVE, ROWS_DIRTY, SLOTS_FREE, ROWS_NEW = range(COUNTS)
"""Positions in `State.counts`; ROWS_NEW counts the rows that the last call created."""


class State(NamedTuple):
    """The arrays of one partition; views that share memory are marked.

    Parameters
    ----------
    rows
        ROW_DTYPE, shape (slots,). Row 0 stays empty: it stands for a key without history.
    headers, logs, tags, row_words
        Views of `rows`: its three parts, and int64 words (slots, 16).
    cells, cell_links, cell_words
        CELL_DTYPE; views: first int64 of each cell (links free blocks), int64 words.
    windows, window_links
        int64, shape (blocks, WINDOW_RECORDS, MEASURES): running sums; view of each block's first word.
    panes, pane_links, pane_words
        PANE_DTYPE, shape (blocks * PANES,); views.
    sketches, sketch_links, seconds
        uint64 words, shape (blocks * SKETCH_WORDS,); views as int64 and as uint32.
    tops
        int64 per pool: where its untouched space begins (in cells, or in blocks).
    free
        int64, shape (POOLS, LEVELS): first block given back, 0 for none.
    index_hashes, index_slots
        Open addressing: hash to slot; hash 0 is an empty place.
    dirty
        uint8 per slot: CLEAN, DIRTY or EXPORTED.
    dirty_slots
        int64 per slot: slots in the order in which they became dirty.
    touched_ms
        int64 per slot: newest event, for expiry.
    free_slots
        int64 per slot: a stack of slots given back.
    counts
        int64: see SLOTS_USED and the following.
    """

    rows: Array
    headers: Array
    logs: Array
    tags: Array
    row_words: Array
    cells: Array
    cell_links: Array
    cell_words: Array
    windows: Array
    window_links: Array
    panes: Array
    pane_links: Array
    pane_words: Array
    sketches: Array
    sketch_links: Array
    seconds: Array
    tops: Array
    free: Array
    index_hashes: Array
    index_slots: Array
    dirty: Array
    dirty_slots: Array
    touched_ms: Array
    free_slots: Array
    counts: Array


def new_state(slots: int, cells: int, windows: int, panes: int, sketches: int) -> State:
    """Return empty memory.

    Parameters
    ----------
    slots
        Rows, a power of two.
    cells
        Cells of the pool of logs and tag sets.
    windows, panes, sketches
        Blocks of these pools.
    """
    state = State(
        **pool_views(
            rows=np.zeros(slots, ROW_DTYPE),
            cells=np.zeros(cells, CELL_DTYPE),
            windows=np.zeros((windows, WINDOW_RECORDS, MEASURES), np.int64),
            panes=np.zeros(panes * PANES, PANE_DTYPE),
            sketches=np.zeros(sketches * SKETCH_WORDS, np.uint64),
        ),
        tops=np.array([2, 1, 1, 1], np.int64),  # block 0 means "none", so nothing lies there
        free=np.zeros((POOLS, LEVELS), np.int64),
        index_hashes=np.zeros(2 * slots, np.uint64),
        index_slots=np.zeros(2 * slots, np.uint32),
        dirty=np.zeros(slots, np.uint8),
        dirty_slots=np.zeros(slots, np.int64),
        touched_ms=np.zeros(slots, np.int64),
        free_slots=np.zeros(slots, np.int64),
        counts=np.zeros(COUNTS, np.int64),
    )
    state.counts[SLOTS_USED] = 1
    return state


def pool_views(rows: Array, cells: Array, windows: Array, panes: Array, sketches: Array) -> dict[str, Array]:
    """Return the rows and pools with their views, by their names in `State`."""
    return {
        "rows": rows,
        "headers": rows["header"],
        "logs": rows["logs"],
        "tags": rows["tags"],
        "row_words": rows.view(np.int64).reshape(len(rows), -1),
        "cells": cells,
        "cell_links": cells["timestamp"],
        "cell_words": cells.view(np.int64),
        "windows": windows,
        "window_links": windows[:, 0, 0],
        "panes": panes,
        "pane_links": panes["first"],
        "pane_words": panes.view(np.int64).reshape(len(panes), -1),
        "sketches": sketches,
        "sketch_links": sketches.view(np.int64),
        "seconds": sketches.view(np.uint32),
    }
