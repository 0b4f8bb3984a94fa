"""JSON bytes to one flat object, strictly: what most parsers let pass is a rejection here.

Python's own parser is the basis, because its hooks show what others hide: repeated names, `NaN`, and integers too long
to convert. Speed is the scanner's task; this one settles what is right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np

from app.domain.rejection import Reason, Rejection

__all__ = ["MAX_DEPTH", "HugeInteger", "JsonArray", "JsonObject", "NotANumber", "describe", "parse_object"]

MAX_DEPTH = 32
"""Levels of nesting that an unknown field may bring. No known field nests below an array of strings."""

_MAX_INTEGER_CHARACTERS = 20
_SHORTEST_IDENTIFIER = 10**7
"""Numbers from here on may be an account, a CPF without its zeros, or a phone."""

JsonArray = list[object]


class JsonObject(list[tuple[str, object]]):
    """A JSON object as its pairs in document order, repeated names included."""


@dataclass(frozen=True, slots=True)
class HugeInteger:
    """An integer beyond 64 bits, never converted: the time that takes grows with the square of its length."""

    characters: int


@dataclass(frozen=True, slots=True)
class NotANumber:
    """`NaN`, `Infinity` or `-Infinity`, which JSON does not have."""

    token: str


def _integer(text: str) -> int | HugeInteger:
    return int(text) if len(text) <= _MAX_INTEGER_CHARACTERS else HugeInteger(len(text))


_MAX_OPEN = 200
"""Nesting far beyond `MAX_DEPTH`, and far below what Python's parser can take."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
"""A string, closed or not."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_UNCHECKED = (list, NotANumber)
"""What may hold a fault though the message has no escapes: arrays and objects, and what is no number."""

_DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_constant=NotANumber)
_WARY_DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_int=_integer, parse_constant=NotANumber)

_MANY_DIGITS = re.compile(r"[0-9]{20}")
"""Without these no integer is huge, and the parser need not ask about each."""


def parse_object(value: bytes | None, known: Container[str]) -> dict[str, object] | Rejection:
    """Return the fields of a JSON object by name, or the first fault of the whole message.

    Parameters
    ----------
    value
        The message; None is Kafka's tombstone.
    known
        Names that a rejection may show. Others may be anything, so they stay out of it.

    Returns
    -------
    dict or Rejection
        Unknown fields stay in. A nested object is a `JsonObject`, an integer beyond 64 bits a `HugeInteger`.

    Examples
    --------
    >>> parse_object(b'{"ip": "::1", "ip": "::2"}', {"ip"})
    Rejection(path='$.ip', expected='one field of this name', got='several', reason=<Reason.DUPLICATE_FIELD: 'duplicate_field'>)
    """  # noqa: E501 (a doctest's output is one line)
    if value is None:
        return Rejection("$", "JSON object", "no value (a tombstone)", Reason.TOMBSTONE)
    try:
        text = value.decode()
        parsed = _parse(text)
    except UnicodeDecodeError as error:
        return Rejection("$", "UTF-8", f"byte 0x{value[error.start]:02x} at {error.start}", Reason.NOT_UTF8)
    except json.JSONDecodeError as error:
        return Rejection("$", "JSON object", f"{error.msg} at character {error.pos}", Reason.NOT_JSON)
    except RecursionError:
        return _too_deep("$")
    if not isinstance(parsed, JsonObject):
        return Rejection("$", "JSON object", describe(parsed), Reason.WRONG_TYPE)
    return _fields_by_name(parsed, known, has_escapes="\\u" in text)


def _parse(text: str) -> object:
    # Told before: how deep the parser itself can go depends on how deep its caller stands.
    if _nests_too_deep(text):
        raise RecursionError
    return (_WARY_DECODER if _MANY_DIGITS.search(text) else _DECODER).decode(text)


def _nests_too_deep(text: str) -> bool:
    """Whether more brackets are open at once than the parser should meet; strings do not count, closed or not."""
    if text.count("[") + text.count("{") <= _MAX_OPEN:
        return False
    brackets = np.frombuffer(_STRING.sub("", text).encode().translate(None, _NO_BRACKETS), np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return bool(np.cumsum(np.where(opening, 1, -1)).max(initial=0) > _MAX_OPEN)


def _fields_by_name(pairs: JsonObject, known: Container[str], *, has_escapes: bool) -> dict[str, object] | Rejection:
    found: dict[str, object] = {}
    for name, member in pairs:
        if name in found:
            got = "several" if name in known else "an unknown name several times"
            return Rejection(_path(name, known), "one field of this name", got, Reason.DUPLICATE_FIELD)
        if has_escapes or isinstance(member, _UNCHECKED):
            path = _path(name, known)
            fault = (_fault_of_text(path, name) if has_escapes else None) or _fault_within(path, member)
            if fault is not None:
                return fault
        found[name] = member
    return found


def _path(name: str, known: Container[str]) -> str:
    return f"$.{name}" if name in known else "$"


def _fault_within(path: str, member: object) -> Rejection | None:
    """Walk a value of any depth without recursion."""
    pending: list[Iterator[object]] = [iter((member,))]
    while pending:
        item = next(pending[-1], pending)
        if item is pending:
            pending.pop()
        elif isinstance(item, NotANumber):
            return Rejection(path, "JSON", item.token, Reason.NOT_JSON)
        elif isinstance(item, str):
            fault = _fault_of_text(path, item)
            if fault is not None:
                return fault
        elif isinstance(item, list):
            if len(pending) >= MAX_DEPTH:
                return _too_deep(path)
            pending.append(_parts(item))
    return None


def _parts(container: JsonArray | JsonObject) -> Iterator[object]:
    if isinstance(container, JsonObject):
        return (part for pair in container for part in pair)
    return iter(container)


def _fault_of_text(path: str, text: str) -> Rejection | None:
    """Find half a surrogate pair, which an escape can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return Rejection(path, "Unicode text", "a lone surrogate", Reason.NOT_UTF8)
    return None


def _too_deep(path: str) -> Rejection:
    return Rejection(path, f"at most {MAX_DEPTH} levels of nesting", "more", Reason.TOO_DEEP)


def describe(value: object, *, show_number: bool = False) -> str:
    """Return the type and size of a JSON value, never its text.

    Parameters
    ----------
    value
        Any value of a parsed message.
    show_number
        Whether a number may be shown: not where a string belongs, since a CPF may stand there as a number. In a shifted
        column it may stand anywhere, so a number as long as an account's is shown to two digits.

    Examples
    --------
    >>> describe("52998224725"), describe(52998224725), describe(-1, show_number=True)
    ('string of 11 characters, digits only', 'integer', 'integer -1')
    >>> describe(52998224725, show_number=True)
    'integer near 5.3e+10'
    """
    match value:
        case bool():
            text = "boolean"
        case int() | float():
            text = "integer" if isinstance(value, int) else "number"
            if show_number:
                text += f" near {value:.1e}" if _SHORTEST_IDENTIFIER <= abs(value) < math.inf else f" {value}"
        case str():
            text = f"string of {len(value)} characters"
            text += ", digits only" if value.isascii() and value.isdigit() else ""
        case HugeInteger():
            text = f"integer of {value.characters} characters"
        case NotANumber():
            text = value.token
        case JsonObject():
            text = "object"
        case list():
            text = "array"
        case _:
            text = "null"
    return text
