"""The scanner against the strict decoder: it may pass a message on, but never judge one differently."""

from __future__ import annotations

import ctypes
import json
import mmap
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transaction_messages import KAFKA_MS, KEYS, REQUIRED, TYPICAL, compact, kafka_key, transaction

from app.domain.byte_column import ByteColumn, ByteColumns
from app.domain.field_checks import TimeLimits, bounds
from app.domain.fields import FIELDS, Field, Kind
from app.domain.rejection import Rejection
from app.domain.scanner import Scanner
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder, decode_strict, empty_rows, write_row

LIMITS = TimeLimits()
KEY = HashKey.from_bytes(bytes(range(16)))
DECODER = TransactionDecoder(KEY, LIMITS)

Message = tuple[bytes | None, bytes | None]


def assert_same(messages: list[Message], kafka_ms: int = KAFKA_MS) -> int:
    """Hold the decoder against the strict one alone, bit for bit; return how many messages were accepted."""
    expected = empty_rows(len(messages))
    accepted, rejected = [], []
    for place, (value, key) in enumerate(messages):
        outcome = decode_strict(value, key, kafka_ms, LIMITS)
        if isinstance(outcome, Rejection):
            rejected.append((place, outcome))
        else:
            write_row(expected, place, outcome, KEY)
            accepted.append(place)
    expected["source_partition"] = 7
    expected["source_offset"] = np.arange(len(messages))
    values, keys = [value for value, _ in messages], [key for _, key in messages]
    decoded = DECODER.decode(values, keys, [kafka_ms] * len(messages), range(len(messages)), 7)
    assert decoded.rejected == rejected
    assert decoded.rows.tobytes() == expected[accepted].tobytes()
    return len(accepted)


def scanned(messages: list[Message]) -> list[bool]:
    """Return which messages the scanner alone understands."""
    values, keys = [value for value, _ in messages], [key for _, key in messages]
    kafka_ms = np.full(len(messages), KAFKA_MS)
    return Scanner(KEY, LIMITS).scan(values, keys, kafka_ms, empty_rows(len(messages))).tolist()


def message(fields: dict[str, object]) -> Message:
    """Return a transaction with its right Kafka key."""
    return compact(fields), kafka_key(fields)


# What the scanner must understand itself, or it is no fast path


PLAIN = {
    "required": transaction(),
    "typical": TYPICAL,
    "nulls": transaction(pix_key=None, pix_key_type=None, session_flags=None, latitude=None, remittance_text=None),
    "unknown": transaction(a=1, b="x", c=True, d=None, e=-1.5e-7, f=10**40, g=False, h='á"\n'),
    "no flags": transaction(session_flags=[]),
    "backwards": dict(reversed(TYPICAL.items())),
    "long decimals": transaction(latitude=-23.550519999999998, longitude=-46.63330799999999),
    "UTF-8": transaction(receiver_account="conta número 😀", device_id="ação", session_flags=["ÁÉ"]),
    "every field": TYPICAL | {field.name: 1 for field in FIELDS if field.kind is Kind.COUNT},
} | {f"key {key_type}": transaction(pix_key=key) for key_type, key in KEYS.items()}  # fmt: skip


@pytest.mark.parametrize("fields", PLAIN.values(), ids=PLAIN)
def test_plain_messages_take_the_fast_path(fields: dict[str, object]) -> None:
    """And give the strict decoder's row."""
    assert scanned([message(fields)]) == [True]
    assert assert_same([message(fields)]) == 1


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TYPICAL, indent=2),
        json.dumps(TYPICAL, separators=(" \t: ", "\r\n,")).replace("\t: ", ",").replace("\r\n,", "\r\n:"),
        f" \n{json.dumps(TYPICAL)}\t ",
        json.dumps(TYPICAL),
    ],
    ids=["indented", "odd spaces", "around", "escapes in free text"],
)
def test_ways_of_writing_take_the_fast_path(text: str) -> None:
    """White space anywhere, and `json.dumps` with its escapes."""
    assert scanned([(text.encode(), kafka_key(TYPICAL))]) == [True]
    assert assert_same([(text.encode(), kafka_key(TYPICAL))]) == 1


