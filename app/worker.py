"""One worker: where settings, transport, tables, agents, controls and the web view are put together.

Nothing else knows all of them. A worker warms its kernels up before it joins the group, so that partitions never wait
for a compiler; its web view answers from the first second on, during recovery too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import structlog
from faust.types import TP

from agents.controls import DEFAULT_RULES, Controls
from agents.feedback import feedback_agents
from agents.outbox import Outbox
from agents.payers import payers_agent
from agents.receivers import receivers_agent
from agents.served_models import ServedModels
from app.asyncapi import render_asyncapi
from app.batching import BatchApp, packing, unpacking
from app.clock import SYSTEM_CLOCK
from app.connection import check_connection
from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.faust_running import Runner, calm_collector, faust_options, prepared_loop
from app.kafka_options import client_options
from app.model_registry import registry_look
from app.settings import Settings
from app.topics import ENRICHED, PAYERS_TABLE, RECEIVERS_TABLE
from app.web.api import create_app
from app.web.service import WebService
from app.worker_view import LiveView
from models.rules.pack import RulePack
from models.stages.payers import PayerStage
from models.stages.pipeline import warm_up
from models.stages.receivers import ReceiverStage
from tables.catalog import CATALOG
from tables.changelog import ShardTable, ShardTables
from tables.recovery import RecoveryProgress
from tables.shards import CheckpointPolicy, Pace

__all__ = ["Node", "build_node", "run_worker"]

log = structlog.get_logger(__name__)

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


class PixguardApp(BatchApp):
    """The Faust app: flushes shards before they leave, and puts controls in force when they come."""

    receivers: ShardTable
    payers: ShardTable
    controls: Controls
    served: ServedModels
    warm_up: Callable[[], None]
    phase: Literal["warming up", "joining", "recovering", "ready", "stopping"] = "warming up"
    compiler: threading.Thread | None = None

    async def on_first_start(self) -> None:
        """Compile the kernels before the group knows of this worker; the web view answers meanwhile."""
        started = time.monotonic()
        log.info("warming up", hint="half a minute the first time, then a second")
        await self._compile()
        calm_collector()
        log.info("warm", seconds=round(time.monotonic() - started, 1))
        self.phase = "joining"
        await super().on_first_start()

    async def _compile(self) -> None:
        """Compile aside. In a daemon thread: those of `asyncio.to_thread` are joined when the process ends."""
        result: Future[None] = Future()
        result.set_running_or_notify_cancel()

        def run() -> None:
            try:
                self.warm_up()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                result.set_exception(error)
            else:
                result.set_result(None)

        self.compiler = threading.Thread(target=run, name="compiler", daemon=True)
        self.compiler.start()
        await asyncio.wrap_future(result)

    async def begin_recovery(self, *_arguments: object, **_options: object) -> None:
        """Note that partitions have come, whose state is read next; Faust's signal calls this."""
        self.phase = "recovering"

    def recovery_progress(self) -> RecoveryProgress | None:
        """How far the recovery is that is going on; None where there is none."""
        return cast("ShardTables", self.tables).recovery_progress()

    async def before_revoke(self, revoked: set[TP]) -> None:  # noqa: ARG002 - every shard, whichever leave
        """Bring outputs and state of every shard to the log."""
        self.phase = "stopping" if self.should_stop else "recovering"
        started = time.monotonic()
        await asyncio.gather(self.receivers.shards.flush(), self.payers.shards.flush())
        log.info("handed over", seconds=round(time.monotonic() - started, 3))

    async def after_assign(self, assigned: set[TP]) -> None:
        """Take up rules and lists where each payer shard's last checkpoint left them."""
        sources = {tp for tp in assigned if tp.topic == ENRICHED.name}
        ends = await self.consumer.highwaters(*sources) if sources else {}
        for tp in sources:
            await self.controls.resume(self.payers.shards.shard(tp.partition), ends.get(tp) or 0)
        self.phase = "ready"
        self.served.is_ready.set()
        log.info("ready", partitions=sorted(tp.partition for tp in sources))


@dataclass(frozen=True, slots=True)
class Node:
    """What one worker is made of."""

    app: PixguardApp
    outbox: Outbox
    served: ServedModels
    controls: Controls
    view: LiveView
    web: WebService | None

    @property
    def services(self) -> list[Any]:
        """In the order in which they start."""
        parts = (self.web, self.served, self.controls, self.outbox, self.app)
        return [service for service in parts if service is not None]


