"""The capacity model against figures worked out by hand, the simulation against theory, and the page against both."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from app.settings import Settings
from app.topics import DECISIONS, ENRICHED, FEATURES, TRANSACTIONS, topics
from ops.bench.brokers import BrokerLimits, Volume, size_brokers
from ops.bench.capacity import CapacityError, Demand, Limits, Plan, plan, size
from ops.bench.capacity_tables import figure
from ops.bench.growth import growth_at, history_at
from ops.bench.measured import History, Measured
from ops.bench.queueing import Loss, System, md1_wait_s, simulate
from ops.bench.scale import PAGE, read_measured, render_page, run_capacity, with_bench
from ops.bench.unit_costs import CHANGELOG, Costs, costs_of

COSTS = Costs(
    event_us=20.0,
    event_customers=1e6,
    doubling_us=1.0,
    batch_us=500.0,
    full_batches=0.002,
    receiver_share=0.5,
    rest_share=0.0,
    histories=[History(10, 400.0, 200.0, 8.0, 1.0, 0.5), History(30, 600.0, 400.0, 10.0, 2.0, 1.5)],
    rows_per_customer=2.0,
    id_bytes=100.0,
    worker_bytes=300e6,
    checkpoint_rows=3.0,
    checkpoint_id_bytes=100.0,
    start_s=3.0,
    recovery_us=2.0,
    byte_us=0.001,
    passage_ms=1.0,
    broker_us=10.0,
    bytes_by_topic={TRANSACTIONS.name: 1000.0, ENRICHED.name: 500.0, DECISIONS.name: 300.0, FEATURES.name: 700.0},
    lz4_by_topic={
        TRANSACTIONS.name: 0.5,
        ENRICHED.name: 0.5,
        DECISIONS.name: 0.5,
        FEATURES.name: 0.5,
        CHANGELOG: 0.5,
    },
)
TWENTY_PAYMENTS_PER_S = 20 / (30 * 86_400)
"""Mean rate per customer at which each pays twenty times in 30 days: half way between the two histories."""


def _demand(rate_per_s: float = 20_000, customers: float = 2e6, **more: Any) -> Demand:  # noqa: ANN401 - fields of Demand
    return replace(Demand(rate_per_s, customers, mean_rate_per_s=customers * TWENTY_PAYMENTS_PER_S), **more)


def test_costs_are_read_off_the_measured_lines() -> None:
    """Half way between two histories lies half way between their figures; doubling customers adds its share."""
    assert COSTS.row_bytes_at(20) == 500.0
    assert COSTS.blob_bytes_at(1000) == 400.0
    assert COSTS.checkpoint_bytes_at(20) == 3 * 300 + 100
    assert COSTS.checkpoint_us_at(20) == pytest.approx(3 * 1.5 + 1000 * 0.001)
    assert COSTS.event_us_at(2e6, 20) == pytest.approx(20 + 1 + 1 + (5.5 - 3.7))
    assert COSTS.recovery_us_at(20) == pytest.approx(2 + 0.5 + 0.1)


def test_workers_memory_and_network_by_hand() -> None:
    """20,000/s of 23.8 us are 0.476 cores: two workers where one may be lost, which then holds all eight partitions."""
    found = plan(COSTS, _demand())
    assert (found.workers, found.partitions, found.bound) == (2, 8, "spare")
    assert found.event_us == pytest.approx(23.8)
    assert found.load == pytest.approx(0.238)
    assert found.load_after_loss == pytest.approx(0.476)
    ids = 8 * Settings.model_fields["retry_max_ids"].default
    assert found.retry_covered_s == pytest.approx(ids / 20_000)
    assert found.worker_ram == pytest.approx(300e6 + 4e6 * 500 + 2 * ids * 100 + 4e6 / 8 * 500)
    assert found.worker_in == pytest.approx(20_000 * 1500)
    assert found.worker_out == pytest.approx(20_000 * (500 + 300 + 700 + 1000))


def test_changelog_by_hand() -> None:
    """A thousand bytes per event before compaction; on disk twice the latest rows, and a segment per changelog."""
    found = plan(COSTS, _demand())
    assert found.changelog_rate == pytest.approx(20e6)
    assert found.changelog_live == pytest.approx(4e6 * 300)
    config = topics("pixguard")[-1].config
    assert found.changelog_disk == pytest.approx(2 * 1.2e9 + 16 * int(config.get("segment.bytes", 1 << 30)))


def test_recovery_by_hand() -> None:
    """Rows on disk are read back, half of them by each worker; what waited is worked off by what is left."""
    found = plan(COSTS, _demand())
    rows = 2 * 4e6 + (found.changelog_disk - 2.4e9) / 1000 * 3
    restore_s = rows / 2 * 2.6e-6
    recovery = found.recovery
    assert recovery.restart_s == pytest.approx(3 + restore_s)
    assert recovery.stall_s == pytest.approx(3 + restore_s)
    assert recovery.loss_s == pytest.approx(6 + 3 + restore_s)
    backlog = 2500 * (8 * recovery.stall_s + 4 * (6 + 0.1))
    assert recovery.catch_up_s == pytest.approx(recovery.loss_s + backlog / (1e6 / 23.8 - 20_000))
    assert recovery.standby_stall_s == 3


def test_brokers_by_hand() -> None:
    """At replication 3, 100 MB/s arrive three times, leave twice to followers and once to a reader."""
    volumes = [Volume("a", 1000.0, 6e12, readers=1)]
    limits = BrokerLimits(network_bytes_per_s=1e9, disk_bytes_per_s=1e9, disk_bytes=8e12, disk_fill=0.5, cores=8)
    found = size_brokers(volumes, 100_000.0, 10.0, 3, 0.5, limits)
    assert (found.count, found.bound) == (math.ceil(18 / 4) + 1, "disk space")
    assert found.network_in * found.count == pytest.approx(300e6)
    assert found.network_out * found.count == pytest.approx(300e6)
    assert found.disk_rate * found.count == pytest.approx(300e6)
    assert found.cores * found.count == pytest.approx(3.0)
    assert size_brokers([Volume("a", 1.0, 1.0, readers=1)], 1.0, 1.0, 3, 0.5, limits).bound == "replication"


def test_compaction_costs_disk_throughput() -> None:
    """Each byte of a changelog is written once, read twice and written again by the cleaner."""
    plain, compacted = (
        size_brokers([Volume("a", 1000.0, 0.0, readers=0, compacted=yes)], 1000.0, 0.0, 3, 0.0, BrokerLimits())
        for yes in (False, True)
    )
    assert compacted.disk_rate == 4 * plain.disk_rate


def test_retention_on_disk_is_that_of_the_declared_topics() -> None:
    """Disk space per event is what `app.topics` declares, three times, and the changelogs."""
    demand = _demand()
    found = plan(COSTS, demand)
    declared = {topic.name: topic for topic in topics("pixguard")}
    kept = sum(size * int(declared[name].config["retention.ms"]) / 1000 for name, size in COSTS.bytes_by_topic.items())
    assert demand.mean_rate_per_s is not None
    expected = 3 * (kept * demand.mean_rate_per_s + found.changelog_disk)
    assert found.brokers.disk_bytes * found.brokers.count == pytest.approx(expected)


def test_lz4_halves_what_is_written() -> None:
    """A share of a half on every topic is half of everything on the network."""
    plain = plan(COSTS, _demand())
    packed = plan(COSTS, replace(_demand(), compression="lz4"))
    assert packed.brokers.written == pytest.approx(plain.brokers.written / 2)


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        (_demand(rate_per_s=0), "rate"),
        (_demand(headroom=1.0), "headroom"),
        (_demand(rate_per_s=1e9), "processor asks for more than 256 workers"),
        (_demand(loss_s=1.0), "recovery asks for more"),
    ],
)
def test_what_cannot_be_met_is_said(demand: Demand, said: str) -> None:
    """A demand beyond the settings' bounds is refused with what it failed on."""
    with pytest.raises(CapacityError, match=said):
        plan(COSTS, demand)


