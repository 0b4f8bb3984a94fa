"""The training window of a version in the registry: as it was logged with it, else from the rows it was judged on."""

from __future__ import annotations

from agents.drift import ReferenceLook
from models.batch.model import BatchModel
from models.batch.registry import CHAMPION, Registry, RegistryError
from models.batch.training_set import TrainingSet
from models.drift.look import reference_of
from models.drift.reference import REFERENCE_ARTIFACT, Reference

__all__ = ["champion_reference_look", "reference_of_version"]


def reference_of_version(registry: Registry, version: int) -> tuple[Reference, str]:
    """Return a version's training window, and in words what it was made from.

    Raises
    ------
    RegistryError
        When the registry cannot be reached, or has no such version.
    DriftError, TrainingSetError, BatchModelError
        When what it holds is damaged.
    """
    try:
        return Reference.from_bytes(registry.artifact(version, REFERENCE_ARTIFACT)), "the payments that it learned from"
    except RegistryError:
        # Logged by an earlier pixguard; where the registry itself is out of reach, this raises again.
        test = TrainingSet.from_bytes(registry.test_rows(version))
    model = BatchModel.from_bytes(registry.artifact(version)).numbered(version)
    return reference_of(test, model), "the payments that it was judged on"


def champion_reference_look(registry: Registry) -> ReferenceLook:
    """Return what the learner's process asks the registry with."""

    def look(held: int) -> tuple[int, Reference | None]:
        version = registry.alias_version(CHAMPION) or 0
        return version, reference_of_version(registry, version)[0] if version not in (0, held) else None

    return look
