"""Frauds of the paying side: the session, the device or the person is in a criminal's hands."""

from __future__ import annotations

import numpy as np

from ops.traffic.mule_stories import onward
from ops.traffic.stories import NIGHT, OFFICE, WAKING, Cast, Step, Story, Typology, minutes, reais, share

__all__ = ["STORIES"]

_LATE = tuple(0.5 * waking + 0.5 * night for waking, night in zip(WAKING, NIGHT, strict=True))


def _seen(rng: np.random.Generator, **likelihoods: float) -> tuple[str, ...]:
    """Flags that the app happened to see: detection misses many."""
    return tuple(flag for flag, likelihood in likelihoods.items() if rng.random() < likelihood)


def remote_access(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Ghost hand: from the victim's own phone, several quick payments to accounts it never paid."""
    victim = cast.person(rng)
    flags = _seen(rng, REMOTE_ACCESS=0.5, ACCESSIBILITY=0.5, LOAN_DRAWN=0.25, SAVINGS_REDEEMED=0.25, ON_CALL=0.3)
    mules = [mule for mule in cast.mules(rng, at_ms, int(rng.integers(1, 4))) if mule != victim]
    budget = max(int(cast.population.balance[victim]), reais(rng, 900, 0.8))
    steps, when = [], at_ms
    for part in range(int(rng.integers(2, 6))):
        mule = mules[part % len(mules)] if mules else cast.company(rng)
        amount = min(share(rng, budget, 0.15, 0.7), cast.limit(victim, when))
        steps.append(Step(when, victim, mule, amount, cast.lookup_initiation(rng), flags=flags))
        steps += onward(cast, rng, mule, amount, when)
        budget = max(budget - amount, 5_000)
        when += minutes(rng, 1.5)
    return steps


def fake_employee(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """During a call from "the bank", savings are redeemed, the limit is raised and a safe account is paid."""
    victim = cast.person(rng)
    mule = cast.mule(rng, at_ms)
    flags = _seen(rng, ON_CALL=0.6, LIMIT_RAISED=0.4, SAVINGS_REDEEMED=0.4, REMOTE_ACCESS=0.15)
    raised = 2 * int(cast.population.limit_day[victim]) if "LIMIT_RAISED" in flags else 0
    steps, when = [], at_ms
    for _ in range(int(rng.integers(1, 4))):
        amount = min(reais(rng, 1_900, 0.9), max(cast.limit(victim, when), raised))
        if victim != mule:
            steps.append(
                Step(when, victim, mule, amount, cast.lookup_initiation(rng), flags=flags, new_limit_centavos=raised)
            )
            steps += onward(cast, rng, mule, amount, when)
        when += minutes(rng, 9)
    return steps


def sim_swap(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """The number moves to the thief's SIM, the password is reset on a new device, and the account is emptied."""
    victim, mule = cast.person(rng), cast.mule(rng, at_ms)
    flags = _seen(rng, SIM_CHANGED=0.6, PASSWORD_RESET=0.6, NEW_DEVICE=0.7, EMULATOR=0.1, ROOTED=0.15)
    device = f"d{int(rng.integers(0, 2**40)):x}-s"
    city = cast.population.city_centres[int(rng.integers(0, len(cast.population.city_centres)))]
    place = (float(city[0] + rng.normal(0, 0.1)), float(city[1] + rng.normal(0, 0.1)))
    registered = rng.random() < 0.7
    steps, when = [], at_ms
    for _ in range(int(rng.integers(2, 6))):
        ceiling = cast.limit(victim, when) if registered else 20_000
        amount = min(reais(rng, 450, 0.9), ceiling)
        if victim != mule:
            facts = {"device_registered": registered}
            steps.append(
                Step(
                    when,
                    victim,
                    mule,
                    amount,
                    cast.lookup_initiation(rng),
                    flags=flags,
                    device=device,
                    place=place,
                    facts=facts,
                )
            )
            steps += onward(cast, rng, mule, amount, when)
        when += minutes(rng, 3)
    return steps


def coercion(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """At night, away from home, a victim under threat pays up to the limit, again and again, and draws cash.

    People can only be paid up to the night's total, so some gangs bring a card machine of a company, and some stop at a
    till.
    """
    victim = cast.person(rng)
    mules = [mule for mule in cast.mules(rng, at_ms, 2) if mule != victim]
    home = cast.population.home[victim]
    place = (float(home[0] + rng.normal(0, 0.15)), float(home[1] + rng.normal(0, 0.15)))
    steps, when = [], at_ms
    machine = cast.fake_shop(rng) if rng.random() < 0.5 else None
    for part in range(int(rng.integers(2, 5))):
        if machine is not None:
            amount = share(rng, int(cast.population.limit_day[victim]), 0.75, 1.0)
            steps.append(Step(when, victim, machine, amount, "QRDN", place=place))
        else:
            amount = share(rng, cast.limit(victim, when), 0.45, 1.0)
            mule = mules[part % len(mules)]
            steps.append(Step(when, victim, mule, amount, cast.lookup_initiation(rng), place=place))
            steps += onward(cast, rng, mule, amount, when)
        when += minutes(rng, 10)
    if rng.random() < 0.5:
        steps.append(cast.cash(rng, victim, when, 100_000)._replace(place=place))
    return steps


STORIES = (
    Story("remote access", remote_access, 0.8, _LATE, Typology.REMOTE_ACCESS),
    Story("fake employee", fake_employee, 0.8, OFFICE, Typology.FAKE_EMPLOYEE),
    Story("SIM swap", sim_swap, 0.5, WAKING, Typology.SIM_SWAP),
    Story("coercion", coercion, 0.5, NIGHT, Typology.COERCION),
)
