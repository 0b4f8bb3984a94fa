"""Frauds in which the victim pays willingly: false relatives, shops, investments, codes and mistakes."""

from __future__ import annotations

import numpy as np

from ops.traffic.mule_stories import onward
from ops.traffic.stories import Cast, Step, Story, Typology, hours, minutes, reais, share

__all__ = ["STORIES"]


def fake_relative(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A "new number" of a son asks for a bill to be paid, and for another one when it works."""
    victim, mule = cast.person(rng), cast.mule(rng, at_ms)
    steps, when = [], at_ms
    for _ in range(int(rng.integers(1, 4))):
        amount = min(reais(rng, 850, 0.7), cast.limit(victim, when))
        if victim != mule:
            steps.append(Step(when, victim, mule, amount, cast.lookup_initiation(rng)))
            steps += onward(cast, rng, mule, amount, when, mean_minutes=10.0)
        when += minutes(rng, 35)
    return steps


def fake_shop(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A shop that never delivers: small tickets of many unrelated payers, swept to a mule now and then."""
    shop = cast.fake_shop(rng)
    price = reais(rng, 130, 0.8)
    gap = float(rng.choice([3.0, 20.0]))  # an advertisement that runs, or one that is passed on
    steps, when, received = [], at_ms, 0
    for victim in cast.people(rng, int(rng.integers(5, 18))):
        amount = price if rng.random() < 0.5 else share(rng, price, 0.6, 1.8)
        initiation = str(rng.choice(["QRDN", "DICT", "QRES"], p=[0.6, 0.28, 0.12]))
        steps.append(Step(when, victim, shop, amount, initiation))
        received += amount
        when += minutes(rng, gap)
    mule = cast.mule(rng, when)
    return [*steps, Step(when, shop, mule, share(rng, received, 0.7, 1.0), cast.lookup_initiation(rng))]


def qr_tampering(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A sticker over a shop's static code: its customers pay a stranger instead."""
    thief = cast.mule(rng, at_ms)
    facts = cast.fresh_key(rng, at_ms, rng.exponential(6.0)) if rng.random() < 0.6 else {}
    steps, when, received = [], at_ms, 0
    for victim in cast.people(rng, int(rng.integers(4, 11))):
        amount = reais(rng, 38, 0.8)
        if victim != thief:
            steps.append(Step(when, victim, thief, amount, "QRES", facts=facts))
            received += amount
        when += minutes(rng, 9)
    return steps + onward(cast, rng, thief, received, when, mean_minutes=15.0)


def growing_amounts(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Tasks or an investment: a small first payment that is even paid back, then more and more."""
    victim = cast.person(rng)
    mules = [mule for mule in cast.mules(rng, at_ms, 3) if mule != victim]
    amount, gap = reais(rng, 60, 0.6), float(rng.choice([0.3, 1.0, 6.0]))
    steps, when = [], at_ms
    for part in range(int(rng.integers(3, 8))):
        mule = mules[part % len(mules)]
        paid = min(amount, cast.limit(victim, when))
        steps.append(Step(when, victim, mule, paid, cast.lookup_initiation(rng)))
        if part == 0 and rng.random() < 0.6:  # the bait: the first "profit" comes back
            steps.append(Step(when + hours(rng, 0.2), mule, victim, int(paid * 1.2), cast.lookup_initiation(rng)))
        elif rng.random() < 0.6:
            steps += onward(cast, rng, mule, paid, when, mean_minutes=20.0)
        amount = int(amount * rng.uniform(1.3, 2.4))
        when += hours(rng, gap)
    return steps


def wrong_pix(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A Pix "by mistake" to the victim, who sends a new one to another account; then the first is contested."""
    victim, sender = cast.person(rng), cast.mule(rng, at_ms)
    other = next(mule for mule in cast.mules(rng, at_ms, 3) if mule not in {victim, sender})
    if victim == sender:
        return []
    amount = min(reais(rng, 260, 0.7), cast.limit(sender, at_ms))
    back = at_ms + minutes(rng, 30)
    paid_back = min(amount, cast.limit(victim, back))
    return [
        Step(at_ms, sender, victim, amount, cast.lookup_initiation(rng)),
        Step(back, victim, other, paid_back, cast.lookup_initiation(rng)),
        *onward(cast, rng, other, paid_back, back),
    ]


STORIES = (
    Story("fake relative", fake_relative, 1.0, typology=Typology.RELATIVE),
    Story("fake shop", fake_shop, 1.4, typology=Typology.FAKE_SHOP),
    Story("QR tampering", qr_tampering, 0.5, typology=Typology.QR_TAMPERING),
    Story("growing amounts", growing_amounts, 0.7, typology=Typology.GROWING_AMOUNTS),
    Story("wrong Pix", wrong_pix, 0.5, typology=Typology.WRONG_PIX),
)
