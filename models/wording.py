"""Decided rows to decisions, and to the messages of `pix-decisions`: the same bytes for the same row, whenever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.decision import ACTIONS, Decision, Reason, Source, Versions, hold_minutes
from models.judging import DECIDED_DTYPE
from models.rules import RulePack

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
# With its field's name a stand-in is unmistakable: inside a string the quotes would be escaped.
_SLOTS = {
    b'"end_to_end_id":"<id>"': b'"end_to_end_id":"%b"',
    b'"score":0.123456789': b'"score":%b',
    b'"partition":-900000001': b'"partition":%d',
    b'"offset":-900000002': b'"offset":%d',
    b'"event_time":-900000003': b'"event_time":%d',
    b'"decided_at":-900000004': b'"decided_at":%d',
    b'"hold_minutes":-900000005': b'"hold_minutes":%b',
}

_FORM_STARTS = DECIDED_DTYPE.fields["pack"][1]  # type: ignore[index] # it has fields
"""From here to its end a row says what its form is."""

_encode = msgspec.json.Encoder().encode


class DecisionWriter:
    """Renders `DECIDED_DTYPE` rows.

    Most messages of a batch differ only in their numbers: the form of each kind is encoded once, then filled in.

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

    def encode(self, rows: NDArray[np.void]) -> list[bytes]:
        """Return the messages of rows, shape (n,)."""
        size = DECIDED_DTYPE.itemsize
        content = rows.tobytes()
        forms = self._forms
        messages = []
        for start, numbers in zip(range(0, len(content), size), _numbers(rows), strict=True):
            kind = content[start + _FORM_STARTS : start + size]
            form = forms.get(kind)
            if form is None:
                place = start // size
                form = self._form(rows[place : place + 1], kind)
            messages.append(form % numbers)
        return messages

    def decisions(self, rows: NDArray[np.void]) -> list[Decision]:
        """Return what rows, shape (n,), stand for."""
        fired = np.unpackbits(rows["fired"], axis=1).astype(np.bool_)
        return [self._decision(row, mask) for row, mask in zip(rows, fired, strict=True)]

    def _decision(self, row: np.void, fired: NDArray[np.bool_]) -> Decision:
        pack = self._pack_of(bytes(row["pack"]))
        mask = fired[: len(pack.rules)]
        action = ACTIONS[row["action"]]
        reasons: tuple[Reason, ...] = pack.reasons_of(mask)
        return Decision(
            end_to_end_id=row["id"].decode(),
            decision=action,
            score=float(row["score"]),
            scored=bool(row["scored"]),
            reasons=reasons,
            rules=tuple(pack.rules[place].id for place in np.flatnonzero(mask)),
            versions=Versions(rules=pack.name, lists=int(row["lists"]), features=self._features),
            source=Source(int(row["source_partition"]), int(row["source_offset"])),
            event_time=int(row["event_time"]),
            decided_at=int(row["timestamp"]),
            hold_minutes=hold_minutes(int(row["event_time"])) if action == "HOLD" else None,
        )

    def _form(self, row: NDArray[np.void], kind: bytes) -> bytes:
        (decision,) = self.decisions(row)
        opened = {name: getattr(_OPEN, name) for name in ("end_to_end_id", "score", "source", "event_time")}
        decision = msgspec.structs.replace(
            decision, **opened, decided_at=_OPEN.decided_at, hold_minutes=_OPEN.hold_minutes
        )
        form: bytes = _encode(decision).replace(b"%", b"%%")
        for stand_in, slot in _SLOTS.items():
            form = form.replace(stand_in, slot)
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        self._forms[kind] = form
        return form


def _numbers(rows: NDArray[np.void]) -> Iterator[tuple[bytes, bytes, int, int, int, int, bytes]]:
    """What fills the slots of each row's form, in their order."""
    hold = [b"null"] * len(rows)
    for place in np.flatnonzero(rows["action"] == _HOLD).tolist():
        hold[place] = b"%d" % hold_minutes(int(rows["event_time"][place]))
    columns = (rows[name].tolist() for name in ("source_partition", "source_offset", "event_time", "timestamp"))
    return zip(rows["id"].tolist(), map(_encode, rows["score"].tolist()), *columns, hold, strict=True)
