"""One `pixguard learner`: where settings, transport, stores, agents and the probes are put together.

A process of its own, so that joining and learning never take a decision's time. Any number may run: they share the
partitions of `pix-features` and `pix-feedback`, and one of them learns.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from faust.types import TP

from agents.drift import DriftWatch
from agents.joining import Joined, joining_agents
from agents.learner import Learning, learner_agent
from agents.outbox import Outbox
from app.clock import SYSTEM_CLOCK
from app.companion import CompanionApp, run_companion
from app.domain.field_checks import TimeLimits
from app.kafka_options import client_options
from app.model_reference import champion_reference_look
from app.model_registry import open_registry
from app.settings import Settings
from models.labels.joining import Joiner, JoinPolicy
from models.online.learner import OnlineLearner
from models.stages.receivers import FEATURES_VERSION
from tables.awaiting import Awaiting
from tables.catalog import CATALOG

__all__ = ["build_learner", "run_learner"]

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


class LearnerApp(CompanionApp):
    """The Faust app: stores and learner go on from where they are, not from where the group is."""

    joined: Joined
    learning: Learning
    drift: DriftWatch
    pause_ms = 250.0  # larger batches make fewer and larger entries of the stores

    async def leave(self) -> None:
        """Bring the learner to the log; stores are written with each batch."""
        await self.learning.publish()

    async def enter(self, assigned: set[TP]) -> None:
        """Seek to where the stores and the last checkpoint are."""
        await self.joined.assign(assigned)
        await self.learning.assign(assigned)

    def release(self) -> None:
        """Close the stores."""
        self.joined.close()

    def status(self) -> dict[str, Any]:
        """What is held of each partition, and the learner, where it is here."""
        return {"partitions": self.joined.status(), "learner": self.learning.status()}


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
    app = LearnerApp.of(settings, "learner")
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
    return app, [*app.probes(settings), outbox, app.learning, app.drift, app]


def run_learner(settings: Settings) -> None:
    """Run one learner until it is stopped; returns only by `SystemExit`."""
    run_companion(settings, build_learner)
