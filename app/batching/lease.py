"""How long a worker may believe that it is still in its group.

A worker that was paused (a signal, a swapped-out or migrated machine) does not know it. Its consumer learns from the
group that others own its partitions, but only after it has gone on for a moment. So what must not be done by a worker
that was expelled is done under a lease: the coordinator keeps a member for the session timeout after each heartbeat
that it has answered, counted here from before the heartbeat was sent.
"""

import time

__all__ = ["Lease", "awake_or_not_s"]


def awake_or_not_s() -> float:
    """Return seconds since some start, in which a suspended machine's sleep counts, where the system knows of it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # macOS counts sleep in none of Python's clocks


class Lease:
    """A membership that is known to last until some moment. One thread renews it, any thread looks.

    Parameters
    ----------
    duration_s
        What a heartbeat buys: the session timeout.
    """

    __slots__ = ("_duration_s", "_until_s")

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._until_s = float("-inf")

    def renew(self, asked_s: float) -> None:
        """Note that the group answered a heartbeat which was sent at `asked_s`, by `awake_or_not_s`, or later."""
        self._until_s = max(self._until_s, asked_s + self._duration_s)

    def is_valid(self, now_s: float) -> bool:
        """Tell whether the group cannot have given this worker's partitions away yet at `now_s`."""
        return now_s < self._until_s
