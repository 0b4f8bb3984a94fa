"""Workers as a queueing system, simulated event by event: how long payments wait, and how a lost worker is made up for.

Payments arrive at random (Poisson) and spread over the partitions. A worker is one server for the partitions that it
holds, of both stages: it takes what waits in the partition whose head is oldest, as one batch of a fixed and a
per-event cost, passes it on, and stops now and then for a checkpoint. Nothing here was measured: costs are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ops.bench.queueing_kernel import Costs, new_world, run

__all__ = ["Loss", "Outcome", "System", "md1_wait_s", "simulate"]

_LATE_S = 0.1


@dataclass(frozen=True, slots=True)
class System:
    """Workers and what their work costs.

    Parameters
    ----------
    workers, partitions
        How many; partition p of either stage is held by worker p modulo `workers`.
    event_us, batch_us
        Of one core: per event and per batch, of the receivers' and of the payers' stage.
    checkpoint_us, checkpoint_batch_us
        Per event since the partition's last checkpoint, and per checkpoint.
    checkpoint_interval_s
        Between the checkpoints of a partition.
    hop_ms
        Through the broker once: three times from the bank's producer to whoever reads the decision.
    max_batch
        Events that one batch may have.
    """

    workers: int
    partitions: int
    event_us: tuple[float, float]
    batch_us: tuple[float, float]
    checkpoint_us: float = 0.0
    checkpoint_batch_us: float = 0.0
    checkpoint_interval_s: float = 1.0
    hop_ms: float = 0.0
    max_batch: int = 2000


@dataclass(frozen=True, slots=True)
class Loss:
    """One worker ends without a word and does not return.

    Parameters
    ----------
    at_s
        When, from the start.
    detection_s
        Until the group leaves it out: the session timeout.
    stall_s
        For which all others stop: they share out its partitions and restore them.
    """

    at_s: float
    detection_s: float
    stall_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the payments.

    Parameters
    ----------
    arrivals_s, latencies_s
        When each payment was due, ascending, and how long its decision took; shape (n,), float64.
    busy_share
        Of its time that each worker was at work; shape (workers,).
    """

    arrivals_s: NDArray[np.float64]
    latencies_s: NDArray[np.float64]
    busy_share: NDArray[np.float64]

    def percentiles_ms(self, *percents: float, after_s: float = 0.0) -> list[float]:
        """Latency percentiles of the payments that were due after a warm-up."""
        later = self.latencies_s[self.arrivals_s >= after_s]
        return [float(value) * 1000 for value in np.percentile(later, percents)]

    def caught_up_s(self, at_s: float) -> float:
        """Seconds from `at_s` until no decision is late by more than 100 ms any more; 0 where none ever is."""
        late = (self.arrivals_s + self.latencies_s)[(self.latencies_s > _LATE_S)]
        return max(float(late.max()) - at_s, 0.0) if len(late) else 0.0


def md1_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean time from arrival to the end of service at one server of constant service time (Pollaczek, Khinchine).

    Raises
    ------
    ValueError
        Where the server cannot keep up.

    Examples
    --------
    >>> md1_wait_s(0.5, 1.0)
    1.5
    """
    load = rate_per_s * service_s
    if not 0 <= load < 1:
        raise ValueError(f"load: expected less than 1, got {load:g}")
    return service_s * (1 + load / (2 * (1 - load)))


def simulate(system: System, rate_per_s: float, seconds: float, *, seed: int, loss: Loss | None = None) -> Outcome:
    """Let payments arrive for so long, and work until all are decided.

    Parameters
    ----------
    system
        Who works.
    rate_per_s, seconds
        Arrivals.
    seed
        Same seed, same outcome.
    loss
        Worker 0 is lost.

    Raises
    ------
    ValueError
        Where a worker is to be lost and there is no other.
    """
    if loss is not None and system.workers < 2:
        raise ValueError(f"workers: expected another one beside the lost, got {system.workers}")
    rng = np.random.default_rng(seed)
    count = int(rate_per_s * seconds)
    arrivals_s = np.cumsum(rng.exponential(1 / rate_per_s, count))
    sources, targets = (rng.integers(0, system.partitions, count) for _ in range(2))
    costs = Costs(
        event_s=(system.event_us[0] * 1e-6, system.event_us[1] * 1e-6),
        batch_s=(system.batch_us[0] * 1e-6, system.batch_us[1] * 1e-6),
        checkpoint_event_s=system.checkpoint_us * 1e-6,
        checkpoint_s=system.checkpoint_batch_us * 1e-6,
        interval_s=system.checkpoint_interval_s,
        hop_s=system.hop_ms / 1000,
        max_batch=system.max_batch,
    )
    world = new_world(arrivals_s, sources, targets, system.partitions, system.workers, costs)
    heirs = world.owners.copy()
    lost = np.flatnonzero(heirs == 0)
    if loss is None:
        run(world, costs, heirs, np.inf, np.inf, 0.0)
    else:
        heirs[lost] = 1 + np.arange(len(lost)) % (system.workers - 1)
        run(world, costs, heirs, loss.at_s, loss.at_s + loss.detection_s, loss.stall_s)
    end_s = float((arrivals_s + world.latencies_s).max())
    return Outcome(arrivals_s, world.latencies_s, world.busy_s / end_s)
