"""Every base feature, declared once. Names, positions, units, the kernel's plan and the README derive from here.

Each is read from the history of one key, before the event counts. `tables/derived.py` has the features that are
expressions over these. Money is in centavos, time in milliseconds, missing is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from tables.aggregates import (
    Age,
    Aggregate,
    Count,
    Distinct,
    DistinctDevices,
    FirstTime,
    FlagCount,
    FlagRun,
    Growth,
    Marks,
    Max,
    Mean,
    MetAs,
    NewDevice,
    PeriodSum,
    Repeats,
    Rising,
    SameDevice,
    Seen,
    Share,
    SinceLast,
    SinceMark,
    SincePair,
    Std,
    Sum,
)
from tables.plan import Period

__all__ = ["FEATURES", "Feature", "days", "hours", "minutes"]


def minutes(count: int) -> int:
    """Return minutes in milliseconds."""
    return count * 60_000


def hours(count: int) -> int:
    """Return hours in milliseconds."""
    return minutes(60 * count)


def days(count: int) -> int:
    """Return days in milliseconds."""
    return hours(24 * count)


@dataclass(frozen=True, slots=True)
class Feature:
    """A base feature: one aggregate of the history of one key.

    Parameters
    ----------
    key
        Whose history, and so the stage that computes it: "receiver" or "payer".
    aggregate
        What is taken from it; a class, or an instance where it takes parameters.
    why
        What it tells about fraud, in one line.
    log
        Which events: "received", "sent", "credited"; None for what is no log's.
    window
        Width of the sliding window (t - window, t] in ms, where the aggregate takes one.
    typologies
        Rows of TYPOLOGIES that it helps to see.
    """

    key: str
    aggregate: Aggregate | type[Aggregate]
    why: str
    log: str | None = None
    window: int | None = None
    typologies: tuple[str, ...] = ()


WINDOWS = (minutes(1), minutes(5), hours(1), hours(24), days(7), days(30))

_AMOUNTS: tuple[tuple[type[Aggregate], str, str], ...] = (
    (Count, "A drained account sends often.", "A mule receives often."),
    (Sum, "A drained account sends much.", "A mule receives much."),
    (Mean, "Frauds leave the usual ticket.", "A fake shop's tickets are alike."),
    (Max, "What the payer has done before is less suspicious.", "A first large receipt is suspicious."),
    (Std, "How much the payer's tickets vary.", "Shops vary little, people much."),
)

_SENT_AND_RECEIVED = tuple(
    feature
    for aggregate, sent, received in _AMOUNTS
    for window in WINDOWS
    for feature in (
        Feature("payer", aggregate, sent, "sent", window, ("remote_access", "dispersal", "dormant")),
        Feature("receiver", aggregate, received, "received", window, ("mule", "fake_shop", "new_key")),
    )
)

_RECEIVER = (
    Feature("receiver", SinceLast, "Bursts of receipts.", "received", typologies=("mule", "dormant")),
    Feature("receiver", Age, "Mule accounts are new to us.", typologies=("mule", "new_key", "fake_shop")),
    Feature("receiver", Seen, "How well the receiver is known.", "received", typologies=("new_key",)),
    *(
        Feature(
            "receiver",
            Distinct,
            "Fan-in: many payers to one account.",
            "received",
            window,
            ("mule", "fake_shop", "qr_tampering"),
        )
        for window in (hours(1), hours(24), days(7), days(30))
    ),
    Feature("receiver", FirstTime, "A payer new to this receiver.", "received", typologies=("relative", "fake_shop")),
    Feature("receiver", SincePair, "Repeated payments to one payee.", "received", typologies=("relative", "coercion")),
    *(
        Feature("receiver", Share(flag), why, "received", window, typologies)
        for flag, window, why, typologies in (
            ("NEW_COUNTERPARTY", hours(24), "A mule's payers come once.", ("mule", "fake_shop")),
            ("NEW_COUNTERPARTY", days(30), "A merchant's payers come back.", ("fake_shop",)),
            ("NIGHT", days(30), "Receipts by night are unusual.", ("coercion", "mule")),
            ("ROUND", days(30), "Sums agreed by talk are round.", ("relative",)),
            ("LEGAL_PAYER", days(30), "Salaries and suppliers against people.", ("mule",)),
        )
    ),
    Feature("receiver", FlagCount("STATIC_QR"), "A new printed QR.", "received", hours(24), ("qr_tampering",)),
    Feature("receiver", FlagCount("NEAR_LIMIT"), "Payers at their limit.", "received", hours(24), ("coercion", "mule")),
    Feature("receiver", Growth, "Tasks and investments grow.", "received", days(7), ("growing_amounts",)),
    Feature("receiver", Rising, "An increasing series.", "received", days(30), ("growing_amounts",)),
    Feature("receiver", Repeats, "The same amount again.", "received", hours(1), ("fake_shop", "dispersal")),
    Feature("receiver", SameDevice, "One device behind several payers.", typologies=("dispersal", "remote_access")),
    Feature("receiver", Marks, "Confirmed fraud at this receiver.", typologies=("mule", "fake_shop")),
    Feature("receiver", Marks("MULE_ACCOUNT"), "Confirmed as a mule.", typologies=("mule",)),
    Feature("receiver", Marks("SCAMMER_ACCOUNT"), "Confirmed as a scammer.", typologies=("fake_shop", "relative")),
    Feature("receiver", SinceMark, "How fresh the confirmation is.", typologies=("mule",)),
)

_PAYER = (
    Feature(
        "payer", Marks, "A victim is tried again; a stolen account stays so.", typologies=("remote_access", "relative")
    ),
    Feature("payer", SinceMark, "The next try follows soon.", typologies=("remote_access", "relative")),
    Feature("payer", Sum, "What went out of the last minutes' credit.", "sent", minutes(10), ("mule",)),
    *(
        Feature("payer", aggregate, "Money that came in just before.", "credited", window, ("mule", "remote_access"))
        for aggregate in (Count, Sum)
        for window in (minutes(10), hours(1), hours(24))
    ),
    Feature("payer", SinceLast, "Dwell time of a credit.", "credited", typologies=("mule", "wrong_pix")),
    Feature("payer", Distinct, "Fan-in of an account that sends on.", "credited", hours(24), ("mule",)),
    Feature(
        "payer", MetAs, "The receiver has paid the payer before.", "credited", typologies=("relative", "wrong_pix")
    ),
    Feature("payer", Repeats, "The very amount came in before.", "credited", hours(24), ("wrong_pix", "mule")),
    Feature("payer", SinceLast, "Gap between payments.", "sent", typologies=("remote_access", "dormant", "coercion")),
    Feature("payer", Age, "How long the payer is known.", typologies=("mule", "dormant")),
    Feature("payer", Seen, "How well the payer is known.", "sent", typologies=("dormant",)),
    *(
        Feature("payer", Distinct, "Fan-out.", "sent", window, ("dispersal", "remote_access"))
        for window in (hours(1), hours(24), days(7), days(30))
    ),
    Feature(
        "payer",
        FirstTime,
        "First payment to this payee.",
        "sent",
        typologies=("remote_access", "fake_employee", "relative", "qr_tampering"),
    ),
    Feature("payer", SincePair, "Paid the same payee lately.", "sent", typologies=("relative", "coercion")),
    *(
        Feature("payer", Share(flag), why, "sent", window, typologies)
        for flag, window, why, typologies in (
            ("NEW_COUNTERPARTY", hours(24), "Several new payees at once.", ("remote_access", "dispersal")),
            ("NEW_COUNTERPARTY", days(30), "How often the payer tries new payees.", ("fake_shop",)),
            ("NIGHT", days(30), "Whether nights are usual.", ("coercion",)),
            ("ROUND", days(30), "Whether round sums are usual.", ("relative",)),
        )
    ),
    *(
        Feature("payer", FlagCount(flag), why, "sent", window, typologies)
        for flag, window, why, typologies in (
            ("NEW_COUNTERPARTY", hours(1), "New payees within the hour.", ("remote_access", "dispersal")),
            ("NEAR_LIMIT", hours(1), "Amounts at 80 to 100 % of the limit.", ("dispersal", "coercion")),
            ("NEAR_LIMIT", hours(24), "Amounts at 80 to 100 % of the limit.", ("dispersal", "coercion")),
            ("RECEIVER_MARKED", days(30), "Payments to confirmed frauds.", ("mule", "growing_amounts")),
        )
    ),
    Feature("payer", FlagRun("NEAR_LIMIT"), "One maxed payment after another.", "sent", hours(2), ("coercion",)),
    Feature("payer", Growth, "Each payment larger than the last.", "sent", days(30), ("growing_amounts",)),
    Feature("payer", Rising, "An increasing series.", "sent", days(30), ("growing_amounts",)),
    Feature("payer", Repeats, "The same amount again.", "sent", hours(24), ("dispersal",)),
    Feature("payer", NewDevice, "A device that never paid from here.", typologies=("sim_swap", "remote_access")),
    Feature("payer", DistinctDevices, "Devices in use.", window=days(30), typologies=("sim_swap",)),
    *(
        Feature("payer", PeriodSum(flags, period, name, without), why, "sent", typologies=("coercion", "remote_access"))
        for flags, period, name, without, why in (
            (
                ("NIGHT", "NATURAL_PAIR"),
                Period.NIGHT,
                "night_natural",
                (),
                "Res. BCB 142: R$ 1,000 a night between people.",
            ),
            (("UNREGISTERED_DEVICE",), Period.DAY, "unregistered_device_day", (), "IN BCB 491: R$ 1,000 a day."),
            (("CASH",), Period.DAYTIME, "cash_day", ("NIGHT",), "Pix Saque and Troco: R$ 3,000 by day."),
            (("CASH", "NIGHT"), Period.NIGHT, "cash_night", (), "Pix Saque and Troco: R$ 1,000 by night."),
        )
    ),
)

FEATURES: tuple[Feature, ...] = (*_RECEIVER, *_PAYER, *_SENT_AND_RECEIVED)
"""Every base feature."""
