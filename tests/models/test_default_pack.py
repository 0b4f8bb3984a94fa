"""The pack that pixguard ships: it fits the catalog, each rule fires where it should, and honest traffic passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.columns import ColumnKind
from app.domain.decision import ACTIONS
from app.domain.field_checks import TimeLimits
from app.domain.fields import PURPOSES
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.rules.examples import example_batch
from models.rules.file import default_pack_text, load_rule_pack
from models.rules.pack import Rule, Verdicts
from models.stages.pipeline import Message, Pipeline
from ops.traffic.feedback import FeedbackConfig, MedFeedback
from ops.traffic.generator import TrafficConfig, generate
from tables.catalog import CATALOG
from tables.typologies import TYPOLOGIES

COLUMNS = CATALOG.column_types()
PACK = load_rule_pack(default_pack_text(), COLUMNS, "default.yaml")

# An ordinary afternoon: R$ 80 by key to a friend of years, from the usual phone.
HONEST: dict[str, object] = {
    **{name: 0 for name, column in COLUMNS.items() if column.kind is ColumnKind.NUMBER},
    "amount_centavos": 8_000,
    "payer_account": "payer",
    "receiver_account": "receiver",
    "pix_key": "key",
    "payer_tax_id": "payer",
    "receiver_tax_id": "receiver",
    "device_id": "device",
    "device_registered": True,
    "initiation": "DICT",
    "purpose": "IPAY",
    "payer_person": "NATURAL",
    "receiver_person": "NATURAL",
    "session_flags": ["COPY_PASTE"],
    "payer_limit_centavos": 500_000,
    "payer_limit_raised_at": 1_700_000_000_000,
    "dict_key_created_at": 1_640_000_000_000,
    "dict_key_owned_since": 1_640_000_000_000,
    "dict_account_opened_at": 1_600_000_000_000,
    "dict_claim_opened_at": 1_640_000_000_000,
    "receiver_since_mark_ms": 9e12,
    "share_of_limit": 0.016,
    "drained_1h": 0.05,
    "payer_sent_since_last_ms": 40_000_000,
    "payer_sent_since_pair_ms": 600_000_000,
    "payer_credited_since_last_ms": 100_000_000,
    "payer_sent_mean_30d": 9_000,
    "payer_sent_seen": 400,
    "receiver_received_seen": 90,
}


def judged(example: dict[str, object]) -> Verdicts:
    """Judge one row as a person writes it."""
    batch = example_batch(example, COLUMNS)
    return PACK.evaluate(batch.columns, 1, listed=batch.listed)


def fired(example: dict[str, object]) -> set[str]:
    """Name the rules that fire on one row."""
    return {rule.id for rule, fires in zip(PACK.rules, judged(example).fired[0], strict=True) if fires}


@pytest.mark.parametrize("rule", PACK.rules, ids=lambda rule: rule.id)
def test_a_rule_fires_on_its_example(rule: Rule) -> None:
    """Alone, and as one fault of an otherwise honest payment, where no other value is missing to help it."""
    assert rule.id in fired(dict(rule.example))
    if "missing(" not in rule.when.text:
        assert rule.id in fired({**HONEST, **rule.example})


def test_an_honest_payment_fires_nothing() -> None:
    """Although it names every value that any rule reads, so that no rule is silent for want of one."""
    read = {name for names in PACK.columns_used().values() for name in names} - {"timestamp"}
    assert read <= set(HONEST)
    assert fired(HONEST) == set()


@pytest.mark.parametrize(
    ("rule", "column", "at_the_limit"),
    [
        ("night-limit", "amount_centavos", 40_000),
        ("own-limit", "amount_centavos", 50_000),
        ("unregistered-device-payment", "amount_centavos", 20_000),
        ("unregistered-device-day", "amount_centavos", 10_000),
        ("cash-day", "amount_centavos", 50_000),
        ("cash-night", "amount_centavos", 20_000),
        ("contactless-cap", "amount_centavos", 50_000),
    ],
)
def test_a_regulatory_limit_itself_is_still_allowed(rule: str, column: str, at_the_limit: int) -> None:
    """One centavo more than the limit is denied, the limit is not."""
    example = dict(next(each for each in PACK.rules if each.id == rule).example)
    assert example[column] == at_the_limit + 1
    assert ACTIONS[judged(example).actions[0]] == "DENY"
    assert rule not in fired({**example, column: at_the_limit})


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("night-limit", {"timestamp": 1_781_535_600_000}),  # noon in Brasília
        ("night-limit", {"receiver_person": "LEGAL"}),
        ("night-limit", {"receiver_tax_id": "payer"}),
        ("night-limit", {"payer_limit_centavos": 300_000}),
        ("raised-limit", {"payer_limit_raised_at": 1_781_535_600_000 - 86_400_000}),
        ("contactless-cap", {"timestamp": 1_790_823_600_000}),  # 1 October 2026, midnight in Brasília
        ("cash-day", {"purpose": "IPAY"}),
        ("unregistered-device-payment", {"device_registered": None}),
    ],
)
def test_a_regulatory_rule_knows_its_exceptions(rule: str, change: dict[str, object]) -> None:
    """By day, to companies, to oneself, after the waiting time, after its repeal: the rule is silent."""
    example = dict(next(each for each in PACK.rules if each.id == rule).example)
    assert rule not in fired({**example, **change})


def test_every_typology_that_a_stream_sees_has_a_rule() -> None:
    """And no rule names one that the table does not have."""
    named = {rule.typology for rule in PACK.rules if rule.typology}
    assert named == {name for name, typology in TYPOLOGIES.items() if typology.in_stream}


def test_only_regulation_and_the_bank_s_lists_deny() -> None:
    """A pattern alone never denies: at most it holds, and a person can release the payment."""
    for rule in PACK.rules:
        if rule.action == "DENY":
            assert rule.regulation or "listed(" in rule.when.text, rule.id


def test_no_single_watch_rule_holds() -> None:
    """One weak sign passes; it takes two."""
    assert all(rule.weight < PACK.hold for rule in PACK.rules if rule.action == "WATCH")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_mask_alone_decides_whether_a_refund_is_scored(purpose: str) -> None:
    """No rule of the pack spares refunds by itself: leaving them out is the caller's mask, for every pack alike."""
    batch = example_batch({**HONEST, "purpose": purpose, "receiver_fraud_marks": 5}, COLUMNS)
    spared = PACK.evaluate(batch.columns, 1, listed=batch.listed, scored=np.zeros(1, np.bool_))
    judged_all_the_same = PACK.evaluate(batch.columns, 1, listed=batch.listed)
    assert [ACTIONS[each.actions[0]] for each in (spared, judged_all_the_same)] == ["APPROVE", "HOLD"]


