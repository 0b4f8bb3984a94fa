"""What is known of a payment, drawn as timelines, and against an oracle in any order of arrival."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.feedback import EVENT_STATUSES, Feedback
from app.domain.labelled import Basis
from models.labels.labelling import SILENCE, LabelState, Statement, statement

_ID = "E12345678202511301200abcdefghijk"


def _feedback(at: int, event: str, status: str, result: str | None = None, report: str = "") -> Feedback:
    return Feedback(_ID, at, event, status, report or event, at, result)


def _state(*feedback: Feedback) -> LabelState:
    said = [statement(each, -1) for each in feedback]
    return LabelState().told([each for each in said if each is not None])


# At each minute one thing is said: event, status, result; then what is known, as label, basis, weight.
_TIMELINES: dict[str, list[tuple[str, str, str | None, int | None, Basis, float]]] = {
    "agreed and marked": [
        ("CONTESTED", "OPEN", None, None, "CONTESTED", 1.0),
        ("INFRACTION_REPORT", "OPEN", None, None, "CONTESTED", 1.0),
        ("INFRACTION_REPORT", "CLOSED", "AGREED", 1, "REPORT", 1.0),
        ("FRAUD_MARKER", "REGISTERED", None, 1, "MARKER", 1.0),
        ("RETURN", "SETTLED", None, 1, "MARKER", 1.0),
    ],
    "disagreed: honest, but the judge is a party": [
        ("CONTESTED", "OPEN", None, None, "CONTESTED", 1.0),
        ("INFRACTION_REPORT", "OPEN", None, None, "CONTESTED", 1.0),
        ("INFRACTION_REPORT", "ACKNOWLEDGED", None, None, "CONTESTED", 1.0),
        ("INFRACTION_REPORT", "CLOSED", "DISAGREED", 0, "REPORT", 0.5),
    ],
    "taken back, report and marker": [
        ("INFRACTION_REPORT", "CLOSED", "AGREED", 1, "REPORT", 1.0),
        ("FRAUD_MARKER", "REGISTERED", None, 1, "MARKER", 1.0),
        ("INFRACTION_REPORT", "CANCELLED", None, 1, "MARKER", 1.0),
        ("FRAUD_MARKER", "CANCELLED", None, None, "MATURITY", 1.0),
    ],
    "settled between the two": [
        ("CONTESTED", "OPEN", None, None, "CONTESTED", 1.0),
        ("CONTESTED", "CANCELLED", None, None, "MATURITY", 1.0),
    ],
    "the analyst clears it, and the receiver's bank knows better": [
        ("ANALYST", "CLOSED", "DISAGREED", 0, "ANALYST", 1.0),
        ("INFRACTION_REPORT", "OPEN", None, 0, "ANALYST", 1.0),
        ("INFRACTION_REPORT", "CLOSED", "AGREED", 1, "REPORT", 1.0),
    ],
    "the analyst finds it, and takes it back": [
        ("ANALYST", "CLOSED", "AGREED", 1, "ANALYST", 1.0),
        ("ANALYST", "CANCELLED", None, None, "MATURITY", 1.0),
    ],
    "blocked and released": [
        ("PRECAUTIONARY_BLOCK", "BLOCKED", None, None, "BLOCK", 1.0),
        ("PRECAUTIONARY_BLOCK", "RELEASED", None, None, "MATURITY", 1.0),
    ],
    "money comes back, for whatever reason": [
        ("PRECAUTIONARY_BLOCK", "RETURNED", None, None, "BLOCK", 1.0),
        ("REFUND", "CLOSED", None, None, "BLOCK", 1.0),
    ],
    "a refund alone": [
        ("REFUND", "OPEN", None, None, "REFUND", 1.0),
        ("REFUND", "CANCELLED", None, None, "MATURITY", 1.0),
        ("RETURN", "SETTLED", None, None, "REFUND", 1.0),
    ],
}


@pytest.mark.parametrize("name", _TIMELINES)
def test_timeline(name: str) -> None:
    """At each instant the label is what was known then, whatever came later."""
    steps = _TIMELINES[name]
    state = _state(*(_feedback(60 * i, *step[:3]) for i, step in enumerate(steps, 1)))
    assert state.as_of(59) == SILENCE
    for i, step in enumerate(steps, 1):
        for instant in (60 * i, 60 * i + 59):
            assert state.as_of(instant)[:3] == step[3:], (name, i)
    assert state.latest == state.as_of(10**15)
    assert LabelState.from_bytes(state.to_bytes()) == state


def test_recovery_of_funds_says_nothing() -> None:
    """It follows its report through all its states."""
    assert all(
        statement(_feedback(1, "FUNDS_RECOVERY", status), 1) is None for status in EVENT_STATUSES["FUNDS_RECOVERY"]
    )


def test_what_claims_to_come_from_the_future_is_known_when_the_log_has_it() -> None:
    """Kafka's timestamp bounds it from above, not from below."""
    early, late = (statement(_feedback(at, "CONTESTED", "OPEN"), 100) for at in (90, 110))
    assert early is not None
    assert late is not None
    assert (early.known_at, late.known_at) == (90, 100)


