"""One `pixguard archive`: where settings, transport, tables of the lake, agents and the probes are put together.

A process of its own, so that slow storage never takes a decision's time. Any number may run: they share the partitions.
"""

from __future__ import annotations

from typing import Any

from faust.types import TP

from agents.archive import Archive, archive_agents
from agents.outbox import Outbox
from app.clock import SYSTEM_CLOCK
from app.companion import CompanionApp, run_companion
from app.faust_running import calm_collector
from app.settings import Settings
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.lake_columns import lake_kinds
from tables.lake_table import LakeTable, table_uri

__all__ = ["build_archive", "run_archive"]


class ArchiveApp(CompanionApp):
    """The Faust app: reading goes on from where the tables end, not from where the group is."""

    archive: Archive
    pause_ms = 100.0

    async def leave(self) -> None:
        """Write what was read, or give it back."""
        await self.archive.revoke()

    async def enter(self, assigned: set[TP]) -> None:
        """Seek to where the tables end."""
        await self.archive.assign(assigned)

    def status(self) -> dict[str, Any]:
        """What each table is at."""
        return {"tables": self.archive.status()}


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
    app = ArchiveApp.of(settings, "archive")
    outbox = Outbox(app, SYSTEM_CLOCK, confirm_membership=app.confirm_membership)
    kinds = lake_kinds({FEATURES_VERSION: CATALOG.names})
    app.archive = Archive(
        app,
        outbox,
        SYSTEM_CLOCK,
        [(kind, LakeTable(table_uri(settings.lake_uri(), kind.name), kind.schema)) for kind in kinds],
        settings.archive_rows,
        settings.archive_seconds,
        settings.partitions,
    )
    archive_agents(app, app.archive)
    return app, [*app.probes(settings), outbox, app.archive, app]


def run_archive(settings: Settings) -> None:
    """Run one archive until it is stopped; returns only by `SystemExit`."""
    # A commit's rows are tens of thousands of objects that all live until it is written.
    calm_collector()
    run_companion(settings, build_archive)
