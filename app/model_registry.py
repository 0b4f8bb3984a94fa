"""The registry of batch models that the settings name, and a worker's look at it."""

from __future__ import annotations

from agents.served_models import Look
from app.settings import Settings
from models.batch.registry import Registry, local_registry

__all__ = ["open_registry", "registry_look"]


def open_registry(settings: Settings) -> Registry:
    """Return the registry: an MLflow server where one is named, else files in the data folder; nothing is asked yet."""
    uri = settings.registry_uri()
    return Registry(uri) if uri is not None else local_registry(settings.data_dir)


def registry_look(settings: Settings) -> Look | None:
    """Return what a worker asks the registry with; None where it should not."""
    if settings.model_poll_s == 0:
        return None
    registry = open_registry(settings)

    def look(alias: str, held: int) -> tuple[int, bytes | None]:
        version = registry.alias_version(alias) or 0
        return version, registry.artifact(version) if version not in (0, held) else None

    return look
