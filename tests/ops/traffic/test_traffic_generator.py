"""`generate` is a function of its configuration, and all that it yields can be decoded."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS, Kind
from app.domain.rejection import Rejection
from app.domain.transaction import decode_strict
from ops.traffic.generator import Simulated, TrafficConfig, generate
from ops.traffic.stories import Label, Typology
from tables.typologies import TYPOLOGIES

LIMITS = TimeLimits()


def test_the_same_configuration_gives_the_same_bytes(dense_config: TrafficConfig) -> None:
    """Two runs agree in every message, label and arrival; another seed gives other payments."""
    config = replace(dense_config, count=9_000)
    first, second = list(generate(config)), list(generate(config))
    assert first == second
    other = generate(replace(config, seed=8))
    assert {each.value for each in first}.isdisjoint(each.value for each in other)


def test_a_longer_run_begins_with_the_shorter_one(dense_config: TrafficConfig, dense: list[Simulated]) -> None:
    """Where a run ends, and how it is consumed, changes nothing of what came before."""
    shorter = list(itertools.islice(generate(replace(dense_config, duration_s=None)), 6_000))
    assert shorter == dense[:6_000]


def test_two_runs_of_one_seed_share_no_identifier(dense_config: TrafficConfig) -> None:
    """A millisecond between their starts is enough, so that simulators may run side by side."""
    first, second = (
        {each.payment.end_to_end_id for each in generate(config) if each.payment is not None}
        for config in (
            replace(dense_config, count=5_000),
            replace(dense_config, count=5_000, start_ms=dense_config.start_ms + 1),
        )
    )
    assert first.isdisjoint(second)


def test_a_finite_run_ends_at_its_duration(dense_config: TrafficConfig) -> None:
    """Late messages, retries and the later steps of stories are cut off: it is the beginning of an endless run."""
    config = replace(dense_config, duration_s=7_200.0, late_share=0.3, retry_share=0.3)
    end_ms = config.start_ms + 7_200_000
    finite = list(generate(config))
    endless = itertools.takewhile(lambda each: each.arrival_ms < end_ms, generate(replace(config, duration_s=None)))
    assert finite == list(endless)
    assert max(each.payment.at_ms for each in finite if each.payment is not None) < end_ms
    assert any(each.is_retry for each in finite)


def test_every_message_is_accepted_and_every_damaged_one_rejected(dense: list[Simulated]) -> None:
    """The strict decoder takes all that tells of a payment, and nothing else."""
    for simulated in dense:
        decoded = decode_strict(simulated.value, simulated.key, simulated.arrival_ms, LIMITS)
        assert isinstance(decoded, Rejection) == (simulated.payment is None), decoded
    assert sum(simulated.payment is None for simulated in dense) > 5


def test_the_whole_dict_snapshot_can_be_written(dense_config: TrafficConfig) -> None:
    """On request, every counter of DICT is in the messages, and they stay valid."""
    written: set[str] = set()
    for simulated in generate(replace(dense_config, count=300, malformed_share=0.0, full_snapshot=True)):
        decoded = decode_strict(simulated.value, simulated.key, simulated.arrival_ms, LIMITS)
        assert not isinstance(decoded, Rejection)
        written |= set(decoded)
    counters = {field.name for field in FIELDS if field.name.startswith("dict_") and field.kind is Kind.COUNT}
    assert counters <= written


def test_arrivals_are_in_order_and_a_few_are_late(dense: list[Simulated]) -> None:
    """Arrival never goes back; event time does for about the share that was asked for."""
    arrivals = [simulated.arrival_ms for simulated in dense]
    assert arrivals == sorted(arrivals)
    fresh = [each for each in dense if each.payment is not None and not each.is_retry]
    late = sum(each.payment is not None and each.arrival_ms > each.payment.at_ms for each in fresh)
    assert 0.002 < late / len(fresh) < 0.010


def test_retries_repeat_an_earlier_message_and_nothing_else_does(dense: list[Simulated]) -> None:
    """An end_to_end_id comes again only when the producer sends the same bytes again."""
    sent: dict[str, bytes] = {}
    retries = 0
    for simulated in (each for each in dense if each.payment is not None):
        assert simulated.payment is not None
        identifier = simulated.payment.end_to_end_id
        assert (identifier in sent) or not simulated.is_retry
        if identifier in sent:
            assert sent[identifier] == simulated.value
            retries += 1
        sent[identifier] = simulated.value
    assert retries > 10


def test_a_run_without_disorder_has_none(dense_config: TrafficConfig) -> None:
    """With the shares at zero, every message arrives once, at its time, whole."""
    config = replace(dense_config, count=5_000, late_share=0.0, retry_share=0.0, malformed_share=0.0)
    for simulated in generate(config):
        assert simulated.payment is not None
        assert simulated.arrival_ms == simulated.payment.at_ms
        assert not simulated.is_retry


def stories_of(messages: list[Simulated]) -> dict[int, list[tuple[Label, Simulated]]]:
    """Return the labelled messages of each story, in order of time."""
    stories: dict[int, list[tuple[Label, Simulated]]] = defaultdict(list)
    for simulated in messages:
        if simulated.label is not None and not simulated.is_retry:
            stories[simulated.label.story].append((simulated.label, simulated))
    return stories


def test_every_typology_is_told_in_several_steps(dense: list[Simulated]) -> None:
    """Each fraud of the brief that moves money appears, in stories of more than one payment."""
    several: Counter[Typology] = Counter()
    for steps in stories_of(dense).values():
        assert len({label.typology for label, _ in steps}) == 1
        several[steps[0][0].typology] += len(steps) > 1
    assert set(several) == {name for name, each in TYPOLOGIES.items() if each.in_stream}
    assert min(several.values()) >= 1


def test_mules_pass_on_within_the_hour_what_they_received(dense: list[Simulated]) -> None:
    """In most mule stories some receiver of a victim's money pays again within an hour."""
    passed = total = 0
    for steps in stories_of(dense).values():
        if steps[0][0].typology is not Typology.MULE:
            continue
        total += 1
        payments = [simulated.payment for _, simulated in steps if simulated.payment is not None]
        passed += any(
            later.payer == earlier.receiver and 0 < later.at_ms - earlier.at_ms < 3_600_000
            for earlier, later in itertools.permutations(payments, 2)
        )
    assert total >= 5
    assert passed > 0.6 * total


