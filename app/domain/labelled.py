"""Messages of `pix-labelled`: the vector that a payment was decided on, with what became known of the payment since.

There are two kinds. MATURED comes once for each payment that is learned from, at the same age for both classes: frauds
that were learned as soon as they are confirmed would look younger than honest payments. REVISION comes whenever what is
known changes, before or after maturity: together they are the bitemporal record from which training sets are made.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BASES",
    "Basis",
    "Kind",
    "Labelled",
    "LabelledError",
    "decode_labelled",
    "encode_labelled",
]

Kind = Literal["MATURED", "REVISION"]

Basis = Literal["MARKER", "REPORT", "ANALYST", "BLOCK", "REFUND", "CONTESTED", "MATURITY"]

BASES: tuple[Basis, ...] = ("MARKER", "REPORT", "ANALYST", "BLOCK", "REFUND", "CONTESTED", "MATURITY")
"""What a label rests on; MATURITY: on nothing having been said until then."""


class LabelledError(ValueError):
    """Bytes that are no message of `pix-labelled`."""


class Labelled(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One message: a label as it was known at `known_at`, and what the payment was decided on.

    Parameters
    ----------
    end_to_end_id
        The payment; also the Kafka key.
    kind
        MATURED: to be learned from. REVISION: what is known has changed.
    label
        1 fraud, 0 honest; None where it is not known, or was withdrawn.
    basis
        What the label rests on.
    fraud_type, situation
        DICT's terms, where somebody has told them.
    event_time, decided_at
        Of the payment, epoch milliseconds.
    known_at
        When this state of the label became known, epoch milliseconds; of MATURED, the instant of maturity.
    weight
        For learning: how many payments it stands for (sampling) times how sure the label is.
    amount_centavos, channel, action
        Of the payment; `channel` and `action` as coded on `pix-features`.
    rules_score, online_score, batch_score, challenger_score, score
        Of the decision, in [0, 1]; None where there was none.
    online_version, batch_version, challenger_version
        Of the models that scored; 0 where none did.
    source_partition, source_offset
        Where the vector lies in `pix-features`. Of one partition, MATURED messages come in this order, each once;
        repeats after a crash carry the same place.
    fingerprint
        Of the feature set.
    vector
        float32, little-endian, as it was decided on; NaN is missing.
    """

    end_to_end_id: str
    kind: Kind
    label: Literal[0, 1] | None
    basis: Basis
    fraud_type: str | None
    situation: str | None
    event_time: int
    decided_at: int
    known_at: int
    weight: float
    amount_centavos: int
    channel: int
    action: int
    rules_score: float | None
    online_score: float | None
    batch_score: float | None
    challenger_score: float | None
    score: float | None
    online_version: int
    batch_version: int
    challenger_version: int
    source_partition: int
    source_offset: int
    fingerprint: str
    vector: bytes

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the vector in `pix-features`: what makes two MATURED messages one."""
        return self.source_partition, self.source_offset

    @property
    def features(self) -> NDArray[np.float32]:
        """The vector, float32, shape (features,), read-only."""
        return np.frombuffer(self.vector, "<f4")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Labelled).decode


def encode_labelled(message: Labelled) -> bytes:
    """Return the message as `pix-labelled` carries it."""
    return _encode(message)


def decode_labelled(value: bytes | None) -> Labelled:
    """Read a message of `pix-labelled`.

    Raises
    ------
    LabelledError
        For anything else.
    """
    try:
        found = _decode(value or b"")
    except msgspec.DecodeError as error:
        raise LabelledError(
            f"pix-labelled: expected a labelled vector, got {len(value or b'')} bytes: {error}"
        ) from None
    if len(found.vector) % 4:
        raise LabelledError(f"pix-labelled: $.vector: expected float32 values, got {len(found.vector)} bytes")
    return found
