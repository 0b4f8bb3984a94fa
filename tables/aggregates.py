"""Aggregates: what a feature may take from a log, a tag set or a row. One class each, one opcode of the kernel each.

A new aggregate is a class here, its opcode in `layout.Opcode`, a branch in `kernel_aggregates`, and its naive twin in
`tests/naive.py`; a test fails while one of them is lacking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from tables.layout import DEVICES, DISTINCT_WINDOWS_MS, FLAGS, FRAUD_TYPES, LOGS, WINDOWS_MS
from tables.plan import Opcode, Period


class Family(StrEnum):
    """What a feature tells about."""

    USER = "user"
    TRANSACTION = "transaction"
    TEMPORAL = "temporal"
    NETWORK = "network"


class Windowed(StrEnum):
    """Which windows an aggregate takes."""

    NONE = "none"
    SLIDING = "one of WINDOWS_MS"
    DISTINCT = "one of DISTINCT_WINDOWS_MS"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What all aggregates share; the attributes of a class say what its values are."""

    opcode: ClassVar[Opcode]
    unit: ClassVar[str]
    family: ClassVar[Family] = Family.TEMPORAL
    windowed: ClassVar[Windowed] = Windowed.SLIDING
    of_log: ClassVar[bool] = True
    names_log: ClassVar[bool] = True
    name_part: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """Part of the feature's name, from `name_part`, where {} are parameters."""
        parameters = {name: str(getattr(self, name)).lower() for name in self.__dataclass_fields__}
        return (self.name_part or type(self).__name__.lower()).format(**parameters)

    def source(self, stage: str, log: str | None) -> int:
        """Position of the log, or of the tag set, that is read."""
        return LOGS[stage].index(log) if log is not None else 0

    @property
    def argument(self) -> int:
        """What the opcode takes besides."""
        return 0

    def check(self, window: int | None) -> None:
        """Refuse a window that the aggregate does not take.

        Raises
        ------
        ValueError
            Says what was expected.
        """
        taken: dict[Windowed, tuple[int | None, ...]] = {
            Windowed.NONE: (None,),
            Windowed.SLIDING: WINDOWS_MS,
            Windowed.DISTINCT: DISTINCT_WINDOWS_MS,
        }
        if self.windowed is Windowed.ANY:
            if window is None or not 0 < window <= WINDOWS_MS[-1]:
                raise ValueError(f"{self.label}: expected a window up to {WINDOWS_MS[-1]} ms, got {window}")
        elif window not in taken[self.windowed]:
            raise ValueError(f"{self.label}: expected a window of {taken[self.windowed]} ms, got {window}")


@dataclass(frozen=True, slots=True)
class Count(Aggregate):
    """How many events."""

    opcode = Opcode.COUNT
    unit = "events"


@dataclass(frozen=True, slots=True)
class Sum(Aggregate):
    """Sum of the amounts."""

    opcode = Opcode.SUM
    unit = "centavos"


@dataclass(frozen=True, slots=True)
class Mean(Aggregate):
    """Mean amount; missing without events."""

    opcode = Opcode.MEAN
    unit = "centavos"


@dataclass(frozen=True, slots=True)
class Max(Aggregate):
    """Greatest amount; missing without events."""

    opcode = Opcode.MAX
    unit = "centavos"


@dataclass(frozen=True, slots=True)
class Std(Aggregate):
    """Population standard deviation of the amounts; missing for fewer than two events."""

    opcode = Opcode.STD
    unit = "centavos"


@dataclass(frozen=True, slots=True)
class _Flagged(Aggregate):
    flag: str

    @property
    def argument(self) -> int:
        """What the opcode takes besides."""
        return FLAGS.index(self.flag)


@dataclass(frozen=True, slots=True)
class FlagCount(_Flagged):
    """How many events carry a flag."""

    opcode = Opcode.FLAG_COUNT
    unit = "events"
    name_part = "{flag}_count"


@dataclass(frozen=True, slots=True)
class Share(_Flagged):
    """Share of the events that carry a flag; missing without events."""

    opcode = Opcode.FLAG_SHARE
    unit = "share"
    name_part = "{flag}_share"


@dataclass(frozen=True, slots=True)
class FlagRun(_Flagged):
    """How many of the last events (64 at most) carry a flag, without interruption and within the window."""

    opcode = Opcode.RUN
    unit = "events"
    name_part = "{flag}_run"
    windowed = Windowed.ANY

    @property
    def argument(self) -> int:
        """What the opcode takes besides."""
        return 1 << FLAGS.index(self.flag)


@dataclass(frozen=True, slots=True)
class PeriodSum(Aggregate):
    """Sum of the amounts with all of `flags` and none of `without` in the current calendar period, before the event."""

    opcode = Opcode.PERIOD_SUM
    unit = "centavos"
    name_part = "{name}_sum"
    family = Family.USER
    windowed = Windowed.NONE
    names_log = False

    flags: tuple[str, ...]
    period: Period
    name: str
    without: tuple[str, ...] = ()

    @property
    def wanted(self) -> int:
        """Bits that must be set."""
        return sum(1 << FLAGS.index(flag) for flag in self.flags)

    @property
    def mask(self) -> int:
        """Bits that are looked at."""
        return self.wanted | sum(1 << FLAGS.index(flag) for flag in self.without)


