"""Frauds of the receiving side: mule accounts, dispersal below limits, woken accounts, hijacked and new keys."""

from __future__ import annotations

import numpy as np

from ops.traffic.seasons import DAY_MS
from ops.traffic.stories import ANY_HOUR, Cast, Step, Story, Typology, hours, minutes, reais, share

__all__ = ["STORIES", "onward"]


def onward(
    cast: Cast, rng: np.random.Generator, mule: int, received_centavos: int, at_ms: int, mean_minutes: float = 5.0
) -> list[Step]:
    """Plan how a mule passes on what it received, within minutes and in a few parts.

    Parameters
    ----------
    mule, received_centavos, at_ms
        Whose account, how much came in, and when.
    mean_minutes
        Mean delay before the first payment and between payments.
    """
    fate = rng.random()
    if fate < 0.06:  # the account is blocked in time
        return []
    if fate < 0.12:  # a person on the way to a till
        return [cast.cash(rng, mule, at_ms + minutes(rng, mean_minutes), received_centavos)]
    parts = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.20]))
    others = [other for other in cast.mules(rng, at_ms, parts + 1) if other != mule]
    shared_device = cast.herd_device(mule) if rng.random() < 0.25 else None
    steps, left, when = [], received_centavos, at_ms
    for part in range(parts):
        when += minutes(rng, mean_minutes)
        amount = share(rng, left, 0.80, 1.0) if part == parts - 1 else share(rng, left, 0.3, 0.6)
        left = max(left - amount, 0)
        kind = rng.random()
        if kind < 0.55 and others:
            receiver, initiation = others[part % len(others)], cast.lookup_initiation(rng)
        elif kind < 0.75:
            receiver, initiation = cast.person(rng), cast.lookup_initiation(rng)
        else:  # betting sites and exchanges: an ordinary dynamic QR
            receiver, initiation = cast.shop(rng, mule), "QRDN"
        if receiver != mule and amount >= 100:
            steps.append(Step(when, mule, receiver, amount, initiation, device=shared_device))
    return steps


def mule(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Victims of one afternoon pay a mule; the money leaves in parts before they notice."""
    account = cast.mule(rng, at_ms)
    steps, when, received = [], at_ms, 0
    for victim in cast.people(rng, int(rng.integers(2, 7))):
        amount = min(reais(rng, 420, 1.0), cast.limit(victim, when))
        steps.append(Step(when, victim, account, amount, cast.lookup_initiation(rng)))
        received += amount
        when += minutes(rng, 12)
    return steps + onward(cast, rng, account, received, when)


def dispersal(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A sum is split into payments a little below the limit, to several accounts."""
    payer = cast.mule(rng, at_ms)
    ceiling = cast.limit(payer, at_ms)
    if rng.random() < 0.5:  # below a bound that the bank is thought to watch, rather than the account's own
        ceiling = min(ceiling, int(rng.choice([50_000, 100_000, 200_000, 300_000])))
    device = cast.herd_device(payer) if rng.random() < 0.4 else None
    receivers = [other for other in cast.mules(rng, at_ms, 6) if other != payer] + [cast.person(rng)]
    steps, when = [], at_ms
    for part in range(int(rng.integers(3, 9))):
        receiver = receivers[part % len(receivers)]
        if receiver != payer:
            amount = share(rng, ceiling, 0.78, 0.995)
            steps.append(Step(when, payer, receiver, amount, cast.lookup_initiation(rng), device=device))
        when += minutes(rng, 6)
    return steps


def dormant_account(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """An account that slept for months receives and sends in a burst."""
    sleeper = cast.quiet_person(rng)
    steps, when = [], at_ms
    for victim in cast.people(rng, int(rng.integers(1, 4))):
        if victim == sleeper:
            continue
        amount = min(reais(rng, 500, 0.9), cast.limit(victim, when))
        steps.append(Step(when, victim, sleeper, amount, cast.lookup_initiation(rng)))
        when += minutes(rng, 8)
        steps += onward(cast, rng, sleeper, amount, when, mean_minutes=3.0)
    return steps


def key_hijack(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A claimed key (a recycled number) leads the owner's usual payers to a stranger's account."""
    owner, thief = cast.person(rng), cast.mule(rng, at_ms)
    population = cast.population
    owned = at_ms - int(rng.exponential(4.0) * DAY_MS)
    facts: dict[str, object] = {
        "pix_key": population.key_of(owner),
        "pix_key_type": population.key_type_of(owner),
        "dict_key_created_at": int(population.key_created_at[owner]),
        "dict_key_owned_since": owned,
    }
    if rng.random() < 0.5:
        facts["dict_claim_opened_at"] = owned - int(rng.uniform(7.0, 14.0) * DAY_MS)
    steps, when, received = [], at_ms, 0
    payers = {cast.friend(rng, owner) for _ in range(int(rng.integers(2, 6)))} - {owner, thief}
    for payer in sorted(payers):
        amount = min(reais(rng, 160, 0.9), cast.limit(payer, when))
        steps.append(Step(when, payer, thief, amount, facts=facts))
        received += amount
        when += minutes(rng, 25)
    return steps + onward(cast, rng, thief, received, when)


def new_key(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A key of some hours receives one large payment, and is emptied."""
    receiver = cast.mule(rng, at_ms)
    facts = cast.fresh_key(rng, at_ms, rng.exponential(1.5))
    victim = cast.person(rng)
    amount = min(reais(rng, 1_600, 0.8), cast.limit(victim, at_ms))
    steps = [Step(at_ms, victim, receiver, amount, facts=facts)] if victim != receiver else []
    if rng.random() < 0.4 and steps:
        again = at_ms + hours(rng, 1.0)
        steps.append(steps[0]._replace(at_ms=again, amount_centavos=share(rng, amount, 0.3, 0.9)))
    return steps + onward(cast, rng, receiver, amount, steps[-1].at_ms if steps else at_ms, mean_minutes=8.0)


STORIES = (
    Story("mule", mule, 1.2, typology=Typology.MULE),
    Story("dispersal", dispersal, 0.5, ANY_HOUR, Typology.DISPERSAL),
    Story("dormant account", dormant_account, 0.5, typology=Typology.DORMANT),
    Story("key hijack", key_hijack, 0.5, typology=Typology.KEY_HIJACK),
    Story("new key", new_key, 0.8, typology=Typology.NEW_KEY),
)
