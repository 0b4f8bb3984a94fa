"""Messages of three topics as rows of the lake: what each table's columns are, and how they are filled.

All is derived: `decisions` and `labels` from their structs, `features` from `VECTOR_ROW_DTYPE` and the catalog's names.
A table keeps the columns of all catalogs it has seen; a row has those of its own, the others are null, and its
`fingerprint` says which catalog gave them their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.domain.decision import Decision, decode_decision
from app.domain.labelled import Labelled, LabelledError, decode_labelled
from app.domain.records import Records
from app.domain.rejection import Reason, Rejection
from app.domain.vectors import VECTOR_ROW_DTYPE, FeatureVectorError, Vectors, decode_vectors
from tables.lake_schema import LAKE_TOPICS, PLACE_FIELDS, StructColumn, struct_columns, timestamps

__all__ = ["Converted", "LakeKind", "lake_kinds"]

_DAY_MS = 86_400_000
_LATEST_MS = 253_402_300_800_000
"""The year 10000: what lies beyond has no date in Arrow's readers."""

Fault = tuple[int, Rejection]
"""A message's position among those that were read, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Converted:
    """Messages, converted.

    Parameters
    ----------
    rows
        In the order of the messages, without those that cannot be read.
    rejected
        The others: position, and what is wrong.
    """

    rows: pa.Table
    rejected: list[Fault]


@dataclass(frozen=True, slots=True)
class LakeKind:
    """One table of the lake.

    Parameters
    ----------
    name
        Of the table; its folder.
    topic
        Whose messages it holds.
    schema
        All its columns as declared today.
    convert
        Makes rows of one partition's records: the partition's number, and the records.
    """

    name: str
    topic: str
    schema: pa.Schema
    convert: Callable[[int, Records], Converted] = field(repr=False)


def lake_kinds(catalogs: Mapping[str, Sequence[str]]) -> tuple[LakeKind, ...]:
    """Return the tables `decisions`, `features` and `labels`.

    Parameters
    ----------
    catalogs
        Names of the features, in order, by the fingerprint that messages carry: the catalog in force, and older ones
        where their names are known.
    """
    decisions = _struct_kind("decisions", Decision, decode_decision)
    labels = _struct_kind("labels", Labelled, decode_labelled, omit=("vector",))
    return decisions, _features_kind(catalogs), labels


# -- structs


def _struct_kind(
    name: str,
    struct: type[msgspec.Struct],
    decode: Callable[[bytes], Any],
    omit: Sequence[str] = (),
) -> LakeKind:
    columns = struct_columns(struct, omit)
    schema = pa.schema([*PLACE_FIELDS, *(column.field for column in columns)])

    def convert(partition: int, records: Records) -> Converted:
        rows, kept, rejected = _decoded(struct, decode, records.values)
        try:
            made = _struct_rows(schema, columns, partition, records, kept, rows)
        except (OverflowError, pa.ArrowInvalid):
            # One by one: a number that no column holds must not take the others with it.
            whole = []
            for position, row in zip(kept, rows, strict=True):
                try:
                    whole.append(_struct_rows(schema, columns, partition, records, [position], [row]))
                except (OverflowError, pa.ArrowInvalid):
                    fault = Rejection("$", "numbers of 64 bits, times before the year 10000", "others",
                                      Reason.OUT_OF_RANGE)  # fmt: skip
                    rejected.append((position, fault))
            made = pa.concat_tables([schema.empty_table(), *whole])
        return Converted(made, sorted(rejected, key=lambda fault: fault[0]))

    return LakeKind(name, LAKE_TOPICS[name].name, schema, convert)


def _decoded(
    struct: type[msgspec.Struct], decode: Callable[[bytes], Any], values: Sequence[bytes | None]
) -> tuple[list[Any], Sequence[int], list[Fault]]:
    """Return what can be read, where it stood, and what is wrong with the rest."""
    with suppress(msgspec.MsgspecError, LabelledError, TypeError):
        return [decode(value) for value in values], range(len(values)), []  # type: ignore[arg-type] # None: TypeError
    rows, kept, rejected = [], [], []
    for position, value in enumerate(values):
        try:
            rows.append(decode(value or b""))
            kept.append(position)
        except (msgspec.MsgspecError, LabelledError) as error:
            rejected.append((position, _unreadable(struct.__name__, value, error)))
    return rows, kept, rejected


def _struct_rows(
    schema: pa.Schema,
    columns: Sequence[StructColumn],
    partition: int,
    records: Records,
    kept: Sequence[int],
    rows: Sequence[Any],
) -> pa.Table:
    times_ms = np.array([row.event_time for row in rows], np.int64)
    if len(times_ms) and (times_ms.min() < 0 or times_ms.max() >= _LATEST_MS):
        raise OverflowError("event_time: expected a time from 1970 to 9999")
    place = _place(partition, records, np.asarray(kept, np.intp), times_ms)
    return pa.Table.from_arrays([*place, *(column.values(rows) for column in columns)], schema=schema)


def _place(partition: int, records: Records, kept: NDArray[np.intp], times_ms: NDArray[np.int64]) -> list[pa.Array]:
    """Return the columns of `PLACE_FIELDS`."""
    days = (times_ms // _DAY_MS).astype(np.int32)
    offsets = np.asarray(records.offsets, np.int64)[kept]
    known_ms = np.asarray(records.timestamps_ms, np.int64)[kept]
    partitions = np.full(len(kept), partition, np.int32)
    return [pa.array(days, pa.date32()), pa.array(partitions), pa.array(offsets), timestamps(known_ms)]


def _unreadable(what: str, value: bytes | None, error: Exception) -> Rejection:
    """Say what is wrong with a message, without a word of what it holds."""
    if value is None:
        return Rejection("$", f"a message ({what})", "null", Reason.TOMBSTONE)
    path = str(error).rpartition(" - at `")[2].removesuffix("`") if isinstance(error, msgspec.ValidationError) else "$"
    reason = Reason.WRONG_TYPE if isinstance(error, msgspec.ValidationError) else Reason.NOT_JSON
    if isinstance(error, LabelledError):
        reason = Reason.WRONG_FORM
    return Rejection(path if path.startswith("$") else "$", f"a message ({what})", f"{len(value)} bytes", reason)


# -- vectors

_ROW_TYPES = {
    "S": pa.string(),
    "u8": pa.int64(),  # Delta has no unsigned integers; a keyed hash is 64 bits whatever their sign
    "u4": pa.int64(),
    "u1": pa.int16(),
    "i8": pa.int64(),
    "f4": pa.float32(),
    "b1": pa.bool_(),
}
_ROW_NAMES = {"id": "end_to_end_id"}
"""Named as in the other tables."""

_ROW_TIMES = ("event_time", "decided_at")


def _row_field(name: str) -> pa.Field:
    kind = VECTOR_ROW_DTYPE[name]
    code = "S" if kind.kind == "S" else kind.str[1:]
    arrow = pa.timestamp("us", tz="UTC") if name in _ROW_TIMES else _ROW_TYPES[code]
    return pa.field(_ROW_NAMES.get(name, name), arrow)


_ROW_FIELDS = tuple(_row_field(name) for name in VECTOR_ROW_DTYPE.names or ())
_CATALOG_FIELDS = (
    pa.field("fingerprint", pa.string()),
    pa.field("vector_bytes", pa.binary()),  # float32, little-endian, where the features' names are not known; else null
)


def _features_kind(catalogs: Mapping[str, Sequence[str]]) -> LakeKind:
    names = list(dict.fromkeys(name for catalog in catalogs.values() for name in catalog))
    schema = pa.schema(
        [*PLACE_FIELDS, *_ROW_FIELDS, *_CATALOG_FIELDS, *(pa.field(name, pa.float32()) for name in names)]
    )

    def convert(partition: int, records: Records) -> Converted:
        parts = [schema.empty_table()]
        rejected: list[Fault] = []
        for positions, vectors in _by_catalog(records.values, rejected):
            sound = _sound_times(vectors, positions, rejected)
            rows, matrix = vectors.rows[sound], vectors.matrix[sound]
            place = _place(partition, records, positions[sound], rows["event_time"].astype(np.int64))
            arrays = dict(zip(schema.names, [*place, *_row_arrays(rows)], strict=False))
            arrays |= _vector_arrays(vectors.fingerprint, matrix, catalogs.get(vectors.fingerprint))
            parts.append(_filled(schema, arrays, len(rows)))
        made = pa.concat_tables(parts)
        if len(parts) > 2:
            made = made.sort_by("topic_offset")
        return Converted(made, sorted(rejected, key=lambda fault: fault[0]))

    return LakeKind("features", LAKE_TOPICS["features"].name, schema, convert)


def _by_catalog(values: Sequence[bytes | None], rejected: list[Fault]) -> Iterable[tuple[NDArray[np.intp], Vectors]]:
    """Read vectors, those of each catalog by themselves, nearly always all at once."""
    if not len(values):
        return
    try:
        yield np.arange(len(values)), decode_vectors(values)
    except FeatureVectorError:
        groups: dict[bytes, list[int]] = {}
        for position, value in enumerate(values):
            # Length, magic and fingerprint together: what differs in one of them cannot be read with the others.
            groups.setdefault(b"%d %b" % (len(value or b""), (value or b"")[:20]), []).append(position)
        for positions in groups.values():
            yield from _group(np.array(positions), values, rejected)


def _group(
    positions: NDArray[np.intp], values: Sequence[bytes | None], rejected: list[Fault]
) -> Iterable[tuple[NDArray[np.intp], Vectors]]:
    try:
        yield positions, decode_vectors([values[position] for position in positions])
    except FeatureVectorError:
        if len(positions) > 1:
            for position in positions:
                yield from _group(np.array([position]), values, rejected)
            return
        value = values[positions[0]]
        got, reason = ("null", Reason.TOMBSTONE) if value is None else (f"{len(value)} bytes", Reason.WRONG_FORM)
        rejected.append((int(positions[0]), Rejection("$", "a message (FeatureVector)", got, reason)))


def _sound_times(vectors: Vectors, positions: NDArray[np.intp], rejected: list[Fault]) -> NDArray[np.bool_]:
    sound = np.ones(len(positions), np.bool_)
    for name in _ROW_TIMES:
        sound &= (vectors.rows[name] >= 0) & (vectors.rows[name] < _LATEST_MS)
    fault = Rejection("$", "times from 1970 to 9999", "others", Reason.OUT_OF_RANGE)
    rejected += [(int(position), fault) for position in positions[~sound]]
    return sound


def _row_arrays(rows: NDArray[np.void]) -> list[pa.Array]:
    arrays = []
    for name, told in zip(VECTOR_ROW_DTYPE.names or (), _ROW_FIELDS, strict=True):
        column = np.ascontiguousarray(rows[name])
        if name in _ROW_TIMES:
            arrays.append(pa.array(column, pa.timestamp("ms", tz="UTC")).cast(told.type))
        elif pa.types.is_string(told.type):
            arrays.append(pa.array(np.char.decode(column, "utf-8", "replace"), told.type))
        elif column.dtype == np.uint64:
            arrays.append(pa.array(column.view(np.int64)))
        elif column.dtype == np.float32:
            arrays.append(_floats(column))
        else:
            arrays.append(pa.array(column).cast(told.type))
    return arrays


def _vector_arrays(fingerprint: str, matrix: NDArray[np.float32], names: Sequence[str] | None) -> dict[str, pa.Array]:
    arrays = {"fingerprint": pa.array([fingerprint] * len(matrix), pa.string())}
    if names is None or len(names) != matrix.shape[1]:
        arrays["vector_bytes"] = pa.array([vector.tobytes() for vector in matrix], pa.binary())
        return arrays
    columns = np.ascontiguousarray(matrix.T)
    return arrays | {name: _floats(column) for name, column in zip(names, columns, strict=True)}


def _floats(column: NDArray[np.float32]) -> pa.Array:
    """Return numbers with NaN as null: NaN in a column would make means NaN, and Parquet's bounds useless."""
    return pa.array(column, pa.float32(), from_pandas=True)


def _filled(schema: pa.Schema, arrays: Mapping[str, pa.Array], rows: int) -> pa.Table:
    return pa.Table.from_arrays(
        [arrays[told.name] if told.name in arrays else pa.nulls(rows, told.type) for told in schema], schema=schema
    )
