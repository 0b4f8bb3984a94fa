"""Honest payments, drawn by blocks: who, whom, how and how much, by the published mix and ticket sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ops.traffic.population import USUAL, Population
from ops.traffic.seasons import FLOW_SHARES, FLOWS, intensity

__all__ = ["INITIATIONS", "PURPOSES", "Block", "HonestTraffic", "TrafficShape"]

INITIATIONS = ("QRDN", "DICT", "MANU", "QRES", "AUTO", "INIC", "APDN", "APES")
PURPOSES = ("IPAY", "OTHR", "GSCB")
"""Of everyday payments: ordinary, Pix Saque, Pix Troco."""

# Share of each initiation within a flow, solved so that the totals are those of June 2026 (QRDN 43.1, DICT 37.2,
# MANU 10.7, QRES 8.2, AUTO 0.06, INIC 0.03, contactless 0.02 %).
_INITIATION_SHARES: dict[str, tuple[float, ...]] = {
    "P2B": (0.805, 0.081, 0.021, 0.0904, 0.0013, 0.0007, 0.0003, 0.0003),
    "P2P": (0.095, 0.700, 0.122, 0.0830, 0.0000, 0.0000, 0.0000, 0.0000),
    "B2P": (0.020, 0.480, 0.450, 0.0500, 0.0000, 0.0000, 0.0000, 0.0000),
    "B2B": (0.430, 0.310, 0.210, 0.0500, 0.0000, 0.0000, 0.0000, 0.0000),
}

# Tickets in reais: body median and log-deviation, share of the tail, tail median (log-deviation 0.9). They give the
# published means per flow and per initiation, and 61 % below R$ 100; the split into body and tail is ours.
_TICKETS: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("P2B", "QRDN"): (70.0, 0.45, 0.002, 2_200.0),
    ("P2B", "DICT"): (85.0, 0.65, 0.044, 3_100.0),
    ("P2B", "MANU"): (110.0, 0.75, 0.090, 4_700.0),
    ("P2B", "QRES"): (70.0, 0.55, 0.016, 2_300.0),
    ("P2P", "QRDN"): (56.0, 0.60, 0.002, 1_500.0),
    ("P2P", "DICT"): (94.0, 0.60, 0.038, 3_000.0),
    ("P2P", "MANU"): (105.0, 0.70, 0.092, 3_000.0),
    ("P2P", "QRES"): (70.0, 0.55, 0.014, 1_800.0),
    ("B2P", "QRDN"): (50.0, 1.00, 0.000, 1.0),
    ("B2P", "DICT"): (110.0, 1.10, 0.050, 2_300.0),
    ("B2P", "MANU"): (170.0, 1.10, 0.110, 2_600.0),
    ("B2P", "QRES"): (50.0, 1.00, 0.010, 1_500.0),
    ("B2B", "QRDN"): (150.0, 1.20, 0.010, 4_000.0),
    ("B2B", "DICT"): (900.0, 1.40, 0.190, 16_000.0),
    ("B2B", "MANU"): (2_300.0, 1.40, 0.210, 28_000.0),
    ("B2B", "QRES"): (140.0, 1.20, 0.010, 4_000.0),
}
_TAIL_SIGMA = 0.9

_USUAL_SHARE = {"P2B": 0.72, "P2P": 0.76, "B2P": 0.66, "B2B": 0.82}
"""Share of payments that go to a usual counterparty; the others go to whomever activity makes likely."""

_CASH_SHARE, _CHANGE_SHARE = 0.0006, 0.05
"""Share of purchases by QR code that are for cash, and of those the share in which something is bought as well (Troco).
BCB's monthly figures, as the press has them: 0.02 % of all payments in October 2022, 1 % of them Troco, and rising.
"""

_RANK_EDGES = np.cumsum(1.0 / np.arange(1, USUAL + 1))
_RANK_EDGES /= _RANK_EDGES[-1]


@dataclass(frozen=True, slots=True)
class TrafficShape:
    """How dense honest traffic is.

    Parameters
    ----------
    rate_per_s
        Mean number of payments per second of event time over an ordinary week.
    steady
        Whether the rate stays the same at every hour (for load tests).
    """

    rate_per_s: float
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of honest payments of one stretch of time, sorted by time; all of shape (n,)."""

    at_ms: NDArray[np.int64]
    payer: NDArray[np.int64]
    receiver: NDArray[np.int64]
    amount_centavos: NDArray[np.int64]
    initiation: NDArray[np.int64]  # position in INITIATIONS
    purpose: NDArray[np.int64]  # position in PURPOSES


