"""Every field of a Pix transaction, declared once.

The JSON decoder, its Numba scanner, the column layout, the AsyncAPI schema, the simulator, the rule language's names
and the README's table all derive from `FIELDS`. A field exists here or nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

__all__ = [
    "DICT_COUNTERS",
    "DICT_SUBJECTS",
    "DICT_WINDOWS",
    "FIELDS",
    "FIELDS_BY_NAME",
    "MAX_AMOUNT_CENTAVOS",
    "SESSION_FLAGS",
    "TRANSACTION_DTYPE",
    "Field",
    "Kind",
]

MAX_AMOUNT_CENTAVOS = 10**13
"""R$ 100 billion. SPI's own field holds 18 digits; this bound keeps every windowed integer sum inside int64."""

MIN_TIMESTAMP_MS = 1_577_836_800_000
"""2020-01-01T00:00:00Z: Pix began in November 2020, so nothing real is older."""

MAX_TIMESTAMP_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z."""

OLDEST_ACCOUNT_MS = -2_208_988_800_000
"""1900-01-01T00:00:00Z: accounts and their limits are older than Pix, some older than the epoch."""


class Kind(StrEnum):
    """How a field's JSON value is read, and which column it becomes."""

    END_TO_END_ID = "end_to_end_id"  # ^E\d{8}yyyyMMddHHmm[A-Za-z0-9]{11}$ -> S32, in clear (no personal data)
    TIMESTAMP = "timestamp"  # integer, epoch milliseconds -> int64, missing 0
    CENTAVOS = "centavos"  # integer -> int64, missing -1
    ISPB = "ispb"  # 8 digits -> S8
    IDENTIFIER = "identifier"  # string -> keyed 64-bit hash (uint64), missing 0
    TAX_ID = "tax_id"  # CPF or CNPJ with right check digits -> keyed hash, missing 0
    PIX_KEY = "pix_key"  # by its type: CPF CNPJ PHONE EMAIL EVP -> keyed hash, missing 0
    ENUM = "enum"  # one of `values` -> uint8, 1-based position in `values`, missing 0
    FLAGS = "flags"  # list of strings -> uint32, bit i for `values[i]`, bit 31 for any other; missing 0
    BOOLEAN = "boolean"  # -> int8, missing -1
    NUMBER = "number"  # finite float -> float64, missing NaN
    COUNT = "count"  # integer >= 0 -> float32, missing NaN
    TEXT = "text"  # string -> only its length in characters is kept: int32, missing -1


_COLUMN: dict[Kind, str] = {
    Kind.END_TO_END_ID: "S32",
    Kind.TIMESTAMP: "i8",
    Kind.CENTAVOS: "i8",
    Kind.ISPB: "S8",
    Kind.IDENTIFIER: "u8",
    Kind.TAX_ID: "u8",
    Kind.PIX_KEY: "u8",
    Kind.ENUM: "u1",
    Kind.FLAGS: "u4",
    Kind.BOOLEAN: "i1",
    Kind.NUMBER: "f8",
    Kind.COUNT: "f4",
    Kind.TEXT: "i4",
}

MISSING: dict[Kind, object] = {
    Kind.END_TO_END_ID: b"",
    Kind.TIMESTAMP: 0,
    Kind.CENTAVOS: -1,
    Kind.ISPB: b"",
    Kind.IDENTIFIER: 0,
    Kind.TAX_ID: 0,
    Kind.PIX_KEY: 0,
    Kind.ENUM: 0,
    Kind.FLAGS: 0,
    Kind.BOOLEAN: -1,
    Kind.NUMBER: float("nan"),
    Kind.COUNT: float("nan"),
    Kind.TEXT: -1,
}
"""What a column holds where the message lacks the field. Missing is a value, never a guess."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the message on `pix-transactions`.

    Parameters
    ----------
    name
        JSON name, and the column's.
    kind
        How the value is read.
    why
        One line for the README and the AsyncAPI document.
    required
        Whether a message without it is rejected.
    values
        For ENUM and FLAGS: the admitted strings, in code order.
    low, high
        Inclusive bounds of a number, or of a string's length in characters. A TIMESTAMP without them lies from
        MIN_TIMESTAMP_MS to MAX_TIMESTAMP_MS.
    hash_prefix
        IDENTIFIER, TAX_ID, PIX_KEY: hashed before the value, so that values of different sorts never collide.
    hash_after
        IDENTIFIER: the ISPB field that is hashed before the value, as `ispb/value`: two banks may use one number.
    """

    name: str
    kind: Kind
    why: str
    required: bool = False
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    hash_prefix: str = ""
    hash_after: str = ""


