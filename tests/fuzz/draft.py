"""A message under mutation, and what a mutator claims must come of it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from app.domain.rejection import Reason

from .corpus import Corpus, Pair, Specimen

__all__ = ["ACCEPTED", "Claim", "Draft"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What must come of a message: a rejection at a path for one of these reasons, or acceptance where none is given.

    Parameters
    ----------
    path
        Of the rejection; "" for any.
    reasons
        Of the rejection.
    """

    path: str = ""
    reasons: tuple[Reason, ...] = ()


ACCEPTED = Claim()


@dataclass(slots=True)
class Draft:
    """A message under mutation, not yet written.

    Parameters
    ----------
    specimen
        What it was.
    corpus
        Where other values come from.
    pairs, key, kafka_ms
        What it is now.
    opening, colon, comma, closing
        What stands around and between its fields.
    """

    specimen: Specimen
    corpus: Corpus
    pairs: list[Pair]
    key: bytes | None
    kafka_ms: int
    opening: bytes = b"{"
    colon: bytes = b":"
    comma: bytes = b","
    closing: bytes = b"}"

    def write(self) -> bytes:
        """Return the message's bytes."""
        colon = self.colon
        return self.opening + self.comma.join([name + colon + value for name, value in self.pairs]) + self.closing

    def place(self, name: str) -> int:
        """Return where a field stands first, -1 where it is absent."""
        quoted = b'"%s"' % name.encode()
        return next((place for place, pair in enumerate(self.pairs) if pair[0] == quoted), -1)

    def put(self, name: str, value: bytes) -> None:
        """Give a field this value, at its place or as the last one."""
        place, pair = self.place(name), (b'"%s"' % name.encode(), value)
        if place < 0:
            self.pairs.append(pair)
        else:
            self.pairs[place] = pair

    def rekey(self) -> None:
        """Give the message the Kafka key that its fields ask for, where they are texts."""
        for name in ("pix_key", "receiver_account"):
            place = self.place(name)
            value = self.pairs[place][1] if place >= 0 else b"null"
            if value != b"null":
                # The mutated value may be no JSON string, or one that UTF-8 cannot hold.
                with contextlib.suppress(ValueError):
                    self.key = json.loads(value).encode() if value[:1] == b'"' else self.key
                return
