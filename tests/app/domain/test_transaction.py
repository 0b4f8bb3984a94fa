"""The decoder of `pix-transactions`: what is rejected and how it says so, and what becomes of the rest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transaction_messages import ABSENT, KAFKA_MS, KEYS, REQUIRED, TYPICAL, compact, kafka_key, transaction

from app.domain.field_checks import TimeLimits, Values
from app.domain.fields import FIELDS, MISSING, TRANSACTION_DTYPE, Kind
from app.domain.rejection import Reason, Rejection
from app.domain.siphash import HashKey, hash_account, hash_device, hash_ip, hash_pix_key, hash_tax_id
from app.domain.transaction import TransactionDecoder, decode_strict

if TYPE_CHECKING:
    from app.domain.transaction import Decoded

LIMITS = TimeLimits()
KEY = HashKey.from_bytes(bytes(range(16)))
DECODER = TransactionDecoder(KEY, LIMITS)
DAY_MS = 86_400_000

AMOUNT = "integer from 1 to 10000000000000"
TIMESTAMP = "integer from 1577836800000 to 4102444800000"
ACCOUNT = "string of 1 to 64 characters"
END_TO_END_ID = "EndToEndId: E, 8 digits, yyyyMMddHHmm, 11 letters or digits"
TAX_ID = "CPF or CNPJ with right check digits"
PIX_KEY = "Pix key: CPF or CNPJ with right check digits, +phone, e-mail in lower case, or random key"
PERSON = "one of NATURAL, LEGAL"
COUNT = "integer from 0 to 1000000000000"


def strict(value: bytes | None, key: bytes | None = b"0002-11223344") -> Values | Rejection:
    """Decode one message that reached Kafka at KAFKA_MS."""
    return decode_strict(value, key, KAFKA_MS, LIMITS)


def decode(values: list[bytes | None], keys: list[bytes | None] | None = None) -> Decoded:
    """Decode a batch of partition 3 whose offsets start at 100."""
    keys = [b"0002-11223344"] * len(values) if keys is None else keys
    return DECODER.decode(values, keys, [KAFKA_MS] * len(values), range(100, 100 + len(values)), 3)


def with_raw(name: str, token: str) -> bytes:
    """Return a message whose field is written as this token, whatever JSON says about it."""
    return compact(transaction(**{name: "TOKEN"})).replace(b'"TOKEN"', token.encode())


BAD_FIELDS = [
    ("amount_centavos", ABSENT, AMOUNT, "absent", Reason.MISSING),
    ("amount_centavos", None, AMOUNT, "null", Reason.MISSING),
    ("amount_centavos", True, AMOUNT, "boolean", Reason.WRONG_TYPE),
    ("amount_centavos", 1.0, AMOUNT, "number 1.0", Reason.WRONG_TYPE),
    ("amount_centavos", "12", AMOUNT, "string of 2 characters, digits only", Reason.WRONG_TYPE),
    ("amount_centavos", [1], AMOUNT, "array", Reason.WRONG_TYPE),
    ("amount_centavos", {"centavos": 1}, AMOUNT, "object", Reason.WRONG_TYPE),
    ("amount_centavos", 0, AMOUNT, "integer 0", Reason.OUT_OF_RANGE),
    ("amount_centavos", -5, AMOUNT, "integer -5", Reason.OUT_OF_RANGE),
    ("amount_centavos", 10**13 + 1, AMOUNT, "integer near 1.0e+13", Reason.OUT_OF_RANGE),
    ("amount_centavos", 2**64 + 1, AMOUNT, "integer near 1.8e+19", Reason.OUT_OF_RANGE),
    ("timestamp", 0, TIMESTAMP, "integer 0", Reason.OUT_OF_RANGE),
    ("timestamp", "2026-09-21T13:33:00Z", TIMESTAMP, "string of 20 characters", Reason.WRONG_TYPE),
    ("end_to_end_id", "E123", END_TO_END_ID, "string of 4 characters", Reason.WRONG_FORM),
    ("end_to_end_id", 7, END_TO_END_ID, "integer", Reason.WRONG_TYPE),
    ("end_to_end_id", "E12345678202609311333abcDEF12345", END_TO_END_ID, "string of 32 characters", Reason.WRONG_FORM),
    ("payer_account", "", ACCOUNT, "string of 0 characters", Reason.OUT_OF_RANGE),
    ("payer_account", "x" * 65, ACCOUNT, "string of 65 characters", Reason.OUT_OF_RANGE),
    ("payer_account", 99887766, ACCOUNT, "integer", Reason.WRONG_TYPE),
    ("payer_ispb", "1234567", "string of 8 digits", "string of 7 characters, digits only", Reason.WRONG_FORM),
    ("payer_ispb", "1234567A", "string of 8 digits", "string of 8 characters", Reason.WRONG_FORM),
    ("payer_ispb", "１２３４５６７８", "string of 8 digits", "string of 8 characters", Reason.WRONG_FORM),  # noqa: RUF001
    ("payer_ispb", 12345678, "string of 8 digits", "integer", Reason.WRONG_TYPE),
    ("initiation", "dict", "one of MANU, DICT, QRDN, QRES, APDN, APES, INIC, AUTO", "string of 4 characters",
     Reason.OUT_OF_RANGE),
    ("payer_person", 1, PERSON, "integer", Reason.WRONG_TYPE),
    ("payer_person", "PESSOA", PERSON, "string of 6 characters", Reason.OUT_OF_RANGE),
    ("payer_tax_id", "52998224724", TAX_ID, "string of 11 characters, digits only", Reason.WRONG_FORM),
    ("payer_tax_id", 52998224725, TAX_ID, "integer", Reason.WRONG_TYPE),
    ("receiver_tax_id", "12ABC34501DE36", TAX_ID, "string of 14 characters", Reason.WRONG_FORM),
    ("pix_key", "52998224724", PIX_KEY, "string of 11 characters, digits only", Reason.WRONG_FORM),
    ("pix_key", "Maria@example.com", PIX_KEY, "string of 17 characters", Reason.WRONG_FORM),
    ("device_registered", "true", "boolean", "string of 4 characters", Reason.WRONG_TYPE),
    ("device_registered", 1, "boolean", "integer", Reason.WRONG_TYPE),
    ("ip", ":", "string of 2 to 45 characters", "string of 1 characters", Reason.OUT_OF_RANGE),
    ("latitude", 90.5, "number from -90 to 90", "number 90.5", Reason.OUT_OF_RANGE),
    ("latitude", -91, "number from -90 to 90", "integer -91", Reason.OUT_OF_RANGE),
    ("latitude", "-23.5", "number from -90 to 90", "string of 5 characters", Reason.WRONG_TYPE),
    ("longitude", False, "number from -180 to 180", "boolean", Reason.WRONG_TYPE),
    ("session_flags", "ON_CALL", "array of strings", "string of 7 characters", Reason.WRONG_TYPE),
    ("session_flags", {"ON_CALL": True}, "array of strings", "object", Reason.WRONG_TYPE),
    ("session_flags", {}, "array of strings", "object", Reason.WRONG_TYPE),
    ("remittance_text", "x" * 141, "string of 0 to 140 characters", "string of 141 characters", Reason.OUT_OF_RANGE),
    ("payer_balance_centavos", -1, "integer from 0 to 10000000000000", "integer -1", Reason.OUT_OF_RANGE),
    ("dict_key_settlements_d90", -1, COUNT, "integer -1", Reason.OUT_OF_RANGE),
    ("dict_key_settlements_d90", 0.0, COUNT, "number 0.0", Reason.WRONG_TYPE),
    ("dict_key_created_at", 1_000_000_000_000, TIMESTAMP, "integer near 1.0e+12", Reason.OUT_OF_RANGE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected", "got", "reason"), BAD_FIELDS)
def test_a_bad_field(name: str, value: object, expected: str, got: str, reason: Reason) -> None:
    """Is rejected with its path, what is right, and what it was."""
    message = compact(transaction(**{name: value}))
    assert strict(message) == Rejection(f"$.{name}", expected, got, reason)


BAD_TOKENS = [
    ("amount_centavos", "NaN", "$.amount_centavos", "JSON", "NaN", Reason.NOT_JSON),
    ("latitude", "NaN", "$.latitude", "JSON", "NaN", Reason.NOT_JSON),
    ("latitude", "-Infinity", "$.latitude", "JSON", "-Infinity", Reason.NOT_JSON),
    ("unknown", "[1,NaN]", "$", "JSON", "NaN", Reason.NOT_JSON),
    ("latitude", "1e999", "$.latitude", "number from -90 to 90", "number inf", Reason.OUT_OF_RANGE),
    ("latitude", "9" * 5000, "$.latitude", "number from -90 to 90", "integer of 5000 characters", Reason.OUT_OF_RANGE),
    ("amount_centavos", "9" * 5000, "$.amount_centavos", AMOUNT, "integer of 5000 characters", Reason.OUT_OF_RANGE),
    ("payer_account", "9" * 5000, "$.payer_account", ACCOUNT, "integer of 5000 characters", Reason.WRONG_TYPE),
    ("amount_centavos", "1e3", "$.amount_centavos", AMOUNT, "number 1000.0", Reason.WRONG_TYPE),
    ("session_flags", '["A",null]', "$.session_flags[1]", "string", "null", Reason.WRONG_TYPE),
    ("session_flags", '["A",["B"]]', "$.session_flags[1]", "string", "array", Reason.WRONG_TYPE),
    ("ip", '"::1","ip":"::1"', "$.ip", "one field of this name", "several", Reason.DUPLICATE_FIELD),
    ("x", '1,"x":2', "$", "one field of this name", "an unknown name several times", Reason.DUPLICATE_FIELD),
    ("x", '1,"\\u0078":2', "$", "one field of this name", "an unknown name several times", Reason.DUPLICATE_FIELD),
    ("remittance_text", '"\\ud800"', "$.remittance_text", "Unicode text", "a lone surrogate", Reason.NOT_UTF8),
    ("unknown", '{"\\uDFFF":1}', "$", "Unicode text", "a lone surrogate", Reason.NOT_UTF8),
    ("unknown", '0,"\\ud800":1', "$", "Unicode text", "a lone surrogate", Reason.NOT_UTF8),
    ("unknown", "[" * 32 + "]" * 32, "$", "at most 32 levels of nesting", "more", Reason.TOO_DEEP),
    ("unknown", "[" * 50_000 + "]" * 50_000, "$", "at most 32 levels of nesting", "more", Reason.TOO_DEEP),
    ("unknown", '{"a":' * 50_000, "$", "at most 32 levels of nesting", "more", Reason.TOO_DEEP),
    ("amount_centavos", "012", "$", "JSON object", "Expecting ',' delimiter at character 97", Reason.NOT_JSON),
]


@pytest.mark.parametrize(("name", "token", "path", "expected", "got", "reason"), BAD_TOKENS)
def test_a_bad_token(name: str, token: str, path: str, expected: str, got: str, reason: Reason) -> None:
    """What JSON lacks, repeats, nests without end, or no text can hold."""
    assert strict(with_raw(name, token)) == Rejection(path, expected, got, reason)


BAD_MESSAGES = [
    (None, "JSON object", "no value (a tombstone)", Reason.TOMBSTONE),
    (b"", "JSON object", "Expecting value at character 0", Reason.NOT_JSON),
    (b"E12345678", "JSON object", "Expecting value at character 0", Reason.NOT_JSON),
    (b"\xef\xbb\xbf{}", "JSON object", "Expecting value at character 0", Reason.NOT_JSON),
    (compact(REQUIRED) + b"}", "JSON object", "Extra data at character 240", Reason.NOT_JSON),
    (b"[1]", "JSON object", "array", Reason.WRONG_TYPE),
    (b'"52998224725"', "JSON object", "string of 11 characters, digits only", Reason.WRONG_TYPE),
    (b"NaN", "JSON object", "NaN", Reason.WRONG_TYPE),
    (b"[" * 1_000_000, "at most 32 levels of nesting", "more", Reason.TOO_DEEP),
    (b'{"a":"\xff"}', "UTF-8", "byte 0xff at 6", Reason.NOT_UTF8),
    (b'{"a":"\xed\xa0\x80"}', "UTF-8", "byte 0xed at 6", Reason.NOT_UTF8),
    (b'{"a":"\xc0\xaf"}', "UTF-8", "byte 0xc0 at 6", Reason.NOT_UTF8),
    (bytes(range(256)) * 4096, "UTF-8", "byte 0x80 at 128", Reason.NOT_UTF8),
    (b"x" * 1_000_000, "JSON object", "Expecting value at character 0", Reason.NOT_JSON),
]


@pytest.mark.parametrize(("message", "expected", "got", "reason"), BAD_MESSAGES)
def test_a_bad_message(message: bytes | None, expected: str, got: str, reason: Reason) -> None:
    """What is no JSON object at all, a megabyte of it too."""
    assert strict(message) == Rejection("$", expected, got, reason)


CONTRADICTIONS = [
    ({"pix_key": KEYS["EMAIL"], "pix_key_type": "CPF"}, "$.pix_key", "Pix key of type CPF", "one of type EMAIL"),
    ({"pix_key": KEYS["CPF"], "pix_key_type": "PHONE"}, "$.pix_key", "Pix key of type PHONE", "one of type CPF"),
    ({"pix_key_type": "EVP"}, "$.pix_key_type", "a pix_key beside it", "no pix_key"),
    ({"pix_key": None, "pix_key_type": "EVP"}, "$.pix_key_type", "a pix_key beside it", "no pix_key"),
]


@pytest.mark.parametrize(("changes", "path", "expected", "got"), CONTRADICTIONS)
def test_key_and_type_contradict(changes: dict[str, object], path: str, expected: str, got: str) -> None:
    """A key of another form than its type says, and a type without a key."""
    fields = transaction(**changes)
    assert strict(compact(fields), kafka_key(fields)) == Rejection(path, expected, got, Reason.CONTRADICTION)


@pytest.mark.parametrize(
    ("changes", "key", "expected", "got"),
    [
        ({}, None, "the message's receiver_account", "no key"),
        ({}, b"", "the message's receiver_account", "another key, of 0 bytes"),
        ({"pix_key": KEYS["CPF"]}, b"0002-11223344", "the message's pix_key", "another key, of 13 bytes"),
        ({"pix_key": None}, KEYS["CPF"].encode(), "the message's receiver_account", "another key, of 11 bytes"),
        ({"receiver_account": "conta á"}, "conta á".encode("latin-1"), "the message's receiver_account",
         "another key, of 7 bytes"),
    ],
)  # fmt: skip
def test_a_wrong_kafka_key(changes: dict[str, object], key: bytes | None, expected: str, got: str) -> None:
    """Would bring the payment to another worker's counts."""
    fault = strict(compact(transaction(**changes)), key)
    assert fault == Rejection("kafka.key", expected, got, Reason.WRONG_KAFKA_KEY)


