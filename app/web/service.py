"""The web server as a service of the worker: uvicorn in the worker's own event loop.

Give it to `faust.Worker(app, web_service)`: the worker starts such services before the app and stops them after it, so
health answers during recovery and while the app stops. Faust's own web server starts after recovery only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import structlog
import uvicorn
from mode import Service
from starlette.types import ASGIApp

__all__ = ["WebService", "WebServiceError"]

log = structlog.get_logger(__name__)

_GRACE_S = 2
"""How long an open request may take when the worker stops."""

_MAX_CONNECTIONS = 200
"""Beyond it a request gets 503: a crowd of viewers must not starve the event loop that decides on payments."""


class WebServiceError(RuntimeError):
    """The web view cannot be served; the message says at which address and what to change."""


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers: SIGINT and SIGTERM belong to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class WebService(Service):
    """Serves an ASGI application for as long as the worker lives.

    Parameters
    ----------
    app
        The application.
    host, port
        Where to listen; for port 0 the system chooses one, which `url` names once the service has started.
    """

    abstract = False

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        super().__init__()

    @property
    def url(self) -> str:
        """Where the pages are: `http://HOST:PORT`."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    async def on_start(self) -> None:
        """Listen; the port is open when this returns.

        Raises
        ------
        WebServiceError
            When the address cannot be had, for example because another process listens there.
        """
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            self._socket = socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            # `create_server` adds the address, which the message has already.
            reason = (error.strerror or str(error)).partition(" (while")[0]
            raise WebServiceError(
                f"web view: expected a free address, got {reason} at {self._host}:{self._port}; "
                "set `web_host` and `web_port` (PIXGUARD_WEB_HOST, PIXGUARD_WEB_PORT; port 0: no web view)"
            ) from error
        self._port = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                self._app,
                log_config=None,  # the worker's own logging is set up already
                access_log=False,  # one line per poll and viewer says nothing, and may hold what people typed
                lifespan="off",
                ws="none",
                server_header=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([self._socket]), name="web view")
        log.info("web view", url=self.url)

    @Service.task
    async def _watch(self) -> None:
        # A web view that ends by itself leaves the worker's health unanswered: the worker must crash, and restart.
        if self._serving is not None:
            await asyncio.shield(self._serving)
            if not self.should_stop:
                raise WebServiceError(f"web view: the server at {self.url} ended by itself")

    async def on_stop(self) -> None:
        """Finish the open requests, at most two seconds long, and free the port."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
        if self._socket is not None:
            self._socket.close()
