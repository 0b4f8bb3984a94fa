"""What the kernel is asked to compute for one stage: opcodes, and their operands as arrays."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tables.layout import Array

__all__ = ["OPERATION_DTYPE", "PERIOD_DTYPE", "Opcode", "Period", "Plan"]


class Opcode(IntEnum):
    """What a base feature reads; `argument` of its operation in brackets."""

    # Of one window of one log.
    COUNT = 0
    SUM = 1
    MEAN = 2
    MAX = 3
    STD = 4
    FLAG_COUNT = 5  # [bit of the flag]
    FLAG_SHARE = 6  # [bit of the flag]
    # Of one log.
    PERIOD_SUM = 10  # [position in the plan's periods]
    SINCE_LAST = 11
    SEEN = 12
    RUN = 13  # [mask of the flags]
    RISING = 14
    GROWTH = 15
    REPEATS = 16
    # Of the tag sets; `log` names the set.
    DISTINCT = 20
    FIRST_TIME = 21
    SINCE_PAIR = 22
    MET = 23
    SAME_DEVICE = 24
    # Of the row.
    AGE = 30
    MARKS = 31  # [position in FRAUD_TYPES, -1 for all]
    SINCE_MARK = 32


class Period(IntEnum):
    """Calendar periods in Brasilia."""

    DAY = 0  # from 00:00
    NIGHT = 1  # from 20:00 to 06:00; empty outside
    DAYTIME = 2  # from 06:00 to 20:00; empty outside


OPERATION_DTYPE = np.dtype(
    [("opcode", "i8"), ("log", "i8"), ("window", "i8"), ("width_ms", "i8"), ("argument", "i8"), ("column", "i8")],
    align=True,
)
"""One base feature as the kernel reads it: `log` is a log or a tag set, `window` a position in the windows that the
opcode reads, `width_ms` the same as a width; the meaning of `argument` is the opcode's."""

PERIOD_DTYPE = np.dtype([("mask", "i8"), ("wanted", "i8"), ("kind", "i8")], align=True)
"""A calendar sum: events with flags & mask == wanted, in the current period of this kind."""


class Plan(NamedTuple):
    """What the kernel computes for one stage, derived by the catalog.

    Parameters
    ----------
    operations
        OPERATION_DTYPE, one per base feature of the stage.
    periods
        PERIOD_DTYPE, at most PERIODS_MAX.
    widths_ms
        int64: WINDOWS_MS and 0.
    distinct_ms
        int64: DISTINCT_WINDOWS_MS.
    lanes
        int64, 16 entries: four flag bits spread over four 16-bit lanes.
    scan_level
        Level up to which a log is scanned; above, it keeps running sums.
    log_level
        Level of the longest log; smaller in tests, so that condensing is reached with few events.
    tag_level, device_level
        Level of the largest exact tag set.
    device_pairs
        1: a device's tag also names the counterparty (payers per device at a receiver).
    logs
        How many logs the stage has.
    distinct_sets
        Bits of the tag sets that are counted.
    """

    operations: Array
    periods: Array
    widths_ms: Array
    distinct_ms: Array
    lanes: Array
    scan_level: int
    log_level: int
    tag_level: int
    device_level: int
    device_pairs: int
    logs: int
    distinct_sets: int
