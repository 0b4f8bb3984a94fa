"""A look-up of one profile: by a clear identifier in the body of a POST, which is never logged nor sent back."""

from __future__ import annotations

import re

import msgspec

from app.domain.field_checks import expectation
from app.domain.fields import FIELDS_BY_NAME
from app.domain.pix_keys import deduce_key_type

__all__ = ["LOOKUP_KINDS", "MAX_LOOKUP_BYTES", "Fault", "Lookup", "read_lookup"]

MAX_LOOKUP_BYTES = 1024

LOOKUP_KINDS = {
    "account": "ISPB/ACCOUNT: 8 digits, a slash, 1 to 64 characters",
    "key": expectation(FIELDS_BY_NAME["pix_key"]),
}
"""What the value must look like, by kind."""

_ACCOUNT = re.compile(r"[0-9]{8}/.{1,64}", re.DOTALL)


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a request: where, what is right there, what was there. Never the value itself."""

    path: str
    expected: str
    got: str


class Lookup(msgspec.Struct, frozen=True):
    """Which profile: its kind, and the identifier in clear."""

    kind: str
    value: str


_DECODER = msgspec.json.Decoder(Lookup)


def read_lookup(body: bytes) -> Lookup | Fault:
    """Return the look-up that a body asks for, or its first fault.

    Examples
    --------
    >>> read_lookup(b'{"kind": "key", "value": "52998224724"}').got
    'string of 11 characters'
    """
    try:
        lookup = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        # msgspec names types and paths; with two plain strings declared it has no value of the body to repeat.
        return Fault("$", '{"kind": "account" or "key", "value": string}', str(error))
    except UnicodeDecodeError:
        return Fault("$", "JSON in UTF-8", "other bytes")
    if lookup.kind not in LOOKUP_KINDS:
        return Fault("$.kind", f"one of {', '.join(LOOKUP_KINDS)}", f"string of {len(lookup.kind)} characters")
    is_right = deduce_key_type(lookup.value) is not None if lookup.kind == "key" else _ACCOUNT.fullmatch(lookup.value)
    if not is_right:
        return Fault("$.value", LOOKUP_KINDS[lookup.kind], f"string of {len(lookup.value)} characters")
    return lookup