@pytest.mark.parametrize(
    ("offset_ms", "accepted"),
    [(-400 * DAY_MS, True), (-400 * DAY_MS - 1, False), (DAY_MS, True), (DAY_MS + 1, False), (0, True)],
)
def test_a_time_far_from_kafkas(offset_ms: int, accepted: bool) -> None:  # noqa: FBT001 (a parameter of the table)
    """Is rejected beyond the limits, which are inclusive."""
    outcome = strict(compact(transaction(timestamp=KAFKA_MS + offset_ms)))
    if accepted:
        assert not isinstance(outcome, Rejection)
    else:
        expected = f"integer from {KAFKA_MS - 400 * DAY_MS} to {KAFKA_MS + DAY_MS}, by the Kafka timestamp"
        got = f"integer {KAFKA_MS + offset_ms}"
        assert outcome == Rejection("$.timestamp", expected, got, Reason.IMPLAUSIBLE_TIME)


def test_a_record_without_kafka_timestamp() -> None:
    """Cannot be held against it."""
    message = compact(transaction(timestamp=1_600_000_000_000))
    assert not isinstance(decode_strict(message, b"0002-11223344", -1, LIMITS), Rejection)


def test_first_fault_in_the_order_of_declaration() -> None:
    """Whatever the order in the message, so that one message has one answer."""
    fields = transaction(amount_centavos=0, payer_ispb="x", receiver_tax_id="1")
    backwards = dict(reversed(fields.items()))
    assert strict(compact(fields)) == strict(compact(backwards))
    assert strict(compact(fields)).path == "$.amount_centavos"


