"""How many workers, partitions and brokers a bank needs: formulas, fed with measured costs and stated assumptions.

Pure: no clock, no Kafka. `plan` is the whole model; every figure in it is linear or a ceiling of something linear, so
that a table of a few lines can be checked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from app.settings import Settings
from app.topics import ENRICHED, PAYERS_TABLE, RECEIVERS_TABLE, TRANSACTIONS, changelog, topics
from ops.bench.brokers import BrokerLimits, Brokers, Volume, size_brokers
from ops.bench.unit_costs import CHANGELOG, Costs

__all__ = ["CapacityError", "Demand", "Limits", "Plan", "Recovery", "plan", "size"]

_TABLES = (RECEIVERS_TABLE, PAYERS_TABLE)
_KAFKA_SEGMENT_BYTES = 1 << 30
_PARTITIONS_MAX = 1024
_DAY_S = 86_400


class CapacityError(ValueError):
    """No number of workers, partitions and brokers that the settings admit carries this demand."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model assumes; nothing here was measured.

    Parameters
    ----------
    broker
        A broker's machine.
    network_bytes_per_s
        Of a worker, each way: 10 Gbit/s.
    worker_ram_bytes
        Of a worker.
    partitions_per_worker
        So many that a lost worker's share falls evenly on the others.
    rebalance_s
        For which the group stands still while it shares the partitions out.
    replication_ms
        More per passage through the broker until the replicas have the record.
    peak_to_mean
        Busiest second against the mean of the record day: 20,000/s against 3,626/s.
    dirty_share
        Of a changelog that Kafka lets be stale before it compacts (`min.cleanable.dirty.ratio`).
    """

    broker: BrokerLimits = field(default_factory=BrokerLimits)
    network_bytes_per_s: float = 1.25e9
    worker_ram_bytes: float = 64e9
    partitions_per_worker: int = 4
    rebalance_s: float = 3.0
    replication_ms: float = 1.0
    peak_to_mean: float = 20_000 / 3_626
    dirty_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Demand:
    """What a bank asks for.

    Parameters
    ----------
    rate_per_s
        Payments in the busiest second.
    customers
        Accounts and Pix keys that pay or are paid.
    mean_rate_per_s
        Over the days of retention; None: the peak by the national ratio.
    payments
        By a customer in 30 days, which says how large a profile is; None: as many as the mean rate comes to.
    replication
        Copies of each topic.
    headroom
        Share of a core, disk or network that is free at the peak with one worker and one broker lost.
    standbys
        Warm copies of each partition's state.
    loss_s
        Seconds, at most, until the partitions of a lost worker are at work again; None: no matter.
    compression
        Of all topics. Today's workers send `none`.
    """

    rate_per_s: float
    customers: float
    mean_rate_per_s: float | None = None
    payments: float | None = None
    replication: int = 3
    headroom: float = 0.3
    standbys: int = 0
    loss_s: float | None = None
    compression: Literal["none", "lz4"] = "none"


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds; the worst moment, just before the changelogs are compacted.

    Parameters
    ----------
    restart_s
        Kill -9, and the worker comes back under its name: until its payments are decided on again.
    loss_s, standby_loss_s
        It does not come back: until the others have its partitions, without and with a standby.
    stall_s, standby_stall_s
        Of these, how long nothing at all is decided: a rebalance stops every worker.
    catch_up_s, standby_catch_up_s
        From the kill until nothing waits any more, at the peak rate.
    """

    restart_s: float
    loss_s: float
    stall_s: float
    catch_up_s: float
    standby_loss_s: float
    standby_stall_s: float
    standby_catch_up_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer; sizes in bytes, rates in bytes per second.

    Parameters
    ----------
    workers, partitions
        A worker is one process and one core; one of them is there to be lost.
    bound
        What one worker less could not bear: `processor`, `memory`, `network`, `recovery`; `spare`: two are the least.
    payments
        Of a customer in 30 days; what was not measured counts as the most that was.
    event_us
        Per event with that many customers in a worker, who pay so often.
    row_bytes
        Memory of a profile.
    checkpoint_us
        Of `event_us`.
    load, load_after_loss
        Share of a core of a worker at the peak, and of the busiest one after another was lost.
    worker_ram
        After a loss; a partition that is just doubling its arrays included.
    retry_covered_s
        For how long a producer's retry is recognised before `retry_max_ids` makes the workers forget it.
    changelog_rate, changelog_live, changelog_disk
        Written before compaction; latest rows alone; on one replica's disk just before compaction.
    worker_in, worker_out
        Network of a worker at the peak, after a loss.
    recovery, brokers, volumes
        What follows from a kill, the cluster, and what each topic brings it before replication.
    """

    workers: int
    bound: str
    partitions: int
    payments: float
    event_us: float
    row_bytes: float
    checkpoint_us: float
    load: float
    load_after_loss: float
    worker_ram: float
    retry_covered_s: float
    changelog_rate: float
    changelog_live: float
    changelog_disk: float
    worker_in: float
    worker_out: float
    recovery: Recovery
    brokers: Brokers
    volumes: Sequence[Volume]


def plan(costs: Costs, demand: Demand, limits: Limits | None = None) -> Plan:
    """The smallest installation that meets a demand.

    With `alive = workers - 1`, the busiest of them holding `held = ceil(partitions / alive)` partitions:

    - `load_after_loss = rate x held / partitions x event_us + rest`, which must leave `headroom`.
    - `worker_ram = worker + held x (1 + standbys) x (rows x row_bytes + ids) + one partition's rows again`.
    - `changelog_disk = live / (1 - dirty_share) + a segment per partition and table`.
    - `stall = rebalance + rows of the partitions that one worker takes on x recovery_us`, rows as on disk.
    - `catch_up = loss + backlog / spare` of the busiest worker, which takes on `taken` partitions:
      `backlog = rate / partitions x (held x stall + taken x (session_timeout + checkpoint_interval))`,
      `spare = (1 - rest) / event_us - rate x held / partitions`.

    Raises
    ------
    CapacityError
        Where no number of workers is enough, or the settings' bounds are too narrow.
    """
    assumed = limits or Limits()
    if demand.rate_per_s <= 0 or demand.customers <= 0 or demand.replication < 1:
        raise CapacityError("demand: expected a rate, customers and a replication above 0")
    if not 0 <= demand.headroom < 1 - costs.rest_share:
        raise CapacityError(f"headroom: expected 0 to {1 - costs.rest_share:.2f}, got {demand.headroom:g}")
    bound = "spare"
    for workers in count(2):
        if workers * assumed.partitions_per_worker > _PARTITIONS_MAX:
            break
        found = size(costs, demand, assumed, workers, bound)
        unmet = _unmet(found, demand, assumed)
        if unmet is None:
            return found
        bound = unmet
    raise CapacityError(
        f"{demand.rate_per_s:,.0f}/s, {demand.customers:,.0f} customers: {bound} asks for more than "
        f"{_PARTITIONS_MAX // assumed.partitions_per_worker} workers of {assumed.partitions_per_worker} partitions"
    )


def _unmet(found: Plan, demand: Demand, limits: Limits) -> str | None:
    """What these workers cannot bear; None: they can bear all."""
    if found.load_after_loss > 1 - demand.headroom:
        return "processor"
    if found.worker_ram > limits.worker_ram_bytes:
        return "memory"
    if max(found.worker_in, found.worker_out) > limits.network_bytes_per_s * (1 - demand.headroom):
        return "network"
    loss_s = found.recovery.standby_loss_s if demand.standbys else found.recovery.loss_s
    if demand.loss_s is not None and loss_s > demand.loss_s:
        return "recovery"
    return None


def size(costs: Costs, demand: Demand, limits: Limits, workers: int, bound: str = "given") -> Plan:
    """What becomes of a demand with so many workers, two at least, enough or not; see `plan`."""
    partitions = workers * limits.partitions_per_worker
    held = math.ceil(partitions / (workers - 1))
    share = held / partitions
    payments = _payments(demand, limits)
    row_bytes = costs.row_bytes_at(payments)
    event_us = costs.event_us_at(demand.customers * share, payments)
    settings = Settings.model_fields
    rows = demand.customers * costs.rows_per_customer / partitions
    active = min(rows, len(_TABLES) * settings["max_active_keys"].default)
    ids = min(demand.rate_per_s * settings["retry_window_s"].default / partitions, settings["retry_max_ids"].default)
    partition_ram = active * row_bytes + len(_TABLES) * ids * costs.id_bytes
    volumes = _volumes(costs, demand, limits, partitions)
    packed = _packed(costs, demand, limits)
    source, enriched = packed[TRANSACTIONS.name], packed[ENRICHED.name]
    return Plan(
        workers=workers,
        bound=bound,
        partitions=partitions,
        payments=payments,
        event_us=event_us,
        row_bytes=row_bytes,
        checkpoint_us=costs.checkpoint_us_at(payments),
        load=demand.rate_per_s / workers * event_us * 1e-6 + costs.rest_share,
        load_after_loss=demand.rate_per_s * share * event_us * 1e-6 + costs.rest_share,
        worker_ram=costs.worker_bytes + held * (1 + demand.standbys) * partition_ram + active * row_bytes,
        retry_covered_s=ids * partitions / demand.rate_per_s,
        changelog_rate=demand.rate_per_s * packed[CHANGELOG],
        changelog_live=_live_bytes(costs, demand, limits),
        changelog_disk=volumes[-1].kept_bytes,
        worker_in=demand.rate_per_s * share * (source + enriched + demand.standbys * packed[CHANGELOG]),
        worker_out=demand.rate_per_s * share * (sum(packed.values()) - source),
        recovery=_recovery(costs, demand, limits, workers, partitions, event_us),
        brokers=size_brokers(
            volumes, demand.rate_per_s, costs.broker_us_at(payments), demand.replication, demand.headroom, limits.broker
        ),
        volumes=volumes,
    )


def _payments(demand: Demand, limits: Limits) -> float:
    """By a customer in 30 days."""
    if demand.payments is not None:
        return demand.payments
    mean = demand.mean_rate_per_s or demand.rate_per_s / limits.peak_to_mean
    return mean * 30 * _DAY_S / demand.customers


def _packed(costs: Costs, demand: Demand, limits: Limits) -> dict[str, float]:
    """Bytes per event and topic, as they go over the network and lie on disk; the changelogs last."""
    raw = {**costs.bytes_by_topic, CHANGELOG: costs.checkpoint_bytes_at(_payments(demand, limits))}
    share = costs.lz4_by_topic if demand.compression == "lz4" else dict.fromkeys(raw, 1.0)
    return {name: each * share[name] for name, each in raw.items()}


def _live_bytes(costs: Costs, demand: Demand, limits: Limits) -> float:
    """Latest rows of all profiles in the changelogs."""
    share = costs.lz4_by_topic[CHANGELOG] if demand.compression == "lz4" else 1.0
    return demand.customers * costs.rows_per_customer * costs.blob_bytes_at(_payments(demand, limits)) * share


def _tail_bytes(costs: Costs, demand: Demand, limits: Limits, partitions: int) -> float:
    """Newest segments of all changelogs, which are never compacted: full, or a week's writing if that is less."""
    config = changelog(Settings.model_fields["app_id"].default, PAYERS_TABLE).config
    segment = float(config.get("segment.bytes", _KAFKA_SEGMENT_BYTES))
    week = 7 * _DAY_S * demand.rate_per_s * _packed(costs, demand, limits)[CHANGELOG]
    return min(partitions * len(_TABLES) * segment, week)


