"""A user's transaction file as messages for `pix-transactions`: NDJSON, CSV or Parquet, in bounded memory.

Every row becomes one message; nothing is dropped here. A cell that cannot be read stays as it is written, so that the
stream rejects the row and keeps it, and `Chunk.faults` says what was wrong in the file's own terms. NDJSON without a
mapping passes byte for byte. Columns that are no field pass unchanged; empty cells and nulls are missing.

CSV is read by Python's own reader, not by polars: rows stay apart whatever a neighbour holds (bytes that are not
UTF-8, too few cells), and compressed files stream. The mapping file is described in `ops/mapping.py`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from app.domain.fields import FIELDS, FIELDS_BY_NAME
from ops.coercion import Coercer, coercer, wanted_form
from ops.mapping import FileMapping, nearest

__all__ = ["Chunk", "Fault", "FileError", "file_format", "read_transactions"]

_FORMATS = {
    **dict.fromkeys((".ndjson", ".jsonl", ".json"), "ndjson"),
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_BOM = b"\xef\xbb\xbf"
_MAX_LINE_BYTES = 16 << 20
_MAX_HEADER_CHARACTERS = 1 << 20
_CHUNK_BYTES = 4 << 20
_SEPARATORS = ",;\t|"


class FileError(Exception):
    """A file that cannot be read, or not on from some row; the message says which, where and why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is not as it should be: where, and what is right there."""

    path: str
    expected: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive rows of a file; the lists are of equal length.

    Parameters
    ----------
    rows
        Where each stands: the line on which it begins (NDJSON, CSV: the header is line 1), or its number from 1.
    keys
        Kafka keys; None where the row names no receiver.
    values
        The messages.
    ids
        Their `end_to_end_id`; None where there is no such string.
    times_ms
        Their `timestamp`; None where it is no integer.
    faults
        By row: the first cell that could not be read.
    """

    rows: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    times_ms: list[int | None] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        """Rows in it."""
        return len(self.rows)


def file_format(path: Path, named: str | None = None) -> str:
    """Return `ndjson`, `csv` or `parquet`: as named, or else by the file's extension.

    Raises
    ------
    FileError
        Where neither tells.

    Examples
    --------
    >>> file_format(Path("pix.csv.gz"))
    'csv'
    """
    known = sorted(set(_FORMATS.values()))
    if named is not None:
        if named not in known:
            raise FileError(f"format: expected one of {', '.join(known)}, got `{named}`{nearest(named, known)}")
        return named
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise FileError(f"{path}: its extension does not tell the format: name one of {', '.join(known)}")
    return _FORMATS[suffixes[-1]]


def read_transactions(
    path: Path,
    *,
    mapping: FileMapping | None = None,
    format: str | None = None,  # noqa: A002 (the name of the command's option)
    chunk_rows: int = 1000,
    on_position: Callable[[float], None] | None = None,
) -> Iterator[Chunk]:
    """Read a file as chunks of messages.

    Parameters
    ----------
    path
        The file; `.gz` is decompressed on the way.
    mapping
        How its rows become transactions.
    format
        `ndjson`, `csv` or `parquet`; by default the extension tells.
    chunk_rows
        Rows in a chunk, at most; chunks of long rows end sooner.
    on_position
        Told, with each chunk, which share of the file has been read, in [0, 1].

    Raises
    ------
    FileError
        When the file is absent, damaged, or lacks a column; what was read before is yielded first.
    """
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    tell = on_position or (lambda _share: None)
    plan = mapping or FileMapping()
    match file_format(path, format):
        case "parquet":
            yield from _read_parquet(path, plan, chunk_rows, tell)
        case "csv":
            yield from _gather(_csv_rows(path, plan, tell), chunk_rows)
        case _:
            rows = _raw_rows(path, tell) if mapping is None else _json_rows(path, plan, tell)
            yield from _gather(rows, chunk_rows)


class _Head(msgspec.Struct):
    """What sending needs to know of a message; of any type, since only the stream judges."""

    pix_key: Any = None
    receiver_account: Any = None
    end_to_end_id: Any = None
    timestamp: Any = None


_NO_HEAD = _Head()
_HEAD_DECODER = msgspec.json.Decoder(_Head)
_OBJECT_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()

