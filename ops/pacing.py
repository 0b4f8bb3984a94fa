"""When each message is due: at a rate, at the pace of the events themselves, or both.

The schedule is open-loop: it follows from the start alone. What goes out late does not move what comes after it, so a
slow broker is seen as a lag and never as less load.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import AsyncIterator, Sequence

__all__ = ["Pace", "Schedule"]

_TICK_S = 0.005
"""Waits are no shorter, so that what is due within one goes out together: a batch costs more than its messages."""


class Pace:
    """Due times, in seconds after the start.

    Parameters
    ----------
    rate_per_s
        At most so many messages per second, evenly; None: no bound.
    speed
        Event time against the wall clock: 1 as it happened, 10 ten times faster; None: event time does not count.

    Raises
    ------
    ValueError
        Where one of them is not above 0.

    Examples
    --------
    >>> Pace(rate_per_s=None, speed=2.0).due_s([10_000, 11_000, None, 10_500])
    [0.0, 0.5, 0.5, 0.5]
    """

    def __init__(self, rate_per_s: float | None, speed: float | None) -> None:
        for name, value in (("rate", rate_per_s), ("speed", speed)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value:g}")
        self._rate_per_s = rate_per_s
        self._speed = speed
        self._count = 0
        self._origin_ms: int | None = None
        self._latest_s = 0.0

    def due_s(self, times_ms: Sequence[int | None]) -> list[float]:
        """Return when the next messages are due; never earlier than those before them.

        Parameters
        ----------
        times_ms
            Their event times, epoch milliseconds; None where a message has none.
        """
        due = []
        for time_ms in times_ms:
            if self._speed is not None and time_ms is not None:
                if self._origin_ms is None:
                    self._origin_ms = time_ms
                self._latest_s = max(self._latest_s, (time_ms - self._origin_ms) / 1000 / self._speed)
            if self._rate_per_s is not None:
                self._latest_s = max(self._latest_s, self._count / self._rate_per_s)
            self._count += 1
            due.append(self._latest_s)
        return due


class Schedule:
    """Waits until messages are due; the only place here that looks at the clock.

    Parameters
    ----------
    stopped
        Ends every wait when set.
    """

    def __init__(self, stopped: asyncio.Event) -> None:
        self._stopped = stopped
        self._start_s = time.monotonic()
        self.lag_s = 0.0
        self.max_lag_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    async def portions(self, due_s: Sequence[float]) -> AsyncIterator[tuple[int, int]]:
        """Yield [begin, end) of the messages that are due, each portion when its first is; ends early if stopped.

        Parameters
        ----------
        due_s
            From `Pace.due_s`.
        """
        begin = 0
        while begin < len(due_s) and not self._stopped.is_set():
            wait_s = due_s[begin] - self.elapsed_s
            if wait_s > 0:
                await self._sleep(max(wait_s, _TICK_S))
                continue
            end = bisect.bisect_right(due_s, self.elapsed_s, begin)
            self.lag_s = max(-wait_s, 0.0)
            self.max_lag_s = max(self.max_lag_s, self.lag_s)
            yield begin, end
            begin = end

    async def _sleep(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), wait_s)
        except TimeoutError:
            return
