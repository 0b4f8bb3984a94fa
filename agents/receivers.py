"""Stage 1: `pix-transactions` and `pix-markers` to `pix-enriched`, keyed by receiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.outbox import Outbox
from app import metrics
from app.batching import BatchApp, BatchSchema
from app.topics import TRANSACTIONS
from models.stages.receivers import ReceiverOutput, receive
from tables.shards import Shards

__all__ = ["receivers_agent"]


def receivers_agent(app: BatchApp, shards: Shards, outbox: Outbox, watch: Callable[[ReceiverOutput], None]) -> None:
    """Register the agent on `app`; `watch` is shown what each step brought."""

    @app.agent(app.topic(TRANSACTIONS.name, schema=BatchSchema()), name="receivers")
    async def receivers(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for events in app.rounds(stream):
            await outbox.room()
            work = [(shards.shard(event.message.partition), event) for event in events]
            await shards.room(shard for shard, _ in work)
            with metrics.BATCH_SECONDS.labels("receivers").time(), shards.applying(shard for shard, _ in work):
                output = receive([(shard.stage, event.value) for shard, event in work])
                sent = outbox.put(output.sends)
                for shard, event in work:
                    shard.track(event, sent)
            for partition, accepted in output.accepted.items():
                metrics.TRANSACTIONS.labels(partition).inc(accepted)
            metrics.REPEATS.labels("producer").inc(output.retries)
            metrics.count_rejections(output.rejections)
            watch(output)
