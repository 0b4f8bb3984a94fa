"""Answers are read in place, however the network cuts them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaClient
from aiokafka.errors import CorrelationIdError, KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batching.wire import Wire, Wires
from tests.app.batching.recording import Cluster

API_VERSIONS = 18


class FarEnd(asyncio.Transport):
    """The other end of a connection: keeps what is written, and sends what a test wants in the pieces that it wants."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Take the wire."""
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def deliver(self, data: bytes, most: int) -> None:
        """Send bytes, so many at once."""
        while data:
            room = self.protocol.get_buffer(-1)
            count = min(most, len(room), len(data))
            room[:count] = data[:count]
            self.protocol.buffer_updated(count)
            data = data[count:]


def wire_to(far: FarEnd, timeout_s: float = 10.0) -> tuple[Wire, list[object]]:
    """Return a wire, and a list that grows when it closes its connection."""
    closed: list[object] = []
    connection: Any = SimpleNamespace(
        _writer=SimpleNamespace(transport=far),
        _read_task=SimpleNamespace(cancel=lambda: None),
        _idle_handle=None,
        _closed_fut=asyncio.get_running_loop().create_future(),
        close=lambda reason, exc: closed.append((reason, exc)),
    )
    return Wire(connection, "me", timeout_s), closed


def request_of(wire: Wire, body: bytes) -> memoryview:
    """Return a request as its maker writes it."""
    return memoryview(bytearray(wire.head_bytes) + bytearray(body))


def answer_to(correlation: int, body: bytes) -> bytes:
    """Return a response with its size and correlation id."""
    return (4 + len(body)).to_bytes(4, "big") + correlation.to_bytes(4, "big") + body


@settings(deadline=None)
@given(
    bodies=st.lists(st.integers(0, 200_000) | st.integers(0, 60), min_size=1, max_size=6),
    most=st.integers(1, 300) | st.integers(60_000, 300_000),
)
def test_answers_arrive_whole_however_they_are_cut(bodies: list[int], most: int) -> None:
    """Small ones together in one read, large ones over many; down to a size that is cut itself."""
    most = max(most, sum(bodies) // 2_000)

    async def check() -> None:
        far = FarEnd()
        wire, closed = wire_to(far)
        answers = [wire.send(3, 1, request_of(wire, b"")) for _ in bodies]
        texts = [bytes([number + 1]) * length for number, length in enumerate(bodies)]
        far.deliver(b"".join(answer_to(number + 1, text) for number, text in enumerate(texts)), most)
        assert [bytes(await answer) for answer in answers] == texts
        assert (wire.unanswered, closed) == (0, [])

    asyncio.run(check())


async def test_a_request_has_kafkas_header() -> None:
    """Size, what it asks for, its number and who asks; then the body as its maker wrote it."""
    far = FarEnd()
    wire, _ = wire_to(far)
    wire.send(3, 7, request_of(wire, b"body"))
    wire.send(4, 8, request_of(wire, b""))
    first = b"\0\0\0\x10\0\3\0\7\0\0\0\1\0\2mebody"
    assert bytes(far.written) == first + b"\0\0\0\x0c\0\4\0\x08\0\0\0\2\0\2me"


async def test_an_answer_to_something_else_ends_the_connection() -> None:
    """Nothing after it can be trusted either."""
    far = FarEnd()
    wire, closed = wire_to(far)
    answers = [wire.send(3, 1, request_of(wire, b"")) for _ in range(2)]
    far.deliver(answer_to(2, b""), 100)
    for answer in answers:
        with pytest.raises(CorrelationIdError):
            await answer
    assert len(closed) == 1
    with pytest.raises(KafkaConnectionError):
        wire.send(3, 1, request_of(wire, b""))


async def test_what_is_not_answered_in_time_fails_with_all_behind_it() -> None:
    """Answers come in order, so nothing behind it would come sooner."""
    wire, closed = wire_to(FarEnd(), timeout_s=0.05)
    answers = [wire.send(3, 1, request_of(wire, b"")) for _ in range(2)]
    for answer in answers:
        with pytest.raises(RequestTimedOutError):
            await answer
    assert not wire.is_open
    assert len(closed) == 1


async def test_a_lost_connection_fails_what_waits() -> None:
    """With an error after which one tries again."""
    far = FarEnd()
    wire, _ = wire_to(far)
    answer = wire.send(3, 1, request_of(wire, b""))
    far.protocol.connection_lost(ConnectionResetError())
    with pytest.raises(KafkaConnectionError) as caught:
        await answer
    assert caught.value.retriable


async def test_wires_are_opened_once_and_anew_after_they_close(cluster: Cluster) -> None:
    """A real broker answers over a connection that aiokafka has opened; an unknown one cannot be reached."""
    client = AIOKafkaClient(bootstrap_servers=cluster.bootstrap)
    await client.bootstrap()
    try:
        wires = Wires(client, "test")
        node = client.get_random_node()
        first, second = await asyncio.gather(wires.open(node), wires.open(node))
        assert first is second is wires[node]
        answer = await first.send(API_VERSIONS, 0, request_of(first, b""))
        assert bytes(answer[:2]) == b"\0\0"
        first.close()
        assert wires[node] is None
        again = await wires.open(node)
        assert bytes((await again.send(API_VERSIONS, 0, request_of(again, b"")))[:2]) == b"\0\0"
        with pytest.raises(NodeNotReadyError):
            await wires.open(node + 1)
        wires.close()
        assert not again.is_open
    finally:
        await client.close()