@pytest.mark.parametrize("seed", [3, 21])
def test_honest_traffic_is_approved(seed: int) -> None:
    """More than 99 % of payments without any fraud, the look-alikes of frauds included, from an empty state on."""
    config = TrafficConfig(
        start_ms=1_790_823_600_000, seed=seed, rate_per_s=0.5, count=8_000, fraud_share=0.0, people=4_000
    )
    messages = [Message(sent.key, sent.value, sent.arrival_ms) for sent in generate(config) if sent.payment is not None]
    pipeline = Pipeline(1, TransactionDecoder(HashKey(1, 2), TimeLimits()), PACK)
    actions = np.concatenate(
        [
            output.decided.rows["action"]
            for start in range(0, len(messages), 2_000)
            for output in pipeline.push(messages[start : start + 2_000]).decided
        ]
    )
    assert len(actions) > 7_500
    assert np.mean(actions == ACTIONS.index("APPROVE")) > 0.99


HASH_KEY = HashKey(1, 2)
TYPOLOGY_RULES = [rule for rule in PACK.rules if rule.typology and not rule.regulation]
SILENT = {
    "dormant-account": "it asks for a payer known for sixty days and silent for thirty: a run of days has none",
}
"""Typology rules that cannot fire in the run below, and why."""


@dataclass(frozen=True)
class JudgedRun:
    """What the pack said of a seeded run, and the truth: the fraud of each of n payments ("" for none)."""

    typology: NDArray[np.str_]  # (n,)
    fired: NDArray[np.bool_]  # (n, rules)