class HonestTraffic:
    """Draws the everyday payments of a population.

    Parameters
    ----------
    population
        Whose payments they are.
    shape
        How many there are.
    """

    def __init__(self, population: Population, shape: TrafficShape) -> None:
        self._population, self._shape = population, shape
        self._people_edges = np.cumsum(population.activity)
        self._company_edges = np.cumsum(population.company_activity)
        self._initiation_edges = np.cumsum(np.array([_INITIATION_SHARES[flow] for flow in FLOWS]), axis=1)
        cells = [[_TICKETS.get((flow, how), _TICKETS[flow, "QRDN"]) for how in INITIATIONS] for flow in FLOWS]
        self._tickets = np.array(cells)

    def draw(self, rng: np.random.Generator, from_ms: int, to_ms: int) -> Block:
        """Return the payments accepted in [from_ms, to_ms).

        Parameters
        ----------
        rng
            Source of this block's draws.
        from_ms, to_ms
            Epoch milliseconds.
        """
        at_ms, flow = self._draw_times(rng, from_ms, to_ms)
        payer, receiver = self._draw_parties(rng, flow)
        row = np.arange(len(flow))
        uniform = rng.random(len(flow))[:, None] * self._initiation_edges[flow, -1:]
        initiation = (uniform > self._initiation_edges[flow]).sum(axis=1)
        ticket = self._tickets[flow, initiation]
        in_tail = rng.random(len(row)) < ticket[:, 2]
        normal = rng.standard_normal(len(row))
        reais = np.where(
            in_tail, ticket[:, 3] * np.exp(_TAIL_SIGMA * normal), ticket[:, 0] * np.exp(ticket[:, 1] * normal)
        )
        reais *= self._population.scale[payer]
        amount = _round_like_people(rng, reais, flow)
        purpose = self._draw_cash(rng, flow, initiation, amount)
        return Block(at_ms, payer, receiver, amount, initiation, purpose)

    def _draw_cash(
        self,
        rng: np.random.Generator,
        flow: NDArray[np.int64],
        initiation: NDArray[np.int64],
        amount_centavos: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Turn some purchases by QR code into Saque and Troco, whose amounts are banknotes, and return the purposes."""
        by_code = (flow == 0) & np.isin(initiation, [INITIATIONS.index("QRDN"), INITIATIONS.index("QRES")])
        cash = np.flatnonzero(by_code & (rng.random(len(flow)) < _CASH_SHARE))
        with_change = rng.random(len(cash)) < _CHANGE_SHARE
        notes = rng.choice(np.array([20, 50, 100, 200, 300]), len(cash), p=[0.20, 0.32, 0.30, 0.13, 0.05]) * 100
        amount_centavos[cash] = np.where(with_change, amount_centavos[cash] + notes // 2, notes)
        purpose = np.zeros(len(flow), np.int64)
        purpose[cash] = np.where(with_change, PURPOSES.index("GSCB"), PURPOSES.index("OTHR"))
        return purpose

    def _draw_times(
        self, rng: np.random.Generator, from_ms: int, to_ms: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Times of a Poisson process thinned by the profiles, sorted, and the flow of each."""
        if self._shape.steady:
            number = rng.poisson(self._shape.rate_per_s * (to_ms - from_ms) / 1000)
            at_ms = np.sort(rng.integers(from_ms, to_ms, number))
            edges = np.cumsum(FLOW_SHARES) / sum(FLOW_SHARES)
            return at_ms, np.searchsorted(edges, rng.random(number)).clip(max=3)
        ceiling = 1.25 * float(intensity(np.linspace(from_ms, to_ms, 33).astype(np.int64)).sum(axis=1).max())
        number = rng.poisson(self._shape.rate_per_s * ceiling * (to_ms - from_ms) / 1000)
        at_ms = np.sort(rng.integers(from_ms, to_ms, number))
        edges = np.cumsum(intensity(at_ms), axis=1) / ceiling
        uniform = rng.random(number)
        flow = (uniform[:, None] > edges).sum(axis=1)
        kept = flow < len(FLOWS)
        return at_ms[kept], flow[kept]

    def _draw_parties(
        self, rng: np.random.Generator, flow: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        population, number = self._population, len(flow)
        person_pays = flow < 2
        payer = np.where(
            person_pays,
            np.searchsorted(self._people_edges, rng.random(number)).clip(max=population.people - 1),
            population.people
            + np.searchsorted(self._company_edges, rng.random(number)).clip(max=population.companies - 1),
        )
        rank = np.searchsorted(_RANK_EDGES, rng.random(number)).clip(max=USUAL - 1)
        person, company = np.where(person_pays, payer, 0), np.where(person_pays, 0, payer - population.people)
        usual = np.choose(flow, [
            population.shops[person, rank], population.friends[person, rank],
            population.staff[company, rank], population.suppliers[company, rank],
        ])  # fmt: skip
        to_person = (flow == 1) | (flow == 2)
        anyone = np.where(
            to_person,
            np.searchsorted(self._people_edges, rng.random(number)).clip(max=population.people - 1),
            population.people
            + np.searchsorted(self._company_edges, rng.random(number)).clip(max=population.companies - 1),
        )
        known = rng.random(number) < np.array([_USUAL_SHARE[name] for name in FLOWS])[flow]
        receiver = np.where(known, usual, anyone)
        collides = receiver == payer
        receiver[collides] = np.where(
            to_person[collides],
            (payer[collides] + 1) % population.people,
            population.people + (payer[collides] + 1 - population.people) % population.companies,
        )
        return payer, receiver


def _round_like_people(
    rng: np.random.Generator, reais: NDArray[np.float64], flow: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Amounts in centavos with the endings that people and prices have: round sums, ,90 and ,99."""
    number = len(reais)
    kind = rng.random(number)
    step = np.where(reais < 40, 5.0, np.where(reais < 300, 10.0, np.where(reais < 3000, 50.0, 500.0)))
    round_sum = np.maximum(np.round(reais / step), 1.0) * step
    priced = np.maximum(np.floor(reais), 1.0) - np.where(kind < 0.5, 0.10, 0.01)
    shop_pays = (flow == 0) | (flow == 3)
    is_round = kind > np.where(shop_pays, 0.86, 0.42)
    is_priced = shop_pays & (kind < 0.35)
    chosen = np.where(is_round, round_sum, np.where(is_priced, priced, reais))
    return np.maximum(np.round(chosen * 100).astype(np.int64), 1)