INITIATIONS = ("MANU", "DICT", "QRDN", "QRES", "APDN", "APES", "INIC", "AUTO")
PURPOSES = ("IPAY", "GSCB", "OTHR", "REFU", "IPRT")
PIX_KEY_TYPES = ("CPF", "CNPJ", "PHONE", "EMAIL", "EVP")
PERSONS = ("NATURAL", "LEGAL")
CHANNELS = ("MOBILE", "WEB", "API", "ATM", "BRANCH", "PHONE")
SESSION_FLAGS = (
    "REMOTE_ACCESS",
    "ON_CALL",
    "PASSWORD_RESET",
    "LIMIT_RAISED",
    "NEW_DEVICE",
    "SIM_CHANGED",
    "EMULATOR",
    "ROOTED",
    "ACCESSIBILITY",
    "LOAN_DRAWN",
    "SAVINGS_REDEEMED",
    "COPY_PASTE",
)

DICT_WINDOWS = ("d90", "m12", "m60")
"""DICT's windows; m12 and m60 leave out the current month."""

DICT_SUBJECTS = ("key", "person")
"""getEntryStatistics (key and owner) and getPersonStatistics (CPF/CNPJ: works for MANU too)."""

DICT_COUNTERS: dict[str, str] = {
    "settlements": "Pix received and settled",
    "application_frauds": "APPLICATION_FRAUD markers",
    "mule_accounts": "MULE_ACCOUNT markers",
    "scammer_accounts": "SCAMMER_ACCOUNT markers",
    "other_frauds": "OTHER markers",
    "unknown_frauds": "UNKNOWN (legacy) markers",
    "fraud_reporters": "distinct PSPs that registered fraud",
    "rejected_reports": "infraction reports that were rejected",
}
"""DICT statistics per window: JSON name `dict_{subject}_{counter}_{window}`."""


def _dict_fields() -> tuple[Field, ...]:
    dates = (
        Field("dict_key_created_at", Kind.TIMESTAMP, "CreationDate of the key in DICT"),
        Field("dict_key_owned_since", Kind.TIMESTAMP, "KeyOwnershipDate: since when the owner has held the key"),
        Field("dict_claim_opened_at", Kind.TIMESTAMP, "OpenClaimCreationDate: an open claim on the key"),
        Field(
            "dict_account_opened_at",
            Kind.TIMESTAMP,
            "OpeningDate of the receiver's account",
            low=OLDEST_ACCOUNT_MS,
            high=MAX_TIMESTAMP_MS,
        ),
        Field(
            "dict_watermark",
            Kind.TIMESTAMP,
            "how fresh the statistics are (up to 12 h late); 0 as DICT's `no data`",
            low=0,
            high=MAX_TIMESTAMP_MS,
        ),
    )
    counters = tuple(
        Field(f"dict_{subject}_{counter}_{window}", Kind.COUNT, f"{what}, {subject}, {window}", low=0, high=10**12)
        for subject in DICT_SUBJECTS
        for counter, what in DICT_COUNTERS.items()
        for window in DICT_WINDOWS
    )
    points = tuple(
        Field(f"dict_{subject}_{counter}", Kind.COUNT, f"{what}, {subject}, now", low=0, high=10**12)
        for subject in DICT_SUBJECTS
        for counter, what in {
            "open_reports": "open infraction reports",
            "open_reporters": "distinct PSPs with an open report",
            "accounts": "accounts registered",
        }.items()
    )
    return dates + counters + points