@pytest.fixture(scope="module")
def run() -> JudgedRun:
    """Four days of a town in which three payments in a hundred are frauds, with what becomes known of them in time."""
    config = TrafficConfig(
        start_ms=1_789_977_600_000, seed=7, rate_per_s=0.25, duration_s=4 * 86_400, fraud_share=0.03, malformed_share=0
    )
    messages = list(generate(config))
    truth = {
        each.payment.end_to_end_id.encode(): each.label.typology
        for each in messages
        if each.payment is not None and each.label is not None
    }
    pipeline = Pipeline(1, TransactionDecoder(HASH_KEY, TimeLimits()), PACK)
    med = MedFeedback(FeedbackConfig(7, delay_scale=0.05))
    typology: list[str] = []
    fired = []
    for start in range(0, len(messages), 2_000):
        batch = messages[start : start + 2_000]
        for output in pipeline.push([Message(each.key, each.value, each.arrival_ms) for each in batch]).decided:
            typology += [str(truth.get(identifier, "")) for identifier in output.decided.rows["id"].tolist()]
            fired.append(np.unpackbits(output.decided.rows["fired"], axis=1)[:, : len(PACK.rules)].astype(np.bool_))
        for each in batch:
            med.observe(each)
        told = [Message(each.key, each.value, each.at_ms) for each in med.due(batch[-1].arrival_ms)]
        pipeline.hear(told, HASH_KEY, TimeLimits())
    return JudgedRun(np.array(typology), np.concatenate(fired))


@pytest.mark.parametrize("rule", TYPOLOGY_RULES, ids=lambda rule: rule.id)
def test_a_typology_rule_finds_more_fraud_than_chance(rule: Rule, run: JudgedRun) -> None:
    """Fraud is at least twice as common among its hits as among all payments; or it is known to be silent."""
    hits = run.fired[:, PACK.rules.index(rule)]
    assert hits.any() == (rule.id not in SILENT)
    if hits.any():
        assert np.mean(run.typology[hits] != "") > 2 * np.mean(run.typology != ""), f"{int(hits.sum())} hits"


@pytest.mark.parametrize("name", ["fake-shop", "fake-shop-reported"])
def test_rules_for_false_shops_mostly_find_them(name: str, run: JudgedRun) -> None:
    """Honest young companies that strangers pay exist too, but they are not the town's busiest merchants."""
    hits = run.fired[:, [rule.id for rule in PACK.rules].index(name)]
    assert np.mean(run.typology[hits] == "fake_shop") > 0.5


@pytest.mark.parametrize("name", sorted({rule.typology for rule in TYPOLOGY_RULES if rule.id not in SILENT}))
def test_a_typology_s_rules_find_its_own_frauds(name: str, run: JudgedRun) -> None:
    """One of its rules fires on a payment of the typology at least three times as often as on an honest one."""
    own = [place for place, rule in enumerate(PACK.rules) if rule in TYPOLOGY_RULES and rule.typology == name]
    hits = np.flatnonzero(run.fired[:, own].any(axis=1))
    found, mistaken = np.sum(run.typology[hits] == name), np.sum(run.typology[hits] == "")
    assert found / np.sum(run.typology == name) > 3 * mistaken / np.sum(run.typology == "")


def test_few_honest_payments_go_to_a_receiver_under_report(run: JudgedRun) -> None:
    """44 payments in 100,000 are contested, so DICT's open reports mark less than one honest payment in a hundred."""
    place = [rule.id for rule in PACK.rules].index("dict-open-reports")
    assert run.fired[run.typology == "", place].mean() < 0.01