@pytest.mark.parametrize(
    "message",
    [
        compact(transaction(unknown={"nested": [1, {"deep": None}]}, another=1e999, **{"52998224725": "x"})),
        with_raw("unknown", "9" * 5000),
        with_raw("unknown", "[" * 31 + "]" * 31),
        with_raw("unknown", '{"a":1,"a":2}'),
        with_raw("unknown", '"\\ud83d\\ude00"'),
        json.dumps(REQUIRED, indent=2).encode(),
        compact(transaction(latitude=None, session_flags=None, device_registered=None)),
        compact(transaction(initiation="MANU")),
        compact(transaction(end_to_end_id="E12345678202001010000abcDEF12345")),
    ],
    ids=["unknown", "huge", "levels", "nested duplicate", "pair", "spaces", "null", "MANU", "time of the id"],
)
def test_what_is_no_fault(message: bytes) -> None:
    """Unknown fields pass, spaces too; null is missing; an EndToEndId's own time is not judged."""
    assert not isinstance(strict(message.replace(b":Infinity", b":1e999")), Rejection)


PERSONAL = {
    "payer_account": "0001-99887766",
    "receiver_account": "0002-11223344",
    "pix_key": "maria.souza@example.com",
    "payer_tax_id": "52998224724",
    "receiver_tax_id": "11987654321",
    "device_id": "a3f5c2e1-7b64",
    "ip": "203.0.113.77",
    "remittance_text": "para Maria Souza",
    "initiation": "Maria Souza",
    "end_to_end_id": "11987654321",
    "payer_ispb": "+5511987654321",
}