_Row = tuple[int, bytes, _Head, Fault | None]


def _gather(rows: Iterable[_Row], chunk_rows: int) -> Iterator[Chunk]:
    chunk, size = Chunk(), 0
    try:
        for row in rows:
            _append(chunk, row)
            size += len(row[1])
            if len(chunk) >= chunk_rows or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = Chunk(), 0
    except FileError:
        if len(chunk):
            yield chunk
        raise
    if len(chunk):
        yield chunk


def _append(chunk: Chunk, row: _Row) -> None:
    number, value, head, fault = row
    receiver = head.receiver_account if head.pix_key is None else head.pix_key
    chunk.rows.append(number)
    # Not every str of JSON or of a badly encoded CSV is text (lone surrogates): the stream rejects such a row.
    chunk.keys.append(receiver.encode("utf-8", "surrogateescape") if _is_text(receiver) else None)
    chunk.values.append(value)
    chunk.ids.append(head.end_to_end_id if isinstance(head.end_to_end_id, str) else None)
    chunk.times_ms.append(head.timestamp if type(head.timestamp) is int else None)
    if fault is not None:
        chunk.faults[number] = fault


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character < "\udc80" for character in value)


class _RowBuilder:
    """Turns rows of cells into messages.

    Parameters
    ----------
    path
        For errors.
    mapping
        How columns become fields.
    """

    def __init__(self, path: Path, mapping: FileMapping) -> None:
        self._path = path
        self._mapping = mapping
        self._coercers: dict[str, Coercer] = {each.name: coercer(each, mapping) for each in FIELDS}
        self._defaults = {name: self._default(name, cell) for name, cell in mapping.defaults.items()}

    def _default(self, name: str, cell: object) -> object:
        try:
            return self._coercers[name](cell)
        except ValueError as error:
            wanted = wanted_form(FIELDS_BY_NAME[name], self._mapping)
            raise FileError(f"mapping: defaults.{name}: expected {wanted}, got {cell!r}") from error

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise where the file cannot give what a transaction needs, or what the mapping names."""
        for theirs in self._mapping.columns:
            if theirs not in columns:
                raise FileError(
                    f"{self._path}: the mapping names column `{theirs}`, the file has none{nearest(theirs, columns)}"
                )
        ours = [self._mapping.columns.get(name, name) for name in columns]
        for name in ours:
            if ours.count(name) > 1:
                raise FileError(f"{self._path}: two columns become `{name}`")
        for each in FIELDS:
            if each.required and each.name not in ours and each.name not in self._defaults:
                spare = [name for name in columns if name not in FIELDS_BY_NAME and name not in self._mapping.columns]
                raise FileError(
                    f"{self._path}: no column gives `{each.name}`{nearest(each.name, spare)} "
                    f"Map one to it (columns: {{theirs: {each.name}}}), or give it a default."
                )

    def build(self, number: int, cells: Iterable[tuple[str, Any]]) -> _Row:
        """Return the message of one row; cells that are None are missing."""
        message = dict(self._defaults)
        fault = None
        for theirs, cell in cells:
            if cell is None:
                continue
            name = self._mapping.columns.get(theirs, theirs)
            read = self._coercers.get(name)
            if read is None:
                message[name] = cell
                continue
            try:
                message[name] = read(cell)
            except (ValueError, ArithmeticError):
                message[name] = cell
                if fault is None:
                    fault = Fault(f"$.{name}", wanted_form(FIELDS_BY_NAME[name], self._mapping))
        head = _Head(*map(message.get, _Head.__struct_fields__))
        return number, _encode(message), head, fault


def _encode(message: object) -> bytes:
    try:
        return _ENCODER.encode(message)
    except (UnicodeEncodeError, OverflowError):
        # Bytes that were not of the file's encoding go out as they came in, and the stream says so.
        return json.dumps(message, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")


@contextmanager
def _opened(path: Path) -> Generator[tuple[BinaryIO, Callable[[], float]]]:
    """Open a file, decompressed, and a function that tells which share of it has been read."""
    size = max(path.stat().st_size, 1)
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        try:
            yield stream, lambda: min(file.tell() / size, 1.0)  # type: ignore[misc] # GzipFile is a BinaryIO in all we use
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{path}: damaged or not gzip: {error}") from error
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from error


_TELL_EVERY = 500  # rows


def _lines(path: Path, tell: Callable[[float], None]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, without their ends, with their numbers."""
    with _opened(path) as (stream, position):
        for number in itertools.count(1):
            line = stream.readline(_MAX_LINE_BYTES + 1)
            if not line:
                break
            if len(line) > _MAX_LINE_BYTES:
                raise FileError(
                    f"{path}: line {number} is longer than {_MAX_LINE_BYTES >> 20} MiB: expected NDJSON, one object "
                    "per line (a JSON array becomes that with `jq -c '.[]'`)"
                )
            if number == 1:
                line = line.removeprefix(_BOM)
            if number % _TELL_EVERY == 0:
                tell(position())
            stripped = line.strip()
            if stripped:
                yield number, stripped
    tell(1.0)


