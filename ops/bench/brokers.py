"""The cluster behind the workers: how many brokers, what bounds them first, and what their disks hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BrokerLimits", "Brokers", "Volume", "size_brokers"]

_CLEANER_READS, _CLEANER_WRITES = 2, 1
"""Per byte written to a compacted topic: at a dirty share of a half, a pass reads both halves and writes one again."""


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What one broker's machine is assumed to bear.

    Parameters
    ----------
    network_bytes_per_s
        Each way: 10 Gbit/s.
    disk_bytes_per_s
        Read and written, in long stretches.
    disk_bytes, disk_fill
        Its size, and how far it may be filled.
    cores
        Of its processor.
    """

    network_bytes_per_s: float = 1.25e9
    disk_bytes_per_s: float = 500e6
    disk_bytes: float = 8e12
    disk_fill: float = 0.8
    cores: int = 16


@dataclass(frozen=True, slots=True)
class Volume:
    """What a topic takes.

    Parameters
    ----------
    name
        Of the topic.
    bytes_per_event
        Written once, before replication.
    kept_bytes
        On disk, before replication.
    readers
        How often each byte is read by clients.
    compacted
        Whether Kafka's cleaner rewrites it.
    """

    name: str
    bytes_per_event: float
    kept_bytes: float
    readers: int
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class Brokers:
    """A cluster; per broker, with all of them at work, at the peak.

    Parameters
    ----------
    count
        One of them is there to be lost.
    bound
        What needs so many: `replication`, `network in`, `network out`, `disk throughput`, `disk space`, `processor`.
    without_space
        How many would be enough if disks were endless: for shorter retention.
    written, network_in, network_out, disk_rate
        Bytes per second: by clients to the whole cluster; then per broker.
    disk_bytes
        Used, per broker.
    cores
        Used, per broker.
    """

    count: int
    bound: str
    without_space: int
    written: float
    network_in: float
    network_out: float
    disk_rate: float
    disk_bytes: float
    cores: float


def size_brokers(
    volumes: Sequence[Volume],
    rate_per_s: float,
    broker_us: float,
    replication: int,
    headroom: float,
    limits: BrokerLimits,
) -> Brokers:
    """The fewest brokers that keep `headroom` with one of them lost.

    A byte that a client writes arrives `replication` times and leaves `replication - 1` times to followers and once to
    each reader; acks=all makes a producer wait for them, and costs no more bytes. A replica is taken to cost the
    processor what the leader was measured to, which is an upper bound: a follower answers no client. Disks must hold
    everything with one broker lost, too.

    Parameters
    ----------
    volumes
        Every topic.
    rate_per_s
        Events at the peak.
    broker_us
        Processor time per event, unreplicated.
    replication, headroom, limits
        See `Demand` and `BrokerLimits`.
    """
    written = rate_per_s * sum(volume.bytes_per_event for volume in volumes)
    read = rate_per_s * sum(volume.bytes_per_event * volume.readers for volume in volumes)
    rewritten = rate_per_s * sum(volume.bytes_per_event for volume in volumes if volume.compacted)
    totals = {
        "network in": written * replication,
        "network out": written * (replication - 1) + read,
        "disk throughput": replication * (written + (_CLEANER_READS + _CLEANER_WRITES) * rewritten),
        "disk space": replication * sum(volume.kept_bytes for volume in volumes),
        "processor": replication * rate_per_s * broker_us * 1e-6,
    }
    free = 1 - headroom
    each = {
        "network in": limits.network_bytes_per_s * free,
        "network out": limits.network_bytes_per_s * free,
        "disk throughput": limits.disk_bytes_per_s * free,
        "disk space": limits.disk_bytes * limits.disk_fill,
        "processor": limits.cores * free,
    }
    needed = {name: math.ceil(total / each[name]) + 1 for name, total in totals.items()}
    bound = max(needed, key=lambda name: (needed[name], totals[name] / each[name]))
    brokers = max(needed[bound], replication)
    return Brokers(
        count=brokers,
        bound=bound if needed[bound] >= replication else "replication",
        without_space=max(replication, *(each for name, each in needed.items() if name != "disk space")),
        written=written,
        network_in=totals["network in"] / brokers,
        network_out=totals["network out"] / brokers,
        disk_rate=totals["disk throughput"] / brokers,
        disk_bytes=totals["disk space"] / brokers,
        cores=totals["processor"] / brokers,
    )
