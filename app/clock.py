"""The two clocks of a worker, as an argument, so that a simulation can run hours in a moment and let them jump."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock"]


class Clock(Protocol):
    """What the runtime asks of time; event time is never asked here, it comes with the payments."""

    def now_ms(self) -> int:
        """Wall clock, epoch milliseconds: the log's clock, for it stamps what a worker sends."""

    def monotonic_s(self) -> float:
        """Seconds since an unknown start; never goes back."""


class _SystemClock:
    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def monotonic_s(self) -> float:
        return time.monotonic()


SYSTEM_CLOCK: Clock = _SystemClock()
"""The machine's own."""