def test_the_fraud_share_is_near_what_was_asked_for(dense: list[Simulated]) -> None:
    """Within the noise of some hundred stories."""
    labelled = sum(each.label is not None for each in dense)
    assert 0.02 < labelled / len(dense) < 0.04


def test_no_payment_exceeds_its_payers_limit_or_an_unregistered_devices(dense: list[Simulated]) -> None:
    """The bank's app enforces both before a payment exists, for honest clients and criminals."""
    unregistered = 0
    for simulated in dense:
        decoded = decode_strict(simulated.value, simulated.key, simulated.arrival_ms, LIMITS)
        if isinstance(decoded, Rejection) or decoded.get("purpose") in {"REFU", "IPRT"}:
            continue
        amount, limit = decoded["amount_centavos"], decoded["payer_limit_centavos"]
        assert isinstance(amount, int)
        assert isinstance(limit, int)
        assert amount <= limit
        if decoded.get("device_registered") is False:
            unregistered += 1
            assert amount <= 20_000
    assert unregistered > 10


def test_cash_is_drawn_now_and_then_and_within_its_limits(dense: list[Simulated]) -> None:
    """By honest people, victims under threat and mules; a payer's sum is at most R$ 3,000 by day, 1,000 by night."""
    day_ms, hour_ms = 86_400_000, 3_600_000
    drawn: Counter[tuple[int, int, bool]] = Counter()
    payments = [each for each in dense if each.payment is not None and not each.is_retry]
    cash = [each for each in payments if each.payment is not None and each.payment.purpose in {"OTHR", "GSCB"}]
    for each in cash:
        assert each.payment is not None
        day, of_day = divmod(each.payment.at_ms - 9 * hour_ms, day_ms)  # days begin at 6 h in Brasília
        drawn[each.payment.payer, day, of_day >= 14 * hour_ms] += each.payment.amount_centavos
    assert all(sum_centavos <= (100_000 if night else 300_000) for (_, _, night), sum_centavos in drawn.items())
    honest = sum(each.label is None for each in cash)
    assert 0.0001 < honest / len(payments) < 0.002
    labels = [each.label for each in cash if each.label is not None]
    assert any(label.typology is Typology.COERCION for label in labels)
    assert any(label.by_accomplice for label in labels)


def test_refunds_come_from_no_session_and_name_no_key(dense: list[Simulated]) -> None:
    """REFU and IPRT have a form of their own and no label."""
    refunds = [each for each in dense if each.payment is not None and each.payment.purpose in {"REFU", "IPRT"}]
    assert {each.payment.purpose for each in refunds if each.payment is not None} == {"REFU", "IPRT"}
    for refund in refunds:
        decoded = decode_strict(refund.value, refund.key, refund.arrival_ms, LIMITS)
        assert not isinstance(decoded, Rejection)
        assert refund.label is None
        assert not {"pix_key", "device_id", "channel", "session_flags"} & set(decoded)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rate_per_s": 0.0}, "rate_per_s above 0, got 0.0"),
        ({"fraud_share": 0.9}, "fraud_share within 0 and 0.5, got 0.9"),
        ({"count": 0}, "count above 0, got 0"),
        ({"duration_s": -1.0}, "duration_s above 0, got -1.0"),
        ({"start_ms": 1_790_000_000}, "start_ms in epoch milliseconds"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(change: dict[str, float], complaint: str) -> None:
    """The error says which option is wrong, and what it got."""
    with pytest.raises(ValueError, match=complaint):
        TrafficConfig(**{"start_ms": 1_790_000_000_000, **change})  # type: ignore[arg-type]
