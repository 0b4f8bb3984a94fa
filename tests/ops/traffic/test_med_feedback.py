"""Feedback follows the MED: late, in order, wrong at times, and sometimes taken back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from ops.traffic.feedback import FeedbackConfig, FeedbackMessage, MedFeedback
from ops.traffic.generator import Simulated, TrafficConfig, generate

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def follow(messages: list[Simulated], config: FeedbackConfig) -> list[FeedbackMessage]:
    """Return all feedback, collected as a sender would: what is due after each message, then the rest."""
    med = MedFeedback(config)
    told: list[FeedbackMessage] = []
    for simulated in messages:
        med.observe(simulated)
        told += med.due(simulated.arrival_ms)
    return told + list(med.drain())


def decode(message: FeedbackMessage) -> Feedback:
    """Return the message as the application reads it."""
    decoded = decode_feedback(message.value, message.key, message.at_ms, TimeLimits())
    assert isinstance(decoded, Feedback), decoded
    return decoded


@pytest.fixture(scope="module")
def told(dense: list[Simulated]) -> list[FeedbackMessage]:
    """Return the feedback of the dense traffic with many contests."""
    return follow(dense, FeedbackConfig(seed=3, contested_honest=0.05, taken_back=0.1))


@pytest.fixture(scope="module")
def cases(told: list[FeedbackMessage]) -> dict[str, list[Feedback]]:
    """Return what was told of each contested payment."""
    found: dict[str, list[Feedback]] = defaultdict(list)
    for message in told:
        feedback = decode(message)
        found[feedback.end_to_end_id].append(feedback)
    return {each: events for each, events in found.items() if any(event.event == "CONTESTED" for event in events)}


def moment(events: list[Feedback], event: str, status: str) -> int | None:
    """Return when a payment's case reached a state, or None."""
    return next((each.timestamp for each in events if (each.event, each.status) == (event, status)), None)


def test_every_message_is_accepted_and_in_order_of_time(told: list[FeedbackMessage]) -> None:
    """The strict decoder takes them all, keyed by their payment; time never goes back."""
    times = [decode(message).timestamp for message in told]
    assert times == [message.at_ms for message in told]
    assert times == sorted(times)
    assert len(times) > 1_000


def test_nothing_is_known_before_its_payment(dense: list[Simulated], told: list[FeedbackMessage]) -> None:
    """Each event follows the arrival of a payment that exists."""
    arrivals = {each.payment.end_to_end_id: each.arrival_ms for each in dense if each.payment and not each.is_retry}
    assert all(message.at_ms > arrivals[message.key.decode()] for message in told)


def test_a_till_is_not_reported_for_the_cash_that_it_handed_out(dense: list[Simulated]) -> None:
    """Although a victim under threat drew it: MED leaves third parties in good faith alone."""
    cash = [each for each in dense if each.payment is not None and each.payment.purpose in {"OTHR", "GSCB"}]
    assert any(each.label is not None for each in cash)
    assert not follow(cash, FeedbackConfig(seed=3, contested_fraud=1.0, contested_honest=1.0))


def test_a_case_goes_through_its_states_in_order(cases: dict[str, list[Feedback]]) -> None:
    """Contest, report, analysis, marker, refund, return; what is reached is reached in that order."""
    path = [
        ("CONTESTED", "OPEN"), ("INFRACTION_REPORT", "OPEN"), ("INFRACTION_REPORT", "ACKNOWLEDGED"),
        ("INFRACTION_REPORT", "CLOSED"), ("FRAUD_MARKER", "REGISTERED"), ("REFUND", "OPEN"), ("REFUND", "CLOSED"),
        ("RETURN", "SETTLED"),
    ]  # fmt: skip
    for events in cases.values():
        reached = [when for when in (moment(events, *state) for state in path) if when is not None]
        assert reached == sorted(reached)
        closed = next((each for each in events if (each.event, each.status) == ("INFRACTION_REPORT", "CLOSED")), None)
        agreed = closed is not None and closed.analysis_result == "AGREED"
        assert agreed == (moment(events, "FRAUD_MARKER", "REGISTERED") is not None)
        assert agreed == (moment(events, "REFUND", "CLOSED") is not None)


def test_a_marker_names_its_receiver_and_its_kind(cases: dict[str, list[Feedback]], dense: list[Simulated]) -> None:
    """Whoever keeps lists needs account, bank, key where there was one, and the type of fraud."""
    payments = {each.payment.end_to_end_id: each.payment for each in dense if each.payment}
    markers = [event for events in cases.values() for event in events if event.event == "FRAUD_MARKER"]
    assert markers
    for marker in markers:
        payment = payments[marker.end_to_end_id]
        assert (marker.receiver_account, marker.receiver_ispb) == (payment.receiver_account, payment.receiver_ispb)
        assert marker.pix_key == payment.pix_key
        assert marker.fraud_type is not None


