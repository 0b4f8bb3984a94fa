"""Arrow columns of declared messages: a struct's fields become columns, once and by rule.

The rule: a field is a column of its name. A nested struct is flattened, `versions.rules` to `versions_rules`, for it is
one per row and filters on it must reach Parquet's statistics. A sequence stays a list, and one of structs a list of
structs, typed and readable without parsing. Integers whose name ends in `_at` or `_time` are epoch milliseconds, and
become timestamps (UTC, microseconds: the only unit that Delta has). Missing is null.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import inspect
from numpy.typing import NDArray

from app.topics import DECISIONS, FEATURES, LABELLED, Topic

__all__ = [
    "LAKE_TOPICS",
    "PARTITION_COLUMN",
    "PLACE_FIELDS",
    "TIMESTAMP",
    "StructColumn",
    "arrow_values",
    "struct_columns",
    "timestamps",
]

LAKE_TOPICS: dict[str, Topic] = {"decisions": DECISIONS, "features": FEATURES, "labels": LABELLED}
"""The tables, and the topic that each is written from."""

TIMESTAMP = pa.timestamp("us", tz="UTC")

PLACE_FIELDS = (
    pa.field("event_date", pa.date32()),  # UTC, of the event's time: the partition column
    pa.field("topic_partition", pa.int32()),
    pa.field("topic_offset", pa.int64()),
    pa.field("available_ts", TIMESTAMP),  # Kafka's timestamp of the message: when it could be known
)
"""Columns that every table begins with: where a row comes from, and when it could be known."""

PARTITION_COLUMN = "event_date"

_TIME_SUFFIXES = ("_at", "_time")
_SCALARS: dict[type[inspect.Type], pa.DataType] = {
    inspect.IntType: pa.int64(),
    inspect.FloatType: pa.float64(),
    inspect.StrType: pa.string(),
    inspect.BoolType: pa.bool_(),
    inspect.BytesType: pa.binary(),
}


@dataclass(frozen=True, slots=True)
class StructColumn:
    """One column, and where its values lie in a struct.

    Parameters
    ----------
    field
        Name and Arrow type.
    path
        Of attributes, with dots.
    """

    field: pa.Field
    path: str

    def values(self, rows: Sequence[Any]) -> pa.Array:
        """Return the column of these structs.

        Raises
        ------
        OverflowError, pyarrow.ArrowInvalid
            For a value that the type does not hold.
        """
        return arrow_values(list(map(attrgetter(self.path), rows)), self.field.type)


def struct_columns(struct: type[msgspec.Struct], omit: Collection[str] = ()) -> tuple[StructColumn, ...]:
    """Return the columns of a struct's declaration.

    Parameters
    ----------
    struct
        The message.
    omit
        Fields without a column.

    Raises
    ------
    TypeError
        For a field whose type has no rule.

    Examples
    --------
    >>> class Place(msgspec.Struct):
    ...     offset: int
    >>> class Message(msgspec.Struct):
    ...     source: Place
    ...     known_at: int | None
    ...     codes: tuple[str, ...]
    >>> for column in struct_columns(Message):
    ...     print(column.path, column.field.name, column.field.type)
    source.offset source_offset int64
    known_at known_at timestamp[us, tz=UTC]
    codes codes list<item: string>
    """
    return tuple(_columns(struct, "", "", omit))


def _columns(struct: type[msgspec.Struct], path: str, name: str, omit: Collection[str]) -> list[StructColumn]:
    told = inspect.type_info(struct)
    columns: list[StructColumn] = []
    for item in told.fields:  # type: ignore[attr-defined] # a struct's type has fields
        if item.name in omit:
            continue
        kind = _present(item.type)
        if isinstance(kind, inspect.StructType):
            columns += _columns(kind.cls, f"{path}{item.name}.", f"{name}{item.name}_", ())
        else:
            columns.append(
                StructColumn(pa.field(f"{name}{item.name}", _arrow_type(item.name, kind)), f"{path}{item.name}")
            )
    return columns


def _present(kind: inspect.Type) -> inspect.Type:
    """Return the type of a value that is not missing."""
    if isinstance(kind, inspect.UnionType):
        kinds = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        return kinds[0] if len(kinds) == 1 else kind
    return kind


def _arrow_type(name: str, kind: inspect.Type) -> pa.DataType:
    kind = _present(kind)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return pa.list_(_arrow_type(name, kind.item_type))
    if isinstance(kind, inspect.StructType):
        fields = [(item.name, _arrow_type(item.name, item.type)) for item in kind.fields]
        return pa.struct(fields)
    if isinstance(kind, inspect.LiteralType):
        return pa.int64() if all(isinstance(value, int) for value in kind.values) else pa.string()
    if isinstance(kind, inspect.IntType) and name.endswith(_TIME_SUFFIXES):
        return TIMESTAMP
    if type(kind) not in _SCALARS:
        raise TypeError(f"field {name}: expected a type that a rule makes a column of, got {kind}")
    return _SCALARS[type(kind)]


def arrow_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return plain values, sequences and structs as an Arrow array; lists are built from their elements at once.

    Raises
    ------
    OverflowError, pyarrow.ArrowInvalid
        For a value that the type does not hold.
    """
    if pa.types.is_list(kind):
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, values), np.int32, len(values)), out=offsets[1:])
        elements = arrow_values(list(chain.from_iterable(values)), kind.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), elements, type=kind)
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        children = [arrow_values(list(map(attrgetter(field.name), values)), field.type) for field in fields]
        return pa.StructArray.from_arrays(children, fields=fields)
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.timestamp("ms", tz="UTC")).cast(kind)
    return pa.array(values, kind)


def timestamps(times_ms: NDArray[np.int64]) -> pa.Array:
    """Return Kafka's timestamps, epoch milliseconds, as Arrow's; -1, where a record has none, becomes null."""
    return pa.array(times_ms, pa.timestamp("ms", tz="UTC"), mask=times_ms < 0).cast(TIMESTAMP)
