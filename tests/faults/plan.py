"""What a seed stands for: the size of the run, its conditions, and which faults come when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["FAULTS", "Fault", "Plan", "draw_plan"]

LONG_MS = 90 * 86_400_000
"""A window that no run outlasts."""

FAULTS = {
    "kill": 5,  # a process ends between any two steps
    "kill at step": 5,  # the same, by number of steps, so that busy moments are hit
    "rebalance": 3,  # partitions change hands, nobody is to blame
    "leave": 2,  # a graceful stop, and a new process later
    "join": 2,
    "zombie": 3,  # a pause longer than the session
    "clock jump": 3,
    "full disk": 2,
    "unreadable disk": 4,
    "stall": 3,  # the log answers nobody for a while
    "late checkpoints": 2,
    "compaction": 2,
    "rules": 3,  # another pack
    "lists": 2,
    "models": 3,  # another set of models
}
"""Kinds, and how often each is drawn in proportion to the others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One disturbance.

    Parameters
    ----------
    kind
        One of FAULTS.
    at_s
        When.
    size
        In [0, 1): how long, how far, how many; each kind reads it in its own way.
    """

    kind: str
    at_s: float
    size: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a seed decides in advance; what happens between is drawn as it comes."""

    seed: int
    messages: int
    partitions: int
    workers: int
    has_standbys: bool
    is_shuffled: bool
    duration_s: float
    session_s: float
    checkpoint_s: float
    max_dirty_rows: int
    max_active_keys: int
    idle_after_ms: int
    commit_s: float
    tick_s: float
    fetch_max_records: int
    fetch_wait_s: float
    max_queued_batches: int
    max_jobs: int
    retry_window_ms: int
    retry_max_ids: int
    delay_s: tuple[float, float]
    lost_ack_share: float
    failed_share: float
    faults: tuple[Fault, ...]

    @property
    def forgets_ids(self) -> bool:
        """Whether a producer's retry may come when its id is no longer remembered."""
        return self.retry_window_ms < LONG_MS or self.retry_max_ids < self.messages


def draw_plan(seed: int) -> Plan:
    """Draw the plan of a seed."""
    rng = Random(f"plan/{seed}")
    duration_s = rng.uniform(3, 8)
    kinds = rng.choices(list(FAULTS), list(FAULTS.values()), k=rng.randint(2, 9))
    faults = sorted((Fault(kind, rng.uniform(0.1, duration_s), rng.random()) for kind in kinds), key=lambda f: f.at_s)
    return Plan(
        seed=seed,
        messages=rng.randint(40, 150),
        partitions=rng.randint(2, 3),
        workers=rng.randint(1, 3),
        has_standbys=rng.random() < 0.5,
        is_shuffled=rng.random() < 0.3,
        duration_s=duration_s,
        session_s=rng.uniform(0.2, 1.0),
        checkpoint_s=rng.choice((0.1, 0.5, 1.5)),
        max_dirty_rows=rng.choice((2, 8, 1000)),
        max_active_keys=rng.choice((1, 2, 1000)),
        idle_after_ms=rng.choice((0, 3_600_000)),
        commit_s=rng.choice((0.1, 0.5, 2.0)),
        tick_s=rng.choice((0.05, 0.1)),
        fetch_max_records=rng.choice((3, 10, 40)),
        fetch_wait_s=rng.choice((0.0, 0.05, 0.2)),
        max_queued_batches=rng.randint(1, 3),
        max_jobs=rng.choice((2, 8, 64)),
        # A third of the runs forget ids, so that repeats come back across the window.
        retry_window_ms=rng.choice((LONG_MS, LONG_MS, 3_000)),
        retry_max_ids=rng.choice((100_000, 100_000, 100_000, 20)),
        delay_s=rng.choice(((0.0005, 0.003), (0.001, 0.03), (0.005, 0.15))),
        lost_ack_share=rng.choice((0.0, 0.05)),
        failed_share=rng.choice((0.0, 0.0, 0.0, 0.005)),
        faults=tuple(faults),
    )