def _volumes(costs: Costs, demand: Demand, limits: Limits, partitions: int) -> list[Volume]:
    """Every topic that counts; the changelogs last."""
    mean = demand.mean_rate_per_s or demand.rate_per_s / limits.peak_to_mean
    declared = {topic.name: topic for topic in topics(Settings.model_fields["app_id"].default)}
    packed = _packed(costs, demand, limits)
    volumes = [
        Volume(name, size, mean * size * int(declared[name].config["retention.ms"]) / 1000, readers=1)
        for name, size in packed.items()
        if name in declared
    ]
    kept = _live_bytes(costs, demand, limits) / (1 - limits.dirty_share) + _tail_bytes(
        costs, demand, limits, partitions
    )
    return [*volumes, Volume(CHANGELOG, packed[CHANGELOG], kept, readers=demand.standbys, compacted=True)]


def _recovery(costs: Costs, demand: Demand, limits: Limits, workers: int, partitions: int, event_us: float) -> Recovery:
    detection_s = float(Settings.model_fields["session_timeout_s"].default)
    tail_rows = (
        _tail_bytes(costs, demand, limits, partitions)
        * costs.checkpoint_rows
        / _packed(costs, demand, limits)[CHANGELOG]
    )
    rows = demand.customers * costs.rows_per_customer / (1 - limits.dirty_share) + tail_rows
    restore_s = rows / partitions * costs.recovery_us_at(_payments(demand, limits)) * 1e-6
    lost = math.ceil(partitions / workers)
    held, taken = math.ceil(partitions / (workers - 1)), math.ceil(lost / (workers - 1))
    stall_s = limits.rebalance_s + taken * restore_s
    each = demand.rate_per_s / partitions
    spare = (1 - costs.rest_share) * 1e6 / event_us - each * held
    # What the lost worker had decided since its last checkpoint is decided again.
    again_s = detection_s + float(Settings.model_fields["checkpoint_interval_s"].default)

    def catch_up_s(stall: float) -> float:
        backlog = each * (held * stall + taken * again_s)
        return detection_s + stall + backlog / spare if spare > 0 else math.inf

    return Recovery(
        restart_s=costs.start_s + lost * restore_s,
        loss_s=detection_s + stall_s,
        stall_s=stall_s,
        catch_up_s=catch_up_s(stall_s),
        standby_loss_s=detection_s + limits.rebalance_s,
        standby_stall_s=limits.rebalance_s,
        standby_catch_up_s=catch_up_s(limits.rebalance_s),
    )
