"""Mutators that know the message's structure: they change names, values, order, spaces, key and time.

Where a mutator knows what must come of its change alone, it claims so: that holds the strict decoder too to something
outside itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from app.domain.fields import FIELDS, FIELDS_BY_NAME, PIX_KEY_TYPES, Kind
from app.domain.rejection import Reason

from .corpus import token
from .draft import ACCEPTED, Claim, Draft
from .tokens import INVALID_UTF8, awkward_token, deep_token, edge_token

__all__ = ["STRUCTURAL"]

_YEAR_MS = 365 * 86_400_000
_REQUIRED = tuple(field.name for field in FIELDS if field.required)
_OPTIONAL = tuple(field.name for field in FIELDS if not field.required and not field.name.startswith("pix_key"))
_NUMERIC = tuple(
    field.name for field in FIELDS if field.kind in (Kind.TIMESTAMP, Kind.CENTAVOS, Kind.COUNT, Kind.NUMBER)
)
_UNKNOWN_VALUES = (
    b"1", b'"x"', b"null", b"true", b"false", b"-1.5e-7", b"9" * 30, b'"\\u00e1"', b'{"a":[1,{"b":null}]}', b"[]",
)  # fmt: skip
_WRAPPINGS = (
    (b"\xef\xbb\xbf", b""), (b"", b"\x00"), (b"", b"x"), (b"", b"}"), (b"", b","), (b"", b"{}"), (b"", b"// note"),
    (b"/* note */", b""), (b"[", b"]"), (b"\x00", b""), (b"\x00\x00\x00\x00\x01", b""), (b"(", b")"),
    (b"", b"\xff"), (b'{"a":', b""), (b"\x1e", b"\n"), (b"data: ", b"\n\n"), (b"{", b"}"), (b"", b"null"),
    (b"", b"\xef\xbb\xbf"),
)  # fmt: skip
"""What stands before and behind: a mark of byte order, other bytes, comments, a schema registry's header, a frame."""

Mutator = Callable[[random.Random, Draft], Claim | None]
STRUCTURAL: dict[str, Mutator] = {}
"""Every mutator of a draft, by its name."""


def _mutator(function: Mutator) -> Mutator:
    STRUCTURAL[function.__name__] = function
    return function


def _rejected(name: bytes, *reasons: Reason) -> Claim:
    return Claim(f"$.{name[1:-1].decode()}", reasons)


def _any_place(chance: random.Random, draft: Draft) -> int:
    if not draft.pairs:
        draft.pairs.append((b'"x"', b"1"))
    return chance.randrange(len(draft.pairs))


@_mutator
def drop_field(chance: random.Random, draft: Draft) -> Claim | None:
    """Leave a field out, every second time a required one."""
    place = draft.place(chance.choice(_REQUIRED)) if chance.random() < 0.5 else _any_place(chance, draft)
    if place < 0:
        return None
    name, _ = draft.pairs.pop(place)
    if name[1:-1].decode() in _REQUIRED:
        return _rejected(name, Reason.MISSING)
    return None if name == b'"pix_key"' else ACCEPTED


@_mutator
def null_field(chance: random.Random, draft: Draft) -> Claim | None:
    """Give a field no value."""
    place = _any_place(chance, draft)
    name, _ = draft.pairs[place]
    draft.pairs[place] = name, b"null"
    if name[1:-1].decode() in _REQUIRED:
        return _rejected(name, Reason.MISSING)
    return None if name == b'"pix_key"' else ACCEPTED


@_mutator
def duplicate_field(chance: random.Random, draft: Draft) -> Claim | None:
    """Repeat a field anywhere, with its value or another, its name perhaps spelled with an escape."""
    name, value = draft.pairs[_any_place(chance, draft)]
    again = _escaped(chance, name) if chance.random() < 0.4 else name
    if chance.random() < 0.3:
        value = chance.choice((b"null", b"1", b'"x"'))
    draft.pairs.insert(chance.randrange(len(draft.pairs) + 1), (again, value))
    return _rejected(name, Reason.DUPLICATE_FIELD)


def _escaped(chance: random.Random, name: bytes) -> bytes:
    """Spell one character of a name as an escape."""
    if len(name) < 3:
        return name
    at = chance.randrange(1, len(name) - 1)
    return name[:at] + (b"\\u%04x" if chance.random() < 0.5 else b"\\u%04X") % name[at] + name[at + 1 :]


@_mutator
def escape_name(chance: random.Random, draft: Draft) -> Claim | None:
    """Spell a name with an escape, which is the same name."""
    place = _any_place(chance, draft)
    name, value = draft.pairs[place]
    draft.pairs[place] = _escaped(chance, name), value
    return ACCEPTED


