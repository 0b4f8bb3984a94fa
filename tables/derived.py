"""Every derived feature, declared once: expressions over base features, the transaction and the calendar.

The language is that of `app.domain.expression`: money in centavos, time in milliseconds, missing stays missing. The
columns are the base features, the transaction's fields, and those of `tables.calendar`.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.fields import SESSION_FLAGS
from tables.aggregates import Family

__all__ = ["DERIVED", "Derived"]


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived feature: an expression.

    Parameters
    ----------
    name
        Its name: an expression has none of its own.
    expression
        Over base features, transaction and calendar.
    unit
        Of its values.
    family
        What it tells about.
    why
        What it tells about fraud, in one line.
    typologies
        Rows of TYPOLOGIES that it helps to see.
    """

    name: str
    expression: str
    unit: str
    family: Family
    why: str
    typologies: tuple[str, ...] = ()


_HABITS = (
    Derived(
        "amount_to_payer_mean_30d",
        "amount_centavos / payer_sent_mean_30d",
        "ratio",
        Family.TRANSACTION,
        "Frauds leave the payer's usual ticket.",
        ("fake_employee", "relative", "remote_access"),
    ),
    Derived(
        "amount_to_payer_zscore_30d",
        "(amount_centavos - payer_sent_mean_30d) / max(payer_sent_std_30d, 100)",
        "standard deviations",
        Family.TRANSACTION,
        "The same, in the payer's own standard deviations, of R$ 1 at least.",
        ("fake_employee",),
    ),
    Derived(
        "amount_to_payer_max_30d",
        "amount_centavos / payer_sent_max_30d",
        "ratio",
        Family.TRANSACTION,
        "More than the payer ever sent in a month.",
        ("fake_employee", "growing_amounts"),
    ),
    Derived(
        "amount_to_receiver_mean_30d",
        "amount_centavos / receiver_received_mean_30d",
        "ratio",
        Family.TRANSACTION,
        "Not what this payee usually gets.",
        ("qr_tampering", "new_key"),
    ),
    Derived(
        "amount_to_receiver_max_30d",
        "amount_centavos / receiver_received_max_30d",
        "ratio",
        Family.TRANSACTION,
        "A first large receipt.",
        ("new_key", "mule"),
    ),
    Derived(
        "amount_to_first_payee",
        "payer_sent_first_time * amount_centavos / payer_sent_mean_30d",
        "ratio",
        Family.TRANSACTION,
        "Much, and to a new payee.",
        ("relative", "fake_employee"),
    ),
)

_FLOWS = (
    *(
        Derived(
            f"pass_through_{window}",
            f"(payer_sent_sum_{window} + amount_centavos) / payer_credited_sum_{window}",
            "ratio",
            Family.NETWORK,
            "What came in leaves again: 1 where all of it does.",
            ("mule",),
        )
        for window in ("10min", "1h")
    ),
    Derived(
        "drained_1h",
        "(payer_sent_sum_1h + amount_centavos) / (payer_sent_sum_1h + payer_balance_centavos)",
        "share",
        Family.USER,
        "Share of the balance of an hour ago that leaves.",
        ("remote_access", "mule"),
    ),
    *(
        Derived(
            f"{key}_{log}_velocity_{short}",
            f"{key}_{log}_count_{short} * {factor} / {key}_{log}_count_30d",
            "ratio",
            Family.TEMPORAL,
            f"Pace of the last {short} against that of 30 days.",
            ("dormant", "remote_access") if key == "payer" else ("mule", "fake_shop"),
        )
        for key, log in (("payer", "sent"), ("receiver", "received"))
        for short, factor in (("1h", 720), ("24h", 30))
    ),
    Derived(
        "payer_sent_surge_24h",
        "payer_sent_sum_24h * 30 / payer_sent_sum_30d",
        "ratio",
        Family.TEMPORAL,
        "Money of a day against that of 30 days.",
        ("dormant", "dispersal"),
    ),
    Derived(
        "payer_reactivated",
        "payer_sent_count_24h * indicator(payer_sent_count_24h == payer_sent_count_30d)"
        " * indicator(payer_age_ms > days(60))",
        "events",
        Family.TEMPORAL,
        "Payments of a day, where a long-known payer had been silent for a month.",
        ("dormant",),
    ),
    Derived(
        "payer_per_receiver_24h",
        "payer_sent_count_24h / payer_sent_counterparties_24h",
        "ratio",
        Family.NETWORK,
        "Many payments to few payees, or one each to many.",
        ("dispersal", "relative"),
    ),
)

