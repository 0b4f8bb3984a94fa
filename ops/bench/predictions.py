"""The simulated system with measured costs: checked against theory and the bench, then asked what was not measured."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings
from ops.bench.capacity import Limits, Plan
from ops.bench.measured import AtRate
from ops.bench.queueing import Loss, Outcome, System, md1_wait_s, simulate
from ops.bench.unit_costs import Costs

__all__ = ["Reproduced", "reproduce", "simulate_loss", "simulate_plan", "system_of", "theory_error"]

_SEED = 4
_WARM_UP_S = 2.0
_EVENTS_MAX = 1_500_000
_KILL_S = 3.0


@dataclass(frozen=True, slots=True)
class Reproduced:
    """Percentiles (50, 99, 99.9) in ms, measured by the bench and simulated with one worker at the same rate."""

    rate_per_s: int
    measured_ms: list[float]
    simulated_ms: list[float]


def system_of(
    costs: Costs, workers: int, partitions: int, *, event_us: float, checkpoint_us: float, hop_ms: float
) -> System:
    """Return the system that these costs describe; the two arguments depend on how much state a worker has."""
    settings = Settings.model_fields
    pure_us = max(event_us - checkpoint_us - costs.full_batches * costs.batch_us, 0.0)
    return System(
        workers=workers,
        partitions=partitions,
        event_us=(pure_us * costs.receiver_share, pure_us * (1 - costs.receiver_share)),
        batch_us=(costs.batch_us, costs.batch_us),
        checkpoint_us=checkpoint_us / 2,
        checkpoint_batch_us=costs.batch_us,
        checkpoint_interval_s=settings["checkpoint_interval_s"].default,
        hop_ms=hop_ms,
        max_batch=settings["fetch_max_records"].default,
    )


def theory_error(load: float = 0.8) -> float:
    """Relative error of the simulated mean latency against M/D/1: one partition that takes one event at a time."""
    rate_per_s = 1000.0
    service_us = load / rate_per_s * 1e6
    system = System(1, 1, (0.0, service_us), (0.0, 0.0), max_batch=1, checkpoint_interval_s=1e9)
    mean_s = float(simulate(system, rate_per_s, 400.0, seed=_SEED).latencies_s.mean())
    return mean_s / md1_wait_s(rate_per_s, service_us * 1e-6) - 1


def reproduce(costs: Costs, paced: list[AtRate], partitions: int) -> list[Reproduced]:
    """Simulate what was measured; no constant is fitted to it."""
    return [
        Reproduced(
            one.rate_per_s,
            [one.p50_ms, one.p99_ms, one.p999_ms],
            _simulated_ms(costs, one.rate_per_s, partitions),
        )
        for one in sorted(paced, key=lambda one: one.rate_per_s)
    ]


def simulate_plan(costs: Costs, found: Plan, rate_per_s: float) -> Outcome:
    """Let a plan's workers meet its peak, with all of them at work."""
    return simulate(_system_of_plan(costs, found), rate_per_s, min(10.0, _EVENTS_MAX / rate_per_s), seed=_SEED)


def simulate_loss(costs: Costs, found: Plan, rate_per_s: float, *, standby: bool) -> float:
    """Seconds from the kill of one of the plan's workers until no decision is late by more than 100 ms any more."""
    recovery = found.recovery
    detection_s = recovery.loss_s - recovery.stall_s
    stall_s = recovery.standby_stall_s if standby else recovery.stall_s
    expected_s = recovery.standby_catch_up_s if standby else recovery.catch_up_s
    seconds = _KILL_S + 1.5 * expected_s
    outcome = simulate(
        _system_of_plan(costs, found), rate_per_s, seconds, seed=_SEED, loss=Loss(_KILL_S, detection_s, stall_s)
    )
    return outcome.caught_up_s(_KILL_S)


def _system_of_plan(costs: Costs, found: Plan) -> System:
    return system_of(
        costs,
        found.workers,
        found.partitions,
        event_us=found.event_us,
        checkpoint_us=found.checkpoint_us,
        hop_ms=costs.passage_ms + Limits().replication_ms,
    )


def _simulated_ms(costs: Costs, rate_per_s: float, partitions: int) -> list[float]:
    system = system_of(
        costs, 1, partitions, event_us=costs.event_us, checkpoint_us=costs.checkpoint_us_at(1), hop_ms=costs.passage_ms
    )
    return simulate(system, rate_per_s, 20.0, seed=_SEED).percentiles_ms(50, 99, 99.9, after_s=_WARM_UP_S)
