"""Honest events that look like fraud, and are told far more often than the frauds are."""

from __future__ import annotations

import numpy as np

from ops.traffic.seasons import DAY_MS
from ops.traffic.stories import ANY_HOUR, OFFICE, WAKING, Cast, Step, Story, hours, minutes, reais, share

__all__ = ["STORIES"]

_PARTY = (0.3,) * 4 + (0.05,) * 8 + (0.5,) * 6 + (1.0,) * 6


def new_phone(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A person buys a phone, resets the password and goes on paying."""
    person = cast.person(rng)
    flags = ("NEW_DEVICE", *(flag for flag in ("PASSWORD_RESET", "SIM_CHANGED") if rng.random() < 0.45))
    steps, when = [], at_ms
    for part in range(int(rng.integers(2, 6))):
        receiver, initiation = (
            (cast.friend(rng, person), "DICT") if rng.random() < 0.5 else (cast.shop(rng, person), "QRDN")
        )
        if receiver != person:
            steps.append(
                Step(when, person, receiver, reais(rng, 70, 0.9), initiation, flags=flags, new_device=part == 0)
            )
        when += hours(rng, 1.5)
    return steps


def large_purchase(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A car, a deposit, a builder: a large payment to somebody never paid before, with the limit raised for it."""
    buyer = cast.person(rng)
    seller = cast.person(rng) if rng.random() < 0.6 else cast.company(rng)
    if seller == buyer:
        return []
    flags = tuple(
        flag
        for flag, likelihood in (("LIMIT_RAISED", 0.4), ("SAVINGS_REDEEMED", 0.35), ("ON_CALL", 0.12))
        if rng.random() < likelihood
    )
    price = reais(rng, 2_200, 0.9)
    raised = max(price, int(cast.population.limit_day[buyer])) if "LIMIT_RAISED" in flags else 0
    steps = [Step(at_ms, buyer, seller, price, cast.lookup_initiation(rng), flags=flags, new_limit_centavos=raised)]
    if rng.random() < 0.5:  # a token first, the rest when it has arrived
        rest = at_ms + minutes(rng, 20)
        steps.append(Step(rest, buyer, seller, reais(rng, 1_500, 0.9), cast.lookup_initiation(rng), flags=flags))
    return steps


def bill_day(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Salary has come: rent, school, loans and a brother are paid one after the other, the account is nearly empty."""
    person = cast.person(rng)
    steps, when = [], at_ms
    for _ in range(int(rng.integers(3, 9))):
        new = rng.random() < 0.35
        receiver = cast.person(rng) if new else cast.friend(rng, person)
        initiation = cast.lookup_initiation(rng)
        if rng.random() < 0.4:
            receiver, initiation = cast.shop(rng, person), "QRDN"
        if receiver != person:
            steps.append(Step(when, person, receiver, reais(rng, 230, 1.0), initiation))
        when += minutes(rng, 2.5)
    return steps


def shared_bill(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Friends chip in to one of them, who then pays the whole: fan-in and pass-through without any crime."""
    host = cast.person(rng)
    steps, when, received = [], at_ms, 0
    each = reais(rng, 65, 0.8)
    for guest in cast.people(rng, int(rng.integers(3, 13))):
        if guest != host:
            initiation = "QRES" if rng.random() < 0.2 else "DICT"
            steps.append(Step(when, guest, host, each, initiation))
            received += each
            when += minutes(rng, 7)
    if received and rng.random() < 0.75:
        to_shop = rng.random() < 0.6
        payee = cast.shop(rng, host) if to_shop else cast.person(rng)
        if payee != host:
            amount = share(rng, received, 0.8, 1.2)
            steps.append(Step(when, host, payee, amount, "QRDN" if to_shop else cast.lookup_initiation(rng)))
    return steps


def payroll(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A small company pays its people within minutes."""
    company = cast.company(rng)
    staff = cast.people(rng, int(rng.integers(4, 25)))
    base = reais(rng, 1_500, 0.5)
    when, steps = at_ms, []
    for person in staff:
        initiation = "MANU" if rng.random() < 0.5 else "DICT"
        steps.append(Step(when, company, person, share(rng, base, 0.5, 1.6), initiation))
        when += minutes(rng, 0.3)
    return steps


def newcomer_shop(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A seller's first good day: a new static or random key, many payers who never met it."""
    seller = cast.quiet_person(rng) if rng.random() < 0.6 else cast.young_company(rng)
    facts = cast.fresh_key(rng, at_ms, rng.exponential(5.0)) if rng.random() < 0.6 else {}
    steps, when, received = [], at_ms, 0
    for client in cast.people(rng, int(rng.integers(4, 16))):
        if client != seller:
            initiation = str(rng.choice(["QRES", "QRDN", "DICT"], p=[0.5, 0.2, 0.3]))
            amount = reais(rng, 55, 0.9)
            steps.append(Step(when, client, seller, amount, initiation, facts=facts))
            received += amount
            when += minutes(rng, 11)
    supplier = cast.company(rng)
    if received and supplier != seller:
        steps.append(Step(when, seller, supplier, share(rng, received, 0.5, 1.0), cast.lookup_initiation(rng)))
    return steps


def own_accounts(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Money passes through: what a partner sends goes on to the landlord or to an investment at once."""
    person = cast.person(rng)
    friend = cast.friend(rng, person)
    target = cast.company(rng) if rng.random() < 0.5 else cast.person(rng)
    if target == person:
        return []
    amount = min(reais(rng, 700, 1.0), cast.limit(friend, at_ms))
    later = at_ms + minutes(rng, 6)
    rest = share(rng, amount, 0.85, 1.0)
    return [
        Step(at_ms, friend, person, amount, cast.lookup_initiation(rng)),
        Step(later, person, target, rest, cast.lookup_initiation(rng)),
    ]


def first_receipt(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A new key's first receipt is a large one: severance pay, an inheritance, a sold motorcycle."""
    receiver = cast.quiet_person(rng)
    payer = cast.company(rng) if rng.random() < 0.35 else cast.person(rng)
    if payer == receiver:
        return []
    facts = cast.fresh_key(rng, at_ms, rng.exponential(2.0))
    steps = [Step(at_ms, payer, receiver, reais(rng, 1_400, 0.9), facts=facts)]
    if rng.random() < 0.5:
        target = cast.person(rng)
        if target != receiver:
            steps.append(Step(at_ms + minutes(rng, 40), receiver, target, reais(rng, 700, 0.9), "DICT"))
    return steps


def moved_key(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A key was carried to another bank last week (portability): same owner, same payers."""
    owner = cast.person(rng)
    owned = at_ms - int(rng.exponential(5.0) * DAY_MS)
    facts: dict[str, object] = {"dict_key_owned_since": owned}
    if rng.random() < 0.5:
        facts["dict_claim_opened_at"] = owned - int(rng.uniform(0.5, 7.0) * DAY_MS)
    steps, when = [], at_ms
    for payer in sorted({cast.friend(rng, owner) for _ in range(int(rng.integers(2, 6)))} - {owner}):
        steps.append(Step(when, payer, owner, reais(rng, 120, 0.9), facts=facts))
        when += minutes(rng, 60)
    return steps


def savings_plan(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Deposits at a broker, a game or a craftsman that grow as trust does."""
    person, target = cast.person(rng), cast.company(rng)
    if rng.random() < 0.4:
        target = cast.quiet_person(rng)
    if target == person:
        return []
    amount, when, steps = reais(rng, 60, 0.7), at_ms, []
    for _ in range(int(rng.integers(3, 7))):
        steps.append(Step(when, person, target, amount, cast.lookup_initiation(rng)))
        amount = share(rng, amount, 0.8, 2.2)
        when += hours(rng, 2.0)
    return steps


def helped_session(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A grandchild or a support desk helps over a call and a shared screen; bills are paid meanwhile."""
    person = cast.person(rng)
    flags = tuple(
        flag
        for flag, likelihood in (("REMOTE_ACCESS", 0.5), ("ON_CALL", 0.6), ("ACCESSIBILITY", 0.4))
        if rng.random() < likelihood
    )
    steps, when = [], at_ms
    for _ in range(int(rng.integers(1, 5))):
        receiver = cast.person(rng) if rng.random() < 0.6 else cast.shop(rng, person)
        if receiver != person:
            steps.append(Step(when, person, receiver, reais(rng, 180, 1.1), cast.lookup_initiation(rng), flags=flags))
        when += minutes(rng, 3)
    return steps


def night_out(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """Away from home at night: taxi, bar and a friend are paid in a row, up to the night limit now and then."""
    person = cast.person(rng)
    city = cast.population.city_centres[int(rng.integers(0, len(cast.population.city_centres)))]
    place = (float(city[0] + rng.normal(0, 0.1)), float(city[1] + rng.normal(0, 0.1)))
    steps, when = [], at_ms
    for _ in range(int(rng.integers(2, 6))):
        stranger = rng.random() < 0.6
        receiver = cast.person(rng) if stranger else cast.company(rng)
        amount = share(rng, cast.limit(person, when), 0.5, 1.0) if rng.random() < 0.25 else reais(rng, 75, 1.0)
        if receiver != person:
            initiation = cast.lookup_initiation(rng) if stranger else "QRDN"
            steps.append(Step(when, person, receiver, amount, initiation, place=place))
        when += minutes(rng, 25)
    if rng.random() < 0.15:  # the band takes banknotes only
        steps.append(cast.cash(rng, person, when, 20_000)._replace(place=place))
    return steps


def woken_account(cast: Cast, rng: np.random.Generator, at_ms: int) -> list[Step]:
    """A forgotten account is used again: some money comes in, several payments go out."""
    person = cast.quiet_person(rng)
    steps = [Step(at_ms, cast.friend(rng, person), person, reais(rng, 350, 0.9))]
    when = at_ms + minutes(rng, 10)
    for _ in range(int(rng.integers(1, 5))):
        receiver = cast.person(rng)
        if receiver != person:
            steps.append(Step(when, person, receiver, reais(rng, 120, 0.9), cast.lookup_initiation(rng)))
        when += minutes(rng, 12)
    return [step for step in steps if step.payer != step.receiver]


STORIES = (
    Story("new phone", new_phone, 1.0),
    Story("large purchase", large_purchase, 1.6, OFFICE),
    Story("bill day", bill_day, 1.6),
    Story("shared bill", shared_bill, 1.0),
    Story("payroll", payroll, 0.5, OFFICE),
    Story("newcomer shop", newcomer_shop, 0.7),
    Story("own accounts", own_accounts, 1.6),
    Story("first receipt", first_receipt, 1.0),
    Story("moved key", moved_key, 0.7),
    Story("savings plan", savings_plan, 0.8),
    Story("helped session", helped_session, 1.2, WAKING),
    Story("night out", night_out, 0.8, _PARTY),
    Story("woken account", woken_account, 0.7, ANY_HOUR),
)
