"""Stage 1: `pix-transactions` and `pix-markers` to `pix-enriched`, keyed by receiver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agents.outbox import Outbox
from app import metrics
from app.batching import BatchApp, BatchSchema
from app.topics import TRANSACTIONS
from models.receiver_stage import ReceiverOutput
from tables.shards import Shards

__all__ = ["receivers_agent"]


def receivers_agent(app: BatchApp, shards: Shards, outbox: Outbox, watch: Callable[[ReceiverOutput], None]) -> None:
    """Register the agent on `app`; `watch` is shown what each batch brought."""

    @app.agent(app.topic(TRANSACTIONS.name, schema=BatchSchema()), name="receivers")
    async def receivers(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for event in stream.noack().events():
            await outbox.room()
            shard = shards.shard(event.message.partition)
            with metrics.BATCH_SECONDS.labels("receivers").time(), shard.applying():
                output = shard.stage.apply(event.value)
                shard.track(event, outbox.put(output.sends))
            metrics.TRANSACTIONS.labels(shard.partition).inc(output.accepted)
            metrics.REPEATS.labels("producer").inc(output.retries)
            metrics.count_rejections(output.rejections)
            watch(output)
