"""The pipeline under seeded faults, in one process; and proof that the simulation notices what is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from models.stages.payers import PayerStage
from tables.shards import Acknowledged, Shard, Shards

from . import __main__ as command
from .plan import FAULTS, Fault, Plan, draw_plan
from .report import Report, RunResult, Violation
from .simulation import REPLAY, prepare, simulate
from .transport import Changelog
from .worker import SetControls, Worker

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # of processes that were killed

SEEDS = range(1, 25)


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    with prepare():
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_changed(seed: int) -> None:
    """Whatever happens to the workers, the log ends up as an unbroken run would have left it."""
    result = simulate(seed)
    assert not result.violations, f"{result.violations}; again: {REPLAY.format(seed=seed)}"
    assert result.counts["payments decided"] > 0


def test_a_seed_replays_byte_for_byte() -> None:
    """A seed writes the same log in another process, where strings hash otherwise."""
    code = (
        "from faults.simulation import prepare, simulate\n"
        "with prepare(): print(*(simulate(seed).digest for seed in (3, 4)))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "7"}
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.split() == [simulate(seed).digest for seed in (3, 4)]


def test_every_fault_is_drawn() -> None:
    """A thousand seeds bring every kind of fault, in every hundred."""
    for first in range(0, 1000, 100):
        drawn = {fault.kind for seed in range(first, first + 100) for fault in draw_plan(seed).faults}
        assert drawn == set(FAULTS)


class _OtherShards(Shards):
    """Makes shards of another class."""

    shard_class: type[Shard]

    def shard(self, partition: int) -> Shard:
        """Return the shard of a partition."""
        if partition not in self.held:
            stage, cold = self._make_stage(partition), self._make_cold(partition)
            self.held[partition] = self.shard_class(self, partition, stage, cold)
        return self.held[partition]


class _EagerShard(Shard):
    def track(self, event: Acknowledged, outputs: Any) -> None:  # noqa: ANN401 - an awaitable
        super().track(event, outputs)
        event.ack()


class _EagerShards(_OtherShards):
    shard_class = _EagerShard


class CommitsEarly(Worker):
    """Acknowledges a batch when it was applied, before it is written down."""

    shards_class = _EagerShards


class CountsRepeats(Worker):
    """Takes each frame of stage 1 for new."""

    def make_payer_stage(self, partition: int) -> PayerStage:
        """Return a stage that never recognises a repeat by its offset."""
        stage = super().make_payer_stage(partition)
        stage.state.first_sightings = _all_new  # type: ignore[method-assign,assignment]
        return stage


def _all_new(_topic: str, *sightings: Any) -> tuple[Any, ...]:  # noqa: ANN401 - pairs of arrays
    return tuple(np.ones(len(sequences), np.bool_) for _, sequences in sightings)


class _UnfencedChangelog(Changelog):
    async def append(self, partition: int, keys: Sequence[bytes], values: Sequence[bytes | None]) -> int:
        self.epochs[partition] = 2**31
        return await super().append(partition, keys, values)


class WritesAsZombie(Worker):
    """Appends its checkpoints whoever owns the partition by now."""

    changelog_class = _UnfencedChangelog


class _HastyControls(SetControls):
    async def resume(self, shard: Shard, replay_until: int) -> None:
        await super().resume(shard, 0 * replay_until)


class ChangesRulesAtOnce(Worker):
    """Puts new rules in force right after a recovery, for payments that were decided on before the crash."""

    controls_class = _HastyControls


class _ImpatientControls(SetControls):
    async def apply(self, shard: Shard, next_offset: int) -> None:
        in_force = shard.stage.in_force
        if in_force.models.versions != self._served.models.versions:
            in_force.announce(self._served.models, 0)
        await super().apply(shard, in_force.switch_at or next_offset)


class SwitchesModelsAtOnce(Worker):
    """Decides by new models before a recovery would find them announced."""

    controls_class = _ImpatientControls


class _CarelessShard(Shard):
    @contextmanager
    def applying(self) -> Iterator[None]:
        yield


class _CarelessShards(_OtherShards):
    shard_class = _CarelessShard


class WritesHalfABatch(Worker):
    """Takes checkpoints of a state that a failed batch has left half changed."""

    shards_class = _CarelessShards


_OFTEN_READ = {
    "checkpoint_s": 0.1,
    "tick_s": 0.05,
    "max_active_keys": 2,
    "idle_after_ms": 0,
    "max_dirty_rows": 1000,
    "fetch_wait_s": 0.2,
    "fetch_max_records": 10,
    "delay_s": (0.001, 0.03),
    "commit_s": 0.1,
}
"""Profiles come back from the disk all the time, and a checkpoint is nearly always due."""


def _struck(seed: int, kinds: Sequence[str], **changes: Any) -> Plan:  # noqa: ANN401 - fields of a plan
    """Return a seed's plan with many faults of these kinds, by turns, and none of another."""
    plan = draw_plan(seed)
    faults = tuple(
        Fault(kind, plan.duration_s * tenth / 10, tenth / 10)
        for tenth, kind in zip(range(1, 9), cycle(kinds), strict=False)
    )
    return replace(plan, faults=faults, workers=2, lost_ack_share=0.0, failed_share=0.0, **changes)


