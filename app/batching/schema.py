"""The schema that marks a topic as a batch topic."""

from typing import Any

import faust
from faust.types import EventT, Message


class BatchSchema(faust.Schema[Any, Any]):
    """Pass-through schema: the event's value is the `Batch`, undecoded.

    Give it to ``app.topic(..., schema=BatchSchema())``, sources and changelogs alike: the consumer delivers the topics
    that carry it as batches, and all others record by record.
    """

    def compile(self, app: Any, **_options: Any) -> Any:  # noqa: ANN401  (faust's signature)
        """Return the coroutine function that turns a message into an event."""

        async def decode(message: Message, **_options: Any) -> EventT[Any]:  # noqa: ANN401  (faust's signature)
            return to_event(app, message)

        return decode


def to_event(app: Any, message: Message) -> EventT[Any]:  # noqa: ANN401  (faust's app)
    """Return the event whose value is the message's batch."""
    event: EventT[Any] = app.create_event(None, message.value, None, message)
    # The message lives until its offset may be committed. Only the event keeps the payload, so that an agent that lets
    # go of the event frees it at once.
    message.value = None
    return event
