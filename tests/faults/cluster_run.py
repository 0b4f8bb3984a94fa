"""One seed on a real broker with real worker processes: what is run, and what it found."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from app.kafka_options import client_options
from app.settings import Settings, load_settings
from app.topics import Topic, topics
from models.rules.pack import RulePack
from ops.broker import LocalBroker, free_port
from ops.replay import replay_topics
from ops.topic_admin import ensure_topics

from .cluster_check import check_logs
from .cluster_fleet import Ending, Fleet
from .cluster_log import behind, read_logs
from .cluster_plan import ClusterPlan, draw_cluster_plan
from .cluster_storm import Storm
from .cluster_traffic import Expected, draw_items, send_items
from .packs import rule_packs
from .report import RunResult, Violation

__all__ = ["CLUSTER_REPLAY", "ClusterRun", "run_cluster"]

CLUSTER_REPLAY = "PYTHONPATH=tests python -m faults cluster --runs 1 --seed {seed}"

_PARTITIONS = 4
_PATIENCE_S = 240.0
_POLL_S = 0.2
_BROKER_CONFIG = {"log.cleaner.backoff.ms": "200"}
_COMPACTED = {"segment.ms": "500", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "500"}
_LEFT = {0, 130, -signal.SIGTERM, -signal.SIGKILL}
"""How a worker may end that was told to; the middle two before it runs."""
_FULL_DISK = "File too large"
_FULL_DISK_TOLD = ("Give the disk room", "/cold/")


@dataclass(slots=True)
class ClusterRun:
    """What one run found.

    Parameters
    ----------
    plan
        Of its seed.
    counts, faults
        What was sent and decided; by kind, what struck.
    endings
        By error, how often a worker ended that the plan had not ended.
    handover_s, recovery_s
        From the signal until others decide on the partitions, where nothing else struck meanwhile; from the kill
        until somebody does, where the broker was there.
    elapsed_s
        The whole run, checks included.
    violations
        Invariant and detail.
    """

    plan: ClusterPlan
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    handover_s: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    violations: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the run for machines."""
        return {
            "seed": self.plan.seed,
            "plan": self.plan.words,
            "counts": dict(self.counts),
            "faults": dict(self.faults),
            "endings": dict(self.endings),
            "handover_s": [round(seconds, 2) for seconds in self.handover_s],
            "recovery_s": [round(seconds, 2) for seconds in self.recovery_s],
            "elapsed_s": round(self.elapsed_s, 1),
            "violations": [{"invariant": invariant, "detail": detail} for invariant, detail in self.violations],
            "replay": CLUSTER_REPLAY.format(seed=self.plan.seed),
        }

    def result(self) -> RunResult:
        """Return the run as part of a report."""
        counts = self.counts + Counter({f"ended by {error}": count for error, count in self.endings.items()})
        violations = tuple(Violation(self.plan.seed, *violation) for violation in self.violations)
        return RunResult(self.plan.seed, counts, self.faults, self.elapsed_s, "", violations)

    @property
    def words(self) -> str:
        """The run in a few lines."""
        told = [f"{self.counts['payments']:,} payments, {self.counts['repeats']:,} repeats, {self.elapsed_s:.1f} s"]
        for what, times_s in (("hand-over", self.handover_s), ("recovery", self.recovery_s)):
            if times_s:
                told.append(f"{what} {', '.join(f'{seconds:.1f}' for seconds in times_s)} s")
        if self.endings:
            told.append(f"ended by {', '.join(f'{error} ({count})' for error, count in self.endings.items())}")
        lines = [f"seed {self.plan.seed}: {self.plan.words}", f"  {'; '.join(told)}"]
        lines += [f"  VIOLATION {invariant}: {detail}" for invariant, detail in self.violations]
        if self.violations:
            lines.append(f"  again: {CLUSTER_REPLAY.format(seed=self.plan.seed)}")
        return "\n".join(lines)


async def run_cluster(seed: int, folder: Path, jars_dir: Path) -> ClusterRun:
    """Run one seed in an empty folder: broker, workers, traffic, faults, and the checks afterwards."""
    started_s = time.monotonic()
    run = ClusterRun(draw_cluster_plan(seed))
    items = draw_items(run.plan)
    broker = LocalBroker(folder / "broker", jars_dir=jars_dir, port=free_port(), config=_BROKER_CONFIG)
    await asyncio.to_thread(broker.start)
    try:
        rules = _write_rules(folder)
        settings = load_settings(
            broker=broker.bootstrap,
            data_dir=folder / "data",
            rules_file=rules[0],
            partitions=_PARTITIONS,
            standby_replicas=run.plan.standbys,
            session_timeout_s=run.plan.session_s,
            checkpoint_interval_s=0.2,
            max_active_keys=100,
            retry_window_s=604_800,
            web_port=0,
            log_format="json",
        )
        settings.read_hash_key()
        await ensure_topics(client_options(settings), _topics(run.plan, settings), partitions=_PARTITIONS)
        expected = Expected()
        packs = list(rule_packs())
        await _storm(run, items, expected, broker, settings, rules)
        found = check_logs(await read_logs(client_options(settings), settings), expected, settings, packs[0])
        run.counts.update(found.counts)
        run.violations += found.violations
        await _replay(run, settings, packs)
    finally:
        await asyncio.to_thread(broker.kill)
    run.elapsed_s = time.monotonic() - started_s
    return run