_TRANSACTION = (
    Derived("amount_log", "log1p(amount_centavos)", "log centavos", Family.TRANSACTION, "The amount's magnitude."),
    Derived(
        "share_of_limit",
        "amount_centavos / payer_limit_centavos",
        "share",
        Family.TRANSACTION,
        "Criminals take what the limit allows.",
        ("coercion", "dispersal"),
    ),
    Derived(
        "share_of_balance",
        "amount_centavos / payer_balance_centavos",
        "share",
        Family.TRANSACTION,
        "Criminals take what there is.",
        ("remote_access", "mule"),
    ),
    Derived(
        "limit_raised_ms",
        "timestamp - payer_limit_raised_at",
        "ms",
        Family.USER,
        "Time since the limit was raised: 48 h matter.",
        ("fake_employee", "coercion"),
    ),
    *(
        Derived(
            f"round_{reais}",
            f"indicator(amount_centavos % {reais * 100} == 0)",
            "indicator",
            Family.TRANSACTION,
            f"A multiple of R$ {reais:,}.",
            ("relative", "growing_amounts"),
        )
        for reais in (50, 100, 1000)
    ),
    *(
        Derived(
            f"initiation_{code.lower()}",
            f'indicator(initiation == "{code}")',
            "indicator",
            Family.TRANSACTION,
            why,
            typologies,
        )
        for code, why, typologies in (
            ("MANU", "No key: a tenth of the payments, 40 % of the value.", ("mule",)),
            ("DICT", "By key: how people pay people.", ("relative",)),
            ("QRDN", "Dynamic QR: a till, or a fake shop's page.", ("fake_shop",)),
            ("QRES", "Static QR: printed, and pasted over.", ("qr_tampering",)),
        )
    ),
    Derived(
        "cash",
        'indicator(purpose in ("GSCB", "OTHR"))',
        "indicator",
        Family.TRANSACTION,
        "Pix Saque or Troco: the money is gone at once.",
        ("coercion",),
    ),
    Derived(
        "random_key",
        'indicator(pix_key_type == "EVP")',
        "indicator",
        Family.TRANSACTION,
        "A random key says nothing of its owner.",
        ("fake_shop", "new_key"),
    ),
    Derived("payer_legal", 'indicator(payer_person == "LEGAL")', "indicator", Family.USER, "A company pays."),
    Derived(
        "receiver_legal",
        'indicator(receiver_person == "LEGAL")',
        "indicator",
        Family.TRANSACTION,
        "Of stolen money 65 % goes to companies.",
        ("fake_shop",),
    ),
    Derived("same_ispb", "indicator(payer_ispb == receiver_ispb)", "indicator", Family.NETWORK, "Both at one bank."),
    Derived(
        "same_owner",
        "indicator(payer_tax_id == receiver_tax_id)",
        "indicator",
        Family.NETWORK,
        "Between accounts of one person.",
        ("remote_access",),
    ),
    Derived(
        "text_length",
        "length(remittance_text)",
        "characters",
        Family.TRANSACTION,
        "Whether a text was given.",
        ("wrong_pix", "relative"),
    ),
)

_CLOCK = (
    Derived("hour_of_day_sin", "hour_sin", "sine", Family.TEMPORAL, "Time of day in Brasilia.", ("coercion",)),
    Derived("hour_of_day_cos", "hour_cos", "cosine", Family.TEMPORAL, "Time of day in Brasilia.", ("coercion",)),
    Derived(
        "night",
        "indicator(is_night(timestamp))",
        "indicator",
        Family.TEMPORAL,
        "The regulatory night, 20:00 to 06:00.",
        ("coercion",),
    ),
    Derived("weekday_number", "weekday(timestamp)", "days", Family.TEMPORAL, "Monday 0 to Sunday 6."),
    Derived("month_day", "day_of_month", "days", Family.TEMPORAL, "Salaries arrive around the 5th working day."),
)

