"""A worker process for `test_worker_process`: copies each record to the same partition of another topic.

Usage: ``python -m tests.app.batching.copying_worker BOOTSTRAP GROUP INSTANCE SOURCE OUTPUTS DATADIR FAIL_AT``. Values
are the source's; each output's key is the offset that it was copied from. At the number FAIL_AT its agent fails.
"""

import asyncio
import sys
from typing import Any

import faust
from faust.types import TP

from app.batching import BatchApp, BatchSchema


class Copying(BatchApp):
    """Acknowledges in rounds, so that there is always something that a crash leaves to be repeated."""

    def __init__(self, source: str, outputs: str, fail_at: bytes, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.outputs = outputs
        self.fail_at = fail_at
        self.done: list[Any] = []
        self.agent(self.topic(source, schema=BatchSchema()), name="copier")(self.copy)
        self.timer(interval=0.3)(self.ack_all)

    async def copy(self, stream: Any) -> None:  # noqa: ANN401
        """Copy each batch."""
        async for events in self.rounds(stream):
            for event in events:
                batch = event.value
                if self.fail_at in batch.values:
                    raise ArithmeticError("boom")
                offsets = [b"%d" % offset for offset in batch.offsets]
                await self.batch_producer.send_records(
                    self.outputs, batch.tp.partition, offsets, batch.values, batch.timestamps_ms
                )
                self.done.append(event)

    async def ack_all(self) -> None:
        """Acknowledge what is copied."""
        done, self.done = self.done, []
        for event in done:
            event.ack()

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002  (the hook's signature)
        """Finish."""
        await self.ack_all()


def main(bootstrap: str, group: str, instance: str, source: str, outputs: str, datadir: str, fail_at: str) -> None:
    """Run the worker until it is stopped."""
    app = Copying(
        source,
        outputs,
        fail_at.encode(),
        id=group,
        broker=f"kafka://{bootstrap}",
        datadir=datadir,
        consumer_group_instance_id=instance,
        broker_session_timeout=1.5,
        broker_heartbeat_interval=0.3,
        broker_commit_interval=0.2,
        fetch_max_records=200,
        topic_disable_leader=True,
        web_enabled=False,
    )
    faust.Worker(app, loglevel="ERROR", loop=asyncio.new_event_loop()).execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