def _write_rules(folder: Path) -> tuple[Path, Path]:
    paths = (folder / "rules.yaml", folder / "rules-later.yaml")
    for path, pack in zip(paths, rule_packs(), strict=True):
        path.write_text(pack.text, encoding="utf-8")
    return paths


def _topics(plan: ClusterPlan, settings: Settings) -> list[Topic]:
    declared = topics(settings.app_id)
    if not plan.is_compacted:
        return list(declared)
    return [
        replace(topic, config={**topic.config, **_COMPACTED}) if topic.name.endswith("-changelog") else topic
        for topic in declared
    ]


def _variables(settings: Settings) -> dict[str, str]:
    told = settings.model_dump(exclude_unset=True)
    return {f"PIXGUARD_{name.upper()}": str(value) for name, value in told.items()}


async def _storm(
    run: ClusterRun,
    items: list[Any],
    expected: Expected,
    broker: LocalBroker,
    settings: Settings,
    rules: tuple[Path, Path],
) -> None:
    """Start workers, send, strike, wait until all is committed, and stop them."""
    fleet = Fleet(_variables(settings), settings.data_dir)
    storm = Storm(run.plan, fleet, broker, settings, rules)
    try:
        await asyncio.gather(*(fleet.add() for _ in range(run.plan.workers)))
        async with asyncio.timeout(_PATIENCE_S):
            while not all(worker.is_ready for worker in fleet.workers):  # noqa: ASYNC110 - it is about processes
                await asyncio.sleep(_POLL_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_items(client_options(settings), items, run.plan.rate_per_s, expected))
            tasks.create_task(storm.pass_over(items))
        await _until_committed(run, settings)
    except TimeoutError as error:
        run.violations.append(("the stream goes on", f"{type(error).__name__}: {error}"))
    finally:
        stuck = await fleet.end()
    left = await _left(settings)
    if left:
        run.violations.append(("committed to the end after the workers left", str(left)))
    run.violations += [("a worker leaves when asked", name) for name in stuck] + storm.late
    run.faults += storm.struck
    run.handover_s, run.recovery_s = storm.handover_s, storm.recovery_s
    for worker in fleet.workers:
        _judge_endings(run, worker.endings)


def _judge_endings(run: ClusterRun, endings: list[Ending]) -> None:
    for ending in endings:
        if not ending.was_planned:
            run.endings[ending.error or f"status {ending.status}"] += 1
        elif ending.status not in _LEFT:
            run.endings[f"{ending.error or f'status {ending.status}'} on leaving"] += 1
        if _FULL_DISK in ending.text and not all(words in ending.text for words in _FULL_DISK_TOLD):
            run.violations.append(("a full disk is told with folder and remedy", ending.text[-600:]))


async def _left(settings: Settings) -> dict[str, int]:
    connection = client_options(settings)
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        async with AIOKafkaConsumer(**connection, group_id=None) as consumer:
            return await behind(admin, consumer, settings)
    finally:
        await admin.close()


async def _until_committed(run: ClusterRun, settings: Settings) -> None:
    """Wait until the workers have committed all that is in their sources, twice in a row."""
    deadline_s = time.monotonic() + _PATIENCE_S
    calm = 0
    left: dict[str, int] = {}
    while calm < 2:
        if time.monotonic() > deadline_s:
            run.violations.append((f"all is committed within {_PATIENCE_S:g} s", str(left)))
            return
        await asyncio.sleep(_POLL_S)
        try:
            left = await _left(settings)
        except KafkaError:  # a broker that has just come back
            calm = 0
            continue
        calm = 0 if left else calm + 1


async def _replay(run: ClusterRun, settings: Settings, packs: list[RulePack]) -> None:
    """Decide again, by each pack: together they give each decision again, byte for byte."""
    used = packs if "rules" in run.faults else packs[:1]
    reports = await asyncio.gather(*(replay_topics(settings, pack) for pack in used))
    for report in reports:
        if report.unmatched or report.transactions != run.counts["payments"]:
            text = f"{report.transactions} of {run.counts['payments']} by {report.after}, {report.unmatched} unmatched"
            run.violations.append(("the record holds every decision", text))
    identical = sum(report.identical for report in reports)
    if identical != run.counts["payments"]:
        text = f"{identical} of {run.counts['payments']} come out the same"
        run.violations.append(("decisions follow from the record, byte for byte", text))
