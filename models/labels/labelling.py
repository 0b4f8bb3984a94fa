"""What is known of a payment, from all that was said about it: pure, bitemporal, and the same in any order of arrival.

Every statement stays, with the instant at which it became known, so that a label can be asked for as it was known then:
training must not use what a bank could not have known. A report that was revised or cancelled replaces what it said
before, from then on.

Of all that is being said at an instant, the strongest decides:

1. FRAUD_MARKER registered: fraud.
2. INFRACTION_REPORT closed, AGREED: fraud. The receiver's bank has looked at the receiver's account.
3. ANALYST closed, AGREED: fraud.
4. ANALYST closed, DISAGREED: honest.
5. INFRACTION_REPORT closed, DISAGREED: honest, but with half the weight, since the accused client's own bank judges.
6. CONTESTED, or an INFRACTION_REPORT that is not closed: unknown. About one in ten is confirmed.
7. PRECAUTIONARY_BLOCK, or money that it sent back: unknown. Most blocks hit honest payments.
8. REFUND or RETURN: unknown. The amount tells of the receiver's balance, and refunds have other reasons than fraud.

What is cancelled or released says nothing any more; FUNDS_RECOVERY only follows its report and never says anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from app.domain.feedback import Feedback
from app.domain.labelled import Basis

__all__ = ["SILENCE", "Label", "LabelState", "Statement", "known_at", "statement"]


class Label(NamedTuple):
    """What is known at an instant.

    Parameters
    ----------
    label
        1 fraud, 0 honest, None unknown.
    basis
        What it rests on; MATURITY where nobody says anything.
    weight
        How sure it is, in (0, 1].
    fraud_type, situation
        DICT's terms; None where nobody has told them.
    """

    label: Literal[0, 1] | None
    basis: Basis
    weight: float
    fraud_type: str | None = None
    situation: str | None = None


SILENCE = Label(None, "MATURITY", 1.0)
"""Nobody says anything: unknown before maturity, honest from then on."""

# By what was said, from the strongest to the weakest.
_MEANINGS: tuple[Label, ...] = (
    Label(1, "MARKER", 1.0),
    Label(1, "REPORT", 1.0),
    Label(1, "ANALYST", 1.0),
    Label(0, "ANALYST", 1.0),
    Label(0, "REPORT", 0.5),
    Label(None, "CONTESTED", 1.0),
    Label(None, "BLOCK", 1.0),
    Label(None, "REFUND", 1.0),
)
_SILENT = len(_MEANINGS)


class Statement(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What one version of one report says.

    Parameters
    ----------
    event, report_id
        The report. A bank may give a marker the identifier of its report: they stay apart.
    last_modified
        Its version: from when it is known on, a later one replaces an earlier.
    known_at
        When it became known, epoch milliseconds.
    strength
        Place in the order of precedence, 0 is the strongest; the last place says nothing.
    fraud_type, situation
        DICT's terms; empty where it tells none.
    """

    event: str
    report_id: str
    last_modified: int
    known_at: int
    strength: int
    fraud_type: str = ""
    situation: str = ""


def known_at(feedback: Feedback, kafka_timestamp_ms: int) -> int:
    """When a message became known, epoch milliseconds: not later than the log got it, which below 0 does not tell."""
    return feedback.timestamp if kafka_timestamp_ms < 0 else min(feedback.timestamp, kafka_timestamp_ms)


def statement(feedback: Feedback, kafka_timestamp_ms: int) -> Statement | None:
    """What a message says; None for one that never says anything of the label."""
    if feedback.event == "FUNDS_RECOVERY":
        return None
    return Statement(
        feedback.event,
        feedback.report_id,
        feedback.last_modified,
        known_at(feedback, kafka_timestamp_ms),
        _strength(feedback),
        feedback.fraud_type or "",
        feedback.situation or "",
    )


