"""The frauds that features must cover, one per row of the typology table, and what a stream cannot see of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TYPOLOGIES", "Typology"]


@dataclass(frozen=True, slots=True)
class Typology:
    """One way in which people are defrauded.

    Parameters
    ----------
    name
        As features name it.
    pattern
        What happens.
    unseen
        What a stream of payments cannot see of it, and why; empty where nothing matters.
    in_stream
        False where no payment takes place at all.
    """

    name: str
    pattern: str
    unseen: str = ""
    in_stream: bool = True


TYPOLOGIES: dict[str, Typology] = {
    typology.name: typology
    for typology in (
        Typology("mule", "a credit leaves within minutes, the balance is about zero"),
        Typology("remote_access", "trusted device under remote control, several fast Pix to new payees"),
        Typology("fake_employee", "on a phone call, the limit is raised and savings are redeemed"),
        Typology(
            "relative",
            "an elderly payer sends round sums to a first payee",
            unseen="the payer's age: no message carries it",
        ),
        Typology("fake_shop", "low tickets from many unrelated payers to a young company"),
        Typology("sim_swap", "new device and password reset", unseen="the device's age at its maker"),
        Typology(
            "coercion",
            "night, unusual place, the maximum of the limit, again and again",
            unseen="the distance from usual places: a row keeps no positions, which would be a movement profile",
        ),
        Typology("qr_tampering", "the payee behind a static QR changes", unseen="which shop a printed QR hangs in"),
        Typology(
            "fake_receipt",
            "a forged receipt is shown",
            unseen="everything: no Pix takes place",
            in_stream=False,
        ),
        Typology("growing_amounts", "an increasing series to related payees (tasks, investment)"),
        Typology("dispersal", "fan-out just below the limits"),
        Typology("new_key", "a key of a few days and a large first receipt"),
        Typology(
            "key_hijack",
            "a claim by someone who is not the owner",
            unseen="the former owner's tax id: DICT's snapshot names only the present one",
        ),
        Typology("dormant", "months of silence, then a burst"),
        Typology(
            "wrong_pix",
            "a payee is asked to return money by a new Pix",
            unseen="the double contest itself arrives as feedback, after the payment",
        ),
    )
}
"""By name, in the order of the table."""
