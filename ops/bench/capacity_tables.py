"""Tables of `pixguard capacity` and of its page: what was measured, what follows, what the simulation says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.settings import Settings
from app.topics import topics
from ops.bench.capacity import Demand, Limits, Plan, plan, size
from ops.bench.measured import Measured
from ops.bench.predictions import reproduce, simulate_loss, simulate_plan, theory_error
from ops.bench.unit_costs import CHANGELOG, Costs, growth_line

__all__ = ["Table", "figure", "measured_tables", "plan_rows", "scenario_tables", "simulation_tables", "volume_table"]

NATIONAL_PEAK_PER_S = 20_000
PAYMENTS = 45
"""By a customer in 30 days: 7.2 billion a month among 160 million."""

_STAND_PARTITIONS = 8
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of words; the first column is a name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def figure(value: float, digits: int = 2) -> str:
    """A number with so many digits that count, as people write it.

    Examples
    --------
    >>> figure(1234.5), figure(0.01234), figure(7.0), figure(float("inf"))
    ('1,200', '0.012', '7', 'never')
    """
    if math.isinf(value):
        return "never"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    text = f"{rounded:,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _size(value: float) -> str:
    for unit, name in _UNITS:
        if value >= unit:
            return f"{figure(value / unit)} {name}"
    return f"{figure(value)} B"


def _seconds(value: float) -> str:
    return figure(value) if math.isinf(value) else f"{figure(value)} s"


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def plan_rows(found: Plan) -> list[tuple[str, str]]:
    """What a plan says, one figure a line."""
    recovery, brokers = found.recovery, found.brokers
    return [
        ("workers (one core each; one may be lost)", f"{found.workers} ({found.bound})"),
        ("partitions", f"{found.partitions}"),
        ("payments of a customer in 30 days", figure(found.payments)),
        ("event, both stages", f"{figure(found.event_us, 3)} µs"),
        ("load of a worker; after a loss", f"{_percent(found.load)}; {_percent(found.load_after_loss)}"),
        ("memory per profile; per worker", f"{_size(found.row_bytes)}; {_size(found.worker_ram)}"),
        ("a retry is recognised for", _seconds(found.retry_covered_s)),
        ("network per worker, in; out", f"{_size(found.worker_in)}/s; {_size(found.worker_out)}/s"),
        ("changelogs: written", f"{_size(found.changelog_rate)}/s"),
        ("changelogs: latest rows; on disk", f"{_size(found.changelog_live)}; {_size(found.changelog_disk)}"),
        ("kill -9, restarted by name: decides after", _seconds(recovery.restart_s)),
        ("worker lost: all stand still", f"{_seconds(recovery.stall_s)}; standby {_seconds(recovery.standby_stall_s)}"),
        ("worker lost: its payments wait", f"{_seconds(recovery.loss_s)}; standby {_seconds(recovery.standby_loss_s)}"),
        (
            "worker lost: caught up after",
            f"{_seconds(recovery.catch_up_s)}; standby {_seconds(recovery.standby_catch_up_s)}",
        ),
        ("brokers (one may be lost)", f"{brokers.count} ({brokers.bound})"),
        ("brokers, disk space aside", str(brokers.without_space)),
        ("written to the cluster", f"{_size(brokers.written)}/s"),
        ("network per broker, in; out", f"{_size(brokers.network_in)}/s; {_size(brokers.network_out)}/s"),
        ("disk per broker: rate; space", f"{_size(brokers.disk_rate)}/s; {_size(brokers.disk_bytes)}"),
        ("cores per broker", figure(brokers.cores)),
    ]


def volume_table(found: Plan, demand: Demand) -> Table:
    """What each topic brings the cluster."""
    return Table(
        "The cluster, by topic",
        ("topic", "B/event", "written", f"on disk, replication {demand.replication}"),
        [
            (
                one.name,
                f"{one.bytes_per_event:,.0f}",
                f"{_size(one.bytes_per_event * demand.rate_per_s)}/s",
                _size(one.kept_bytes * demand.replication),
            )
            for one in found.volumes
        ],
    )


def measured_tables(measured: Measured, costs: Costs) -> list[Table]:
    """What was measured."""
    return [
        _growth_table(measured),
        _history_table(measured),
        _real_table(measured, costs),
        _sizes_table(costs),
        _constants_table(costs),
    ]


def _growth_table(measured: Measured) -> Table:
    slope, at_a_million = growth_line(measured.growth)
    return Table(
        "Growth with customers, pure path, measured. Both stages together, fitted: "
        f"{at_a_million:.1f} µs + {slope:.2f} µs x log2(customers / 1M)",
        ("customers", "profiles", "B/profile", "B resident", "stages µs", "kernel µs", "rows/event", "B/event",
         "restored/s"),
        [
            (
                f"{one.customers:,}",
                f"{one.rows:,}",
                f"{one.row_bytes:.0f}",
                f"{one.row_rss_bytes:.0f}",
                f"{one.receiver_us + one.payer_us:.1f}",
                f"{one.kernel_us:.1f}",
                f"{one.checkpoint_rows:.2f}",
                f"{one.checkpoint_bytes:,.0f}",
                figure(1e6 / one.restore_us),
            )
            for one in measured.growth
        ],
    )  # fmt: skip


def _history_table(measured: Measured) -> Table:
    return Table(
        "Growth with history, pure path, measured: payments by each customer in 30 days",
        ("payments", "B/profile", "B in changelog", "stages µs", "written µs/row", "restored µs/row"),
        [
            (
                f"{one.payments}",
                f"{one.row_bytes:,.0f}",
                f"{one.blob_bytes:,.0f}",
                f"{one.stages_us:.1f}",
                f"{one.export_us:.1f}",
                f"{one.restore_us:.1f}",
            )
            for one in measured.histories
        ],
    )


def _real_table(measured: Measured, costs: Costs) -> Table:
    return Table(
        f"Real path, {measured.real.customers:,} customers, measured: processor time per event",
        ("workers", "worker µs", "broker µs", "events/batch", "worker µs without batches' fixed cost"),
        [
            (
                str(one.workers),
                f"{one.worker_us:.1f}",
                f"{one.broker_us:.1f}",
                f"{1 / one.batches:,.0f}",
                f"{one.worker_us - one.batches * costs.batch_us:.1f}",
            )
            for one in measured.real.replicas
        ],
    )


def _sizes_table(costs: Costs) -> Table:
    declared = {topic.name: topic.config for topic in topics(Settings.model_fields["app_id"].default)}
    return Table(
        "Messages, measured; retention as declared",
        ("topic", "B/event", "lz4", "kept"),
        [
            (
                name,
                f"{each:,.0f}",
                _percent(costs.lz4_by_topic[name]),
                f"{int(declared[name]['retention.ms']) // 86_400_000} days",
            )
            for name, each in costs.bytes_by_topic.items()
        ]
        + [
            (
                "both changelogs, first payment",
                f"{costs.checkpoint_bytes_at(1):,.0f}",
                _percent(costs.lz4_by_topic[CHANGELOG]),
                "compacted",
            )
        ],
    )


def _constants_table(costs: Costs) -> Table:
    return Table(
        "What the model makes of it",
        ("constant", "value"),
        [
            (f"event, with Kafka, {costs.event_customers:,.0f} customers", f"{costs.event_us:.1f} µs"),
            ("more per doubling of a worker's customers", f"{costs.doubling_us:.2f} µs"),
            ("batch, either stage, with Kafka", f"{costs.batch_us:,.0f} µs"),
            ("once through the broker, no replicas", f"{costs.passage_ms:.1f} ms"),
            ("worker with nothing to do", f"{_percent(costs.rest_share)} of a core"),
            ("worker without state", f"{_size(costs.worker_bytes)}; starts in {_seconds(costs.start_s)}"),
            ("profiles per customer, both stages", f"{costs.rows_per_customer:.1f}"),
            (
                "profiles written down per event",
                f"{costs.checkpoint_rows:.2f}, and {costs.checkpoint_id_bytes:.0f} B of ids",
            ),
            ("remembered id, per stage", f"{costs.id_bytes:.0f} B"),
            ("changelog row read back, with Kafka", f"{costs.recovery_us:.2f} µs"),
            ("broker, unreplicated", f"{costs.broker_us:.1f} µs per event"),
        ],
    )


def scenario_tables(costs: Costs) -> list[Table]:
    """Plans by rate and customers, by customers alone, and by number of workers."""
    peak = Demand(NATIONAL_PEAK_PER_S, 100e6, payments=PAYMENTS, standbys=1)
    by_rate = [
        replace(peak, rate_per_s=rate, customers=customers)
        for rate, customers in ((1000, 1e6), (5000, 10e6), (20_000, 100e6), (100_000, 100e6), (1e6, 100e6))
    ]
    by_customers = [replace(peak, customers=customers) for customers in (1e6, 10e6, 100e6)]
    return [
        _plans("By rate (a standby each, replication 3, acks=all, headroom 30 %)", costs, by_rate),
        _plans("By customers, at the national peak of 20,000/s", costs, by_customers),
        _by_workers(costs, replace(peak, standbys=0)),
    ]


def _plans(title: str, costs: Costs, demands: Sequence[Demand]) -> Table:
    columns = [plan_rows(plan(costs, demand)) for demand in demands]
    names = [name for name, _ in columns[0]]
    return Table(
        title,
        ("", *(f"{demand.rate_per_s:,.0f}/s, {demand.customers / 1e6:.0f}M" for demand in demands)),
        [(name, *(column[i][1] for column in columns)) for i, name in enumerate(names)],
    )


def _by_workers(costs: Costs, demand: Demand) -> Table:
    found = [size(costs, demand, Limits(), workers) for workers in (2, 4, 8, 16, 32)]
    return Table(
        f"By workers: {demand.rate_per_s:,.0f}/s, {demand.customers / 1e6:.0f}M customers, no standby",
        ("workers", "partitions", "can decide", "memory each", "stands still", "caught up after", "restart"),
        [
            (
                str(one.workers),
                str(one.partitions),
                f"{figure(one.workers * (1 - costs.rest_share) * 1e6 / one.event_us)}/s",
                _size(one.worker_ram),
                _seconds(one.recovery.stall_s),
                _seconds(one.recovery.catch_up_s),
                _seconds(one.recovery.restart_s),
            )
            for one in found
        ],
    )


def simulation_tables(measured: Measured, costs: Costs) -> list[Table]:
    """The simulation against theory and the bench, then its predictions."""
    paced = measured.real.paced
    checked = Table(
        "Latency of one worker, measured and simulated, and how far the simulation is off; nothing is fitted. Against "
        f"M/D/1 the simulated mean is {theory_error() * 100:+.1f} % off",
        ("rate", "p50 ms", "simulated", "p99 ms", "simulated", "p99.9 ms", "simulated"),
        [
            (
                f"{one.rate_per_s:,}/s",
                *(
                    text
                    for told, found in zip(one.measured_ms, one.simulated_ms, strict=True)
                    for text in (figure(told), f"{figure(found)} ({_percent(found / told - 1)})")
                ),
            )
            for one in reproduce(costs, paced, _STAND_PARTITIONS)
        ],
    )
    return [checked, _peak_table(costs), _million_table(costs)]


def _peak_table(costs: Costs) -> Table:
    demand = Demand(NATIONAL_PEAK_PER_S, 10e6, payments=PAYMENTS)
    fewest = plan(costs, demand).workers
    rows = []
    for workers in (fewest, 2 * fewest, 4 * fewest):
        found = size(costs, demand, Limits(), workers)
        outcome = simulate_plan(costs, found, demand.rate_per_s)
        p50, p99, p999 = outcome.percentiles_ms(50, 99, 99.9, after_s=2.0)
        caught_up_s = [simulate_loss(costs, found, demand.rate_per_s, standby=standby) for standby in (False, True)]
        formula_s = (found.recovery.catch_up_s, found.recovery.standby_catch_up_s)
        rows.append(
            (
                str(workers),
                *(figure(value) for value in (p50, p99, p999)),
                _percent(float(outcome.busy_share.mean())),
                *(f"{_seconds(one)} ({_seconds(said)})" for one, said in zip(caught_up_s, formula_s, strict=True)),
            )
        )
    return Table(
        f"National peak, {NATIONAL_PEAK_PER_S:,}/s, 10M customers, simulated; catch-up after a lost worker also by the "
        "model's formula",
        ("workers", "p50 ms", "p99 ms", "p99.9 ms", "busy", "caught up (formula)", "with a standby (formula)"),
        rows,
    )


def _million_table(costs: Costs) -> Table:
    demand = Demand(1e6, 100e6, payments=PAYMENTS)
    rows = []
    for workers in (10, 20, 40, 60):
        found = size(costs, demand, Limits(), workers)
        can = workers * (1 - costs.rest_share) * 1e6 / found.event_us
        late = ("-", "-")
        if can > demand.rate_per_s:
            outcome = simulate_plan(costs, found, demand.rate_per_s)
            p50, p99 = outcome.percentiles_ms(50, 99, after_s=0.5)
            late = (figure(p50), figure(p99))
        rows.append(
            (
                str(workers),
                figure(workers / 10),
                f"{figure(can)}/s",
                *late,
                "yes" if found.load_after_loss <= 1 else "no",
            )
        )
    return Table(
        "1,000,000/s, 100M customers; latencies simulated for 1.5 s where the cores suffice",
        ("workers (cores)", "on each of 10 replicas", "can decide", "p50 ms", "p99 ms", "bears a lost worker"),
        rows,
    )