def _raw_rows(path: Path, tell: Callable[[float], None]) -> Iterator[_Row]:
    for number, line in _lines(path, tell):
        try:
            head = _HEAD_DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            head = _NO_HEAD
        yield number, line, head, None


def _json_rows(path: Path, mapping: FileMapping, tell: Callable[[float], None]) -> Iterator[_Row]:
    builder = _RowBuilder(path, mapping)
    for number, line in _lines(path, tell):
        try:
            found = _OBJECT_DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield number, line, _NO_HEAD, None
            continue
        yield builder.build(number, found.items())


def _csv_rows(path: Path, mapping: FileMapping, tell: Callable[[float], None]) -> Iterator[_Row]:
    with _opened(path) as (stream, position):
        text = io.TextIOWrapper(stream, mapping.csv.encoding, "surrogateescape", newline="")
        header = text.readline(_MAX_HEADER_CHARACTERS).removeprefix("\ufeff")
        if len(header) >= _MAX_HEADER_CHARACTERS:
            raise FileError(f"{path}: its first line is no CSV header: it has no end")
        separator = mapping.csv.separator or max(_SEPARATORS, key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        if not names:
            raise FileError(f"{path}: empty: expected a header line with the columns' names")
        names = [name or f"column_{place}" for place, name in enumerate(names, 1)]
        builder = _RowBuilder(path, mapping)
        builder.check_columns(names)
        shape = Fault("$", f"{len(names)} cells, as the header has")
        reader = csv.reader(text, delimiter=separator)
        begins = 2
        try:
            for cells in reader:
                number, begins = begins, reader.line_num + 2
                if len(cells) == len(names):
                    yield builder.build(number, ((name, cell or None) for name, cell in zip(names, cells, strict=True)))
                elif cells:
                    # Which cell is missing or too many cannot be known: as an array the stream rejects it, whole.
                    yield number, _encode(cells), _NO_HEAD, shape
                if reader.line_num % _TELL_EVERY == 0:
                    tell(position())
        except (csv.Error, UnicodeDecodeError) as error:
            raise FileError(f"{path}: line {begins}: {error}") from error
    tell(1.0)


def _read_parquet(path: Path, mapping: FileMapping, chunk_rows: int, tell: Callable[[float], None]) -> Iterator[Chunk]:
    try:
        import polars as pl  # noqa: PLC0415 (an extra: a worker's image goes without)
    except ImportError as error:
        raise FileError("Parquet files need polars: pip install 'pixguard[files]'") from error
    builder = _RowBuilder(path, mapping)
    done = 0
    try:
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
        total = max(int(lazy.select(pl.len()).collect().item()), 1)
        builder.check_columns(names)
        for frame in lazy.collect_batches(chunk_size=chunk_rows, lazy=True):
            for part in frame.iter_slices(chunk_rows):
                rows = (
                    builder.build(number, zip(names, map(_present, cells), strict=True))
                    for number, cells in enumerate(part.iter_rows(), done + 1)
                )
                done += len(part)
                yield from _gather(rows, chunk_rows)
                tell(done / total)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FileError(f"{path}: not readable as Parquet, after {done} rows: {error}") from error


def _present(cell: object) -> object:
    """Return the cell; None for NaN, which is how other tools write a missing number."""
    return None if isinstance(cell, float) and math.isnan(cell) else cell
