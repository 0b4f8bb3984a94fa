"""Decided rows to decisions, and to the messages of `pix-decisions`: the same bytes for the same row, whenever."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn
from app.domain.decision import ACTIONS, Decision, Reason, Source, Versions, hold_minutes
from app.domain.memory import PADDING
from models.rules.pack import RulePack
from models.stages.judging import DECIDED_DTYPE
from models.wording.explaining import reason_code
from models.wording.kernel import NUMBERS, ROOM, form_of, group, write
from tables.catalog import CATALOG

__all__ = ["DecisionWriter"]

_HOLD = ACTIONS.index("HOLD")
_MAX_FORMS = 4096

# What differs between two payments on which the same rules fired.
_OPEN = Decision(
    end_to_end_id="<id>",
    decision="APPROVE",
    score=0.123456789,
    versions=Versions(rules="", lists=0, features=""),
    source=Source(-900_000_001, -900_000_002),
    event_time=-900_000_003,
    decided_at=-900_000_004,
    hold_minutes=-900_000_005,
)
# Behind its field's name a stand-in is unmistakable: inside a string the quotes would be escaped.
_SLOTS = (
    (b'"end_to_end_id":"', b"<id>"),
    (b'"score":', b"0.123456789"),
    (b'"partition":', b"-900000001"),
    (b'"offset":', b"-900000002"),
    (b'"event_time":', b"-900000003"),
    (b'"decided_at":', b"-900000004"),
    (b'"hold_minutes":', b"-900000005"),
)
# What fills the integer slots, but for the last.
_NUMBERS = ("source_partition", "source_offset", "event_time", "timestamp")
_NO_HOLD = -1

_ID = DECIDED_DTYPE.fields["id"][1]  # type: ignore[index] # it has fields
_FORM_STARTS = DECIDED_DTYPE.fields["online_version"][1]  # type: ignore[index] # it has fields
"""From here to its end a row says what its form is."""

_encode = msgspec.json.Encoder().encode


class DecisionWriter:
    """Renders `DECIDED_DTYPE` rows.

    Most messages of a batch differ only in their numbers: the form of each kind is encoded once, then filled in by
    compiled code, all messages into one buffer.

    Parameters
    ----------
    pack_of
        The rule pack with a fingerprint.
    features
        Names the feature set.
    """

    def __init__(self, pack_of: Callable[[bytes], RulePack], features: str) -> None:
        self._pack_of = pack_of
        self._features = features
        self._forms: dict[bytes, bytes] = {}

    def encode(self, rows: NDArray[np.void]) -> Sequence[bytes]:
        """Return the messages of rows, shape (n,): a `ByteColumn`."""
        content = rows.tobytes()
        place, size = _address(content), DECIDED_DTYPE.itemsize
        kinds, firsts, counts = np.empty((3, len(rows)), np.int64)
        found = group(place, size, _FORM_STARTS, kinds, firsts, counts)
        forms = [self._form(rows, content, first) for first in firsts[:found].tolist()]
        room = sum(len(form) * count for form, count in zip(forms, counts[:found].tolist(), strict=True))
        messages = np.empty(room + ROOM * len(rows) + len(PADDING), np.uint8)
        # On their own: they live as long as the messages.
        starts, lengths = np.empty((2, len(rows)), np.int64)
        scores = _encode(rows["score"].tolist())
        # In one, since an address costs as much as writing ten messages.
        text = b"".join([scores, *forms, PADDING])
        texts = _address(text)
        write(
            place + _ID,
            size,
            texts,
            _numbers(rows),
            texts + len(scores),
            found,
            kinds,
            messages.ctypes.data,
            starts,
            lengths,
        )
        return ByteColumn(messages, starts, lengths)  # type: ignore[return-value]  # none of them is None

    def decisions(self, rows: NDArray[np.void]) -> list[Decision]:
        """Return what rows, shape (n,), stand for."""
        fired = np.unpackbits(rows["fired"], axis=1).astype(np.bool_)
        return [self._decision(row, mask) for row, mask in zip(rows, fired, strict=True)]

    def _decision(self, row: np.void, fired: NDArray[np.bool_]) -> Decision:
        pack = self._pack_of(bytes(row["pack"]))
        mask = fired[: len(pack.rules)]
        action = ACTIONS[row["action"]]
        reasons = pack.reasons_of(mask) + _model_reasons(row)
        return Decision(
            end_to_end_id=row["id"].decode(),
            decision=action,
            score=float(row["score"]),
            scored=bool(row["scored"]),
            reasons=reasons,
            rules=tuple(pack.rules[place].id for place in np.flatnonzero(mask)),
            versions=Versions(
                rules=pack.name,
                lists=int(row["lists"]),
                features=self._features,
                online_model=int(row["online_version"]) or None,
                batch_model=int(row["batch_version"]) or None,
            ),
            source=Source(int(row["source_partition"]), int(row["source_offset"])),
            event_time=int(row["event_time"]),
            decided_at=int(row["timestamp"]),
            hold_minutes=hold_minutes(int(row["event_time"])) if action == "HOLD" else None,
        )

    def _form(self, rows: NDArray[np.void], content: bytes, place: int) -> bytes:
        """Return the form of the row at a place."""
        size = DECIDED_DTYPE.itemsize
        kind = content[place * size + _FORM_STARTS : (place + 1) * size]
        form = self._forms.get(kind)
        if form is None:
            (decision,) = self.decisions(rows[place : place + 1])
            if len(self._forms) >= _MAX_FORMS:
                self._forms.clear()
            form = self._forms[kind] = form_of(_pieces(decision))
        return form


def _model_reasons(row: np.void) -> tuple[Reason, ...]:
    """What made a model think of fraud, heaviest first."""
    return tuple(
        Reason(reason_code(CATALOG.names[feature - 1]), share / 100, feature=CATALOG.names[feature - 1])
        for feature, share in zip(row["reason_features"].tolist(), row["reason_shares"].tolist(), strict=True)
        if feature
    )


def _pieces(decision: Decision) -> list[bytes]:
    """Cut a decision's message at the slots."""
    opened = {name: getattr(_OPEN, name) for name in ("end_to_end_id", "score", "source", "event_time")}
    decision = msgspec.structs.replace(decision, **opened, decided_at=_OPEN.decided_at, hold_minutes=_OPEN.hold_minutes)
    pieces = []
    rest = _encode(decision)
    for name, stand_in in _SLOTS:
        before, rest = rest.split(name + stand_in)
        pieces.append(before + name)
    return [*pieces, rest]


def _numbers(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """What fills the integer slots of each row's form, in their order."""
    numbers = np.empty((len(rows), NUMBERS), np.int64)
    for slot, name in enumerate(_NUMBERS):
        numbers[:, slot] = rows[name]
    hold = numbers[:, -1]
    hold[:] = _NO_HOLD
    for place in np.flatnonzero(rows["action"] == _HOLD).tolist():
        hold[place] = hold_minutes(int(rows["event_time"][place]))
    return numbers


def _address(text: bytes) -> int:
    return np.frombuffer(text, np.uint8).ctypes.data