@_mutator
def rename_field(chance: random.Random, draft: Draft) -> Claim | None:
    """Misspell a name, or give the field another's; at times a person's data become the name."""
    place = _any_place(chance, draft)
    name, value = draft.pairs[place]
    other = chance.choice(
        (
            name.upper(), name[:-1] + b' "', name[:-2] + b'"', name[:-1] + b'\\u0000"', b'""', b'"\xc3\xa9"', name[1:],
            b"1", b"null", token(chance.choice(FIELDS).name), token(chance.choice(draft.specimen.secrets or ("x",))),
        )
    )  # fmt: skip
    draft.pairs[place] = other, value
    return None


@_mutator
def reorder(chance: random.Random, draft: Draft) -> Claim | None:
    """Bring the fields into another order."""
    match chance.randrange(3):
        case 0:
            chance.shuffle(draft.pairs)
        case 1:
            draft.pairs.reverse()
        case _:
            cut = _any_place(chance, draft)
            draft.pairs[:] = draft.pairs[cut:] + draft.pairs[:cut]
    return ACCEPTED


@_mutator
def swap_values(chance: random.Random, draft: Draft) -> Claim | None:
    """Exchange the values of two fields, as a shifted column does."""
    one, other = _any_place(chance, draft), _any_place(chance, draft)
    (name, value), (other_name, other_value) = draft.pairs[one], draft.pairs[other]
    draft.pairs[one], draft.pairs[other] = (name, other_value), (other_name, value)
    return None


@_mutator
def borrow_value(chance: random.Random, draft: Draft) -> Claim | None:
    """Give an optional field, present or not, a right value of another message."""
    name = chance.choice(_OPTIONAL)
    draft.put(name, chance.choice(draft.corpus.tokens[name]))
    return ACCEPTED


@_mutator
def misplace_number(chance: random.Random, draft: Draft) -> Claim | None:
    """Write a person's digits as the number of another field."""
    digits = [secret.lstrip("+") for secret in draft.specimen.secrets if secret.lstrip("+").isdigit()]
    draft.put(
        chance.choice(_NUMERIC), chance.choice(digits or ["0"]).encode() + chance.choice((b"", b"", b".0", b"e0"))
    )
    return None


@_mutator
def retype_value(chance: random.Random, draft: Draft) -> Claim | None:
    """Quote a number, unquote a text, wrap either."""
    place = _any_place(chance, draft)
    name, value = draft.pairs[place]
    quoted = value[1:-1] if value[:1] == b'"' else b'"%s"' % value.replace(b'"', b"'")
    wrapped = chance.choice((b"[%s]", b'{"value":%s}', b'["A",%s]')) % value
    draft.pairs[place] = name, chance.choice((quoted, quoted, wrapped))
    return None


@_mutator
def awkward_value(chance: random.Random, draft: Draft) -> Claim | None:
    """Give a field any awkward value."""
    place = _any_place(chance, draft)
    draft.pairs[place] = draft.pairs[place][0], awkward_token(chance)
    return None


@_mutator
def edge_value(chance: random.Random, draft: Draft) -> Claim | None:
    """Give a field, present or not, a value at the edge of its range."""
    field = chance.choice(FIELDS)
    draft.put(field.name, edge_token(chance, field))
    return None


@_mutator
def wrong_check_digit(chance: random.Random, draft: Draft) -> Claim | None:
    """Change the last digit of a CPF or a CNPJ."""
    place = draft.place(chance.choice(("payer_tax_id", "receiver_tax_id", "pix_key")))
    if place < 0:
        return None
    name, value = draft.pairs[place]
    digits = value[1:-1]
    if len(digits) not in (11, 14) or not digits.isdigit():
        return None
    draft.pairs[place] = name, b'"%s%d"' % (digits[:-1], (digits[-1] - 48 + chance.randint(1, 9)) % 10)
    return _rejected(name, Reason.WRONG_FORM)


@_mutator
def other_form(chance: random.Random, draft: Draft) -> Claim | None:
    """Write an identifier as people do: with punctuation, spaces or another case."""
    place = draft.place(chance.choice(("payer_tax_id", "pix_key", "end_to_end_id", "payer_ispb", "receiver_ispb")))
    if place < 0:
        return None
    name, value = draft.pairs[place]
    text = value[1:-1]
    changed = chance.choice(
        (text + b" ", b" " + text, text.upper(), text.lower(), text[:3] + b"." + text[3:], text[:-1], text + b"0", b"")
    )
    draft.pairs[place] = name, b'"%s"' % changed
    is_same = changed.upper() == text.upper()  # an EndToEndId may have letters of either case
    return None if is_same or name == b'"pix_key"' else _rejected(name, Reason.WRONG_FORM)


@_mutator
def wrong_kafka_key(chance: random.Random, draft: Draft) -> Claim | None:
    """Give the message no key, or nearly its own."""
    key = draft.key or b""
    spoilt = chance.choice(
        (None, b"", key[:-1], key + b"\0", key + b" ", b" " + key, key.swapcase(), b"\xff" * len(key))
    )
    other = chance.choice(draft.corpus.specimens).key
    draft.key = other if chance.random() < 0.3 else spoilt
    return None if draft.key == key else Claim("kafka.key", (Reason.WRONG_KAFKA_KEY,))