def _figures(found: Plan) -> tuple[float, ...]:
    brokers = found.brokers
    return found.workers, found.partitions, found.changelog_rate, brokers.count, brokers.written


@settings(max_examples=60, deadline=None)
@given(rate=st.floats(100, 400_000), more=st.floats(1, 3), customers=st.floats(1e4, 1e8), headroom=st.floats(0, 0.5))
def test_more_payments_never_need_less(rate: float, more: float, customers: float, headroom: float) -> None:
    """Workers, partitions, brokers and bytes grow with the rate, and with the headroom; nobody is loaded beyond it."""
    less = plan(COSTS, Demand(rate, customers, headroom=headroom))
    greater = plan(COSTS, Demand(rate * more, customers, headroom=headroom))
    assert all(one <= other for one, other in zip(_figures(less), _figures(greater), strict=True))
    assert greater.load_after_loss <= 1 - headroom
    assert less.workers <= plan(COSTS, Demand(rate, customers, headroom=min(headroom + 0.2, 0.69))).workers


@settings(max_examples=60, deadline=None)
@given(customers=st.floats(1e4, 5e7), more=st.floats(1, 2), workers=st.integers(2, 64))
def test_more_customers_never_need_less_and_more_workers_recover_sooner(
    customers: float, more: float, workers: int
) -> None:
    """Latest rows and restarts grow with customers who pay as often; restarts shrink with workers."""
    one, other = (
        size(COSTS, Demand(20_000, each, mean_rate_per_s=each * TWENTY_PAYMENTS_PER_S), Limits(), workers)
        for each in (customers, customers * more)
    )
    assert one.changelog_live <= other.changelog_live
    assert one.worker_ram <= other.worker_ram
    assert one.recovery.restart_s <= other.recovery.restart_s
    demand = Demand(20_000, customers)
    fewer, twice = (size(COSTS, demand, Limits(), each) for each in (workers, 2 * workers))
    assert twice.recovery.restart_s <= fewer.recovery.restart_s * (1 + 1e-9)
    assert twice.recovery.standby_stall_s <= twice.recovery.stall_s


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_one_partition_is_m_d_1(load: float) -> None:
    """One at a time, constant service: the mean wait is that of Pollaczek and Khinchine."""
    system = System(1, 1, (0.0, load * 1000), (0.0, 0.0), max_batch=1, checkpoint_interval_s=1e9)
    outcome = simulate(system, 1000.0, 2000.0, seed=1)
    assert outcome.latencies_s.mean() == pytest.approx(md1_wait_s(1000.0, load * 1e-3), rel=0.03)
    assert outcome.busy_share[0] == pytest.approx(load, rel=0.02)