@dataclass(frozen=True, slots=True)
class SinceLast(Aggregate):
    """Time since the newest event that is not later; missing without one."""

    opcode = Opcode.SINCE_LAST
    unit = "ms"
    windowed = Windowed.NONE
    name_part = "since_last_ms"


@dataclass(frozen=True, slots=True)
class Seen(Aggregate):
    """How many events ever."""

    opcode = Opcode.SEEN
    unit = "events"
    family = Family.USER
    windowed = Windowed.NONE


@dataclass(frozen=True, slots=True)
class Rising(Aggregate):
    """How many of the last events (64 at most) were each larger than the one before, within the window."""

    opcode = Opcode.RISING
    unit = "events"
    windowed = Windowed.ANY


@dataclass(frozen=True, slots=True)
class Growth(Aggregate):
    """The last amount over the mean of up to five before it, within the window; missing for fewer than two events."""

    opcode = Opcode.GROWTH
    unit = "ratio"
    windowed = Windowed.ANY


@dataclass(frozen=True, slots=True)
class Repeats(Aggregate):
    """How many of the last events (64 at most) in the window had the very amount of this one."""

    opcode = Opcode.REPEATS
    unit = "events"
    windowed = Windowed.ANY


@dataclass(frozen=True, slots=True)
class Distinct(Aggregate):
    """How many counterparties; exact to 64, then with a standard error of 5 to 11 %, 1,420 at most."""

    opcode = Opcode.DISTINCT
    unit = "counterparties"
    family = Family.NETWORK
    windowed = Windowed.DISTINCT
    name_part = "counterparties"


@dataclass(frozen=True, slots=True)
class FirstTime(Aggregate):
    """1 where the key meets this counterparty for the first time, else 0."""

    opcode = Opcode.FIRST_TIME
    unit = "indicator"
    family = Family.NETWORK
    windowed = Windowed.NONE
    name_part = "first_time"


@dataclass(frozen=True, slots=True)
class SincePair(Aggregate):
    """Time since the last event with this counterparty; missing where there was none, or it is long ago."""

    opcode = Opcode.SINCE_PAIR
    unit = "ms"
    family = Family.NETWORK
    windowed = Windowed.NONE
    name_part = "since_pair_ms"


@dataclass(frozen=True, slots=True)
class MetAs(Aggregate):
    """1 where this counterparty is known from another log (it has paid the payer before), else 0."""

    opcode = Opcode.MET
    unit = "indicator"
    family = Family.NETWORK
    windowed = Windowed.NONE
    name_part = "by_counterparty"


@dataclass(frozen=True, slots=True)
class _OfDevices(Aggregate):
    family = Family.NETWORK
    of_log = False

    def source(self, stage: str, log: str | None) -> int:  # noqa: ARG002 (the set of devices is one for all logs)
        return DEVICES


@dataclass(frozen=True, slots=True)
class NewDevice(_OfDevices):
    """1 where the key meets this device for the first time, else 0; missing without a device."""

    opcode = Opcode.FIRST_TIME
    unit = "indicator"
    family = Family.USER
    windowed = Windowed.NONE
    name_part = "new_device"


@dataclass(frozen=True, slots=True)
class DistinctDevices(_OfDevices):
    """How many devices; exact to 64, then the 64 used last."""

    opcode = Opcode.DISTINCT
    unit = "devices"
    family = Family.USER
    windowed = Windowed.DISTINCT
    name_part = "devices"


@dataclass(frozen=True, slots=True)
class SameDevice(_OfDevices):
    """How many counterparties used this device with this key within 30 days, of the last 64 pairs of both."""

    opcode = Opcode.SAME_DEVICE
    unit = "counterparties"
    windowed = Windowed.NONE
    name_part = "same_device_counterparties"


@dataclass(frozen=True, slots=True)
class Age(Aggregate):
    """Time since the key's oldest event; missing without one."""

    opcode = Opcode.AGE
    unit = "ms"
    family = Family.USER
    windowed = Windowed.NONE
    of_log = False
    name_part = "age_ms"


@dataclass(frozen=True, slots=True)
class Marks(Aggregate):
    """How many confirmed-fraud markers the key carries, of one type or of all."""

    opcode = Opcode.MARKS
    unit = "markers"
    family = Family.NETWORK
    windowed = Windowed.NONE
    of_log = False

    fraud_type: str | None = None

    @property
    def label(self) -> str:
        """Part of the feature's name."""
        return f"{self.fraud_type.lower()}_marks" if self.fraud_type else "fraud_marks"

    @property
    def argument(self) -> int:
        """What the opcode takes besides."""
        return FRAUD_TYPES.index(self.fraud_type) if self.fraud_type else -1


@dataclass(frozen=True, slots=True)
class SinceMark(Aggregate):
    """Time since the newest confirmed-fraud marker; missing without one."""

    opcode = Opcode.SINCE_MARK
    unit = "ms"
    family = Family.NETWORK
    windowed = Windowed.NONE
    of_log = False
    name_part = "since_mark_ms"


AGGREGATES: tuple[type[Aggregate], ...] = tuple(
    kind
    for kind in globals().values()
    if isinstance(kind, type) and issubclass(kind, Aggregate) and hasattr(kind, "opcode")
)
"""Every aggregate: a class that has an opcode."""
