"""Everything that follows from the declarations: names, positions, units, the kernel's plan, fingerprints, the README.

Examples
--------
A feature's name, stage and place come from its declaration:

>>> from tables.aggregates import Sum
>>> from tables.features import Feature, hours
>>> drained = Feature("payer", Sum, "A drained account sends much within an hour.", "sent", hours(1), ("mule",))
>>> catalog = Catalog((drained,), ())
>>> catalog.names
('payer_sent_sum_1h',)
>>> entry = catalog.entries[0]
>>> entry.stage, entry.position, entry.unit, entry.family.value, entry.arrow
('payer', 0, 'centavos', 'temporal', 'float')
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from app.domain.columns import ColumnKind, ColumnType, transaction_columns
from app.domain.expression import Expression, compile_expression
from app.domain.program import trace
from tables.aggregates import Aggregate, Family, PeriodSum, Windowed
from tables.calendar import CALENDAR
from tables.derived import DERIVED, Derived
from tables.features import FEATURES, Feature
from tables.layout import (
    COUNTED_FLAGS,
    DEVICES,
    DISTINCT_WINDOWS_MS,
    EVENT_DTYPE,
    FLAGS,
    FRAUD_TYPES,
    GRACE_MS,
    LAYOUT_VERSION,
    LOG_LEVEL_MAX,
    LOG_LEVEL_SCAN,
    LOGS,
    PERIODS_MAX,
    ROW_DTYPE,
    TAG_LEVEL_MAX,
    WINDOWS_MS,
    Array,
)
from tables.plan import OPERATION_DTYPE, PERIOD_DTYPE, Opcode, Plan
from tables.typologies import TYPOLOGIES
from tables.vector_columns import VectorColumns, VectorLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.columns import Columns

__all__ = ["CATALOG", "Catalog", "Entry", "Levels", "window_name"]

STAGES = tuple(LOGS)
DERIVED_STAGE = "derived"


def window_name(width_ms: int) -> str:
    """Return a window as names have it.

    Examples
    --------
    >>> [window_name(width) for width in (60_000, 600_000, 3_600_000, 86_400_000, 604_800_000)]
    ['1min', '10min', '1h', '24h', '7d']
    """
    minutes = width_ms // 60_000
    if minutes % 60:
        return f"{minutes}min"
    hours = minutes // 60
    return f"{hours}h" if hours <= 24 or hours % 24 else f"{hours // 24}d"


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature of the catalog, with all that follows from its declaration.

    Parameters
    ----------
    name
        Unique; also the column in Delta and in rules.
    stage
        "receiver", "payer", or "derived".
    position
        In the vector of a decision.
    meaning
        What its value is, for the README; together with the layout it makes the fingerprint.
    unit, family, why, typologies
        As declared.
    arrow
        Name of the Arrow type.
    """

    name: str
    stage: str
    position: int
    meaning: str
    unit: str
    family: Family
    why: str
    typologies: tuple[str, ...]
    arrow: str = "float"


def _aggregate(feature: Feature) -> Aggregate:
    return feature.aggregate() if isinstance(feature.aggregate, type) else feature.aggregate


def _name(feature: Feature) -> str:
    aggregate = _aggregate(feature)
    log = feature.log if aggregate.names_log else None
    window = window_name(feature.window) if feature.window is not None else None
    return "_".join(part for part in (feature.key, log, aggregate.label, window) if part)


def _check(feature: Feature) -> None:
    if feature.key not in LOGS:
        raise ValueError(f"feature of key {feature.key!r}: expected one of {', '.join(LOGS)}")
    aggregate = _aggregate(feature)
    if aggregate.of_log and feature.log not in LOGS[feature.key]:
        raise ValueError(f"{_name(feature)}: expected log {' or '.join(LOGS[feature.key])}, got {feature.log}")
    if not aggregate.of_log and feature.log is not None:
        raise ValueError(f"{_name(feature)}: expected no log, got {feature.log}")
    aggregate.check(feature.window)
    flag = getattr(aggregate, "flag", None)
    if flag is not None and aggregate.opcode is not Opcode.RUN and flag not in FLAGS[:COUNTED_FLAGS]:
        raise ValueError(f"{_name(feature)}: expected one of the counted flags {FLAGS[:COUNTED_FLAGS]}, got {flag}")