def test_fields_in_every_rotation() -> None:
    """The guess of the next field only saves time."""
    items = list(TYPICAL.items())
    rotations = [message(dict(items[start:] + items[:start])) for start in range(len(items))]
    assert scanned(rotations) == [True] * len(rotations)
    assert assert_same(rotations) == len(rotations)


# What it must pass on or judge alike


def awkward_values(field: Field) -> list[object]:
    """Return values at and beyond the edges of a field."""
    low, high = bounds(field)
    edges = [int(edge) + step for edge in (low, high) if abs(edge) < 1e300 for step in (-1, 0, 1)]
    texts = [
        "",
        "x",
        "á" * 3,
        "\ud83d\ude00",
        "a\\b",
        'a"b',
        "\n",
        "\x7f",
        "\x00",
        "0" * 8,
        "1234567A",
        "MANU",
        "MANUAL",
    ]
    texts += ["x" * length for length in edges if field.kind in (Kind.IDENTIFIER, Kind.TEXT) and 0 <= length < 200]
    texts += ["é" * length for length in edges if field.kind in (Kind.IDENTIFIER, Kind.TEXT) and 0 <= length < 200]
    texts += [
        *KEYS.values(),
        "52998224724",
        "12ABC34501DE36",
        "00000000000000",
        "11111111111",
        "a@b",
        "a@b.",
        "@",
        "+1",
    ]
    texts += ["E12345678202602301333abcDEF12345", "E12345678202602281333abcDEF1234-", *field.values]
    others: list[object] = [
        None,
        True,
        False,
        0,
        -1,
        1.0,
        0.5,
        -0.0,
        1e3,
        2**53 + 1,
        10**18,
        10**19,
        2**63,
        2**64,
        10**25,
    ]
    others += [[], ["ON_CALL"], ["ON_CALL", 1], [None], [[]], ["á"], {}, {"a": 1}]
    return [*edges, *texts, *others]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_at_its_edges(field: Field) -> None:
    """Each awkward value in each field, right Kafka keys and wrong ones."""
    messages: list[Message] = []
    for value in awkward_values(field):
        for base in (REQUIRED, TYPICAL):
            fields = base | {field.name: value}
            text = json.dumps(fields).encode()
            key = str(fields.get("pix_key") or fields["receiver_account"]).encode(errors="replace")
            messages += [(text, key), (text, kafka_key(base))]
    assert_same(messages)


TOKENS = [
    "01", "-1", "+1", "1.", ".5", "1e5", "1E+5", "1e", "-", "1.5.5", "1 2", "NaN", "Infinity", "-Infinity", "nul",
    "nulL", "nullx", "tru", "truefalse", "True", "'x'", '"x', "[", "]", "[]]", '["A",]', '[,"A"]', '["A" "B"]', "{}",
    "", "0x10", "-0", "-0.0", "0.0", "-0e1", "00", "0.10000000000000000000001", "9007199254740993", "12345678.9",
    "0.30000000000000004", '"\\u0041"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\\u00g0"', '"\\u12"', '"\\',
    '"\\"', '"\t"', '"\x00"', "\x00", '"\x7f"', "1\x00", '1,"x":2,"x":3', '1,"amount_centavos":2', '1,"x":[[[]]]',
    '1,"ip":"::1","ip":"::1"', 'true,"device_registered":true', 'null,"device_registered":null',
    '1,"ip":null,"ip":"::1"',
    '1,"x":{"y":NaN}', '1,"\\u0078":1', '1,"é":1', '1,"":1', '1,"":1,"":2', "1,", "1,,", '1,"x"', '1,"x":',
    '1 "x":1', "1}{", '1,"x":1e999', '1,"x":-', '1,"x":01', '"\\ud7ff\\uE000\\n\\/"', '"\\u00e1\\uD83D"', '"á\\"é"',
    ",".join(["1", *(f'"unknown_{number}":{number}' for number in range(20))]),
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["amount_centavos", "latitude", "device_registered", "session_flags", "remittance_text"]
)
def test_every_token_in_every_kind_of_field(name: str) -> None:
    """JSON and what only looks like it, as the value of known fields and of an unknown one."""
    key = b"0002-11223344"
    marked = [compact(transaction(**{place: "TOKEN"})) for place in (name, "unknown")]
    first = [compact({name: "TOKEN"} | transaction())] if name not in REQUIRED else []
    assert_same([(text.replace(b'"TOKEN"', token.encode()), key) for token in TOKENS for text in marked + first])


