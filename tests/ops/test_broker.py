"""The local broker, on the real one."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer

from ops.broker import LocalBroker


async def test_it_answers(broker: LocalBroker) -> None:
    """A client connects to a started broker."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    await producer.stop()
