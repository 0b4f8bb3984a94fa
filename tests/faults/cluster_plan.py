"""What a seed stands for on a real cluster: who is struck when, by what, and what else the run has in it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["CLUSTER_FAULTS", "ClusterFault", "ClusterPlan", "draw_cluster_plan"]

CLUSTER_FAULTS = {
    "kill": 5,  # -9; back under the same name a moment later
    "leave": 3,  # SIGTERM; back later
    "join": 2,  # one worker more
    "pause": 2,  # SIGSTOP for less than a session
    "zombie": 3,  # SIGSTOP for longer than a session: others have its partitions when it goes on
    "slow": 2,  # stopped most of the time
    "broker": 3,  # kill -9 of the broker; back on its data
    "full disk": 3,  # of the worker's local store
    "clock jump": 3,  # of the worker's wall clock
}
"""Kinds of faults, and how often each is drawn in proportion to the others."""

_MINUTE_MS = 60_000
# A broker takes no record from more than an hour ahead (`message.timestamp.after.max.ms`).
_JUMPS_MS = tuple(minutes * _MINUTE_MS for minutes in (-600, -90, -5, -1, 1, 5, 30))


@dataclass(frozen=True, slots=True)
class ClusterFault:
    """One disturbance.

    Parameters
    ----------
    kind
        One of CLUSTER_FAULTS.
    at_s
        When, from the first payment on.
    size
        In [0, 1): how long, how far; each kind reads it in its own way.
    target
        Which worker, as a number to be taken modulo their count.
    """

    kind: str
    at_s: float
    size: float
    target: int

    @property
    def jump_ms(self) -> int:
        """Where a clock goes."""
        return _JUMPS_MS[int(self.size * len(_JUMPS_MS))]


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """All that a seed decides.

    Parameters
    ----------
    seed
        Names the run.
    workers
        At the start.
    standbys
        Warm copies of each partition.
    payments, rate_per_s
        How many messages the producer sends, and how fast.
    session_s
        Silence after which a worker loses its partitions.
    is_compacted
        Whether the changelogs are compacted all the time.
    rules_at_s, lists_at_s
        When another rule pack comes, and a change of the lists; None for never.
    producer_jumps
        Seconds, and by how many milliseconds the producer's clock is wrong from then on.
    faults
        In the order in which they come.
    """

    seed: int
    workers: int
    standbys: int
    payments: int
    rate_per_s: float
    session_s: float
    is_compacted: bool
    rules_at_s: float | None
    lists_at_s: float | None
    producer_jumps: tuple[tuple[float, int], ...]
    faults: tuple[ClusterFault, ...]

    @property
    def words(self) -> str:
        """The plan, for people."""
        parts = [f"{self.workers} workers, session {self.session_s:g} s"]
        if self.standbys:
            parts.append("standbys")
        if self.is_compacted:
            parts.append("compaction")
        events = [(fault.at_s, f"{fault.kind}#{fault.target}") for fault in self.faults]
        events += [(at_s, f"producer's clock {jump_ms // _MINUTE_MS:+d} min") for at_s, jump_ms in self.producer_jumps]
        events += [(at_s, what) for at_s, what in ((self.rules_at_s, "rules"), (self.lists_at_s, "lists")) if at_s]
        return "; ".join([", ".join(parts), *(f"{at_s:.1f} s {what}" for at_s, what in sorted(events))])


def draw_cluster_plan(seed: int) -> ClusterPlan:
    """Draw the plan of a seed."""
    rng = Random(f"cluster/{seed}")
    payments, rate_per_s = 3000, 430.0
    duration_s = payments / rate_per_s
    kinds = rng.choices(list(CLUSTER_FAULTS), list(CLUSTER_FAULTS.values()), k=rng.randint(3, 6))
    faults = [ClusterFault(kind, rng.uniform(0.2, duration_s), rng.random(), rng.randrange(100)) for kind in kinds]
    jumps = [(rng.uniform(0.0, duration_s), rng.choice(_JUMPS_MS)) for _ in range(rng.choice((0, 0, 1, 3)))]
    return ClusterPlan(
        seed=seed,
        workers=rng.choice((2, 2, 3)),
        standbys=rng.choice((0, 0, 1)),
        payments=payments,
        rate_per_s=rate_per_s,
        session_s=rng.choice((2.0, 3.0)),
        is_compacted=rng.random() < 0.3,
        rules_at_s=rng.uniform(0.5, duration_s) if rng.random() < 0.4 else None,
        lists_at_s=rng.uniform(0.5, duration_s) if rng.random() < 0.4 else None,
        producer_jumps=tuple(sorted(jumps)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
    )