BYTES = [
    b"\xff",
    b"\xc3",
    b"\xc3\xa1",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xe0\x9f\xbf",
]
BYTES += [
    b"\xf0\x9f\x98\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\x80",
    b"\xe1\x80",
    b"\xf4\x8f\xbf\xbf",
]


@pytest.mark.parametrize(
    "name", ["receiver_account", "device_id", "remittance_text", "session_flags", "unknown", "initiation"]
)
def test_well_formed_and_torn_utf8(name: str) -> None:
    """At every place of a word of 8 bytes."""
    messages: list[Message] = []
    for data in BYTES:
        for pad in range(9):
            value = b"p" * pad + data
            token = b'["' + value + b'"]' if name == "session_flags" else b'"' + value + b'"'
            text = compact(transaction(**{name: "TOKEN"})).replace(b'"TOKEN"', token)
            messages.append((text, value if name == "receiver_account" else b"0002-11223344"))
    assert_same(messages)


@pytest.mark.parametrize(
    "kafka_ms", [-1, 0, KAFKA_MS - 86_400_250, KAFKA_MS - 86_400_251, KAFKA_MS + 400 * 86_400_000, 2**63 - 1]
)
def test_kafka_times(kafka_ms: int) -> None:
    """At the limits and at the ends of int64."""
    assert_same([message(REQUIRED)], kafka_ms)


def test_empty_and_missing_values_between_others() -> None:
    """Neighbours stay as they are."""
    good = message(TYPICAL)
    assert (
        assert_same([(None, None), good, (b"", b""), good, (b"\x00", None), good, (good[0], None), (None, good[1])])
        == 3
    )


# Where messages lie


def scanned_where_they_lie(values: ByteColumn, keys: ByteColumn) -> tuple[list[bool], bytes]:
    """Return which messages the scanner understands, and its rows."""
    rows = empty_rows(len(values))
    kafka_ms = np.full(len(values), KAFKA_MS)
    parts = ByteColumns.chained([values[:1], values[1:]]), ByteColumns.chained([keys[:1], keys[1:]])
    return Scanner(KEY, LIMITS).scan(*parts, kafka_ms, rows).tolist(), rows.tobytes()


@pytest.mark.parametrize(
    "behind", [b"\0", b"}", b'"', b" ", b",", b"\0" * 40, b'\0"":1}' * 9, b"\0" + b"x" * 40, b"x" * 40]
)
def test_what_stands_behind_a_message_does_not_matter(behind: bytes) -> None:
    """Whether that is the NUL byte which lets it be read where it lies, or what would end or continue it."""
    texts = [
        compact(TYPICAL),
        compact(TYPICAL)[:-1],
        b"",
        b"{",
        b'{"amount_centavos":',
        b'{"receiver_ispb":',
        b'{"x',
        b"1",
    ]
    key = kafka_key(TYPICAL)
    buffer = np.frombuffer(b"".join(text + behind for text in texts) + key, np.uint8)
    lengths = np.array([len(text) for text in texts])
    values = ByteColumn(buffer, np.cumsum(lengths + len(behind)) - lengths - len(behind), lengths)
    keys = ByteColumn(buffer, np.full(len(texts), len(buffer) - len(key)), np.full(len(texts), len(key)))
    accepted, rows = scanned_where_they_lie(values, keys)
    assert accepted == [True] + [False] * (len(texts) - 1)
    expected = empty_rows(1)
    Scanner(KEY, LIMITS).scan(texts[:1], [key], np.full(1, KAFKA_MS), expected)
    assert rows.startswith(expected.tobytes())


def test_what_is_missing_is_looked_for_nowhere() -> None:
    """The start of None means nothing; as an address it may be no memory."""
    text, key = message(TYPICAL)
    assert text is not None
    assert key is not None
    starts = np.array([-(2**46), 0, 2**46])
    values = ByteColumn(np.frombuffer(text, np.uint8), starts, np.array([-1, len(text), -1]))
    keys = ByteColumn(np.frombuffer(key, np.uint8), starts, np.array([-1, len(key), -1]))
    assert scanned_where_they_lie(values, keys)[0] == [False, True, False]