def test_every_payment_is_decided_once_and_none_before_it_came() -> None:
    """Latencies are at least three passages and both stages' work; the same seed gives the same ones."""
    system = System(3, 12, (5.0, 7.0), (300.0, 400.0), checkpoint_us=1.0, checkpoint_batch_us=200.0, hop_ms=0.5)
    outcome = simulate(system, 5000.0, 3.0, seed=2)
    assert len(outcome.latencies_s) == 15_000
    assert outcome.latencies_s.min() >= 3 * 0.5e-3 + (300 + 400 + 5 + 7) * 1e-6 - 1e-9
    assert np.array_equal(outcome.latencies_s, simulate(system, 5000.0, 3.0, seed=2).latencies_s)


def test_checkpoints_stop_the_worker() -> None:
    """The tail grows by what a checkpoint takes, the median hardly."""
    calm = System(1, 8, (5.0, 5.0), (100.0, 100.0))
    busy = replace(calm, checkpoint_batch_us=20_000.0)
    (p50, p99), (slow50, slow99) = (
        simulate(one, 2000.0, 20.0, seed=3).percentiles_ms(50, 99, after_s=1.0) for one in (calm, busy)
    )
    assert slow99 > p99 + 10
    assert slow50 < p50 + 5


def test_a_lost_worker_is_made_up_for_as_the_formula_says() -> None:
    """What waited for the lost one, and for all while they stood still, is gone when the model says so."""
    system = System(4, 16, (10.0, 10.0), (0.0, 0.0), max_batch=500)
    rate_per_s, detection_s, stall_s = 100_000.0, 1.0, 0.5
    outcome = simulate(system, rate_per_s, 8.0, seed=4, loss=Loss(1.0, detection_s, stall_s))
    # The busiest of the three ends up with six partitions, two of them taken over and decided again for a second.
    backlog = rate_per_s / 16 * (6 * stall_s + 2 * (detection_s + 1))
    expected_s = detection_s + stall_s + backlog / (50_000 - rate_per_s * 6 / 16)
    assert outcome.caught_up_s(1.0) == pytest.approx(expected_s, rel=0.1)
    assert outcome.caught_up_s(1.0) > detection_s + stall_s
    assert outcome.busy_share[0] < 0.2


