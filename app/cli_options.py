"""Options that several commands take, and the two consoles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from app.settings import Settings, load_settings

__all__ = ["AsJson", "Broker", "DataDir", "FileFormat", "Mapping", "Rules", "err", "out", "settings_of"]

out = Console()
err = Console(stderr=True)

Broker = Annotated[str | None, typer.Option("--broker", help="An existing cluster, HOST:PORT[,HOST:PORT...].")]
DataDir = Annotated[Path | None, typer.Option("--data", help="Folder of local state, keys and the local broker.")]
Rules = Annotated[Path | None, typer.Option("--rules", help="Rule pack (YAML); default: the shipped one.")]
Mapping = Annotated[Path | None, typer.Option("--mapping", help="File (TOML or YAML) that names the columns.")]
FileFormat = Annotated[
    Literal["ndjson", "csv", "parquet"] | None, typer.Option("--format", help="Default: by the file's name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")]


def settings_of(broker: str | None = None, data: Path | None = None, **more: Any) -> Settings:  # noqa: ANN401 - of any field
    """Return the settings; an option that is not given leaves the environment and the file to decide."""
    return load_settings(broker=broker, data_dir=data, **more)