@pytest.mark.parametrize("name", PERSONAL)
@pytest.mark.parametrize("secret", [*PERSONAL.values(), 52998224725, ["maria.souza@example.com"], {"Maria": "Souza"}])
@pytest.mark.parametrize("padding", ["", "x" * 200])
def test_no_rejection_repeats_what_the_message_said(name: str, secret: object, padding: str) -> None:
    """Wherever a person's data stand and whatever is wrong with them, a rejection may be logged."""
    value = secret + padding if isinstance(secret, str) else secret
    for key in (b"0002-11223344", b"other", None):
        outcome = strict(compact(transaction(**{name: value, str(secret): 1})), key)
        if isinstance(outcome, Rejection):
            rendered = f"{outcome.path} {outcome.expected} {outcome.got}"
            assert not any(part in rendered for part in ("Maria", "maria", "5299822", "87654321", "998877", "113.77"))
            assert str(secret) not in rendered


@pytest.mark.parametrize(
    "name", ["timestamp", "amount_centavos", "latitude", "dict_claim_opened_at", "dict_key_accounts"]
)
@pytest.mark.parametrize(
    "token", ["52998224725", "-52998224725", "52998224725.0", "5.2998224725e10", "5511987654321", "99887766"]
)
def test_no_rejection_repeats_a_number_that_may_name_a_person(name: str, token: str) -> None:
    """A shifted column brings a CPF, a phone or an account into any field, as a number."""
    outcome = strict(with_raw(name, token))
    if isinstance(outcome, Rejection):
        assert not any(part in outcome.got for part in ("5299822", "2998224", "1198765", "9988776"))
        assert " near " in outcome.got