FIELDS: tuple[Field, ...] = (
    Field("end_to_end_id", Kind.END_TO_END_ID, "EndToEndId of the payment, case-sensitive", required=True),
    Field("timestamp", Kind.TIMESTAMP, "acceptance (AccptncDtTm), epoch milliseconds", required=True),
    Field("amount_centavos", Kind.CENTAVOS, "amount", required=True, low=1, high=MAX_AMOUNT_CENTAVOS),
    Field(
        "payer_account",
        Kind.IDENTIFIER,
        "the payer's account, as the bank names it",
        required=True,
        low=1,
        high=64,
        hash_after="payer_ispb",
    ),
    Field("payer_ispb", Kind.ISPB, "ISPB of the payer's PSP", required=True),
    Field(
        "receiver_account",
        Kind.IDENTIFIER,
        "the receiver's account",
        required=True,
        low=1,
        high=64,
        hash_after="receiver_ispb",
    ),
    Field("receiver_ispb", Kind.ISPB, "ISPB of the receiver's PSP", required=True),
    Field("initiation", Kind.ENUM, "LclInstrm: how the payment was begun", required=True, values=INITIATIONS),
    Field("pix_key", Kind.PIX_KEY, "the receiver's Pix key, if one was used", low=1, high=77, hash_prefix="key/"),
    Field("pix_key_type", Kind.ENUM, "type of the key; deduced from its form where absent", values=PIX_KEY_TYPES),
    Field("payer_tax_id", Kind.TAX_ID, "CPF or CNPJ of the payer", hash_prefix="tax/"),
    Field("receiver_tax_id", Kind.TAX_ID, "CPF or CNPJ of the receiver", hash_prefix="tax/"),
    Field("payer_person", Kind.ENUM, "natural or legal person", values=PERSONS),
    Field("receiver_person", Kind.ENUM, "natural or legal person", values=PERSONS),
    Field("purpose", Kind.ENUM, "Purp; IPRT and REFU are MED refunds: never scored, never counted", values=PURPOSES),
    Field("channel", Kind.ENUM, "where the payer ordered the payment", values=CHANNELS),
    Field("device_id", Kind.IDENTIFIER, "the payer's device", low=1, high=64, hash_prefix="dev/"),
    Field("device_registered", Kind.BOOLEAN, "whether the device is registered (IN BCB 491/2024)"),
    Field("ip", Kind.IDENTIFIER, "the payer's IP address", low=2, high=45, hash_prefix="ip/"),
    Field("latitude", Kind.NUMBER, "of the payer's device, degrees", low=-90, high=90),
    Field("longitude", Kind.NUMBER, "of the payer's device, degrees", low=-180, high=180),
    Field("session_flags", Kind.FLAGS, "what the app saw in the session; unknown ones pass", values=SESSION_FLAGS),
    Field("remittance_text", Kind.TEXT, "free text (RmtInf); only its length is kept", low=0, high=140),
    Field("payer_limit_centavos", Kind.CENTAVOS, "the payer's limit for this payment", low=0, high=MAX_AMOUNT_CENTAVOS),
    Field("payer_balance_centavos", Kind.CENTAVOS, "the payer's balance before it", low=0, high=MAX_AMOUNT_CENTAVOS),
    Field(
        "payer_account_opened_at",
        Kind.TIMESTAMP,
        "when the payer's account was opened",
        low=OLDEST_ACCOUNT_MS,
        high=MAX_TIMESTAMP_MS,
    ),
    Field(
        "payer_limit_raised_at",
        Kind.TIMESTAMP,
        "when the payer's limit was last raised",
        low=OLDEST_ACCOUNT_MS,
        high=MAX_TIMESTAMP_MS,
    ),
    *_dict_fields(),
)

FIELDS_BY_NAME: dict[str, Field] = {field.name: field for field in FIELDS}

DERIVED_COLUMNS: tuple[tuple[str, str], ...] = (
    ("receiver", "u8"),  # keyed hash of the Kafka key: pix_key, or receiver_account where there is none
    ("source_partition", "i4"),  # of pix-transactions
    ("source_offset", "i8"),
)

TRANSACTION_DTYPE = np.dtype([(field.name, _COLUMN[field.kind]) for field in FIELDS] + list(DERIVED_COLUMNS))
"""One accepted transaction as columns. Identifiers are keyed hashes: no personal data goes beyond the decoder."""
