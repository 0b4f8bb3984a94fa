"""The models that workers should decide by: the registry's aliases and the learner's topic, followed off the stream.

Whatever goes wrong here, the last good model stays: a registry that is down, a file that is damaged, a model of another
catalog. None of it reaches a payment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from agents.learner_log import SNAPSHOT_KEY
from app import metrics
from app.topics import ONLINE_MODEL
from models.batch.model import BatchModel, BatchModelError
from models.ensemble import NO_MODELS, Models
from models.online.snapshot import OnlineSnapshot, OnlineSnapshotError
from models.stages.receivers import FEATURES_VERSION

__all__ = ["MAX_MODEL_BYTES", "Look", "RejectedModelError", "ServedModels", "checked"]

log = structlog.get_logger(__name__)

MAX_MODEL_BYTES = 4 << 20
"""Every shard keeps the models that it decides by in its checkpoints."""

_Model = TypeVar("_Model", BatchModel, OnlineSnapshot)
_ROLES = ("champion", "challenger")
_REFUSED = "model refused, the last good one stays in force"

Look = Callable[[str, int], tuple[int, bytes | None]]
"""A look at the registry: takes an alias and the version that is held (0: none), returns the alias's version (0: none),
and the model's bytes where it is another one. May block, and may raise anything."""


class RejectedModelError(ValueError):
    """A model that must not decide; the message says why."""


class ServedModels(Service):
    """Follows the models.

    Parameters
    ----------
    connection
        Arguments of aiokafka's clients.
    look
        At the registry of the batch models; None: there are none.
    poll_s
        Between two looks at the registry.
    challenger_share
        Of the payers, whose payments the challenger scores too.
    """

    def __init__(
        self, connection: Mapping[str, Any], look: Look | None, poll_s: float, challenger_share: float
    ) -> None:
        super().__init__()
        self.models: Models = replace(NO_MODELS, challenger_share=challenger_share)
        self._connection = connection
        self._look = look
        self._poll_s = poll_s
        self.is_ready = asyncio.Event()
        """Set once the worker decides: until then its state has the models, and a registry's client takes seconds."""
        self._refused: set[tuple[str, int]] = set()
        self._is_registry_down = False

    @Service.task
    async def _poll_registry(self) -> None:
        await self.is_ready.wait()
        while self._look is not None and not self.should_stop:
            for role in _ROLES:
                await self._poll(self._look, role)
            await self.sleep(self._poll_s)

    async def _poll(self, look: Look, role: str) -> None:
        held = getattr(self.models, role)
        try:
            version, content = await asyncio.to_thread(look, role, held.version if held else 0)
        except Exception as error:  # noqa: BLE001 - a registry's client may raise anything, and none of it may stop us
            if not self._is_registry_down:
                log.warning("registry out of reach, the last good models stay in force", error=str(error))
            self._is_registry_down = True
            metrics.REGISTRY_UP.set(0)
            return
        self._is_registry_down = False
        metrics.REGISTRY_UP.set(1)
        if role == "challenger" and self.models.champion is not None and version == self.models.champion.version:
            version = 0  # promoted: it challenges nobody any more
        if version == 0 and held is not None:
            self._serve(role, None)
        elif version and content is not None and (role, version) not in self._refused:
            try:
                model = await asyncio.to_thread(_load, content, version)
            except (BatchModelError, RejectedModelError) as error:
                self._refused.add((role, version))
                metrics.MODELS_REFUSED.labels(role).inc()
                # No traceback: the message says what is wrong with the model.
                log.error(_REFUSED, role=role, version=version, error=str(error))  # noqa: TRY400
            else:
                self._serve(role, model)

    def _serve(self, role: str, model: BatchModel | OnlineSnapshot | None) -> None:
        part: dict[str, Any] = {role: model}
        self.models = replace(self.models, **part)
        version = model.version if model is not None else 0
        metrics.MODEL_VERSION.labels(role).set(version)
        log.info("model read", role=role, version=version)

    @Service.task
    async def _follow_learner(self) -> None:
        """Read the compacted topic from its beginning: its last snapshot is the online model."""
        consumer = AIOKafkaConsumer(**self._connection, enable_auto_commit=False, auto_offset_reset="earliest",
                                    max_partition_fetch_bytes=MAX_MODEL_BYTES)  # fmt: skip
        await consumer.start()
        try:
            consumer.assign([TopicPartition(ONLINE_MODEL.name, 0)])
            while not self.should_stop:
                fetched = await consumer.getmany(timeout_ms=500)
                snapshots = [each.value for records in fetched.values() for each in records if each.key == SNAPSHOT_KEY]
                if snapshots and snapshots[-1]:
                    await self._take(snapshots[-1])
        finally:
            await consumer.stop()

    async def _take(self, content: bytes) -> None:
        try:
            snapshot = await asyncio.to_thread(_load_snapshot, content)
        except (OnlineSnapshotError, RejectedModelError) as error:
            metrics.MODELS_REFUSED.labels("online").inc()
            log.error(_REFUSED, role="online", error=str(error))  # noqa: TRY400
        else:
            self._serve("online", snapshot)


def checked(model: _Model, content: bytes) -> _Model:
    """Return a model that may decide.

    Raises
    ------
    RejectedModelError
        For one of another catalog, and for one that is too large for a checkpoint.
    """
    if model.fingerprint != FEATURES_VERSION:
        raise RejectedModelError(
            f"model {model.version}: expected feature set {FEATURES_VERSION}, got {model.fingerprint}: train it anew"
        )
    if len(content) > MAX_MODEL_BYTES:
        raise RejectedModelError(
            f"model {model.version}: expected at most {MAX_MODEL_BYTES} bytes, got {len(content)}: take fewer trees"
        )
    return model


def _load(content: bytes, version: int) -> BatchModel:
    model = checked(BatchModel.from_bytes(content).numbered(version), content)
    model.forest.warm()
    return model


def _load_snapshot(content: bytes) -> OnlineSnapshot:
    snapshot = checked(OnlineSnapshot.from_bytes(content), content)
    snapshot.forest.warm()
    return snapshot
