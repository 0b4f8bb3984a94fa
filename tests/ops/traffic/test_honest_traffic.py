"""Everyday payments have the published mix and ticket sizes."""

from __future__ import annotations

import numpy as np
import pytest

from ops.traffic.honest import INITIATIONS, PURPOSES, Block, HonestTraffic, TrafficShape
from ops.traffic.population import Population

START_MS = 1_790_000_400_000
DAY_MS = 86_400_000
PEOPLE, COMPANIES = 30_000, 1_500


@pytest.fixture(scope="module")
def week() -> Block:
    """Return a week's payments of a city."""
    traffic = HonestTraffic(Population(2, START_MS, PEOPLE, COMPANIES), TrafficShape(rate_per_s=0.7))
    days = [
        traffic.draw(np.random.default_rng(day), START_MS + day * DAY_MS, START_MS + (day + 1) * DAY_MS)
        for day in range(7)
    ]
    names = Block.__dataclass_fields__
    return Block(**{name: np.concatenate([getattr(day, name) for day in days]) for name in names})


def test_initiations_have_the_published_shares(week: Block) -> None:
    """QRDN 43.1, DICT 37.2, MANU 10.7 and QRES 8.2 % within a point and a half; the rare ones appear."""
    shares = np.bincount(week.initiation, minlength=len(INITIATIONS)) / len(week.initiation)
    assert shares[:4] == pytest.approx([0.431, 0.372, 0.107, 0.082], abs=0.015)
    assert shares[4:] == pytest.approx([0.0006, 0.0003, 0.0001, 0.0001], abs=0.0003)
    assert (shares > 0).all()


def test_tickets_have_the_published_means(week: Block) -> None:
    """R$ 90, 567, 1,623 and 134 by initiation, R$ 436 over all, within a quarter: the tails are heavy."""
    reais = week.amount_centavos / 100
    means = [reais[week.initiation == how].mean() for how in range(4)]
    assert means == pytest.approx([90, 567, 1_623, 134], rel=0.25)
    assert reais.mean() == pytest.approx(436, rel=0.2)


def test_flows_have_the_published_shares_and_means(week: Block) -> None:
    """P2B 46.0 % at R$ 111, P2P 39.8 % at 267, B2P 9.6 % at 522, B2B 4.1 % at 5,392."""
    flow = 2 * (week.payer >= PEOPLE) + np.where(week.payer >= PEOPLE, week.receiver >= PEOPLE, week.receiver < PEOPLE)
    reais = week.amount_centavos / 100
    assert np.bincount(flow) / len(flow) == pytest.approx([0.460, 0.398, 0.096, 0.041], abs=0.01)
    means = [reais[flow == each].mean() for each in range(4)]
    assert means == pytest.approx([111, 267, 522, 5_392], rel=0.3)


def test_most_payments_are_small(week: Block) -> None:
    """About 61 % of all are below R$ 100, and nine in ten of those that people make below R$ 200."""
    reais = week.amount_centavos / 100
    assert (reais < 100).mean() == pytest.approx(0.61, abs=0.02)
    assert (reais[week.payer < PEOPLE] < 200).mean() == pytest.approx(0.931, abs=0.04)


def test_a_few_purchases_by_code_are_for_cash(week: Block) -> None:
    """Some in ten thousand payments: Saque in whole banknotes, and now and then Troco."""
    counts = np.bincount(week.purpose, minlength=len(PURPOSES))
    assert 0.0001 < counts[1:].sum() / counts.sum() < 0.001
    assert counts[PURPOSES.index("OTHR")] > counts[PURPOSES.index("GSCB")] > 0
    saque = week.purpose == PURPOSES.index("OTHR")
    assert (week.amount_centavos[saque] % 1_000 == 0).all()
    cash = week.purpose > 0
    assert set(week.initiation[cash]) <= {INITIATIONS.index("QRDN"), INITIATIONS.index("QRES")}
    assert ((week.payer[cash] < PEOPLE) & (week.receiver[cash] >= PEOPLE)).all()


def test_people_mostly_pay_whom_they_know(week: Block) -> None:
    """A payer's three commonest counterparties take a good part of the payments of an active payer."""
    payers, counts = np.unique(week.payer[week.payer < PEOPLE], return_counts=True)
    busiest = payers[np.argsort(counts)[-50:]]
    shares = []
    for payer in busiest:
        _, times = np.unique(week.receiver[week.payer == payer], return_counts=True)
        shares.append(np.sort(times)[-3:].sum() / times.sum())
    assert 0.25 < np.mean(shares) < 0.75


def test_round_sums_are_common_between_people_and_prices_in_shops(week: Block) -> None:
    """Whole fives of reais mark half the P2P payments, and few purchases."""
    is_round = week.amount_centavos % 500 == 0
    p2p = (week.payer < PEOPLE) & (week.receiver < PEOPLE)
    p2b = (week.payer < PEOPLE) & (week.receiver >= PEOPLE)
    assert 0.45 < is_round[p2p].mean() < 0.75
    assert is_round[p2b].mean() < 0.3
    assert np.isin(week.amount_centavos[p2b] % 100, [90, 99]).mean() > 0.25


def test_nobody_pays_themselves(week: Block) -> None:
    """Payer and receiver differ in every payment, amounts are positive, times ascend."""
    assert (week.payer != week.receiver).all()
    assert (week.amount_centavos > 0).all()
    assert (np.diff(week.at_ms) >= 0).all()


def test_a_steady_rate_ignores_the_hour() -> None:
    """For load tests the night carries as much as the day."""
    population = Population(2, START_MS, 200, 20)
    traffic = HonestTraffic(population, TrafficShape(rate_per_s=5.0, steady=True))
    day = traffic.draw(np.random.default_rng(1), START_MS, START_MS + DAY_MS).at_ms
    counts, _ = np.histogram(day, bins=24, range=(START_MS, START_MS + DAY_MS))
    assert counts == pytest.approx(np.full(24, 18_000), rel=0.05)
