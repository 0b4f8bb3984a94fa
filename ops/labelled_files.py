"""A user's file of transactions that say of themselves whether they were frauds, as labelled vectors.

Its payments go through both stages in order of time, from an empty state. A fraud that has become known marks its
receiver from then on, as a registered fraud marker does in the stream; so the vectors are those that the payments would
have been decided on.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS_BY_NAME
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.batch.training_set import STATE_DTYPE, UNKNOWN, TrainingSet, TrainingSetError
from models.rules.pack import RulePack
from models.stages.pipeline import Message, Pipeline
from models.stages.receivers import FEATURES_VERSION
from ops.coercion import Coercer, coercer
from ops.files import FileError, read_transactions
from ops.mapping import FileMapping, nearest
from tables.catalog import CATALOG

__all__ = ["LabelColumns", "LabelledFile", "file_set"]

Progress = Callable[[float], None]

_BATCH = 500
_PARTITIONS = 2
_REPORTS = uuid.UUID("6f1d3c52-6d1b-4f55-9d0c-1f0a6a3a54c1")

_WORDS: dict[str, int] = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "sim", "s", "fraud", "fraude", "agreed"), 1),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "não", "nao", "honest", "legit", "disagreed"), 0),
    **dict.fromkeys(("-1", "unknown", "?"), UNKNOWN),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """Where a file tells of frauds.

    Parameters
    ----------
    label
        Column of the label: 1 or 0, true or false, fraud or honest. Empty: nobody has said anything, so the payment was
        honest once it has matured, as in the stream; `unknown`: it teaches nothing.
    labelled_at
        Column of when the label became known, written as the file's other times; None, or an empty cell: at maturity.
    """

    label: str = "label"
    labelled_at: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFile:
    """What a file gave.

    Parameters
    ----------
    rows
        Its payments, labelled.
    rejected
        Messages that the stream would reject.
    unscored
        Payments that nobody scores: refunds, and repeats of an id.
    """

    rows: TrainingSet
    rejected: int
    unscored: int


def file_set(
    path: Path,
    maturity_ms: int,
    *,
    hash_key: HashKey,
    columns: LabelColumns | None = None,
    mapping: FileMapping | None = None,
    format: str | None = None,  # noqa: A002 - the name of the command's option
    pack: RulePack | None = None,
    progress: Progress | None = None,
) -> LabelledFile:
    """Read a labelled file and decide on its payments.

    Parameters
    ----------
    path
        NDJSON, CSV or Parquet, held in memory as a whole: rows need not be in order of time.
    maturity_ms
        Age at which labels are taken. Later ones correct what was taken, from then on.
    hash_key
        Of this installation.
    columns
        Where the labels are; `LabelColumns()` where None.
    mapping, format
        As for `read_transactions`.
    pack
        The rules whose score is recorded; the shipped ones where None.
    progress
        Called with the share done.

    Raises
    ------
    FileError, MappingError
        When the file cannot be read, has no such column, or a label that is none.
    TrainingSetError
        When no payment of it can be decided on.
    """
    tell = progress or (lambda _share: None)
    columns = columns or LabelColumns()
    payments = _read(path, columns, mapping, format, lambda share: tell(0.2 * share))
    run = _LabelledRun(hash_key, maturity_ms, pack or read_pack(DEFAULT_RULES))
    run.decide(payments, lambda share: tell(0.2 + 0.8 * share))
    return run.result(path)


@dataclass(frozen=True, slots=True)
class _Payment:
    """One row; its parties in clear only until their marks are told."""

    key: bytes | None
    value: bytes
    time_ms: int
    identity: str | None
    label: int | None
    labelled_ms: int | None
    parties: dict[str, str]


_PARTIES = ("pix_key", "pix_key_type", "receiver_account", "receiver_ispb", "payer_account", "payer_ispb")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _read(
    path: Path, columns: LabelColumns, mapping: FileMapping | None, named: str | None, tell: Progress
) -> list[_Payment]:
    time_of = coercer(FIELDS_BY_NAME["timestamp"], mapping or FileMapping())
    payments: list[_Payment] = []
    seen: set[str] = set()
    for chunk in read_transactions(path, mapping=mapping, format=named, on_position=tell):
        for row, key, value, identity, time_ms in zip(
            chunk.rows, chunk.keys, chunk.values, chunk.ids, chunk.times_ms, strict=True
        ):
            try:
                cells = _decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                cells = {}
            seen.update(cells)
            where = f"{path}: row {row}"
            label = _label(cells.get(columns.label), f"{where}: {columns.label}")
            at_ms = None if columns.labelled_at is None else _time(cells.get(columns.labelled_at), time_of, where)
            parties = {name: cells[name] for name in _PARTIES if isinstance(cells.get(name), str)}
            payments.append(_Payment(key, value, -1 if time_ms is None else time_ms, identity, label, at_ms, parties))
    for wanted in filter(None, (columns.label, columns.labelled_at)):
        if payments and wanted not in seen:
            raise FileError(f"{path}: expected a column `{wanted}`, got none{nearest(wanted, seen)}")
    return sorted(payments, key=lambda payment: payment.time_ms)


def _label(cell: object, where: str) -> int | None:
    if cell is None or cell == "":
        return None
    found = _WORDS.get(str(cell).strip().lower())
    if found is None:
        raise FileError(f"{where}: expected 1 or 0, true or false, fraud or honest, unknown or nothing, got {cell!r}")
    return found


def _time(cell: object, read: Coercer, where: str) -> int | None:
    if cell is None or cell == "":
        return None
    try:
        return int(read(cell))
    except (ValueError, ArithmeticError) as error:
        raise FileError(
            f"{where}: time of the label: expected a time as the file's others are (ISO 8601 with a zone, or a number; "
            f"`timestamp` in the mapping says otherwise), got {cell!r}"
        ) from error


class _LabelledRun:
    """A file's payments on their way through the pipeline."""

    def __init__(self, hash_key: HashKey, maturity_ms: int, pack: RulePack) -> None:
        self._hash_key, self._maturity_ms = hash_key, maturity_ms
        self._pipeline = Pipeline(_PARTITIONS, TransactionDecoder(hash_key, TimeLimits()), pack)
        self._pending: list[Message] = []
        self._marks: list[tuple[int, int, _Payment]] = []  # frauds that will become known: when, a number, which
        self._labels: dict[str, tuple[int | None, int | None]] = {}
        self._decided: list[tuple[Any, Any, Any]] = []
        self._read = self._rejected = 0

    def decide(self, payments: list[_Payment], tell: Progress) -> None:
        for number, payment in enumerate(payments):
            while self._marks and self._marks[0][0] <= payment.time_ms:
                at_ms, _, fraud = heapq.heappop(self._marks)
                self._mark(fraud, at_ms)
            self._pending.append(Message(payment.key, payment.value, payment.time_ms))
            if payment.identity is not None and payment.identity not in self._labels:
                self._labels[payment.identity] = payment.label, payment.labelled_ms
                if payment.label == 1:
                    known_ms = payment.time_ms + self._maturity_ms
                    if payment.labelled_ms is not None:
                        known_ms = max(payment.labelled_ms, payment.time_ms)
                    heapq.heappush(self._marks, (known_ms, number, payment))
            if len(self._pending) == _BATCH:
                self._push()
                tell(number / len(payments))
        self._push()
        tell(1.0)

    def _push(self) -> None:
        if not self._pending:
            return
        output = self._pipeline.push(self._pending)
        self._read += len(self._pending)
        self._rejected += len(output.rejections)
        self._pending = []
        for batch in output.decided:
            scored = batch.decided.rows["scored"]
            decided = batch.decided
            self._decided.append(
                (decided.vectors[scored], decided.transactions[scored], decided.scores["rules"][scored])
            )

    def _mark(self, fraud: _Payment, at_ms: int) -> None:
        """Let a fraud that has become known mark its parties."""
        message = {
            "end_to_end_id": fraud.identity, "timestamp": at_ms, "event": "FRAUD_MARKER", "status": "REGISTERED",
            "report_id": str(uuid.uuid5(_REPORTS, str(fraud.identity))), "last_modified": at_ms, **fraud.parties,
        }  # fmt: skip
        key, value = str(fraud.identity).encode(), msgspec.json.encode(message)
        self._push()  # payments that came before it do not know of it
        self._pipeline.hear([Message(key, value, at_ms)], self._hash_key, TimeLimits())

    def result(self, path: Path) -> LabelledFile:
        if not any(len(part[0]) for part in self._decided):
            raise TrainingSetError(
                f"{path}: expected payments, got none that can be decided on; {self._rejected} of {self._read} rows "
                "are rejected: `pixguard send` says why, row by row"
            )
        vectors, payments, rules = (np.concatenate(parts) for parts in zip(*self._decided, strict=True))
        told = [self._labels[identity.decode()] for identity in payments["end_to_end_id"].tolist()]
        states = self._states(payments["timestamp"], told)
        labels, known_at = np.full(len(told), UNKNOWN, np.int8), np.zeros(len(told), np.int64)
        for state in (states[::-1], states[states["label"] != UNKNOWN][::-1]):
            # From the last to the first, so that the first known one stays.
            labels[state["row"]], known_at[state["row"]] = state["label"], state["known_at"]
        rows = TrainingSet.build(
            FEATURES_VERSION,
            CATALOG.names,
            vectors,
            states=states,
            labels=labels,
            known_at=known_at,
            event_time=payments["timestamp"],
            amounts=payments["amount_centavos"],
            channels=payments["initiation"],
            rules_scores=rules,
            ids=payments["end_to_end_id"],
        )
        return LabelledFile(rows, self._rejected, self._read - self._rejected - len(rows))

    def _states(self, times: Any, told: list[tuple[int | None, int | None]]) -> Any:  # noqa: ANN401 - STATE_DTYPE
        """Return what was known of each label at its maturity, and what was known better later."""
        states: list[tuple[int, int, int, float]] = []
        for row, (time_ms, (label, labelled_ms)) in enumerate(zip(times.tolist(), told, strict=True)):
            due = time_ms + self._maturity_ms
            if labelled_ms is not None and labelled_ms > due:  # silence until then: honest
                states.append((row, due, 0, 1.0))
                due = labelled_ms
            states.append((row, due, 0 if label is None else label, 1.0))
        return np.array(sorted(states, key=lambda state: state[1]), STATE_DTYPE)
