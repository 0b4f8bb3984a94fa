"""Reads decisions for the bench, at a tenth of what a client costs: it shares its cores with what is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, TopicPartition
from aiokafka.errors import for_code
from faust.types import TP

from app.batching.fetch import API_KEY, API_VERSION, Fetched, decode_fetch, encode_fetch
from app.batching.unpacking import survey, unpack
from app.batching.wire import Wires
from app.domain.byte_column import ByteColumn

__all__ = ["KeyReader", "open_reader"]

_MAX_WAIT_MS = 100
_MAX_BYTES = 16 << 20
_PARTITION_BYTES = 4 << 20
_UNCOMMITTED = 0


class KeyReader:
    """Reads the keys of a topic's records from a single broker.

    Parameters
    ----------
    wires, node
        Connections, and the broker.
    positions
        Where to begin with each partition.
    """

    def __init__(self, wires: Wires, node: int, positions: dict[TP, int]) -> None:
        self._wires = wires
        self._node = node
        self._positions = positions

    async def read(self) -> list[ByteColumn]:
        """Wait for records, a tenth of a second at most; keys by partition.

        Raises
        ------
        KafkaError
            When the broker is gone, or refuses.
        """
        wire = await self._wires.open(self._node)
        request = encode_fetch(
            self._positions,
            head_bytes=wire.head_bytes,
            max_wait_ms=_MAX_WAIT_MS,
            min_bytes=1,
            max_bytes=_MAX_BYTES,
            partition_max_bytes=_PARTITION_BYTES,
            isolation_level=_UNCOMMITTED,
        )
        answer = await wire.send(API_KEY, API_VERSION, request)
        return [keys for fetched in decode_fetch(answer) for keys in self._keys(fetched)]

    def _keys(self, fetched: Fetched) -> Iterator[ByteColumn]:
        if fetched.error_code:
            raise for_code(fetched.error_code)(f"{fetched.tp.topic}-{fetched.tp.partition}")
        data = bytes(fetched.records)
        batches = survey(data, 0, len(data))
        if len(batches):
            yield unpack(data, batches, self._positions[fetched.tp]).keys
            self._positions[fetched.tp] = int(batches[-1]["base_offset"] + batches[-1]["last_offset_delta"]) + 1


@asynccontextmanager
async def open_reader(connection: dict[str, Any], topic: str, partitions: int) -> AsyncIterator[KeyReader]:
    """Open a reader of what is appended from now on."""
    places = [TopicPartition(topic, number) for number in range(partitions)]
    async with AIOKafkaConsumer(**connection, group_id=None) as consumer:
        ends = await consumer.end_offsets(places)
    client = AIOKafkaClient(**connection)
    await client.bootstrap()
    wires = Wires(client, "bench")
    try:
        await client.set_topics([topic])
        node = client.cluster.leader_for_partition(places[0])
        yield KeyReader(wires, node, {TP(*place): ends[place] for place in places})
    finally:
        wires.close()
        await client.close()
