"""Commands of the lake: the archive that writes it, and what looks after its tables."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal

import typer

from app.cli_options import AsJson, Broker, DataDir, out, settings_of
from app.settings import SettingsError

__all__ = ["lake_commands"]

lake_commands = typer.Typer()

Lake = Annotated[str | None, typer.Option("--lake", help="Folder or URL of the tables; default: DATA/lake.")]
TableName = Literal["decisions", "features", "labels"]
OneTable = Annotated[TableName, typer.Argument(help="Which one.")]
Tables = Annotated[list[str] | None, typer.Argument(help="decisions, features, labels; default: all.")]


def _check_installed() -> None:
    if find_spec("deltalake") is None or find_spec("pyarrow") is None:
        raise SettingsError("the lake needs the package deltalake: pip install 'pixguard[lake]'")


@lake_commands.command()
def archive(
    name: Annotated[str, typer.Option(help="Unique and stable name of this archive.")] = "archive-1",
    broker: Broker = None,
    data: DataDir = None,
    lake: Lake = None,
    web_port: Annotated[int, typer.Option(help="Port of health and metrics; 0: none.")] = 8090,
) -> None:
    """Write decisions, vectors and labels to Delta tables, each message exactly once.

    Apart from the workers, so that slow storage never takes a decision's time: it lags, says so, and catches up.
    Several share the partitions.
    """
    _check_installed()
    from app.archive import run_archive
    from app.logs import configure_logs

    settings = settings_of(broker, data, name=name, lake=lake, web_port=web_port)
    configure_logs(settings.log_level, settings.log_format, settings.name)
    run_archive(settings)


tables = typer.Typer(
    help="Look after the Delta tables that `pixguard archive` writes: decisions, features, labels.",
    no_args_is_help=True,
)
lake_commands.add_typer(tables, name="lake")


@tables.callback()
def _lake() -> None:
    _check_installed()


@tables.command()
def status(lake: Lake = None, data: DataDir = None, as_json: AsJson = False) -> None:
    """Show of each table: version, rows, files, size, newest event, last offset written of each partition, pins."""
    from ops.lake_report import show_status

    settings = settings_of(data=data, lake=lake)
    show_status(settings.lake_uri(), settings.partitions, out, as_json=as_json)


@tables.command()
def compact(table: Tables = None, lake: Lake = None, data: DataDir = None, as_json: AsJson = False) -> None:
    """Write small files together, day by day, while the archive goes on appending.

    Once a day is enough. The small files stay, for older versions, until a vacuum removes them.
    """
    from ops.lake_report import show_compaction

    show_compaction(settings_of(data=data, lake=lake).lake_uri(), table or (), out, as_json=as_json)


@tables.command()
def vacuum(
    table: Tables = None,
    hours: Annotated[int, typer.Option(help="Versions replaced within these stay readable; 24 at least.")] = 168,
    run: Annotated[bool, typer.Option("--run", help="Remove the files; without it they are only counted.")] = False,
    lake: Lake = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove files that no recent version needs, and none that is pinned: what compaction or killed commits left.

    Never takes rows from the last version. Log files older than 30 days go too, unless a pinned version needs them.
    """
    from ops.lake_report import show_vacuum

    lake_uri = settings_of(data=data, lake=lake).lake_uri()
    show_vacuum(lake_uri, table or (), out, hours=hours, run=run, as_json=as_json)


@tables.command()
def history(
    table: OneTable,
    limit: Annotated[int, typer.Option(min=1, help="Commits, at most.")] = 20,
    lake: Lake = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the commits of a table, newest first."""
    from ops.lake_report import show_history

    show_history(settings_of(data=data, lake=lake).lake_uri(), table, out, limit=limit, as_json=as_json)


@tables.command()
def show(
    table: OneTable,
    version: Annotated[int | None, typer.Option(min=0, help="Of the table; default: the last.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows, at most.")] = 20,
    column: Annotated[list[str] | None, typer.Option(help="Show this column; may be repeated.")] = None,
    lake: Lake = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show rows of a table, as they were at any version."""
    from ops.lake_report import show_rows

    lake_uri = settings_of(data=data, lake=lake).lake_uri()
    show_rows(lake_uri, table, out, version=version, limit=limit, columns=column or (), as_json=as_json)


@tables.command()
def pin(
    table: OneTable,
    name: Annotated[str, typer.Argument(help="Of what needs it, such as a training set.")],
    version: Annotated[int | None, typer.Option(min=0, help="Of the table; default: the last.")] = None,
    lake: Lake = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep a version readable, whatever is vacuumed."""
    from ops.lake_report import show_pin

    lake_uri = settings_of(data=data, lake=lake).lake_uri()
    show_pin(lake_uri, table, out, version=version, pin_name=name, as_json=as_json)


@tables.command()
def unpin(
    name: Annotated[str, typer.Argument(help="As it was pinned.")],
    lake: Lake = None,
    data: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take all pins of a name back."""
    from ops.lake_report import show_unpinned

    show_unpinned(settings_of(data=data, lake=lake).lake_uri(), name, out, as_json=as_json)