def build_node(settings: Settings) -> Node:
    """Put a worker together; nothing is started.

    Raises
    ------
    SettingsError
        When the settings contradict each other or the hash key is unreadable.
    RulePackError
        When the rule pack has errors.
    """
    hash_key = HashKey.from_bytes(settings.read_hash_key())
    connection = client_options(settings)
    app = _faust_app(settings)
    served = ServedModels(connection, registry_look(settings), settings.model_poll_s, settings.challenger_share)
    controls = Controls(settings.rules_file or DEFAULT_RULES, connection, hash_key, served)
    limits = TimeLimits(settings.max_event_age_days * _DAY_MS, settings.max_event_lead_hours * _HOUR_MS)
    decoder = TransactionDecoder(hash_key, limits)
    policy = CheckpointPolicy(
        settings.checkpoint_interval_s,
        settings.checkpoint_max_rows,
        settings.max_active_keys,
        settings.idle_after_hours * _HOUR_MS,
    )
    retry = (settings.retry_window_s * 1000, settings.retry_max_ids)
    pace = Pace()
    app.receivers = ShardTable(
        app,
        name=RECEIVERS_TABLE,
        make_stage=lambda partition: ReceiverStage(partition, settings.partitions, decoder, *retry),
        partitions=settings.partitions,
        policy=policy,
        cold_folder=settings.data_dir / "cold" / settings.name,
        clock=SYSTEM_CLOCK,
        pace=pace,
    )
    app.payers = ShardTable(
        app,
        name=PAYERS_TABLE,
        make_stage=lambda partition: PayerStage(partition, settings.partitions, controls.pack, *retry),
        partitions=settings.partitions,
        policy=policy,
        cold_folder=settings.data_dir / "cold" / settings.name,
        clock=SYSTEM_CLOCK,
        pace=pace,
    )
    for table in (app.receivers, app.payers):
        app.tables.add(table)
    app.controls, app.served = controls, served
    app.warm_up = partial(_warm_up, decoder, controls.pack)
    outbox = Outbox(app, SYSTEM_CLOCK, confirm_membership=app.confirm_membership)
    view = LiveView(settings, app, hash_key)
    receivers_agent(app, app.receivers.shards, outbox, view.watch_received)
    payers_agent(app, app.payers.shards, outbox, controls, view.watch_decided)
    feedback_agents(app, app.receivers.shards, outbox, settings.partitions, hash_key, limits)
    pages = create_app(
        view,
        features=CATALOG.rows(),
        rules=lambda: controls.pack,
        asyncapi=render_asyncapi(settings.app_id),
        web_host=settings.web_host,
    )
    web = WebService(pages, settings.web_host, settings.web_port) if settings.web_port else None
    return Node(app, outbox, served, controls, view, web)


def _faust_app(settings: Settings) -> PixguardApp:
    app = PixguardApp(
        settings.app_id,
        **faust_options(settings, f"{settings.app_id}-{settings.name}"),
        table_standby_replicas=settings.standby_replicas,
        datadir=settings.data_dir / "faust" / settings.name,
        TableManager=ShardTables,
        fetch_pause_ms=settings.fetch_pause_ms,
    )
    # `web_enabled=False` alone leaves Faust's own web port open.
    app.boot_strategy.enable_web = False
    app.on_partitions_assigned.connect(app.begin_recovery)
    return app


def _warm_up(decoder: TransactionDecoder, pack: RulePack) -> None:
    packing.warm_up()
    unpacking.warm_up()
    warm_up(decoder, pack)


def run_worker(settings: Settings) -> None:
    """Run one worker until it is stopped; returns only by `SystemExit`."""
    loop = prepared_loop(settings)
    node = build_node(settings)
    loop.run_until_complete(check_connection(settings))
    try:
        Runner(node.app, node.services, loop).execute_from_commandline()
    except SystemExit as stop:
        if node.app.compiler is not None and node.app.compiler.is_alive():
            # Stopped while it warmed up: nothing is owned yet, everything else is closed, and a compiler can be neither
            # interrupted nor left running while Python and LLVM take themselves down.
            logging.shutdown()
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        raise
