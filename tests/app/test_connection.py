"""A cluster that does not let us in: the reason, the place and the setting to mend, in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.connection import ClusterConnectionError, check_connection
from app.settings import load_settings
from ops.broker import LocalBroker, free_port


@asynccontextmanager
async def _stranger(greeting: bytes) -> AsyncIterator[int]:
    """Listen as a server that is no Kafka of the expected protocol: it greets and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        yield port


async def test_one_broker_that_lets_us_in_is_enough(broker: LocalBroker) -> None:
    """A dead one before it in the list is no error."""
    await check_connection(load_settings(broker=f"127.0.0.1:{free_port()},{broker.bootstrap}"))


async def test_each_dead_broker_is_named() -> None:
    """With the setting that may be wrong."""
    ports = [free_port(), free_port()]
    with pytest.raises(ClusterConnectionError) as error:
        await check_connection(load_settings(broker=",".join(f"127.0.0.1:{port}" for port in ports)))
    for port in ports:
        assert f"127.0.0.1:{port}: cannot be reached" in str(error.value)


@pytest.mark.parametrize(("protocol", "greeting"), [("PLAINTEXT", b""), ("SSL", b"HTTP/1.1 400 Bad Request\r\n")])
async def test_another_protocol_names_security_protocol(protocol: str, greeting: bytes) -> None:
    """The port is open, and what answers is something else."""
    async with _stranger(greeting) as port:
        with pytest.raises(ClusterConnectionError, match=f"does not speak {protocol} .* set security_protocol"):
            await check_connection(load_settings(broker=f"127.0.0.1:{port}", security_protocol=protocol))