def at_the_end_of_memory(text: bytes) -> tuple[mmap.mmap, ByteColumn]:
    """Return a column of one string, behind which begins a page that must not be read."""
    size = -(-len(text) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    pages[size - len(text) : size] = text
    memory = np.frombuffer(pages, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(memory.ctypes.data + size, mmap.PAGESIZE, 0) == 0
    return pages, ByteColumn(memory[:size], np.array([size - len(text)]), np.array([len(text)]))


@pytest.mark.parametrize("behind", [b"", b"\0", b"\0" + b"x" * 15, b"\0" + b"x" * 14])
def test_nothing_is_read_behind_the_buffer(behind: bytes) -> None:
    """Messages that end, or break off, up to a word before the end of readable memory."""
    whole, key = compact(TYPICAL), kafka_key(TYPICAL)
    for text in [whole, *(whole[:stop] for stop in range(0, len(whole), 3)), b""]:
        held = at_the_end_of_memory(text + behind), at_the_end_of_memory(key)
        (_, values), (_, keys) = held
        values = ByteColumn(values.buffer, values.starts, values.lengths - len(behind))
        assert scanned_where_they_lie(values, keys)[0] == [text == whole]


# Chance


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | st.binary(max_size=60), st.none() | st.binary(max_size=20)), max_size=5))
def test_random_bytes(messages: list[Message]) -> None:
    """Nothing raises, nothing differs."""
    assert_same(messages)


@settings(max_examples=300, deadline=None)
@given(st.floats(-180, 180) | st.decimals(-180, 180, places=12).map(float), st.integers(0, 19), st.booleans())
def test_decimals(number: float, places: int, fixed: bool) -> None:  # noqa: FBT001 (drawn by Hypothesis)
    """Every decimal gives Python's double, or goes to Python."""
    token = f"{number:.{places}f}" if fixed else repr(number)
    text = compact(transaction(longitude="TOKEN")).replace(b'"TOKEN"', token.encode())
    assert_same([(text, b"0002-11223344")])


def mutated(text: bytes, chance: random.Random) -> bytes:
    """Return the message after one to three small accidents."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(text) + 1)
        stop = min(len(text), start + chance.choice((0, 1, 1, 2, 9)))
        middle = chance.choice(
            [
                b"",
                text[start:stop] * 2,
                chance.choice(BYTES),
                chance.choice(TOKENS).encode(),
                bytes([chance.randrange(256)]),
                bytes([chance.choice(b'"\\{}[],:0123456789eE+-.tfnu \n')]),
            ]
        )
        text = text[:start] + middle + text[stop:]
    return text


def random_fields(chance: random.Random) -> dict[str, object]:
    """Return a transaction with a random choice of fields, most values right, in random order."""
    fields = dict(TYPICAL)
    for field in chance.sample(FIELDS, chance.choice((0, 0, 1, 3))):
        fields[field.name] = chance.choice(awkward_values(field))
    for name in chance.sample(list(fields), chance.randint(0, 8)):
        if name not in REQUIRED or chance.random() < 0.02:
            del fields[name]
    items = list(fields.items())
    if chance.random() < 0.3:
        chance.shuffle(items)
    return dict(items)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_messages(seed: int) -> None:
    """Two thousand messages with random fields, half of them damaged, in batches of random size."""
    chance = random.Random(seed)
    messages: list[Message] = []
    for _ in range(2000):
        fields = random_fields(chance)
        text = json.dumps(
            fields, ensure_ascii=chance.random() < 0.5, separators=chance.choice([(",", ":"), (", ", ": ")])
        )
        key = str(fields.get("pix_key") or fields.get("receiver_account")).encode(errors="replace")
        data = text.encode(errors="replace")
        messages.append((mutated(data, chance) if chance.random() < 0.5 else data, key))
    accepted = 0
    while messages:
        size = chance.randint(1, 300)
        accepted += assert_same(messages[:size])
        del messages[:size]
    assert 200 < accepted < 1800, f"seed {seed}: the mix is one-sided"