def test_columns_of_a_typical_transaction() -> None:
    """Every kind of field, as the features read it."""
    key = KEYS["EMAIL"].encode()
    row = decode([compact(TYPICAL)], [key]).rows[0]
    assert row["end_to_end_id"] == TYPICAL["end_to_end_id"].encode()
    assert (row["timestamp"], row["amount_centavos"]) == (KAFKA_MS - 250, 12_345)
    assert (row["payer_ispb"], row["receiver_ispb"]) == (b"12345678", b"00000000")
    assert row["payer_account"] == hash_account("12345678", "0001-99887766", KEY)
    assert row["receiver_account"] == hash_account("00000000", "0002-11223344", KEY)
    assert row["pix_key"] == row["receiver"] == hash_pix_key(KEYS["EMAIL"], KEY)
    assert row["payer_tax_id"] == hash_tax_id("52998224725", KEY)
    assert row["receiver_tax_id"] == hash_tax_id("12ABC34501DE35", KEY)
    assert (row["device_id"], row["ip"]) == (hash_device("a3f5c2e1-7b64", KEY), hash_ip("2001:db8::17", KEY))
    assert [int(row[name]) for name in ("initiation", "pix_key_type", "receiver_person", "purpose", "channel")] == [
        2, 4, 2, 1, 1,
    ]  # fmt: skip
    assert row["session_flags"] == 1 << 1 | 1 << 0 | 1 << 31
    assert (row["device_registered"], row["latitude"], row["longitude"]) == (1, -23.55052, -46.633308)
    assert (row["remittance_text"], row["payer_limit_centavos"]) == (13, 500_000)
    assert (row["dict_account_opened_at"], row["dict_key_settlements_m12"]) == (-86_400_000, np.float32(1_234_567))
    assert (row["source_partition"], row["source_offset"]) == (3, 100)


