"""A process beside the workers that reads what they write: the learner, the archive.

Each goes on from where its own stores or tables are, not from where its group is, and answers probes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import msgspec
import structlog
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.batching import BatchApp, packing, unpacking
from app.connection import check_connection
from app.faust_running import Runner, faust_options, prepared_loop
from app.settings import Settings
from app.web.security import Guard
from app.web.service import WebService

__all__ = ["CompanionApp", "run_companion"]

log = structlog.get_logger(__name__)


class CompanionApp(BatchApp):
    """The Faust app of such a process."""

    pause_ms: ClassVar[float]
    """Between two fetches: nobody waits for what comes of it, and larger batches cost less."""

    phase: Literal["joining", "ready", "stopping"] = "joining"

    @classmethod
    def of(cls, settings: Settings, role: str) -> Self:
        """Return the app of a role ("learner", "archive"): a consumer group of its own, with static members."""
        name = f"{settings.app_id}-{role}-{settings.name}"
        app = cls(
            f"{settings.app_id}-{role}",
            **faust_options(settings, name),
            datadir=settings.data_dir / "faust" / name,
            fetch_pause_ms=cls.pause_ms,
        )
        # `web_enabled=False` alone leaves Faust's own web port open.
        app.boot_strategy.enable_web = False
        return app

    async def leave(self) -> None:
        """Bring what was read where it belongs, before partitions go."""
        raise NotImplementedError

    async def enter(self, assigned: set[TP]) -> None:
        """Seek what has come to where it was left."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what lies beside memory, at the end."""

    def status(self) -> dict[str, Any]:
        """What `/ready` tells beside phase and readiness."""
        raise NotImplementedError

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002 - all of it, whichever leave
        """Leave."""
        self.phase = "stopping" if self.should_stop else "joining"
        await self.leave()

    async def after_assign(self, assigned: set[TP]) -> None:
        """Enter."""
        await self.enter(assigned)
        self.phase = "ready"
        log.info("ready", partitions=sorted(f"{tp.topic}-{tp.partition}" for tp in assigned))

    def probes(self, settings: Settings) -> list[WebService]:
        """Return the service that answers probes; none where the settings give it no port."""
        if not settings.web_port:
            return []
        return [WebService(_probes(self, settings.web_host), settings.web_host, settings.web_port)]


def _probes(app: CompanionApp, web_host: str) -> Guard:
    def answer(content: object, status: int = 200) -> Response:
        return Response(msgspec.json.encode(content), status, media_type="application/json")

    async def health(_request: Request) -> Response:
        return answer({"status": "alive", "phase": app.phase})

    async def ready(_request: Request) -> Response:
        is_ready = app.phase == "ready"
        return answer({"ready": is_ready, "phase": app.phase} | app.status(), 200 if is_ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    return Guard(Starlette(routes=routes), web_host)


def run_companion(settings: Settings, build: Callable[[Settings], tuple[CompanionApp, list[Any]]]) -> None:
    """Run what `build` puts together (the app, and all services in order) until it is stopped.

    Returns only by `SystemExit`.
    """
    loop = prepared_loop(settings)
    app, services = build(settings)
    loop.run_until_complete(check_connection(settings))
    packing.warm_up()
    unpacking.warm_up()
    try:
        Runner(app, services, loop).execute_from_commandline()
    finally:
        app.release()