_DICT = (
    Derived(
        "dict_key_changed_hands",
        "indicator(dict_key_owned_since - dict_key_created_at > days(1))",
        "indicator",
        Family.TRANSACTION,
        "The key's owner is not its first.",
        ("key_hijack", "qr_tampering"),
    ),
    *(
        Derived(name, f"timestamp - {column}", "ms", family, why, typologies)
        for name, column, family, why, typologies in (
            ("dict_key_age_ms", "dict_key_created_at", Family.TRANSACTION, "A key of days.", ("new_key", "fake_shop")),
            (
                "dict_key_owned_ms",
                "dict_key_owned_since",
                Family.TRANSACTION,
                "A key that changed hands.",
                ("key_hijack", "qr_tampering"),
            ),
            ("dict_claim_age_ms", "dict_claim_opened_at", Family.TRANSACTION, "An open claim.", ("key_hijack",)),
            (
                "dict_account_age_ms",
                "dict_account_opened_at",
                Family.TRANSACTION,
                "An account of days.",
                ("mule", "new_key", "fake_shop"),
            ),
            ("dict_watermark_age_ms", "dict_watermark", Family.TRANSACTION, "How stale the statistics are.", ()),
            (
                "payer_account_age_ms",
                "payer_account_opened_at",
                Family.USER,
                "A young account that sends on.",
                ("mule",),
            ),
        )
    ),
    *(
        Derived(f"receiver_{column}", f"dict_{column}", unit, Family.NETWORK, why, typologies)
        for column, unit, why, typologies in (
            ("key_settlements_d90", "payments", "None yet: a new key.", ("new_key",)),
            ("person_settlements_d90", "payments", "A person who never received.", ("new_key", "mule")),
            ("person_mule_accounts_d90", "markers", "Marked as a mule anywhere.", ("mule",)),
            ("person_mule_accounts_m60", "markers", "Marked as a mule anywhere, in five years.", ("mule",)),
            ("person_scammer_accounts_m60", "markers", "Marked as a scammer.", ("fake_shop", "relative")),
            ("person_application_frauds_m60", "markers", "Opened accounts by fraud.", ("mule",)),
            ("key_mule_accounts_m12", "markers", "The key was a mule's.", ("mule",)),
            ("key_scammer_accounts_m12", "markers", "The key was a scammer's.", ("fake_shop",)),
            ("person_fraud_reporters_m12", "PSPs", "Several banks agree.", ("mule", "fake_shop")),
            ("person_rejected_reports_m12", "reports", "Reports that were found wrong.", ("wrong_pix",)),
            ("key_open_reports", "reports", "Reports under analysis.", ("fake_shop", "mule")),
            ("person_open_reports", "reports", "Reports under analysis.", ("fake_shop", "mule")),
            ("person_accounts", "accounts", "Accounts opened in series.", ("mule",)),
        )
    ),
)

_SESSION_WHY: dict[str, tuple[str, tuple[str, ...]]] = {
    "REMOTE_ACCESS": ("A remote-control tool ran.", ("remote_access",)),
    "ON_CALL": ("A telephone call was on.", ("fake_employee",)),
    "PASSWORD_RESET": ("The password was reset lately.", ("sim_swap",)),
    "LIMIT_RAISED": ("The limit was raised in the session.", ("fake_employee",)),
    "NEW_DEVICE": ("The app calls the device new.", ("sim_swap",)),
    "SIM_CHANGED": ("The SIM changed lately.", ("sim_swap",)),
    "EMULATOR": ("No telephone at all.", ("dispersal",)),
    "ROOTED": ("The device's protection is off.", ("remote_access",)),
    "ACCESSIBILITY": ("An accessibility service ran.", ("remote_access",)),
    "LOAN_DRAWN": ("Credit was drawn before.", ("remote_access", "fake_employee")),
    "SAVINGS_REDEEMED": ("Savings were redeemed before.", ("fake_employee",)),
    "COPY_PASTE": ("The key was pasted.", ("fake_shop",)),
}

_SESSION = (
    *(
        Derived(
            f"session_{flag.lower()}",
            f'indicator("{flag}" in session_flags)',
            "indicator",
            Family.USER,
            *_SESSION_WHY[flag],
        )
        for flag in SESSION_FLAGS
    ),
    Derived(
        "unregistered_device",
        "indicator(not device_registered)",
        "indicator",
        Family.USER,
        "IN BCB 491: R$ 200 a payment.",
        ("sim_swap", "remote_access"),
    ),
)

DERIVED: tuple[Derived, ...] = (*_HABITS, *_FLOWS, *_TRANSACTION, *_CLOCK, *_DICT, *_SESSION)
"""Every derived feature."""