def test_missing_fields_hold_their_sentinels() -> None:
    """Missing is a value of its own kind, and the receiver is then the account."""
    row = decode([compact(REQUIRED)]).rows[0]
    for field in FIELDS:
        if not field.required:
            assert np.array_equal(
                row[field.name], MISSING[field.kind], equal_nan=field.kind in (Kind.NUMBER, Kind.COUNT)
            )
    assert row["receiver"] == row["receiver_account"]


@pytest.mark.parametrize("key_type", KEYS)
def test_key_type_is_deduced(key_type: str) -> None:
    """A message without `pix_key_type` gives the same row as one with it."""
    fields = transaction(pix_key=KEYS[key_type])
    key = kafka_key(fields)
    rows = decode([compact(fields), compact(fields | {"pix_key_type": key_type})], [key, key]).rows
    assert rows["pix_key_type"].tolist() == [list(KEYS).index(key_type) + 1] * 2


def test_negative_zero_is_zero() -> None:
    """One number, one bit pattern: replays compare bits."""
    rows = decode([with_raw("latitude", token) for token in ("-0.0", "-0", "0", "0.0", "-0e5")]).rows
    assert set(rows["latitude"].view(np.int64).tolist()) == {0}


def test_rejected_neighbours_change_nothing() -> None:
    """Good messages keep their order, offsets and values among bad ones."""
    good = [compact(transaction(amount_centavos=amount)) for amount in (1, 2, 3)]
    bad = [None, b"noise", with_raw("amount_centavos", "0"), b"[" * 100_000]
    mixed = decode([bad[0], good[0], bad[1], bad[2], good[1], bad[3], good[2]])
    alone = decode(good)
    assert [place for place, _ in mixed.rejected] == [0, 2, 3, 5]
    assert mixed.rows["source_offset"].tolist() == [101, 104, 106]
    mixed.rows["source_offset"] = alone.rows["source_offset"]
    assert mixed.rows.tobytes() == alone.rows.tobytes()


def test_empty_batch() -> None:
    """Gives no rows."""
    decoded = decode([], [])
    assert (decoded.rows.shape, decoded.rows.dtype, decoded.rejected) == ((0,), TRANSACTION_DTYPE, [])


def test_nesting_at_the_end_of_the_stack() -> None:
    """A decoder called deep in other code still answers instead of raising."""

    def descend(levels: int) -> Decoded:
        return descend(levels - 1) if levels else decode([b"[" * 100_000, compact(REQUIRED)])

    used = len(list(iter_frames()))
    decoded = descend(sys.getrecursionlimit() - used - 60)
    assert (len(decoded.rows), decoded.rejected[0][1].reason) == (1, Reason.TOO_DEEP)


def iter_frames() -> list[object]:
    """Return the frames now on the stack."""
    frames, frame = [], sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


@given(st.none() | st.binary(max_size=300), st.none() | st.binary(max_size=30), st.integers(-1, 2**62))
def test_never_raises(value: bytes | None, key: bytes | None, kafka_ms: int) -> None:
    """Any bytes are answered."""
    decoded = DECODER.decode([value], [key], [kafka_ms], [0], 0)
    assert len(decoded.rows) + len(decoded.rejected) == 1


def test_what_is_wrong_does_not_depend_on_how_deep_the_caller_stands() -> None:
    """A dead letter says the same on every replay: the parser's own limit moves with the stack."""
    values = [b'{"unknown":' + b"[" * depth for depth in (100, 150, 201, 300, 700, 950, 1_500)]

    def at_depth(frames: int) -> list[object]:
        if frames:
            return at_depth(frames - 1)
        return [decode_strict(value, b"key", 0, TimeLimits()) for value in values]

    assert at_depth(0) == at_depth(100) == at_depth(400)