@pytest.mark.parametrize(
    ("saboteur", "kinds", "changes"),
    [
        (CommitsEarly, ("kill",), {}),
        (CountsRepeats, ("kill",), {}),
        (WritesAsZombie, ("zombie",), {"checkpoint_s": 0.05, "commit_s": 4.0}),
        (WritesHalfABatch, ("unreadable disk",), _OFTEN_READ),
        (ChangesRulesAtOnce, ("rules", "kill"), {}),
        (SwitchesModelsAtOnce, ("models", "kill"), {}),
    ],
)
def test_a_broken_pipeline_is_noticed(saboteur: type[Worker], kinds: Sequence[str], changes: dict[str, Any]) -> None:
    """Each way of breaking the rules shows within sixty seeds."""
    for seed in range(1, 61):
        plan = _struck(seed, kinds, **changes)
        if simulate(seed, saboteur, plan=plan).violations:
            assert not simulate(seed, plan=plan).violations
            return
    pytest.fail(f"{saboteur.__name__} went unnoticed")


def test_the_report_names_seed_and_command() -> None:
    """A violation comes with its seed, what must hold, what was found, and the command that shows it again."""
    report = Report(REPLAY)
    report.add(RunResult(7, {"messages": 3}, {"kill": 1}, 2.0, "", (Violation(7, "nothing is lost", "one was"),)))
    report.add(RunResult(8, {"messages": 4}, {"kill": 2}, 2.0, "", ()))
    told = json.loads(json.dumps(report.as_json()))
    assert (told["runs"], told["counts"], told["faults"]) == (2, {"messages": 7}, {"kill": 3})
    assert told["violations"] == [
        {"seed": 7, "invariant": "nothing is lost", "detail": "one was", "replay": REPLAY.format(seed=7)}
    ]


def test_the_command_reports_and_fails_with_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """`simulate --json` prints the report; its exit code tells whether everything held."""
    arguments = ["simulate", "--runs", "2", "--seed", "5", "--json"]
    good = CliRunner().invoke(command.app, arguments)
    assert (good.exit_code, json.loads(good.stdout)["runs"]) == (0, 2)
    broken = RunResult(5, {}, {}, 1.0, "", (Violation(5, "nothing is lost", "one was"),))
    monkeypatch.setattr(command, "simulate", lambda _seed, tell: broken)  # noqa: ARG005 - called by keyword
    bad = CliRunner().invoke(command.app, arguments)
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["violations"][0]["replay"] == REPLAY.format(seed=5)
