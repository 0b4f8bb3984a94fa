"""Commands of the lake: the archive that writes it."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli_options import Broker, DataDir, settings_of

__all__ = ["lake_commands"]

lake_commands = typer.Typer()


@lake_commands.command()
def archive(
    name: Annotated[str, typer.Option(help="Unique and stable name of this archive.")] = "archive-1",
    broker: Broker = None,
    data: DataDir = None,
    lake: Annotated[str | None, typer.Option(help="Folder or URL of the tables; default: DATA/lake.")] = None,
    web_port: Annotated[int, typer.Option(help="Port of health and metrics; 0: none.")] = 8090,
) -> None:
    """Write decisions, vectors and labels to Delta tables, each message exactly once.

    Apart from the workers, so that slow storage never takes a decision's time: it lags, says so, and catches up.
    Several share the partitions.
    """
    from app.archive import run_archive
    from app.logs import configure_logs

    settings = settings_of(broker, data, name=name, lake=lake, web_port=web_port)
    configure_logs(settings.log_level, settings.log_format, settings.name)
    run_archive(settings)
