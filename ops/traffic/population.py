"""Who pays whom: people and companies with accounts, keys, devices, homes, limits and usual counterparties.

An entity is an index: people first, then companies, each group as columns of numpy arrays. Strings (documents, keys,
device names) are derived from the columns when a message needs them, so that a million people fit in memory.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ops.traffic import documents
from ops.traffic.seasons import DAY_MS

__all__ = ["HONEST_REPORT_SHARE", "ISPBS", "KEY_TYPES", "Population"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

ISPBS: Final = ("00000000", "60701190", "60746948", "00360305", "90400888", "18236120", "10573521", "31872495",
                "00416968", "13140088", "22896431", "30680829")  # fmt: skip
"""Eight-digit codes in the form of real ones: large banks first, then payment institutions."""

_ISPB_WEIGHTS = np.array([12, 13, 12, 14, 8, 17, 9, 4, 4, 3, 2, 2], float)
KEY_TYPES: Final = ("CPF", "CNPJ", "PHONE", "EMAIL", "EVP")

# Latitude, longitude and weight of the metropolitan areas in which people live.
_CITIES = np.array([
    (-23.55, -46.63, 22), (-22.91, -43.17, 13), (-19.92, -43.94, 6), (-15.79, -47.88, 5), (-12.97, -38.50, 4),
    (-3.73, -38.53, 4), (-8.05, -34.88, 4), (-30.03, -51.22, 4), (-25.43, -49.27, 4), (-3.12, -60.02, 2),
    (-1.46, -48.50, 2), (-16.68, -49.25, 3), (-22.91, -47.06, 3), (-27.60, -48.55, 2),
])  # fmt: skip

HONEST_REPORT_SHARE: Final = 0.0004
"""Share of honest payments that are reported to DICT: of 100,000 payments 44 are contested, 4.2 of them rightly."""

USUAL = 8
"""Usual counterparties kept per person and kind; the first are met most."""


class Population:
    """Columns that describe every entity, and the state that payments change.

    Parameters
    ----------
    seed
        Same seed and sizes, same population.
    start_ms
        Epoch milliseconds at which the traffic starts: ages are counted back from it.
    people, companies
        Numbers of natural and legal persons, at least 50 and 10.

    Attributes
    ----------
    size
        ``people + companies``; entities below ``people`` are natural persons.
    friends, shops
        Shape (people, 8): usual counterparties, most frequent first.
    staff, suppliers
        Shape (companies, 8): whom a company usually pays.
    mules
        People who lend their accounts to fraud, in the order in which they are recruited.
    fake_shops
        Companies that exist to defraud.
    crooks
        All of both.

    Raises
    ------
    ValueError
        If a size is too small for the stories to have a cast.
    """

    def __init__(self, seed: int, start_ms: int, people: int, companies: int) -> None:
        if people < 50 or companies < 10:
            raise ValueError(f"Expected at least 50 people and 10 companies, got {people} and {companies}")
        self.seed, self.start_ms = seed, start_ms
        self.people, self.companies = people, companies
        self.size = people + companies
        rng = np.random.default_rng([seed, 1])
        self._draw_identities(rng)
        self._draw_ages(rng)
        self._draw_crooks(rng)
        self._draw_means(rng)
        self._draw_places(rng)
        self._draw_graph(rng)
        self._draw_reputation(rng)

    def is_person(self, entity: int) -> bool:
        """Whether the entity is a natural person."""
        return entity < self.people

    def tax_id(self, entity: int) -> str:
        """Return the CPF of a person or the CNPJ of a company."""
        number = int(self.document[entity])
        if entity < self.people:
            return f"{number:011d}"
        return documents.cnpj(number, letters=bool(self.letters[entity]))

    def account(self, entity: int) -> str:
        """Return branch and number of the entity's account, distinct over all banks."""
        return f"0001-{int(self.account_number[entity]):09d}"

    def institution(self, entity: int) -> str:
        """Return the ISPB of the bank that holds the account."""
        return ISPBS[int(self.ispb[entity])]

    def key_type_of(self, entity: int) -> str:
        """Return the type of the entity's Pix key."""
        return KEY_TYPES[int(self.key_type[entity])]

    def key_of(self, entity: int) -> str:
        """Return the entity's Pix key."""
        kind = self.key_type_of(entity)
        if kind in {"CPF", "CNPJ"}:
            return self.tax_id(entity)
        if kind == "PHONE":
            return documents.phone(int(self.phone_number[entity]))
        if kind == "EMAIL":
            return documents.email(int(self.phone_number[entity]))
        return documents.evp(int(self.key_bits[entity, 0]), int(self.key_bits[entity, 1]))

    def device_of(self, entity: int) -> str:
        """Return the device that the entity uses now."""
        return f"d{entity:x}-{int(self.key_bits[entity, 0]) & 0xFFFFFF:06x}-{int(self.device_generation[entity])}"

    def _draw_identities(self, rng: np.random.Generator) -> None:
        size, people = self.size, self.people
        index = np.arange(size, dtype=np.int64)
        shift = int(rng.integers(1, 10**8))
        # Multiplication by a constant prime to the modulus permutes the indices: distinct, and no order to be seen.
        bases = 100_000_001 + (index * 48_271 + shift) % 899_999_923
        bases += bases % 111_111_111 == 0  # eleven equal digits pass the check but are never issued
        self.document = documents.cpf_numbers(bases)
        self.document[people:] = (index[people:] * 1_299_709 + shift) % 99_999_989
        self.letters = rng.random(size) < 0.12  # alphanumeric CNPJs are only issued since July 2026
        self.account_number = (index * 7_368_787 + shift) % 999_999_937
        self.phone_number = (index * 15_485_863 + shift) % 99_999_989
        self.key_bits = rng.integers(-(2**63), 2**63, size=(size, 2), dtype=np.int64)
        self.ispb = rng.choice(len(ISPBS), size=size, p=_ISPB_WEIGHTS / _ISPB_WEIGHTS.sum()).astype(np.uint8)
        person_types = rng.choice(5, size=people, p=[0.34, 0.0, 0.30, 0.12, 0.24])
        company_types = rng.choice(5, size=size - people, p=[0.0, 0.42, 0.05, 0.10, 0.43])
        self.key_type = np.concatenate([person_types, company_types]).astype(np.uint8)

    def _draw_ages(self, rng: np.random.Generator) -> None:
        size = self.size
        # Accounts opened since 2010 mostly; one in twelve within the last two months: banks gain clients all the time.
        age_days = rng.gamma(1.6, 900.0, size)
        recent = rng.random(size) < 0.08
        age_days[recent] = rng.exponential(25.0, int(recent.sum()))
        self.account_opened_at = (self.start_ms - age_days * DAY_MS).astype(np.int64)
        pix_age_days = max(1.0, (self.start_ms - 1_604_361_600_000) / DAY_MS)  # Pix began on 3 November 2020
        key_age = np.minimum(age_days * rng.beta(2.0, 1.2, size), pix_age_days * rng.beta(4.0, 1.0, size))
        self.key_created_at = (self.start_ms - key_age * DAY_MS).astype(np.int64)
        # A few keys have moved to another bank or owner since they were created (portability, a recycled number).
        moved = rng.random(size) < 0.06
        held = np.where(moved, key_age * rng.random(size), key_age)
        self.key_owned_since = (self.start_ms - held * DAY_MS).astype(np.int64)
        self.device_since = (self.start_ms - rng.exponential(400.0, size) * DAY_MS).astype(np.int64)
        self.device_generation = np.zeros(size, np.int64)
        self.device_registered_from = self.device_since.copy()

    def _draw_crooks(self, rng: np.random.Generator) -> None:
        people = self.people
        self.mules = rng.permutation(people)[: max(12, people // 60)]
        self.fake_shops = people + rng.permutation(self.companies)[: max(3, self.companies // 60)]
        crooks = np.concatenate([self.mules, self.fake_shops])
        self.crooks = frozenset(crooks.tolist())
        # A third of the recruited accounts are young; the others were bought from, or rented by, ordinary clients. A
        # shop that defrauds is burnt within weeks, so most are young.
        young = crooks[rng.random(len(crooks)) < np.where(crooks < people, 0.35, 0.85)]
        self.account_opened_at[young] = self.start_ms - (rng.exponential(30.0, len(young)) * DAY_MS).astype(np.int64)
        self.key_created_at[young] = np.maximum(self.key_created_at[young], self.account_opened_at[young])
        self.key_owned_since[young] = self.key_created_at[young]

    def _draw_means(self, rng: np.random.Generator) -> None:
        size, people = self.size, self.people
        self.scale = np.exp(rng.normal(-0.10, 0.45, size))
        limit = np.where(np.arange(size) < people, 6_000.0, 80_000.0) * np.exp(rng.normal(0.0, 0.7, size))
        self.limit_day = (np.round(limit / 500.0).clip(2) * 500 * 100).astype(np.int64)
        night = rng.choice([1_000, 1_000, 1_000, 500, 2_000, 5_000], size=size)
        self.limit_night = np.where(np.arange(size) < people, np.minimum(night * 100, self.limit_day), self.limit_day)
        raised_days = np.where(rng.random(size) < 0.12, rng.exponential(60.0, size), np.inf)
        raised = np.isfinite(raised_days)
        self.limit_raised_at = np.zeros(size, np.int64)
        self.limit_raised_at[raised] = (self.start_ms - raised_days[raised] * DAY_MS).astype(np.int64)
        balance = np.where(np.arange(size) < people, 900.0, 25_000.0) * np.exp(rng.normal(0.0, 1.3, size))
        self.balance = (balance * 100).astype(np.int64)
        self.activity = _zipf(rng, people, 0.55)
        # A company grows into its trade over its first year, and nobody who was there before comes back to a false one.
        age_days = (self.start_ms - self.account_opened_at[people:]) / DAY_MS
        trade = _zipf(rng, size - people, 0.95) * np.clip(age_days / 365.0, 0.02, 1.0)
        trade[self.fake_shops - people] = 0.1 * np.median(trade)
        self.company_activity = trade / trade.sum()
        # The busiest companies make most payments: without this, mean tickets would hang on who they happen to be.
        self.scale[:people] /= np.average(self.scale[:people], weights=self.activity)
        self.scale[people:] /= np.average(self.scale[people:], weights=self.company_activity)
        # What left by night to people, as cash, and from unregistered devices by day: the period and its total so far.
        self.night, self.night_spent = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.cash_period, self.cash_spent = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.unregistered_day, self.unregistered_spent = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.shares_location = rng.random(size) < 0.7

    def _draw_places(self, rng: np.random.Generator) -> None:
        weights = _CITIES[:, 2] / _CITIES[:, 2].sum()
        city = rng.choice(len(_CITIES), size=self.size, p=weights)
        self.home = _CITIES[city, :2] + rng.normal(0.0, 0.12, (self.size, 2))
        self.city_centres: Floats = _CITIES[:, :2]

    def _draw_graph(self, rng: np.random.Generator) -> None:
        people, companies = self.people, self.companies
        # Friends are near in index: circles overlap, and many pay back.
        step = np.ceil(rng.exponential(6.0, (people, USUAL))).astype(np.int64)
        sign = rng.choice(np.array([-1, 1]), size=step.shape)
        self.friends = (np.arange(people)[:, None] + step * sign) % people
        edges = np.cumsum(self.company_activity)
        shops = np.searchsorted(edges, rng.random((people, USUAL)) * edges[-1]).clip(max=companies - 1)
        self.shops = people + shops
        self.staff = rng.integers(0, people, (companies, USUAL))
        suppliers = np.searchsorted(edges, rng.random((companies, USUAL)) * edges[-1]).clip(max=companies - 1)
        own = suppliers == np.arange(companies)[:, None]
        self.suppliers = people + np.where(own, (suppliers + 1) % companies, suppliers)

    def _draw_reputation(self, rng: np.random.Generator) -> None:
        size, people = self.size, self.people
        age_days = (self.start_ms - self.key_created_at) / DAY_MS
        expected = np.concatenate([
            25.0 * self.activity * people,
            900.0 * self.company_activity * self.companies,
        ])  # fmt: skip
        expected[self.fake_shops] = 200.0
        expected *= np.exp(rng.normal(0.0, 0.8, size))
        self.settlements_per_day = expected / 90.0
        self.settlements_age_days = np.maximum(age_days, 0.0)
        crooks = np.concatenate([self.mules, self.fake_shops])
        # (fraud markers in twelve months, open reports, rejected reports): most have none. A report is open for half a
        # week on average.
        self.markers = (rng.random(size) < 0.002).astype(np.int64)
        self.open_reports = rng.poisson(HONEST_REPORT_SHARE * 3.5 * self.settlements_per_day)
        self.rejected_reports = rng.poisson(np.minimum(0.00002 * expected * 4, 3.0) + 0.003)
        self.markers[crooks] += rng.poisson(0.18, len(crooks))
        self.open_reports[crooks] += rng.poisson(0.25, len(crooks))
        self.rejected_reports[crooks] += rng.poisson(0.05, len(crooks))
        self.accounts = 1 + rng.poisson(1.6, size)


def _zipf(rng: np.random.Generator, size: int, exponent: float) -> Floats:
    """Shape (size,): shares that fall with a random rank as a power law, and sum to 1."""
    weights = (rng.permutation(size) + 3.0) ** -exponent
    return np.asarray(weights / weights.sum(), dtype=np.float64)