def test_contests_come_with_the_delays_of_the_brief(cases: dict[str, list[Feedback]], dense: list[Simulated]) -> None:
    """45 % within an hour, 75 % within a day, 90 % within a week, all within 80 days."""
    arrivals = {each.payment.end_to_end_id: each.arrival_ms for each in dense if each.payment and not each.is_retry}
    delays = [(moment(events, "CONTESTED", "OPEN") or 0) - arrivals[each] for each, events in cases.items()]
    shares = [sum(delay <= bound for delay in delays) / len(delays) for bound in (HOUR_MS, DAY_MS, 7 * DAY_MS)]
    assert shares == pytest.approx([0.45, 0.75, 0.90], abs=0.05)
    assert max(delays) <= 80 * DAY_MS


def test_analysis_takes_up_to_seven_days(cases: dict[str, list[Feedback]]) -> None:
    """From the report to its closing, evenly spread."""
    spans = [
        closed - opened
        for events in cases.values()
        if (closed := moment(events, "INFRACTION_REPORT", "CLOSED"))
        and (opened := moment(events, "INFRACTION_REPORT", "OPEN"))
    ]
    assert max(spans) <= 7.1 * DAY_MS
    assert sum(spans) / len(spans) == pytest.approx(3.5 * DAY_MS, rel=0.15)


def test_banks_err_both_ways_and_some_labels_are_reversed(
    cases: dict[str, list[Feedback]], dense: list[Simulated]
) -> None:
    """Frauds that are disagreed with, honest payments that are contested, agreed reports that are cancelled."""
    truth = {each.payment.end_to_end_id: each.label is not None for each in dense if each.payment}
    verdicts = {
        (truth[each], event.analysis_result)
        for each, events in cases.items()
        for event in events
        if event.analysis_result
    }
    assert {(True, "AGREED"), (True, "DISAGREED"), (False, "DISAGREED")} <= verdicts
    reversals = 0
    for events in cases.values():
        cancelled = moment(events, "FRAUD_MARKER", "CANCELLED")
        if cancelled is not None:
            reversals += 1
            assert cancelled > (moment(events, "FRAUD_MARKER", "REGISTERED") or cancelled)
            assert moment(events, "INFRACTION_REPORT", "CANCELLED") is not None
    assert reversals > 3


def test_reports_of_two_runs_have_names_of_their_own(dense_config: TrafficConfig) -> None:
    """Simulators of one seed, started a millisecond apart, never speak of one report: it would count once only."""
    config, feedback = replace(dense_config, count=4_000), FeedbackConfig(seed=3, contested_honest=0.05)
    first, second = (
        {decode(message).report_id for message in follow(list(generate(run)), feedback)}
        for run in (config, replace(config, start_ms=config.start_ms + 1))
    )
    assert first
    assert first.isdisjoint(second)


def test_a_tenth_of_contests_is_confirmed_at_the_default_shares() -> None:
    """The default rates give the published acceptance, computed from the shares themselves."""
    config, fraud_share = FeedbackConfig(), 0.003
    confirmed = fraud_share * config.contested_fraud * config.agreed_fraud
    confirmed += config.contested_honest * config.agreed_honest
    contested = fraud_share * config.contested_fraud + config.contested_honest
    assert confirmed / contested == pytest.approx(0.10, abs=0.03)


def test_refunds_have_the_published_outcomes(cases: dict[str, list[Feedback]], dense: list[Simulated]) -> None:
    """15 % in full, 19 % in part, the rest nothing; only money that was found is returned."""
    amounts = {each.payment.end_to_end_id: each.payment.amount_centavos for each in dense if each.payment}
    ratios = [
        (event.amount_centavos or 0) / amounts[each]
        for each, events in cases.items()
        for event in events
        if (event.event, event.status) == ("REFUND", "CLOSED")
    ]
    full = sum(ratio == 1 for ratio in ratios) / len(ratios)
    none = sum(ratio == 0 for ratio in ratios) / len(ratios)
    assert full == pytest.approx(0.15, abs=0.06)
    assert none == pytest.approx(0.66, abs=0.08)
    returned = sum(moment(events, "RETURN", "SETTLED") is not None for events in cases.values())
    assert returned == sum(ratio > 0 for ratio in ratios)


def test_a_scale_brings_feedback_within_minutes(dense: list[Simulated]) -> None:
    """With a thousandth of the delays, most is known in the first quarter of an hour."""
    arrivals = {each.payment.end_to_end_id: each.arrival_ms for each in dense if each.payment and not each.is_retry}
    told = follow(dense, FeedbackConfig(seed=3, delay_scale=0.001))
    delays = [message.at_ms - arrivals[message.key.decode()] for message in told]
    assert sum(delay < 15 * 60_000 for delay in delays) > 0.7 * len(delays)


def test_the_same_payments_have_the_same_fate(dense: list[Simulated], told: list[FeedbackMessage]) -> None:
    """Two runs agree byte by byte, however the second one is collected."""
    med = MedFeedback(FeedbackConfig(seed=3, contested_honest=0.05, taken_back=0.1))
    for simulated in dense:
        med.observe(simulated)
    assert list(med.drain()) == told


@pytest.mark.parametrize(("name", "value"), [("delay_scale", 0.0), ("agreed_fraud", 1.5)])
def test_a_bad_setting_is_refused_by_name(name: str, value: float) -> None:
    """The error says which one, and what it got."""
    with pytest.raises(ValueError, match=f"{name} .*got {value}"):
        FeedbackConfig(**{name: value})  # type: ignore[arg-type]