@dataclass(frozen=True, slots=True)
class Levels:
    """Capacities, each 2 << level cells.

    Parameters
    ----------
    scan
        Of the longest log that is scanned; longer ones keep running sums.
    log
        Of the longest log; what overflows is condensed.
    tags, devices
        Of the largest exact set of counterparties and of devices.
    """

    scan: int = LOG_LEVEL_SCAN
    log: int = LOG_LEVEL_MAX
    tags: int = TAG_LEVEL_MAX
    devices: int = TAG_LEVEL_MAX


class Catalog:
    """The features, and what is derived from them.

    Parameters
    ----------
    features
        Base features; their order within a stage is the vector's.
    derived
        Derived features, behind them.
    levels
        Capacities; other ones are for tests.

    Raises
    ------
    ValueError
        For a declaration that the kernel cannot compute, a name used twice, or an unknown typology.
    ExpressionError
        For an expression that does not compile.
    """

    def __init__(
        self,
        features: Sequence[Feature] = FEATURES,
        derived: Sequence[Derived] = DERIVED,
        levels: Levels | None = None,
    ) -> None:
        for feature in features:
            _check(feature)
        self.levels = levels or Levels()
        self.features = tuple(sorted(features, key=lambda feature: STAGES.index(feature.key)))
        self.derived = tuple(derived)
        self.entries = self._entries()
        self.names = tuple(entry.name for entry in self.entries)
        if len(set(self.names)) < len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"features: expected each name once, got twice: {', '.join(twice)}")
        unknown = {typology for entry in self.entries for typology in entry.typologies} - set(TYPOLOGIES)
        if unknown:
            raise ValueError(f"features: expected typologies of TYPOLOGIES, got {', '.join(sorted(unknown))}")
        self._layout_of_vector = VectorLayout(self.names)
        # Compiled now, so that a wrong expression is told at once.
        self._program = trace(numbers=[expression.array_code for expression in self._compile()])

    def __len__(self) -> int:
        """Return the length of a decision's vector."""
        return len(self.entries)

    def _entries(self) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for feature in self.features:
            aggregate = _aggregate(feature)
            what = " ".join((type(aggregate).__doc__ or "").split())
            window = f" Window {window_name(feature.window)}." if feature.window is not None else ""
            parameters = "".join(
                f" {name}={value}" for name in aggregate.__dataclass_fields__ if (value := getattr(aggregate, name))
            )
            entries.append(
                Entry(
                    _name(feature),
                    feature.key,
                    len(entries),
                    f"{what}{window}{parameters}",
                    aggregate.unit,
                    aggregate.family,
                    feature.why,
                    feature.typologies,
                )
            )
        for item in self.derived:
            entries.append(
                Entry(
                    item.name,
                    DERIVED_STAGE,
                    len(entries),
                    item.expression,
                    item.unit,
                    item.family,
                    item.why,
                    item.typologies,
                )
            )
        return tuple(entries)

    def stage_features(self, stage: str) -> tuple[Feature, ...]:
        """Return the base features of a stage, in their order."""
        return tuple(feature for feature in self.features if feature.key == stage)

    def positions(self, stage: str) -> dict[str, int]:
        """Return the positions of a stage's features within the stage's slice, by name."""
        names = [entry.name for entry in self.entries if entry.stage == stage]
        return {name: position for position, name in enumerate(names)}

    def column_types(self) -> dict[str, ColumnType]:
        """Return the types of all columns that rules may read: the transaction's and every feature."""
        number = ColumnType(ColumnKind.NUMBER)
        return {**transaction_columns(), **dict.fromkeys(self.names, number)}

    def _compile(self) -> tuple[Expression, ...]:
        number = ColumnType(ColumnKind.NUMBER)
        base = (entry.name for entry in self.entries if entry.stage != DERIVED_STAGE)
        columns = {**transaction_columns(), **dict.fromkeys(CALENDAR, number), **dict.fromkeys(base, number)}
        return tuple(compile_expression(item.expression, columns) for item in self.derived)

    def vector(self, receiver_slice: Array, payer_slice: Array, transactions: Columns) -> Array:
        """Return the full vectors of decisions: what rules and models see is exactly what is recorded.

        Parameters
        ----------
        receiver_slice, payer_slice
            float32, shapes (n, features of the stage): from `Profiles.update`.
        transactions
            TRANSACTION_DTYPE, shape (n,), or its columns by name.

        Returns
        -------
        float32, shape (n, len(self)), NaN for missing.
        """
        n = len(payer_slice)
        vectors = np.empty((n, len(self)), np.float32)
        split = receiver_slice.shape[1]
        first = split + payer_slice.shape[1]
        vectors[:, :split] = receiver_slice
        vectors[:, split:first] = payer_slice
        self._program.run(VectorColumns(self._layout_of_vector, vectors, transactions), n, numbers=vectors[:, first:])
        return vectors

    def columns(self, vectors: Array, transactions: Columns) -> Columns:
        """Return transaction and features of decisions as columns by name: what rules are evaluated on."""
        return VectorColumns(self._layout_of_vector, vectors, transactions)

    def plan(self, stage: str) -> Plan:
        """Return what the kernel computes for a stage."""
        features = self.stage_features(stage)
        periods = self._periods(stage)
        operations = np.zeros(len(features), OPERATION_DTYPE)
        distinct_sets = 0
        for column, feature in enumerate(features):
            aggregate = _aggregate(feature)
            source = aggregate.source(stage, feature.log)
            windows = DISTINCT_WINDOWS_MS if aggregate.windowed is Windowed.DISTINCT else WINDOWS_MS
            window = windows.index(feature.window) if feature.window in windows else 0
            argument = periods.index(aggregate) if isinstance(aggregate, PeriodSum) else aggregate.argument
            operations[column] = (aggregate.opcode, source, window, feature.window or 0, argument, column)
            if aggregate.opcode is Opcode.DISTINCT:
                distinct_sets |= 1 << source
        rows = [(item.mask, item.wanted, item.period) for item in periods]
        lanes = [sum((bits >> bit & 1) << (16 * bit) for bit in range(4)) for bits in range(16)]
        return Plan(
            operations=operations,
            periods=np.array(rows, PERIOD_DTYPE),
            widths_ms=np.array([*WINDOWS_MS, 0], np.int64),
            distinct_ms=np.array(DISTINCT_WINDOWS_MS, np.int64),
            lanes=np.array(lanes, np.int64),
            scan_level=self.levels.scan,
            log_level=self.levels.log,
            tag_level=self.levels.tags,
            device_level=self.levels.devices,
            device_pairs=int(stage == "receiver"),
            logs=len(LOGS[stage]),
            distinct_sets=distinct_sets,
        )

    def _periods(self, stage: str) -> list[PeriodSum]:
        aggregates = (_aggregate(feature) for feature in self.stage_features(stage))
        periods = [aggregate for aggregate in aggregates if isinstance(aggregate, PeriodSum)]
        if len(periods) > PERIODS_MAX:
            raise ValueError(f"stage {stage}: expected at most {PERIODS_MAX} calendar sums, got {len(periods)}")
        return periods

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the meaning of every feature and the layout: names the feature set in decisions and models."""
        meaning = [(entry.name, entry.stage, entry.meaning) for entry in self.entries]
        return _digest([meaning, self._layout(STAGES[0]), self._layout(STAGES[1])])

    def state_fingerprint(self, stage: str) -> int:
        """Return what names the rows' content, int64: a row written under another one is never read.

        Aggregates that read the same rows are no part of it, so a feature added costs no history.
        """
        return int(_digest(self._layout(stage))[:15], 16)

    def _layout(self, stage: str) -> list[Any]:
        dtypes = [str(dtype.descr) for dtype in (ROW_DTYPE, EVENT_DTYPE)]
        periods = [(item.mask, item.wanted, int(item.period)) for item in self._periods(stage)]
        windows = [WINDOWS_MS, DISTINCT_WINDOWS_MS, GRACE_MS]
        return [
            LAYOUT_VERSION,
            stage,
            LOGS[stage],
            FLAGS,
            FRAUD_TYPES,
            DEVICES,
            windows,
            astuple(self.levels),
            periods,
            dtypes,
        ]

    def rows(self) -> list[dict[str, str]]:
        """Return one row per feature, for the README and the web view."""
        return [
            {
                "name": entry.name,
                "stage": entry.stage,
                "family": entry.family.value,
                "unit": entry.unit,
                "why": entry.why,
                "typologies": ", ".join(entry.typologies),
            }
            for entry in self.entries
        ]

    def coverage(self) -> dict[str, tuple[str, ...]]:
        """Return the features that help to see each typology, by its name."""
        return {name: tuple(entry.name for entry in self.entries if name in entry.typologies) for name in TYPOLOGIES}


def _digest(meaning: list[Any]) -> str:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=str).encode()).hexdigest()


CATALOG = Catalog()
"""The catalog in use."""
