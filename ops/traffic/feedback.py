"""What becomes known about payments afterwards: the MED's events, late, sometimes wrong, sometimes taken back.

No delay distribution is published; the one here is the default of pix-domain.md section 6. Messages are those of
`pix-feedback` (`app/domain/feedback.py`).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np

from ops.traffic import documents
from ops.traffic.generator import Simulated
from ops.traffic.messages import CASH, REFUNDS, Payment
from ops.traffic.reputation import ANALYSIS_MS, contest_delay_ms
from ops.traffic.seasons import DAY_MS, HOUR_MS, MINUTE_MS
from ops.traffic.stories import Label, Typology

__all__ = ["FeedbackConfig", "FeedbackMessage", "MedFeedback"]

_REFUND_MS = 72 * HOUR_MS
_REVERSAL_MS = 20 * DAY_MS

# Outcome of refunds, Q1 2026: share, least and most of the amount that comes back.
_OUTCOMES: Final = ((0.15, 1.0, 1.0), (0.19, 0.05, 0.9), (0.66, 0.0, 0.0))

_SITUATIONS: Final = {
    Typology.REMOTE_ACCESS: "FRAUDULENT_ACCESS",
    Typology.SIM_SWAP: "FRAUDULENT_ACCESS",
    Typology.COERCION: "COERCION",
    Typology.DORMANT: "SCAM",
}
_FRAUD_TYPES: Final = {
    Typology.FAKE_SHOP: "SCAMMER_ACCOUNT",
    Typology.QR_TAMPERING: "SCAMMER_ACCOUNT",
    Typology.GROWING_AMOUNTS: "SCAMMER_ACCOUNT",
    Typology.DORMANT: "APPLICATION_FRAUD",
}


@dataclass(frozen=True, slots=True)
class FeedbackConfig:
    """How much becomes known, how late and how wrong.

    Parameters
    ----------
    seed
        Same payments and configuration, same feedback.
    delay_scale
        Factor on every delay: 1 is real time (up to 91 days), 0.001 shows most feedback within minutes.
    contested_fraud
        Share of frauds that the victim contests.
    contested_honest
        Share of honest payments that are contested (commerce disputes, regret, abuse). The default makes about a
        tenth of all contests confirmed at the default fraud share, as is published: who learns from contests meets
        the real ratio. DICT's snapshot has the real frequency instead (`HONEST_REPORT_SHARE`), since with this one
        every busy payee would be under report.
    agreed_fraud, agreed_honest
        Share of contests that the receiver's bank agrees with: it errs both ways.
    taken_back
        Share of agreed reports that are cancelled afterwards, with their marker.

    Raises
    ------
    ValueError
        If a share is outside 0 to 1 or the scale is not positive.
    """

    seed: int = 1
    delay_scale: float = 1.0
    contested_fraud: float = 0.8
    contested_honest: float = 0.017
    agreed_fraud: float = 0.8
    agreed_honest: float = 0.01
    taken_back: float = 0.04

    def __post_init__(self) -> None:
        if not self.delay_scale > 0:
            raise ValueError(f"Expected delay_scale above 0, got {self.delay_scale}")
        for name in ("contested_fraud", "contested_honest", "agreed_fraud", "agreed_honest", "taken_back"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Expected {name} within 0 and 1, got {getattr(self, name)}")


class FeedbackMessage(NamedTuple):
    """One message of `pix-feedback`.

    Parameters
    ----------
    at_ms
        Epoch milliseconds at which it becomes known.
    key, value
        Kafka key (the `end_to_end_id`) and JSON bytes.
    """

    at_ms: int
    key: bytes
    value: bytes


class MedFeedback:
    """Follows a stream of payments and tells, in order of time, what becomes known about them.

    Parameters
    ----------
    config
        Delays and errors.

    Notes
    -----
    Call `observe` for each message in the order of `generate`, `due` to collect what is known by an instant, and
    `drain` for the rest. Only reports under way are kept in memory.
    """

    def __init__(self, config: FeedbackConfig) -> None:
        self._config = config
        self._rng = np.random.default_rng([config.seed, 5])
        self._pending: list[tuple[int, int, FeedbackMessage]] = []
        self._serial = 0
        self._chances: list[float] = []
        self._encode = msgspec.json.Encoder().encode

    def observe(self, simulated: Simulated) -> None:
        """Decide what will become known about a payment; retries and damaged messages have no fate of their own.

        Nor have cash and refunds: a till that handed out money is a third party in good faith, whom MED leaves alone.
        """
        payment = simulated.payment
        if payment is None or simulated.is_retry or payment.purpose in REFUNDS | CASH:
            return
        if not self._chances:  # one draw per payment: by thousands, since a single one costs more than the message
            self._chances = self._rng.random(4_096).tolist()
        chance, label, seen_ms = self._chances.pop(), simulated.label, simulated.arrival_ms
        config = self._config
        if label is not None and label.by_accomplice:
            if chance < 0.35:  # MED 2.0 follows the money: the next hop's bank gets a report of its own
                self._follow(payment, seen_ms, label)
        elif label is not None:
            if chance < config.contested_fraud:
                self._contest(payment, seen_ms, label, config.agreed_fraud)
        elif chance < config.contested_honest:
            self._contest(payment, seen_ms, None, config.agreed_honest)
        if label is not None and chance > 0.90:
            self._review(payment, seen_ms, label)
        elif label is None and chance > 0.999:
            self._review(payment, seen_ms, None)

    def due(self, until_ms: int) -> Iterator[FeedbackMessage]:
        """Yield what is known up to and including an instant, in order of time."""
        while self._pending and self._pending[0][0] <= until_ms:
            yield heapq.heappop(self._pending)[2]

    def drain(self) -> Iterator[FeedbackMessage]:
        """Yield all that is left, in order of time."""
        while self._pending:
            yield heapq.heappop(self._pending)[2]

    def _contest(self, payment: Payment, seen_ms: int, label: Label | None, agreed_share: float) -> None:
        """The client contests; the report is analysed; money comes back, or none; some take it back."""
        rng, case = self._rng, _Case(payment, _identifier(payment), self._situation(label))
        at_ms = seen_ms + self._contest_delay_ms()
        self._tell(at_ms, case, "CONTESTED", "OPEN")
        opened_ms = at_ms + self._delay(rng.uniform(0.0, 0.5) * HOUR_MS)
        self._tell(opened_ms, case, "INFRACTION_REPORT", "OPEN")
        self._block(case, opened_ms, is_fraud=label is not None)
        self._tell(opened_ms + self._delay(5 * MINUTE_MS), case, "INFRACTION_REPORT", "ACKNOWLEDGED")
        self._tell(opened_ms + self._delay(MINUTE_MS), case, "FUNDS_RECOVERY", "CREATED")
        self._tell(opened_ms + self._delay(3 * MINUTE_MS), case, "FUNDS_RECOVERY", "TRACKED")
        self._tell(opened_ms + self._delay(6 * MINUTE_MS), case, "FUNDS_RECOVERY", "AWAITING_ANALYSIS")
        closed_ms = opened_ms + self._delay(10 * MINUTE_MS + rng.random() * ANALYSIS_MS)
        agreed = rng.random() < agreed_share
        if not agreed and rng.random() < 0.2:  # settled between the two before the analysis ends
            self._tell(closed_ms, case, "CONTESTED", "CANCELLED")
            self._tell(closed_ms, case, "INFRACTION_REPORT", "CANCELLED")
            self._tell(closed_ms, case, "FUNDS_RECOVERY", "CANCELLED")
            return
        fraud_type = self._fraud_type(label) if agreed else None
        self._close(closed_ms, case, agreed=agreed, fraud_type=fraud_type)
        self._tell(closed_ms + self._delay(2 * MINUTE_MS), case, "FUNDS_RECOVERY", "ANALYSED")
        if not agreed:
            self._tell(closed_ms + self._delay(4 * MINUTE_MS), case, "FUNDS_RECOVERY", "CANCELLED")
        else:
            self._refund(closed_ms, case)
            if rng.random() < self._config.taken_back:
                self._take_back(closed_ms, case, fraud_type)

    def _follow(self, payment: Payment, seen_ms: int, label: Label) -> None:
        """A hop further down the chain is reported and marked without a contest of its payer."""
        case = _Case(payment, _identifier(payment), self._situation(label))
        opened_ms = seen_ms + self._contest_delay_ms()
        self._tell(opened_ms, case, "INFRACTION_REPORT", "OPEN")
        closed_ms = opened_ms + self._delay(self._rng.random() * ANALYSIS_MS)
        agreed = self._rng.random() < self._config.agreed_fraud
        self._close(closed_ms, case, agreed=agreed, fraud_type="MULE_ACCOUNT" if agreed else None)

    def _close(self, at_ms: int, case: _Case, *, agreed: bool, fraud_type: str | None) -> None:
        result = "AGREED" if agreed else "DISAGREED"
        self._tell(at_ms, case, "INFRACTION_REPORT", "CLOSED", analysis_result=result, fraud_type=fraud_type)
        if agreed:
            marker_ms = at_ms + self._delay(MINUTE_MS)
            self._tell(marker_ms, case, "FRAUD_MARKER", "REGISTERED", fraud_type=fraud_type)

    def _refund(self, closed_ms: int, case: _Case) -> None:
        """Ask for the refund; where a balance was left, a return settles."""
        rng = self._rng
        asked_ms = closed_ms + self._delay(5 * MINUTE_MS)
        self._tell(asked_ms, case, "REFUND", "OPEN", amount_centavos=case.payment.amount_centavos)
        self._tell(asked_ms, case, "FUNDS_RECOVERY", "REFUNDING")
        refunded_ms = asked_ms + self._delay(5 * MINUTE_MS + rng.random() * _REFUND_MS)
        outcome = int(rng.choice(len(_OUTCOMES), p=[row[0] for row in _OUTCOMES]))
        amount = int(case.payment.amount_centavos * rng.uniform(*_OUTCOMES[outcome][1:]))
        self._tell(refunded_ms, case, "REFUND", "CLOSED", amount_centavos=amount)
        if amount > 0:
            self._tell(refunded_ms + self._delay(MINUTE_MS), case, "RETURN", "SETTLED", amount_centavos=amount)
        done_ms = refunded_ms + self._delay(2 * MINUTE_MS)
        self._tell(done_ms, case, "FUNDS_RECOVERY", "COMPLETED", amount_centavos=amount)

    def _take_back(self, closed_ms: int, case: _Case, fraud_type: str | None) -> None:
        """The opener cancels an agreed report, which cancels the marker: the label is reversed."""
        at_ms = closed_ms + self._delay(HOUR_MS + self._rng.random() * _REVERSAL_MS)
        self._tell(at_ms, case, "INFRACTION_REPORT", "CANCELLED")
        self._tell(at_ms + self._delay(MINUTE_MS), case, "FRAUD_MARKER", "CANCELLED", fraud_type=fraud_type)

    def _block(self, case: _Case, opened_ms: int, *, is_fraud: bool) -> None:
        """The receiver's bank may block the amount for up to 72 h, then release it (71 %) or return it."""
        if self._rng.random() > (0.3 if is_fraud else 0.04):
            return
        amount = case.payment.amount_centavos
        blocked_ms = opened_ms + self._delay(2 * MINUTE_MS)
        self._tell(blocked_ms, case, "PRECAUTIONARY_BLOCK", "BLOCKED", amount_centavos=amount)
        ended_ms = blocked_ms + self._delay(HOUR_MS + self._rng.random() * 71 * HOUR_MS)
        returned = self._rng.random() < (0.6 if is_fraud else 0.1)
        status = "RETURNED" if returned else "RELEASED"
        self._tell(ended_ms, case, "PRECAUTIONARY_BLOCK", status, amount_centavos=amount)

    def _review(self, payment: Payment, seen_ms: int, label: Label | None) -> None:
        """The bank's own analyst looks at a payment and is right most of the time."""
        case = _Case(payment, _identifier(payment), None)
        at_ms = seen_ms + self._delay(15 * MINUTE_MS + self._rng.exponential(6.0) * HOUR_MS)
        agreed = (label is not None) == bool(self._rng.random() < 0.95)
        result = "AGREED" if agreed else "DISAGREED"
        self._tell(at_ms, case, "ANALYST", "CLOSED", analysis_result=result)

    def _contest_delay_ms(self) -> int:
        return self._delay(contest_delay_ms(self._rng))

    def _delay(self, milliseconds: float) -> int:
        return max(int(milliseconds * self._config.delay_scale), 1)

    def _situation(self, label: Label | None) -> str:
        if label is None:
            return "SCAM" if self._rng.random() < 0.8 else "OTHER"
        return _SITUATIONS.get(label.typology, "SCAM")

    def _fraud_type(self, label: Label | None) -> str:
        return "OTHER" if label is None else _FRAUD_TYPES.get(label.typology, "MULE_ACCOUNT")

    def _tell(self, at_ms: int, case: _Case, event: str, status: str, **details: str | int | None) -> None:
        payment = case.payment
        message: dict[str, object] = {
            "end_to_end_id": payment.end_to_end_id,
            "timestamp": at_ms,
            "event": event,
            "status": status,
            "report_id": f"{event}-{case.identifier}",
            "last_modified": at_ms,
            "receiver_account": payment.receiver_account,
            "receiver_ispb": payment.receiver_ispb,
            "payer_account": payment.payer_account,
            "payer_ispb": payment.payer_ispb,
            **{name: value for name, value in details.items() if value is not None},
        }
        if payment.pix_key is not None:
            message["pix_key"] = payment.pix_key
        if case.situation is not None:
            message["situation"] = case.situation
        self._serial += 1
        told = FeedbackMessage(at_ms, payment.end_to_end_id.encode(), self._encode(message))
        heapq.heappush(self._pending, (at_ms, self._serial, told))


def _identifier(payment: Payment) -> str:
    """A report's identifier, from its payment's: two runs of one seed tell of different payments."""
    digest = hashlib.blake2b(payment.end_to_end_id.encode(), digest_size=16).digest()
    return documents.evp(int.from_bytes(digest[:8]), int.from_bytes(digest[8:]))


class _Case(NamedTuple):
    """A payment under dispute."""

    payment: Payment
    identifier: str
    situation: str | None
