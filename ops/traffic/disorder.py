"""What networks and producers do to a stream: late arrivals, retries of the same bytes, and damaged messages."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ops.traffic.generator import Simulated

__all__ = ["DAMAGES", "Disorder", "damage"]

_LATE_MEAN_MS = 20_000.0
_LATE_MAX_MS = 600_000.0
_RETRY_MEAN_MS = 2_000.0

DAMAGES: tuple[tuple[str, bytes, bytes], ...] = (
    ("not UTF-8", b'"initiation"', b'"initi\xff\xfeation"'),
    ("amount as text", b'"amount_centavos":', b'"amount_centavos":"many","was":'),
    ("amount of zero", b'"amount_centavos":', b'"amount_centavos":0,"was":'),
    ("no timestamp", b'"timestamp"', b'"time"'),
    ("unknown initiation", b'"initiation":"', b'"initiation":"X'),
    ("year 1970", b'"timestamp":', b'"timestamp":1,"was":'),
    ("duplicate field", b'"amount_centavos":', b'"amount_centavos":7,"amount_centavos":'),
)
"""Damages by replacement: name, what is replaced, by what. Truncation and noise come on top of them."""


class Disorder:
    """Delays, repeats and damages some messages, and keeps those that wait in a heap.

    Parameters
    ----------
    late_share, retry_share, malformed_share
        Shares of messages, each within 0 and 1.
    """

    def __init__(self, late_share: float, retry_share: float, malformed_share: float) -> None:
        self._late, self._retry, self._malformed = late_share, retry_share, malformed_share
        self._waiting: list[tuple[int, int, Simulated]] = []
        self._serial = 0

    def send(self, rng: np.random.Generator, messages: Sequence[Simulated]) -> Iterator[Simulated]:
        """Yield the arrivals up to the last of these messages, in order of arrival.

        Parameters
        ----------
        rng
            Source of this block's disorder.
        messages
            Sorted by ``arrival_ms``, none before those of the last call.
        """
        number = len(messages)
        is_late = (rng.random(number) < self._late).tolist()
        is_sent_twice = (rng.random(number) < self._retry).tolist()
        is_damaged = (rng.random(number) < self._malformed).tolist()
        delay_ms = np.minimum(rng.exponential(1.0, number) * _LATE_MEAN_MS, _LATE_MAX_MS).astype(int).tolist()
        waiting = self._waiting
        for message, late, twice, damaged, delay in zip(
            messages, is_late, is_sent_twice, is_damaged, delay_ms, strict=True
        ):
            while waiting and waiting[0][0] <= message.arrival_ms:
                yield heapq.heappop(waiting)[2]
            if twice:
                retry_ms = message.arrival_ms + (delay if late else 0) + int(rng.exponential(_RETRY_MEAN_MS)) + 1
                self._wait(message._replace(arrival_ms=retry_ms, is_retry=True))
            if damaged:
                value = damage(rng, message.value)
                self._wait(message._replace(arrival_ms=message.arrival_ms + 1, value=value, payment=None, label=None))
            if late:
                self._wait(message._replace(arrival_ms=message.arrival_ms + delay))
            else:
                yield message

    def _wait(self, message: Simulated) -> None:
        self._serial += 1
        heapq.heappush(self._waiting, (message.arrival_ms, self._serial, message))


def damage(rng: np.random.Generator, value: bytes) -> bytes:
    """Return a message that a strict decoder must reject; it has no line break, so that it fits in NDJSON."""
    kind = int(rng.integers(len(DAMAGES) + 2))
    if kind < len(DAMAGES):
        _, found, replacement = DAMAGES[kind]
        return value.replace(found, replacement)
    if kind == len(DAMAGES):
        return value[: int(rng.integers(1, len(value) - 1))]
    return rng.integers(33, 127, int(rng.integers(1, 400)), dtype=np.uint8).tobytes()
