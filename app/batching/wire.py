"""Connections to brokers for the two requests that carry payments: they go out whole, and answers are read in place.

aiokafka copies what it sends three times and what it receives four times, and makes a Python object of every field: at
full load that was a third of a worker's time. Here a request is written by its maker into the one buffer that the
socket gets, and an answer is received into the one buffer that its reader is given. Everything else (who leads what,
groups, logins) stays with aiokafka: a wire begins as a connection that aiokafka has opened and logged in.
"""
# ruff: noqa: SLF001  (aiokafka offers no way to take over a connection)

import asyncio
from collections import deque
from struct import Struct
from typing import Any, cast

import numpy as np
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import (
    CorrelationIdError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
)

__all__ = ["Answer", "Wire", "Wires"]

_SIZE = Struct(">i")
_HEAD = Struct(">ihhih")
_CORRELATION_AT = 8
_CORRELATIONS = 2**31

# More than a produce request's answer; of a larger one, this much is copied once.
_STAGING_BYTES = 64 * 1024

Answer = memoryview
"""A response's body, after its correlation id."""


def _room(size: int) -> memoryview:
    """Return bytes to be overwritten: unlike a bytearray's, nobody has written zeros into them."""
    return np.empty(size, np.uint8).data


class Wire(asyncio.BufferedProtocol):
    """One connection; answers come in the order of the requests.

    Parameters
    ----------
    connection
        Open and logged in, and nobody else's from now on.
    client_id
        Named in each request.
    timeout_s
        How long an answer may take; then the connection is given up.
    """

    def __init__(self, connection: AIOKafkaConnection, client_id: str, timeout_s: float) -> None:
        self._connection = connection
        self._client_id = client_id.encode()
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._correlation = 0
        self._waiting: deque[tuple[int, asyncio.Future[Answer], asyncio.TimerHandle]] = deque()
        self._staging = _room(_STAGING_BYTES)
        self._staged = 0
        self._body: Answer | None = None
        self._received = 0
        self._is_open = True
        self._transport: asyncio.Transport = connection._writer.transport
        connection._read_task.cancel()
        if connection._idle_handle is not None:
            connection._idle_handle.cancel()
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self._is_open

    @property
    def unanswered(self) -> int:
        """Requests that wait for their answer."""
        return len(self._waiting)

    @property
    def head_bytes(self) -> int:
        """Bytes that a request keeps free at its start."""
        return _HEAD.size + len(self._client_id)

    def send(self, api_key: int, api_version: int, request: memoryview) -> asyncio.Future[Answer]:
        """Send a request.

        Parameters
        ----------
        api_key, api_version
            Of the request, with a header of version 1.
        request
            `head_bytes` free bytes, then the request's body.

        Returns
        -------
        future
            Of the answer's body; it fails with a `KafkaError` that can be retried, on another wire.

        Raises
        ------
        KafkaConnectionError
            When the connection is closed.
        """
        if not self._is_open:
            raise KafkaConnectionError("the connection is closed")
        self._correlation = (self._correlation + 1) % _CORRELATIONS
        _HEAD.pack_into(
            request, 0, len(request) - _SIZE.size, api_key, api_version, self._correlation, len(self._client_id)
        )
        request[_HEAD.size : self.head_bytes] = self._client_id
        answered: asyncio.Future[Answer] = self._loop.create_future()
        timer = self._loop.call_later(self._timeout_s, self._expire)
        self._waiting.append((self._correlation, answered, timer))
        # A view: what the socket does not take at once is copied from where it stands, not first cut off.
        self._transport.write(request)
        return answered

    def close(self, reason: CloseReason | None = None, error: Exception | None = None) -> None:
        """Close the connection; requests without an answer fail."""
        if not self._is_open:
            return
        self._is_open = False
        failure = error if isinstance(error, KafkaError) else KafkaConnectionError(f"connection lost: {error}")
        waiting, self._waiting = self._waiting, deque()
        for _, answered, timer in waiting:
            timer.cancel()
            if not answered.done():
                answered.set_exception(failure)
        self._connection.close(reason=reason, exc=error)

    def _expire(self) -> None:
        self.close(CloseReason.CONNECTION_TIMEOUT, RequestTimedOutError())

    # What asyncio calls

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's signature)
        """Where the next bytes belong."""
        if self._body is not None:
            return self._body[self._received :]
        return self._staging[self._staged :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that have arrived."""
        if self._body is not None:
            self._received += nbytes
            if self._received == len(self._body):
                body, self._body = self._body, None
                self._answer(body)
            return
        self._staged += nbytes
        self._unstage()

    def _unstage(self) -> None:
        """Take the answers apart that arrived together."""
        place = 0
        while self._is_open and self._staged - place >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._staging, place)
            place += _SIZE.size
            body = _room(size)
            here = min(size, self._staged - place)
            body[:here] = self._staging[place : place + here]
            place += here
            if here < size:
                self._body, self._received = body, here
            else:
                self._answer(body)
        left = self._staged - place
        self._staging[:left] = bytes(self._staging[place : self._staged])
        self._staged = left

    def _answer(self, body: Answer) -> None:
        (correlation,) = _SIZE.unpack_from(body)
        if not self._waiting or self._waiting[0][0] != correlation:
            self.close(CloseReason.OUT_OF_SYNC, CorrelationIdError(f"got an answer to {correlation}, out of order"))
            return
        _, answered, timer = self._waiting.popleft()
        timer.cancel()
        if not answered.done():
            answered.set_result(body[_SIZE.size :])

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        self.close(CloseReason.CONNECTION_BROKEN, exc)
        closed = self._connection._closed_fut
        if not closed.done():
            closed.set_result(None)


class Wires:
    """The wires of one client, one to each broker that is asked for.

    Parameters
    ----------
    client
        Of aiokafka, started, on this loop: it knows the brokers and how to log in.
    name
        Of what they are for; `client` may have others.
    timeout_s
        How long an answer may take; `client`'s own if not given.
    """

    def __init__(self, client: AIOKafkaClient, name: str, timeout_s: float | None = None) -> None:
        self._client = client
        self._name = name
        self._timeout_s = client._request_timeout_ms / 1000 if timeout_s is None else timeout_s
        self._wires: dict[int, Wire] = {}
        self._opening = asyncio.Lock()

    def __getitem__(self, node: int) -> Wire | None:
        """Return the open wire to a broker, if there is one."""
        wire = self._wires.get(node)
        return wire if wire is not None and wire.is_open else None

    async def open(self, node: int) -> Wire:
        """Return the wire to a broker, opened if need be.

        Raises
        ------
        NodeNotReadyError
            When the broker is unknown, or cannot be reached.
        """
        async with self._opening:
            wire = self[node]
            if wire is None:
                wire = self._wires[node] = await self._connect(node)
            return wire

    async def _connect(self, node: int) -> Wire:
        client = self._client
        connection = await client._get_conn(node, group=cast("Any", self._name))
        if connection is None:
            raise NodeNotReadyError(f"broker {node} cannot be reached")
        del client._conns[node, self._name]  # it is not aiokafka's any more
        return Wire(connection, client._client_id, self._timeout_s)

    def close(self) -> None:
        """Close them all."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
