"""Awkward JSON values, and what only looks like JSON: the raw material of the mutators."""

from __future__ import annotations

import random

from app.domain.field_checks import bounds
from app.domain.fields import FIELDS, Field, Kind

from .corpus import token

__all__ = ["INVALID_UTF8", "awkward_token", "deep_token", "edge_token"]

NUMBERS: tuple[bytes, ...] = tuple(
    text.encode()
    for text in (
        "0", "-0", "-0.0", "1", "-1", "1.0", "0.5", "1e3", "1E+3", "1e-3", "1e0", "-0e5", "1e308", "1e309", "-1e999",
        "1e-400", "1e99999999999999999999", "01", "00", "-01", "+1", ".5", "5.", "1.", "1e", "1e+", "-", "--1", "1.5.5",
        "1 2", "0x10", "1_000", "1,000", "NaN", "Infinity", "-Infinity", "-NaN", "inf",
        "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
        "18446744073709551615", "18446744073709551616", "999999999999999999", "1000000000000000000",
        "12345678901234567890", "-12345678901234567890", "123456789012345678901", "9007199254740993", "2147483648",
        "10000000000000", "10000000000001", "1577836800000", "1577836799999", "4102444800000", "4102444800001",
        "-2208988800000", "-2208988800001", "1790000000", "1790000000000000", "52998224725", "5511987654321",
        "90", "90.0", "90.00000000000001", "-90.0000000000000001", "180", "180.00000000000003", "-180.1",
        "0.30000000000000004", "-23.550519999999998", "0.1000000000000000055511151231257827", "123456789.123456789",
        "0." + "0" * 400 + "1", "9" * 19, "9" * 20, "9" * 400, "9" * 5000, "1" + "0" * 25, "0." + "3" * 40,
    )
)  # fmt: skip
"""Numbers at the edges of int64, double and our fields, and what is none."""

STRINGS: tuple[bytes, ...] = (
    *(token(text) for text in (
        "", "x", " ", "á", "conta nº 7", "😀", "a\x7fb", "\uff10" * 8, "e\u0301", "ﷺ" * 30)
    ),
    *(token("x" * size) for size in (7, 8, 9, 44, 45, 46, 63, 64, 65, 76, 77, 78, 139, 140, 141, 4096)),
    *(token("é" * size) for size in (32, 33, 45, 64, 65, 70, 140, 141)),
    *(token("😀" * size) for size in (16, 45, 64, 65, 140, 141)),
    b'"\\u0000"', b'"\\u0041"', b'"\\n\\t\\r\\b\\f\\/\\\\\\""', b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\\uDFFF"',
    b'"\\ude00\\ud83d"', b'"\\ud83dx"', b'"\\ud83d\\ud83d\\ude00"', b'"\\x41"', b'"\\u12"', b'"\\u00g0"', b'"\\U0041"',
    b'"\\"', b'"\\', b'"', b'"open', b"'single'", b'"a""b"', b'"tab\there"', b'"line\nhere"', b'"nul\x00here"',
    b'"\x1f"', b'"\xef\xbb\xbf"', b'"\\ufeff"', b'"\xe2\x80\xa8"', b'"' + b"y" * 70_000 + b'"',
    b'"+5511987654321"', b'"+5511"', b'"+0511987654321"', b'"+55119876543210000"', b'"52998224725"', b'"52998224724"',
    b'"00000000000"', b'"00000000000191"', b'"12ABC34501DE35"', b'"12abc34501de35"', b'"00000000000000"',
    b'"pix@bcb.gov.br"', b'"Pix@bcb.gov.br"', b'"a@b"', b'"a@-b"', b'"a@b-"', b'"a@b..c"', b'"@b"', b'"a@"', b'"a@b@c"',
    b'"123e4567-e89b-12d3-a456-426655440000"', b'"123E4567-E89B-12D3-A456-426655440000"', b'"00000000"', b'"0000000"',
    b'"E00000000202602291200aaaaaaaaaaa"', b'"E00000000202402291200aaaaaaaaaaa"', b'"E00000000000000000000aaaaaaaaaaa"',
    b'"e00000000202601011200aaaaaaaaaaa"', b'"E00000000202601012400aaaaaaaaaaa"', b'"E00000000202601011260aaaaaaaaaaa"',
)  # fmt: skip
"""Strings of every length that some field forbids, escapes, surrogates, and forms that are nearly right."""

CONSTANTS: tuple[bytes, ...] = (
    b"null", b"true", b"false", b"True", b"nul", b"nulll", b"truefalse", b"NULL", b"undefined", b"", b" ", b"[]", b"{}",
    b"[null]", b'["ON_CALL"]', b'["ON_CALL",]', b'[,"A"]', b'["A" "B"]', b'["A",1]', b'["\\u004fN_CALL"]', b"[[]]",
    b'{"a":1}', b'{"a":1,"a":2}', b'{"a":NaN}', b"[", b"]", b"{", b"}", b"/*x*/1", b"1//x", b"\x00", b"1\x00", b"#",
    b'["' + b'","'.join(b"F%d" % number for number in range(300)) + b'"]',
)  # fmt: skip

INVALID_UTF8: tuple[bytes, ...] = (
    b"\xff", b"\xfe", b"\x80", b"\xbf", b"\xc3", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf",
    b"\xe1\x80",    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xf0\x9f\x98",
)  # fmt: skip
"""Torn, overlong, surrogate and out-of-range sequences."""

_ENUMERATED = tuple(field for field in FIELDS if field.values)


def awkward_token(chance: random.Random) -> bytes:
    """Return any of the awkward values."""
    return chance.choice(chance.choice((NUMBERS, STRINGS, CONSTANTS)))


def edge_token(chance: random.Random, field: Field) -> bytes:
    """Return a value at, just within or just beyond a field's bounds."""
    low, high = bounds(field)
    if field.kind in (Kind.TIMESTAMP, Kind.CENTAVOS, Kind.COUNT):
        return b"%d" % (int(chance.choice((low, high))) + chance.choice((-1, 0, 1)))
    if field.kind is Kind.NUMBER:
        edge = chance.choice((low, high, 0.0)) + chance.choice((-1e-12, 0.0, 1e-12, 0.5, -0.5))
        return f"{edge:.{chance.randrange(19)}f}".encode() if chance.random() < 0.5 else repr(edge).encode()
    if field.kind in (Kind.IDENTIFIER, Kind.TEXT):
        size = max(0, int(chance.choice((low, high))) + chance.choice((-1, 0, 1)))
        return token(chance.choice("xé€😀") * size)
    if field.values:
        other = chance.choice(chance.choice(_ENUMERATED).values)
        return token(chance.choice((other, other.lower(), other + "X", other[:-1], f" {other}")))
    return chance.choice(STRINGS)


def deep_token(chance: random.Random) -> bytes:
    """Return a value nested to some depth, mostly about the limit, at times beyond any parser's stack."""
    depth = chance.choice((1, 2, 30, 31, 32, 33, 34, 100, 900, 2_000, 20_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
    return (
        opening * depth + chance.choice((b"1", b"", b"NaN", b'"\\ud800"')) + closing * chance.choice((depth, depth, 1))
    )