_STRENGTHS: dict[tuple[str, str, str | None], int] = {
    ("FRAUD_MARKER", "REGISTERED", None): 0,
    ("INFRACTION_REPORT", "CLOSED", "AGREED"): 1,
    ("ANALYST", "CLOSED", "AGREED"): 2,
    ("ANALYST", "CLOSED", "DISAGREED"): 3,
    ("INFRACTION_REPORT", "CLOSED", "DISAGREED"): 4,
    ("CONTESTED", "OPEN", None): 5,
    ("INFRACTION_REPORT", "OPEN", None): 5,
    ("INFRACTION_REPORT", "ACKNOWLEDGED", None): 5,
    ("PRECAUTIONARY_BLOCK", "BLOCKED", None): 6,
    ("PRECAUTIONARY_BLOCK", "RETURNED", None): 6,
    ("REFUND", "OPEN", None): 7,
    ("REFUND", "CLOSED", None): 7,
    ("RETURN", "SETTLED", None): 7,
}
"""By event, status and, of what was analysed, the result. Everything else says nothing."""


def _strength(feedback: Feedback) -> int:
    is_analysed = feedback.event in {"INFRACTION_REPORT", "ANALYST"} and feedback.status == "CLOSED"
    result = feedback.analysis_result if is_analysed else None
    return _STRENGTHS.get((feedback.event, feedback.status, result), _SILENT)


class LabelState(msgspec.Struct, frozen=True, array_like=True):
    """All that was said about one payment.

    Parameters
    ----------
    statements
        Sorted; at most one for each version of each report.

    Examples
    --------
    >>> said = [
    ...     Statement("INFRACTION_REPORT", "r", last_modified=10, known_at=10, strength=5),
    ...     Statement("INFRACTION_REPORT", "r", last_modified=20, known_at=25, strength=1),
    ... ]
    >>> state = LabelState().told(said)
    >>> state.as_of(20)
    Label(label=None, basis='CONTESTED', weight=1.0, fraud_type=None, situation=None)
    >>> state.latest.label
    1
    """

    statements: tuple[Statement, ...] = ()

    def told(self, statements: Iterable[Statement]) -> LabelState:
        """Return the state that knows these too; a repeat changes nothing."""
        versions = {_version(each): each for each in self.statements}
        for each in statements:
            version = _version(each)
            # Of two that claim to be one version, the earlier known: whichever comes first, the outcome is the same.
            versions[version] = min(versions.get(version, each), each, key=_by_knowledge)
        return LabelState(tuple(sorted(versions.values())))

    def as_of(self, instant_ms: int) -> Label:
        """The label as it was known at an instant, epoch milliseconds."""
        known = [each for each in self.statements if each.known_at <= instant_ms]
        # Sorted by version: the last one of each report stays.
        said = sorted({(each.event, each.report_id): each for each in known}.values(), key=lambda each: each.strength)
        if not said or said[0].strength == _SILENT:
            return SILENCE
        told = [each for each in said if each.strength < _SILENT]
        return _MEANINGS[said[0].strength]._replace(
            fraud_type=next((each.fraud_type for each in told if each.fraud_type), None),
            situation=next((each.situation for each in told if each.situation), None),
        )

    def said_by(self, instant_ms: int) -> bool:
        """Whether anything was said by an instant, even if it was taken back."""
        return any(each.known_at <= instant_ms for each in self.statements)

    @property
    def latest(self) -> Label:
        """The label as all of it is known."""
        return self.as_of(self.known_at)

    @property
    def known_at(self) -> int:
        """When the last of it became known, epoch milliseconds; 0 where there is nothing."""
        return max((each.known_at for each in self.statements), default=0)

    def to_bytes(self) -> bytes:
        """Pack it, for `from_bytes`."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, packed: bytes) -> LabelState:
        """Read what `to_bytes` packed.

        Raises
        ------
        msgspec.DecodeError
            For anything else.
        """
        return _decode(packed)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LabelState).decode


def _version(said: Statement) -> tuple[str, str, int]:
    return said.event, said.report_id, said.last_modified


def _by_knowledge(said: Statement) -> tuple[int, Statement]:
    return said.known_at, said