def test_losing_the_only_worker_is_refused() -> None:
    """There must be one that takes over."""
    with pytest.raises(ValueError, match="expected another one"):
        simulate(System(1, 1, (1.0, 1.0), (0.0, 0.0)), 10.0, 1.0, seed=1, loss=Loss(0.1, 0.1, 0.1))


def test_page_is_what_the_command_writes() -> None:
    """A page whose tables do not follow from its figures fails here: `pixguard capacity --write`."""
    text = PAGE.read_text(encoding="utf-8")
    assert render_page(text, read_measured(text)) == text, "run: pixguard capacity --write"


@pytest.mark.parametrize("text", ["", "<!-- measured -->{}<!-- /measured -->", "<!-- /measured --><!-- measured -->"])
def test_a_page_without_figures_is_refused(text: str) -> None:
    """Figures that are missing or of another shape are named."""
    with pytest.raises(CapacityError, match="measured"):
        read_measured(text)


def _measured() -> Measured:
    return read_measured(PAGE.read_text(encoding="utf-8"))


def test_bench_figures_replace_the_pages() -> None:
    """Throughput becomes the cost of an event, percentiles those to be reproduced; everything else stays."""
    before = _measured()
    latencies = {"p50_ms_10k": 3.0, "p99_ms_10k": 8.0, "p999_ms_10k": 12.0}
    after = with_bench(before, {"events_per_core_s": 50_000, "keys": 1_000_000, **latencies})
    costs = costs_of(after)
    assert costs.event_us == 20.0
    assert costs.event_customers == 500_000
    assert [(one.rate_per_s, one.p50_ms, one.p99_ms) for one in after.real.paced] == [(10_000, 3.0, 8.0)]
    assert after.growth == before.growth
    assert with_bench(before, {}) == before
    assert costs_of(with_bench(before, {"events_per_core_s": 50_000, "worker_cpu_us": 18})).event_us == 18


@pytest.mark.parametrize("figures", [{"events_per_core_s": 0}, {"p50_ms_1k": 1, "p99_ms_1k": 2}])
def test_bench_figures_of_another_kind_are_refused(figures: dict[str, float]) -> None:
    """They are named instead of bringing about a wrong plan."""
    with pytest.raises(CapacityError, match="bench figures"):
        with_bench(_measured(), figures)


def test_command_prints_a_plan(tmp_path: Path) -> None:
    """A bank's numbers bring a table of what it needs, by the figures of a bench where one is given."""
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"events_per_core_s": 1_000}))
    out = Console(record=True, width=120)
    run_capacity(out, Demand(5000, 1e6), jars_dir=tmp_path, bench=bench)
    text = out.export_text()
    assert "brokers" in text
    assert FEATURES.name in text
    assert str(plan(costs_of(with_bench(_measured(), {"events_per_core_s": 1_000})), Demand(5000, 1e6)).workers) in text
    bench.write_text("[]")
    with pytest.raises(CapacityError, match="expected a JSON object, got list"):
        run_capacity(out, Demand(5000, 1e6), jars_dir=tmp_path, bench=bench)


def test_measured_figures_survive_the_page() -> None:
    """What was measured comes back as it was written."""
    measured = _measured()
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Measured) == measured


def test_growth_is_measured_on_profiles_of_both_stages() -> None:
    """Each customer has a profile as receiver and one as payer; a longer history is larger, in memory and on disk."""
    growth, history = growth_at(3000), history_at(3)
    assert growth.rows == 6000
    assert 0 < growth.checkpoint_rows <= 3
    assert growth.checkpoint_bytes > growth.checkpoint_rows * growth.blob_bytes
    assert growth.kernel_us < growth.receiver_us + growth.payer_us
    assert history.blob_bytes > growth.blob_bytes
    assert min(growth.restore_us, history.restore_us, growth.export_us, history.export_us) > 0


@given(st.floats(1e-6, 1e12))
def test_figures_keep_two_digits(value: float) -> None:
    """A printed figure is within half a unit of its second digit."""
    assert float(figure(value).replace(",", "")) == pytest.approx(value, rel=0.051)
