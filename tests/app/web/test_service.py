"""The web server as a service: it starts, answers, stops, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from app.web.service import WebService, WebServiceError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def _answer_slowly(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def test_it_answers_as_soon_as_it_has_started(client: httpx.AsyncClient) -> None:
    """No waiting between start and the first request."""
    assert (await client.get("/health")).status_code == 200


async def test_it_stops_and_frees_the_port(service: WebService) -> None:
    """Afterwards nothing listens, and another service takes the port at once."""
    port = int(service.url.rpartition(":")[2])
    await service.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    again = WebService(_answer_slowly, "127.0.0.1", port)
    await again.start()
    await again.stop()


async def test_an_open_request_is_answered_before_it_stops() -> None:
    """Whoever asked in time gets the answer."""
    service = WebService(_answer_slowly, "127.0.0.1", 0)
    await service.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        request = asyncio.create_task(client.get(service.url))
        await asyncio.sleep(0.1)
        await service.stop()
        assert (await request).text == "done"


async def test_a_port_in_use_is_a_clear_error() -> None:
    """The message names the address and the settings."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        service = WebService(_answer_slowly, "127.0.0.1", port)
        with pytest.raises(WebServiceError, match=rf"in use at 127\.0\.0\.1:{port}.*PIXGUARD_WEB_PORT"):
            await service.start()


async def test_an_address_of_another_machine_is_a_clear_error() -> None:
    """The system's reason is in the message."""
    service = WebService(_answer_slowly, "192.0.2.1", 0)
    with pytest.raises(WebServiceError, match=r"assign requested address at 192\.0\.2\.1"):
        await service.start()


async def test_signals_stay_the_workers(service: WebService) -> None:
    """SIGTERM reaches the worker's handler, and the server goes on until the worker stops it."""
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, received.set)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(received.wait(), 5)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{service.url}/health")).status_code == 200


async def test_a_server_that_ends_by_itself_crashes_the_worker(service: WebService) -> None:
    """A worker whose health does not answer must not go on silently."""
    assert service._server is not None
    service._server.should_exit = True
    await asyncio.wait_for(service._crashed.wait(), 5)
    assert isinstance(service.crash_reason, WebServiceError)