def test_terms_come_from_whoever_tells_them() -> None:
    """The marker may lack the situation that the report has; what says nothing any more adds nothing."""
    report = Feedback(_ID, 1, "INFRACTION_REPORT", "CLOSED", "r", 1, "AGREED", "SCAM", "OTHER")
    marker = Feedback(_ID, 2, "FRAUD_MARKER", "REGISTERED", "r", 2, None, None, "MULE_ACCOUNT")
    assert _state(report, marker).latest[3:] == ("MULE_ACCOUNT", "SCAM")
    cancelled = Feedback(_ID, 3, "INFRACTION_REPORT", "CANCELLED", "r", 3, None, "SCAM")
    assert _state(report, marker, cancelled).latest[3:] == ("MULE_ACCOUNT", None)


_STATEMENTS = st.builds(
    Statement,
    event=st.sampled_from(["INFRACTION_REPORT", "FRAUD_MARKER"]),
    report_id=st.sampled_from("ab"),
    last_modified=st.integers(0, 4),
    known_at=st.integers(0, 9),
    strength=st.integers(0, 8),
)


def _naive(said: list[Statement], instant: int) -> int | None:
    """Strength of the strongest that is said at an instant, by looking at each report for itself; None: silence."""
    newest: dict[tuple[str, str], Statement] = {}
    for each in said:
        if each.known_at > instant:
            continue
        # The earliest known of those that claim one version, as far as the whole record tells.
        same = [
            s
            for s in said
            if (s.event, s.report_id, s.last_modified) == (each.event, each.report_id, each.last_modified)
        ]
        best = min(same, key=lambda s: (s.known_at, s))
        report = (each.event, each.report_id)
        if report not in newest or newest[report].last_modified < best.last_modified:
            newest[report] = best
    strongest = min((each.strength for each in newest.values()), default=8)
    return None if strongest == 8 else strongest


@given(st.lists(_STATEMENTS, max_size=8), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same(said: list[Statement], shuffled: random.Random) -> None:
    """One by one, with repeats, in any order: each instant's label is that of the whole record."""
    state = LabelState()
    arrivals = [*said, *said[::2]]
    shuffled.shuffle(arrivals)
    for each in arrivals:
        state = state.told([each])
    assert state == LabelState().told(said)
    meanings = [(1, "MARKER"), (1, "REPORT"), (1, "ANALYST"), (0, "ANALYST"), (0, "REPORT")]
    meanings += [(None, "CONTESTED"), (None, "BLOCK"), (None, "REFUND")]  # type: ignore[list-item]
    for instant in range(-1, 11):
        strength = _naive(said, instant)
        assert state.as_of(instant)[:2] == (SILENCE[:2] if strength is None else meanings[strength])
        assert state.said_by(instant) == any(each.known_at <= instant for each in said)
