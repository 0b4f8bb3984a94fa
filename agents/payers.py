"""Stage 2: `pix-enriched` to `pix-decisions` and `pix-features`, keyed by payer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from agents.controls import Controls
from agents.outbox import Outbox
from app import metrics
from app.batching import BatchApp, BatchSchema
from app.clock import Clock
from app.domain.decision import ACTIONS
from app.topics import ENRICHED
from models.stages.payers import PayerOutput, decide
from tables.shards import Shards

__all__ = ["payers_agent"]


def payers_agent(
    app: BatchApp, shards: Shards, outbox: Outbox, controls: Controls, watch: Callable[[PayerOutput], None]
) -> None:
    """Register the agent on `app`; `watch` is shown each step's new decisions."""

    @app.agent(app.topic(ENRICHED.name, schema=BatchSchema()), name="payers")
    async def payers(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for events in app.rounds(stream):
            await outbox.room()
            work = [(shards.shard(event.message.partition), event) for event in events]
            await shards.room(shard for shard, _ in work)
            for shard, event in work:
                await controls.apply(shard, event.value.next_offset)
            with metrics.BATCH_SECONDS.labels("payers").time(), shards.applying(shard for shard, _ in work):
                outputs = decide([(shard.stage, event.value) for shard, event in work])
                sent = outbox.put([send for output in outputs for send in output.sends])
                for shard, event in work:
                    shard.track(event, sent)
            for output in outputs:
                _count(output, sent, shards.clock)
                watch(output)


def _count(output: PayerOutput, sent: asyncio.Future[None], clock: Clock) -> None:
    decided = output.decided
    for action, count in zip(ACTIONS, np.bincount(decided.rows["action"], minlength=len(ACTIONS)), strict=True):
        metrics.DECISIONS.labels(action).inc(int(count))
    for rule, count in decided.rules_fired().items():
        metrics.RULES_FIRED.labels(rule).inc(count)
    metrics.REPEATS.labels("producer").inc(output.retries)
    metrics.count_rejections(output.rejections)
    if len(decided.rows):
        oldest_ms = int(decided.received_at.min())
        sent.add_done_callback(lambda _: metrics.DECISION_SECONDS.observe(max(0, clock.now_ms() - oldest_ms) / 1000))
