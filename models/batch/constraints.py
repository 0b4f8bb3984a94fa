"""Where the domain knows a direction, a model must not learn the other one: monotone constraints, derived.

Confirmed marks and open reports only ever speak against a payment; a model that learns from a few hundred frauds would
find receivers with three marks less suspicious than with two, by chance. Whatever is not named here is free: amounts,
ages and speeds tell for some frauds and against others.
"""

from __future__ import annotations

from tables.catalog import Entry

__all__ = ["monotone_constraint", "monotone_constraints"]

_RISES_BY_UNIT: dict[str, str] = {
    "markers": "a confirmed-fraud marker never clears its receiver",
}
_RISES_BY_NAME: dict[str, str] = {
    "receiver_key_open_reports": "a report that is being analysed is a suspicion",
    "receiver_person_open_reports": "a report that is being analysed is a suspicion",
    "receiver_person_fraud_reporters_m12": "more banks that reported the receiver agree with each other",
    "payer_sent_receiver_marked_count_30d": "who has paid marked receivers is being defrauded, or takes part",
    "payer_new_device": "an unknown device is no sign of the client",
    "unregistered_device": "an unknown device is no sign of the client",
}
_RISES_BY_PREFIX: dict[str, str] = {
    "session_": "each flag of the session is raised as a warning",
}
_FREE: dict[str, str] = {
    "payer_fraud_marks": "who was defrauded once is tried again, but pays for honest things all the same",
    "session_copy_paste": "most clients paste keys",
    "session_loan_drawn": "a loan that was just drawn is mostly spent as it should be",
    "session_savings_redeemed": "savings are mostly redeemed for a purchase",
}
_FALLS_BY_NAME: dict[str, str] = {
    "receiver_since_mark_ms": "a mark speaks less the older it is",
}


def monotone_constraint(entry: Entry) -> tuple[int, str]:
    """Return the direction of a feature's risk, and why: 1 rising, -1 falling, 0 free.

    Examples
    --------
    >>> from tables.catalog import CATALOG
    >>> directions = {entry.name: monotone_constraint(entry)[0] for entry in CATALOG.entries}
    >>> [directions[name] for name in ("receiver_fraud_marks", "receiver_since_mark_ms", "amount_log")]
    [1, -1, 0]
    """
    if entry.name in _FREE:
        return 0, _FREE[entry.name]
    if entry.name in _FALLS_BY_NAME:
        return -1, _FALLS_BY_NAME[entry.name]
    if entry.name in _RISES_BY_NAME:
        return 1, _RISES_BY_NAME[entry.name]
    if entry.unit in _RISES_BY_UNIT:
        return 1, _RISES_BY_UNIT[entry.unit]
    for prefix, why in _RISES_BY_PREFIX.items():
        if entry.name.startswith(prefix):
            return 1, why
    return 0, ""


def monotone_constraints(entries: tuple[Entry, ...], names: tuple[str, ...]) -> list[int]:
    """Return the direction of each of these features, in their order; 0 for one that the catalog does not know."""
    directions = {entry.name: monotone_constraint(entry)[0] for entry in entries}
    return [directions.get(name, 0) for name in names]
