"""Traffic as files: transactions, their feedback and their labels, each NDJSON or Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from app.domain.feedback import FEEDBACK_FIELDS
from app.domain.fields import FIELDS, Field, Kind
from ops.traffic.feedback import FeedbackConfig, FeedbackMessage, MedFeedback
from ops.traffic.generator import Simulated, TrafficConfig, generate

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FileFormat", "Written", "write_traffic"]

FileFormat = Literal["ndjson", "parquet"]

_PROGRESS_EVERY = 5_000
_ROWS_PER_PART = 100_000

_LABEL_FIELDS: dict[str, str] = {
    "end_to_end_id": "String", "timestamp": "Int64", "typology": "String", "story": "Int64", "step": "Int64",
    "by_accomplice": "Boolean",
}  # fmt: skip
_POLARS_TYPES = {
    Kind.TIMESTAMP: "Int64", Kind.CENTAVOS: "Int64", Kind.COUNT: "Int64", Kind.NUMBER: "Float64",
    Kind.BOOLEAN: "Boolean",
}  # fmt: skip


@dataclass(slots=True)
class Written:
    """How many records were written.

    Parameters
    ----------
    transactions, feedback, labels
        Lines or rows of each kind.
    malformed
        Damaged messages: in NDJSON among the transactions, left out of Parquet, which cannot hold them.
    """

    transactions: int = 0
    feedback: int = 0
    labels: int = 0
    malformed: int = 0


class _Sink(Protocol):
    def write(self, line: bytes) -> None:
        """Take one record as JSON."""

    def close(self) -> None:
        """Write what is still in memory."""


def write_traffic(
    config: TrafficConfig,
    directory: Path,
    file_format: FileFormat = "ndjson",
    feedback: FeedbackConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Generate traffic into ``transactions``, ``feedback`` and ``labels`` files of a directory.

    Parameters
    ----------
    config
        The traffic; it must end (``count`` or ``duration_s``).
    directory
        Created if need be. NDJSON makes one file of each kind (``transactions.ndjson``); Parquet makes a folder of
        parts (``transactions/part-00000.parquet``), which readers take as one table.
    file_format
        ``ndjson`` or ``parquet``.
    feedback
        How feedback follows; with the defaults where None. All of it is written, up to its last day.
    progress
        Called with the number of messages written so far, now and then and at the end.

    Raises
    ------
    ValueError
        If the traffic has no end.
    ModuleNotFoundError
        If Parquet is asked for and polars is not installed.
    """
    if config.count is None and config.duration_s is None:
        raise ValueError("Expected count or duration_s for traffic that goes to files, got neither")
    med, written = MedFeedback(feedback or FeedbackConfig(config.seed)), Written()
    encode = msgspec.json.Encoder().encode
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sinks: dict[str, _Sink] = {}
        for name, fields in _schemas().items():
            sinks[name] = _open_sink(directory, name, file_format, fields)
            stack.callback(sinks[name].close)
        for number, simulated in enumerate(generate(config), start=1):
            _write_one(simulated, sinks, written, encode, keep_malformed=file_format == "ndjson")
            med.observe(simulated)
            written.feedback += _write_all(sinks["feedback"], med.due(simulated.arrival_ms))
            if progress is not None and number % _PROGRESS_EVERY == 0:
                progress(number)
        written.feedback += _write_all(sinks["feedback"], med.drain())
    if progress is not None:
        progress(written.transactions)
    return written


def _write_one(
    simulated: Simulated,
    sinks: dict[str, _Sink],
    written: Written,
    encode: Callable[[object], bytes],
    *,
    keep_malformed: bool,
) -> None:
    payment, label = simulated.payment, simulated.label
    if payment is None:
        written.malformed += 1
        if not keep_malformed:
            return
    sinks["transactions"].write(simulated.value)
    written.transactions += 1
    if payment is not None and label is not None and not simulated.is_retry:
        truth = (payment.end_to_end_id, payment.at_ms, label.typology, label.story, label.step, label.by_accomplice)
        sinks["labels"].write(encode(dict(zip(_LABEL_FIELDS, truth, strict=True))))
        written.labels += 1


def _write_all(sink: _Sink, messages: Iterator[FeedbackMessage]) -> int:
    number = 0
    for message in messages:
        sink.write(message.value)
        number += 1
    return number


def _schemas() -> dict[str, dict[str, str]]:
    """Columns of each kind of file: name to the name of its polars type."""
    return {"transactions": _types_of(FIELDS), "feedback": _types_of(FEEDBACK_FIELDS), "labels": _LABEL_FIELDS}


def _types_of(fields: Iterable[Field]) -> dict[str, str]:
    return {field.name: _POLARS_TYPES.get(field.kind, "String") for field in fields}


def _open_sink(directory: Path, name: str, file_format: FileFormat, columns: dict[str, str]) -> _Sink:
    if file_format == "ndjson":
        return _NdjsonSink(directory / f"{name}.ndjson")
    try:
        import polars as pl  # noqa: PLC0415 (an extra: only this format needs it)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Parquet needs polars, which is not installed: pip install 'pixguard[files]'", name="polars"
        ) from error
    types: dict[str, pl.DataType | type[pl.DataType]] = {column: getattr(pl, kind) for column, kind in columns.items()}
    if "session_flags" in types:
        types["session_flags"] = pl.List(pl.String)
    return _ParquetSink(directory / name, pl.Schema(types))


class _NdjsonSink:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, line: bytes) -> None:
        self._file.write(line + b"\n")

    def close(self) -> None:
        self._file.close()


class _ParquetSink:
    """A folder of Parquet parts, each written when its rows are full."""

    def __init__(self, folder: Path, schema: pl.Schema) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._schema = folder, schema
        self._lines: list[bytes] = []
        self._parts = 0

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) == _ROWS_PER_PART:
            self._write_part()

    def close(self) -> None:
        if self._lines or self._parts == 0:  # an empty table has its columns, too
            self._write_part()

    def _write_part(self) -> None:
        import polars as pl  # noqa: PLC0415 (an extra: only this format needs it)

        frame = pl.DataFrame(schema=self._schema)
        if self._lines:
            frame = pl.read_ndjson(io.BytesIO(b"\n".join(self._lines)), schema=self._schema)
        frame.write_parquet(self._folder / f"part-{self._parts:05d}.parquet")
        self._parts += 1
        self._lines.clear()
