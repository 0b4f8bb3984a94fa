"""MED feedback: `pix-feedback` to `pix-markers`, and the markers into profiles: those on payers by `pix-enriched`."""

from __future__ import annotations

from typing import Any

from agents.outbox import Outbox
from app import metrics
from app.batching import BatchApp, BatchSchema
from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.topics import FEEDBACK, MARKERS
from models.stages.marking import mark_parties
from tables.shards import Shards

__all__ = ["feedback_agents"]


def feedback_agents(
    app: BatchApp, receivers: Shards, outbox: Outbox, partitions: int, hash_key: HashKey, limits: TimeLimits
) -> None:
    """Register both agents on `app`."""

    @app.agent(app.topic(FEEDBACK.name, schema=BatchSchema()), name="feedback")
    async def feedback(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for event in stream.noack().events():
            await outbox.room()
            output = mark_parties(event.value, event.message.partition, partitions, hash_key, limits)
            metrics.count_rejections(output.rejections)
            # No state here: a batch is done once its outputs are acknowledged. A repeat after a crash is recognised
            # by the marker's id.
            await outbox.put(output.sends)
            event.ack()

    @app.agent(app.topic(MARKERS.name, schema=BatchSchema()), name="markers")
    async def markers(stream: Any) -> None:  # noqa: ANN401 - Faust's stream
        async for event in stream.noack().events():
            await outbox.room()
            shard = receivers.shard(event.message.partition)
            with shard.applying():
                output = shard.stage.apply_markers(event.value)
                metrics.MARKERS.inc(output.new)
                shard.track(event, outbox.put(output.sends))
