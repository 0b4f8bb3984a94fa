"""From a message that fails to a small one that still does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .differential import Finding, MakeDecoder, check_mutants, make_decoder

__all__ = ["fails_alone", "minimise", "minimised"]

_MAX_ATTEMPTS = 3000


def minimise(value: bytes, fails: Callable[[bytes], bool], max_attempts: int = _MAX_ATTEMPTS) -> bytes:
    """Return a part of the value, bytes left out anywhere, that still fails.

    Parameters
    ----------
    value
        Fails.
    fails
        Whether a value does.
    max_attempts
        Calls of `fails`; after that the smallest so far is returned.

    Examples
    --------
    >>> minimise(b"an example of a long text", lambda value: b"x" in value and b"g" in value)
    b'gx'
    """
    attempts, size = 0, len(value)
    while size > 0:
        start = 0
        while start < len(value) and attempts < max_attempts:
            shorter = value[:start] + value[start + size :]
            attempts += 1
            if fails(shorter):
                value = shorter
            else:
                start += size
        size //= 2
    return value


def fails_alone(finding: Finding, make: MakeDecoder = make_decoder) -> bool:
    """Return whether the finding's message fails without the others."""
    return finding.mutant is not None and bool(check_mutants(make(), [finding.mutant]).findings)


def minimised(finding: Finding, make: MakeDecoder = make_decoder) -> bytes | None:
    """Return a small message with the same key and time on which something is wrong, or None where that is not found.

    What a mutator claims holds only for the message that it made, so a finding of that sort is left as it is.
    """
    mutant = finding.mutant
    if mutant is None or mutant.value is None:
        return None

    def fails(value: bytes) -> bool:
        return bool(check_mutants(make(), [replace(mutant, value=value, claim=None)]).findings)

    return minimise(mutant.value, fails) if fails(mutant.value) else None
