"""One `pixguard learner`: where settings, transport, stores, agents and the probes are put together.

A process of its own, so that joining and learning never take a decision's time. Any number may run: they share the
partitions of `pix-features` and `pix-feedback`, and one of them learns.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

import msgspec
import structlog
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agents.drift import DriftWatch
from agents.joining import Joined, joining_agents
from agents.learner import Learning, learner_agent
from agents.outbox import Outbox
from app.batching import BatchApp, packing, unpacking
from app.clock import SYSTEM_CLOCK
from app.connection import check_connection
from app.domain.field_checks import TimeLimits
from app.faust_running import Runner, faust_options
from app.kafka_options import client_options
from app.model_reference import champion_reference_look
from app.model_registry import open_registry
from app.settings import Settings
from app.web.security import Guard
from app.web.service import WebService
from models.labels.joining import Joiner, JoinPolicy
from models.online.learner import OnlineLearner
from models.stages.receivers import FEATURES_VERSION
from tables.awaiting import Awaiting
from tables.catalog import CATALOG

__all__ = ["build_learner", "run_learner"]

log = structlog.get_logger(__name__)

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_FETCH_PAUSE_MS = 250.0
"""Nobody waits for a label: larger batches make fewer and larger entries of the stores."""


class LearnerApp(BatchApp):
    """The Faust app: stores and learner go on from where they are, not from where the group is."""

    joined: Joined
    learning: Learning
    drift: DriftWatch
    phase: Literal["joining", "ready", "stopping"] = "joining"

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002 - all of it, whichever leave
        """Bring the learner to the log; stores are written with each batch."""
        self.phase = "stopping" if self.should_stop else "joining"
        await self.learning.publish()

    async def after_assign(self, assigned: set[TP]) -> None:
        """Seek to where the stores and the last checkpoint are."""
        await self.joined.assign(assigned)
        await self.learning.assign(assigned)
        self.phase = "ready"
        log.info("ready", partitions=sorted(f"{tp.topic}-{tp.partition}" for tp in assigned))


def build_learner(settings: Settings) -> tuple[LearnerApp, list[Any]]:
    """Put a learner together; nothing is started.

    Returns
    -------
    The app, and all services in the order in which they start.

    Raises
    ------
    SettingsError
        When the settings contradict each other.
    """
    connection = client_options(settings)
    app = _faust_app(settings)
    outbox = Outbox(app, SYSTEM_CLOCK, confirm_membership=app.confirm_membership)
    policy = JoinPolicy(
        round(settings.label_maturity_h * _HOUR_MS),
        settings.label_horizon_days * _DAY_MS,
        round(settings.feedback_wait_h * _HOUR_MS),
        settings.negatives_rate,
    )
    limits = TimeLimits(settings.max_event_age_days * _DAY_MS, settings.max_event_lead_hours * _HOUR_MS)

    def make_joiner(partition: int, awaiting: Awaiting) -> Joiner:
        return Joiner(partition, settings.partitions, awaiting, policy, limits)

    folder = settings.data_dir / "awaiting" / settings.name
    reference_look = champion_reference_look(open_registry(settings)) if settings.model_poll_s else None
    app.drift = DriftWatch(SYSTEM_CLOCK, reference_look, settings.model_poll_s)
    app.joined = Joined(app, outbox, SYSTEM_CLOCK, folder, connection, make_joiner, app.drift.see)
    app.learning = Learning(
        app,
        SYSTEM_CLOCK,
        connection,
        make=partial(OnlineLearner, FEATURES_VERSION, CATALOG.names),
        restore=lambda data: OnlineLearner.from_bytes(data, FEATURES_VERSION),
        publish_s=settings.learner_publish_s,
        hear=app.drift.hear,
    )
    joining_agents(app, app.joined)
    learner_agent(app, app.learning)
    web = [WebService(_probes(app, settings.web_host), settings.web_host, settings.web_port)]
    return app, [*(web if settings.web_port else []), outbox, app.learning, app.drift, app]


def _probes(app: LearnerApp, web_host: str) -> Guard:
    def answer(content: object, status: int = 200) -> Response:
        return Response(msgspec.json.encode(content), status, media_type="application/json")

    async def health(_request: Request) -> Response:
        return answer({"status": "alive", "phase": app.phase})

    async def ready(_request: Request) -> Response:
        is_ready = app.phase == "ready"
        told = {"ready": is_ready, "phase": app.phase, "partitions": app.joined.status()}
        return answer(told | {"learner": app.learning.status()}, 200 if is_ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    return Guard(Starlette(routes=routes), web_host)


def _faust_app(settings: Settings) -> LearnerApp:
    name = f"{settings.app_id}-learner-{settings.name}"
    app = LearnerApp(
        f"{settings.app_id}-learner",
        **faust_options(settings, name),
        datadir=settings.data_dir / "faust" / name,
        fetch_pause_ms=_FETCH_PAUSE_MS,
    )
    # `web_enabled=False` alone leaves Faust's own web port open.
    app.boot_strategy.enable_web = False
    return app


def run_learner(settings: Settings) -> None:
    """Run one learner until it is stopped; returns only by `SystemExit`."""
    # Faust makes its own folder, but not its parents.
    (settings.data_dir / "faust").mkdir(parents=True, exist_ok=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app, services = build_learner(settings)
    loop.run_until_complete(check_connection(settings))
    packing.warm_up()
    unpacking.warm_up()
    try:
        Runner(app, services, loop).execute_from_commandline()
    finally:
        app.joined.close()