@_mutator
def other_key_type(chance: random.Random, draft: Draft) -> Claim | None:
    """Declare another type of key."""
    draft.put("pix_key_type", token(chance.choice((*PIX_KEY_TYPES, "cpf", ""))))
    return None


@_mutator
def unknown_value(chance: random.Random, draft: Draft) -> Claim | None:
    """Give an enumerated field a value that it does not admit."""
    name = chance.choice(("initiation", "purpose", "channel", "payer_person", "receiver_person"))
    value = chance.choice(FIELDS_BY_NAME[name].values)
    draft.put(name, token(chance.choice((value.lower(), value + "S", value[1:], "", value + " ", "ÁÉ", value + "\0"))))
    return Claim(f"$.{name}", (Reason.OUT_OF_RANGE,))


@_mutator
def nest(chance: random.Random, draft: Draft) -> Claim | None:
    """Give a field, known or not, a nested value."""
    value = deep_token(chance)
    if chance.random() < 0.7:
        draft.pairs.insert(chance.randrange(len(draft.pairs) + 1), (b'"nested"', value))
    else:
        place = _any_place(chance, draft)
        draft.pairs[place] = draft.pairs[place][0], value
    return None


@_mutator
def add_unknown(chance: random.Random, draft: Draft) -> Claim | None:
    """Add fields that nobody declared."""
    for number in range(chance.choice((1, 2, 15, 16, 17, 40))):
        pair = b'"unknown_%d"' % number, chance.choice(_UNKNOWN_VALUES)
        draft.pairs.insert(chance.randrange(len(draft.pairs) + 1), pair)
    return ACCEPTED


@_mutator
def white_space(chance: random.Random, draft: Draft) -> Claim | None:
    """Write with JSON's white space, and at times with what is none."""
    spaces = [b"", b" ", b"\t", b"\r\n", b"\n  ", b" " * 9]
    is_json = chance.random() < 0.8
    if not is_json:
        spaces = [b"\x0b", b"\x0c", b"\xc2\xa0", b"\x00", b"\xe2\x80\x83", b"\x85", b"/**/"]
    draft.opening = chance.choice(spaces) + b"{" + chance.choice(spaces)
    draft.colon = chance.choice(spaces) + b":" + chance.choice(spaces)
    draft.comma = chance.choice(spaces) + b"," + chance.choice(spaces)
    draft.closing = chance.choice(spaces) + b"}" + chance.choice(spaces)
    return ACCEPTED if is_json else Claim("$", (Reason.NOT_JSON, Reason.NOT_UTF8))


@_mutator
def wrap(chance: random.Random, draft: Draft) -> Claim | None:
    """Put something before, behind or around the object."""
    before, behind = chance.choice(_WRAPPINGS)
    draft.opening, draft.closing = before + draft.opening, draft.closing + behind
    return Claim("$", (Reason.NOT_JSON, Reason.NOT_UTF8, Reason.WRONG_TYPE))


@_mutator
def stray_separator(chance: random.Random, draft: Draft) -> Claim | None:
    """Write commas, colons and braces where none belongs, or none where one does."""
    part = chance.choice(("opening", "colon", "comma", "closing"))
    before = draft.write()
    setattr(draft, part, chance.choice((b"", b",,", b"::", b";", b"=", b"}", b"{", b"]", b",}", b"{,", b"},{", b'"')))
    return ACCEPTED if draft.write() == before else Claim("", (Reason.NOT_JSON,))


@_mutator
def shift_time(chance: random.Random, draft: Draft) -> Claim | None:
    """Move the message's time or Kafka's, by milliseconds at the limits or by years."""
    if chance.random() < 0.5:
        draft.kafka_ms = chance.choice(
            (-1, 0, -(2**63), 2**63 - 1, draft.specimen.kafka_ms + chance.randint(-2, 2) * _YEAR_MS)
        )
        return None
    shift_ms = chance.choice((-400 * 86_400_000, 86_400_000, 2 * _YEAR_MS, -2 * _YEAR_MS)) + chance.randint(-1, 1)
    draft.put("timestamp", b"%d" % (draft.kafka_ms + shift_ms))
    is_within = -400 * 86_400_000 <= shift_ms <= 86_400_000
    return ACCEPTED if is_within else _rejected(b'"timestamp"', Reason.IMPLAUSIBLE_TIME, Reason.OUT_OF_RANGE)


@_mutator
def torn_utf8(chance: random.Random, draft: Draft) -> Claim | None:
    """Put bytes that are no UTF-8 into a text."""
    place = _any_place(chance, draft)
    name, value = draft.pairs[place]
    at = chance.randrange(1, len(value)) if len(value) > 2 and value[:1] == b'"' else 0
    draft.pairs[place] = name, value[:at] + chance.choice(INVALID_UTF8) + value[at:]
    return Claim("$", (Reason.NOT_UTF8,))
