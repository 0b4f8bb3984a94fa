"""What every process on Faust needs to start: credentials in Faust's form, and a runner that ends with a crash."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import faust
from mode import Worker as ModeWorker

from app.kafka_options import client_options
from app.settings import Settings

__all__ = ["Runner", "calm_collector", "faust_options", "prepared_loop"]


def faust_options(settings: Settings, name: str) -> dict[str, Any]:
    """Return the options of Faust's app that all processes have in common.

    Parameters
    ----------
    settings
        Of the process.
    name
        Its own in the whole installation. Membership is static: who comes back under its name within the session gets
        its partitions back.
    """
    return {
        "broker": [f"kafka://{server.strip()}" for server in settings.broker.split(",")],
        "broker_credentials": _credentials(settings),
        "broker_session_timeout": settings.session_timeout_s,
        "broker_heartbeat_interval": settings.session_timeout_s / 6,
        "consumer_group_instance_id": name,
        "broker_client_id": name,
        "consumer_auto_offset_reset": "earliest",
        "producer_linger": 0,
        "stream_publish_on_commit": False,
        "topic_partitions": settings.partitions,
        # `pixguard topics` declares them, with the settings that Faust does not know.
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "store": "memory://",
        "fetch_max_wait_ms": settings.fetch_max_wait_ms,
        "fetch_max_records": settings.fetch_max_records,
    }


def _credentials(settings: Settings) -> Any:  # noqa: ANN401 - one of Faust's credential types, or None
    """Return how the broker is to be spoken to, as Faust wants it."""
    ssl_context = client_options(settings).get("ssl_context")
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=password,
            ssl_context=ssl_context,
            mechanism=settings.sasl_mechanism,
        )
    return faust.SSLCredentials(ssl_context) if ssl_context is not None else None


def prepared_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Return the loop that a process is to run in, its folder made."""
    # Faust makes its own folder, but not its parents.
    (settings.data_dir / "faust").mkdir(parents=True, exist_ok=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def calm_collector() -> None:
    """Spare the garbage collector what lives as long as the process; the rest is freed by reference counts.

    With Python's thresholds it took 6 % of a worker's time, and a third of an archive's, walking over records that are
    on their way.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


class Runner(ModeWorker):
    """Runs services until a signal or a crash; a crash is re-raised, so that the process ends with an error.

    Parameters
    ----------
    app
        The Faust app among the services.
    services
        In the order in which they start.
    loop
        That they run in.
    """

    def __init__(self, app: faust.App, services: Sequence[Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*services, quiet=True, override_logging=False, redirect_stdouts=False, loop=loop)
        self._app = app

    async def on_start(self) -> None:
        """Tell the app that it runs inside a worker, as Faust's own runner does."""
        self._app.in_worker = True
        await super().on_start()
