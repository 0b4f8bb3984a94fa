"""What a story is: a few payments that belong together, honest or fraudulent, planned from a cast.

A story is a function ``(cast, rng, at_ms) -> list[Step]``. It only plans: balances, limits and devices are those of
the moment at which a step is written. Frauds and the honest events that look like them are told in the same way, so
that nothing in a message's form gives a fraud away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from ops.traffic import documents
from ops.traffic.population import Population
from ops.traffic.seasons import BRASILIA_OFFSET_MS, DAY_MS, HOUR_MS, MINUTE_MS

__all__ = ["ANY_HOUR", "NIGHT", "OFFICE", "WAKING", "Cast", "Label", "Step", "Story", "Typology"]

_NO_FACTS: Final[Mapping[str, object]] = MappingProxyType({})


class Typology(StrEnum):
    """The frauds that a stream can see, by their names in `tables.typologies` (a fake receipt moves no money)."""

    MULE = "mule"
    REMOTE_ACCESS = "remote_access"
    FAKE_EMPLOYEE = "fake_employee"
    RELATIVE = "relative"
    FAKE_SHOP = "fake_shop"
    SIM_SWAP = "sim_swap"
    COERCION = "coercion"
    QR_TAMPERING = "qr_tampering"
    GROWING_AMOUNTS = "growing_amounts"
    DISPERSAL = "dispersal"
    NEW_KEY = "new_key"
    KEY_HIJACK = "key_hijack"
    DORMANT = "dormant"
    WRONG_PIX = "wrong_pix"


class Step(NamedTuple):
    """One planned payment.

    A named tuple, because honest traffic makes one per message and a frozen dataclass costs four times as much.

    Parameters
    ----------
    at_ms
        Epoch milliseconds of acceptance.
    payer, receiver
        Entities of the population.
    amount_centavos
        Wanted amount; the payer's limit of the moment caps it.
    initiation, purpose
        As in the message.
    flags
        Session flags that the app saw for certain, beside its usual noise.
    device, place
        Another device (its name), another place (latitude, longitude) than the payer's own.
    new_device
        The payer changes to a new device with this step, for good; it is registered a day later.
    new_limit_centavos
        The payer's daily limit from this step on.
    facts
        Fields of the message that replace what the population says.
    """

    at_ms: int
    payer: int
    receiver: int
    amount_centavos: int
    initiation: str = "DICT"
    purpose: str = "IPAY"
    flags: tuple[str, ...] = ()
    device: str | None = None
    place: tuple[float, float] | None = None
    new_device: bool = False
    new_limit_centavos: int = 0
    facts: Mapping[str, object] = _NO_FACTS


@dataclass(frozen=True, slots=True)
class Label:
    """The truth about one fraudulent payment.

    Parameters
    ----------
    typology
        Which fraud.
    story
        Number of the story, unique in a run.
    step
        Position of the payment in its story, from 0.
    by_accomplice
        Whether the payer is a criminal, who passes money on and will not contest it.
    """

    typology: Typology
    story: int
    step: int
    by_accomplice: bool


ANY_HOUR = (1.0,) * 24
WAKING = (0.15,) * 6 + (0.6,) + (1.0,) * 15 + (0.6, 0.3)
OFFICE = (0.02,) * 8 + (0.6,) + (1.0,) * 9 + (0.4, 0.2) + (0.05,) * 4
NIGHT = (1.0,) * 5 + (0.3,) + (0.08,) * 13 + (0.5, 0.9, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Story:
    """A kind of story and how often it is told.

    Parameters
    ----------
    name
        Of the typology, or of the honest event.
    tell
        Plans the steps of one story that starts at ``at_ms``.
    weight
        Relative number of stories of this kind.
    hours
        Relative likelihood of a start in each hour of Brasília.
    typology
        What each step is labelled with; none for an honest story.
    """

    name: str
    tell: Callable[[Cast, np.random.Generator, int], list[Step]]
    weight: float
    hours: tuple[float, ...] = WAKING
    typology: Typology | None = None


class Cast:
    """Chooses the actors of a story and the amounts that suit them.

    Parameters
    ----------
    population
        From which the actors come.
    """

    _ACTIVE_MULES_MIN, _ACTIVE_SHARE = 24, 0.4
    """Accounts in use at one time; one is burnt and replaced every few hours."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self._activity_edges = np.cumsum(population.activity)

    def person(self, rng: np.random.Generator) -> int:
        """Return a natural person, the active ones more often."""
        return min(int(np.searchsorted(self._activity_edges, rng.random())), self.population.people - 1)

    def people(self, rng: np.random.Generator, number: int) -> list[int]:
        """Return distinct natural persons, the active ones more often."""
        found: dict[int, None] = {}
        while len(found) < min(number, self.population.people // 2):
            found[self.person(rng)] = None
        return list(found)

    def quiet_person(self, rng: np.random.Generator) -> int:
        """Return a natural person of whom half the population is busier."""
        population = self.population
        candidates = rng.integers(0, population.people, 8)
        return int(candidates[np.argmin(population.activity[candidates])])

    def company(self, rng: np.random.Generator) -> int:
        """Return a legal person, small ones as likely as large ones."""
        return int(rng.integers(self.population.people, self.population.size))

    def mules(self, rng: np.random.Generator, at_ms: int, number: int) -> list[int]:
        """Return distinct mule accounts of those that are in use at ``at_ms``."""
        mules = self.population.mules
        active = min(max(self._ACTIVE_MULES_MIN, int(self._ACTIVE_SHARE * len(mules))), len(mules))
        turn = (at_ms - self.population.start_ms) // (8 * HOUR_MS)
        chosen = rng.permutation(active)[: min(number, active)]
        return [int(mules[(turn + int(position)) % len(mules)]) for position in chosen]

    def mule(self, rng: np.random.Generator, at_ms: int) -> int:
        """Return one mule account in use at ``at_ms``."""
        return self.mules(rng, at_ms, 1)[0]

    def herd_device(self, mule: int) -> str:
        """Return the device from which somebody runs a mule's account, with those of forty others."""
        return f"d-herd-{mule * 2_654_435_761 % max(len(self.population.mules) // 40, 1):x}"

    def young_company(self, rng: np.random.Generator) -> int:
        """Return a legal person that began lately, and honestly as far as anyone knows."""
        population = self.population
        candidates = rng.integers(population.people, population.size, 12)
        return int(candidates[np.argmax(population.account_opened_at[candidates])])

    def fake_shop(self, rng: np.random.Generator) -> int:
        """Return a company that exists to defraud."""
        return int(rng.choice(self.population.fake_shops))

    def friend(self, rng: np.random.Generator, person: int) -> int:
        """Return somebody whom a person usually pays."""
        return int(rng.choice(self.population.friends[person]))

    def cash(self, rng: np.random.Generator, payer: int, at_ms: int, most_centavos: int) -> Step:
        """Return a Pix Saque at some company: banknotes worth up to ``most_centavos`` and what a till has."""
        notes = min(int(rng.integers(3, 21)) * 5_000, max(most_centavos // 1_000 * 1_000, 2_000))
        return Step(at_ms, payer, self.company(rng), notes, "QRDN" if rng.random() < 0.7 else "QRES", "OTHR")

    def shop(self, rng: np.random.Generator, person: int) -> int:
        """Return a company that a person usually pays."""
        return int(rng.choice(self.population.shops[person]))

    def limit(self, payer: int, at_ms: int) -> int:
        """Return the payer's limit towards a natural person at that hour, in centavos."""
        hour = (at_ms + BRASILIA_OFFSET_MS) // HOUR_MS % 24
        limits = self.population.limit_day if 6 <= hour < 20 else self.population.limit_night
        return int(limits[payer])

    def lookup_initiation(self, rng: np.random.Generator) -> str:
        """Return how a payer who is told a key or an account enters it."""
        return "MANU" if rng.random() < 0.18 else "DICT"

    def fresh_key(self, rng: np.random.Generator, at_ms: int, age_days: float) -> dict[str, object]:
        """Return the fields of a random key that its owner created ``age_days`` before ``at_ms``."""
        created = at_ms - int(max(age_days, 0.002) * DAY_MS)
        high, low = (int(half) for half in rng.integers(-(2**63), 2**63, 2, dtype=np.int64))
        return {
            "pix_key": documents.evp(high, low),
            "pix_key_type": "EVP",
            "dict_key_created_at": created,
            "dict_key_owned_since": created,
            "dict_key_settlements_d90": int(rng.poisson(age_days * 0.3)),
            "dict_key_settlements_m12": 0,
            "dict_key_settlements_m60": 0,
        }


def reais(rng: np.random.Generator, median: float, sigma: float = 0.8) -> int:
    """Return a log-normal amount in centavos, often a round sum, as people choose it."""
    amount = median * float(np.exp(sigma * rng.standard_normal()))
    step = 5 if amount < 60 else 10 if amount < 300 else 50 if amount < 3000 else 100
    if rng.random() < 0.6:
        return max(round(amount / step), 1) * step * 100
    return max(round(amount * 100), 100)


def share(rng: np.random.Generator, amount_centavos: int, low: float, high: float) -> int:
    """Return a uniform share of an amount, at least one real."""
    return max(int(amount_centavos * rng.uniform(low, high)), 100)


def minutes(rng: np.random.Generator, mean: float) -> int:
    """Return an exponential delay in milliseconds with a mean in minutes, at least a few seconds."""
    return int(rng.exponential(mean) * MINUTE_MS) + int(rng.integers(3_000, 15_000))


def hours(rng: np.random.Generator, mean: float) -> int:
    """Return an exponential delay in milliseconds with a mean in hours."""
    return int(rng.exponential(mean) * HOUR_MS) + MINUTE_MS
