"""One `pixguard archive`: where settings, transport, tables of the lake, agents and the probes are put together.

A process of its own, so that slow storage never takes a decision's time. Any number may run: they share the partitions.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Literal

import msgspec
import structlog
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents.archive import Archive, archive_agents
from agents.outbox import Outbox
from app.batching import BatchApp, packing, unpacking
from app.clock import SYSTEM_CLOCK
from app.connection import check_connection
from app.faust_running import Runner, faust_options
from app.settings import Settings
from app.web.security import Guard
from app.web.service import WebService
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.lake_columns import LakeKind, lake_kinds
from tables.lake_table import LakeTable, table_uri

__all__ = ["build_archive", "run_archive"]

log = structlog.get_logger(__name__)

_FETCH_PAUSE_MS = 100.0
"""Rows wait for a commit anyway: larger batches cost less."""


class ArchiveApp(BatchApp):
    """The Faust app: reading goes on from where the tables end, not from where the group is."""

    archive: Archive
    phase: Literal["joining", "ready", "stopping"] = "joining"

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002 - all of it, whichever leave
        """Write what was read, or give it back."""
        self.phase = "stopping" if self.should_stop else "joining"
        await self.archive.revoke()

    async def after_assign(self, assigned: set[TP]) -> None:
        """Seek to where the tables end."""
        await self.archive.assign(assigned)
        self.phase = "ready"
        log.info("ready", partitions=sorted(f"{tp.topic}-{tp.partition}" for tp in assigned))


def kinds() -> tuple[LakeKind, ...]:
    """Return the tables, with the columns of the catalog in force."""
    return lake_kinds({FEATURES_VERSION: CATALOG.names})


def build_archive(settings: Settings) -> tuple[ArchiveApp, list[Any]]:
    """Put an archive together; nothing is started.

    Returns
    -------
    The app, and all services in the order in which they start.

    Raises
    ------
    SettingsError
        When the settings contradict each other.
    """
    name = f"{settings.app_id}-archive-{settings.name}"
    app = ArchiveApp(
        f"{settings.app_id}-archive",
        **faust_options(settings, name),
        datadir=settings.data_dir / "faust" / name,
        fetch_pause_ms=_FETCH_PAUSE_MS,
    )
    # `web_enabled=False` alone leaves Faust's own web port open.
    app.boot_strategy.enable_web = False
    outbox = Outbox(app, SYSTEM_CLOCK, confirm_membership=app.confirm_membership)
    app.archive = Archive(
        app,
        outbox,
        SYSTEM_CLOCK,
        [(kind, LakeTable(table_uri(settings.lake_uri(), kind.name), kind.schema)) for kind in kinds()],
        settings.archive_rows,
        settings.archive_seconds,
        settings.partitions,
    )
    archive_agents(app, app.archive)
    web = [WebService(_probes(app, settings.web_host), settings.web_host, settings.web_port)]
    return app, [*(web if settings.web_port else []), outbox, app.archive, app]


def _probes(app: ArchiveApp, web_host: str) -> Guard:
    def answer(content: object, status: int = 200) -> Response:
        return Response(msgspec.json.encode(content), status, media_type="application/json")

    async def health(_request: Request) -> Response:
        return answer({"status": "alive", "phase": app.phase})

    async def ready(_request: Request) -> Response:
        is_ready = app.phase == "ready"
        told = {"ready": is_ready, "phase": app.phase, "tables": app.archive.status()}
        return answer(told, 200 if is_ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    return Guard(Starlette(routes=routes), web_host)


def run_archive(settings: Settings) -> None:
    """Run one archive until it is stopped; returns only by `SystemExit`."""
    # Faust makes its own folder, but not its parents.
    (settings.data_dir / "faust").mkdir(parents=True, exist_ok=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app, services = build_archive(settings)
    loop.run_until_complete(check_connection(settings))
    packing.warm_up()
    unpacking.warm_up()
    # A commit's rows are tens of thousands of objects that all live until it is written: the collector would look at
    # everything again and again, and at what was imported, for a third of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    Runner(app, services, loop).execute_from_commandline()
