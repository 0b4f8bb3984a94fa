"""Control inputs: the rule pack's file and the lists' topic, put in force where a replay will find them again.

A pack or a list that changed takes effect between two checkpoints of a shard, never inside: the checkpoint before it
is acknowledged under the old one, the one that names it is acknowledged before any decision is taken by it. After a
crash a shard decides under what it had until it has passed everything that may have been decided before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from agents.served_models import ServedModels
from app.domain.rejection import Rejection
from app.domain.siphash import HashKey
from app.topics import ENRICHED, LISTS
from models.rules.file import DEFAULT_PACK, RulePackError, load_rule_pack
from models.rules.lists import Lists, decode_list_update
from models.rules.pack import RulePack
from tables.catalog import CATALOG
from tables.shards import Shard

__all__ = ["DEFAULT_RULES", "Controls", "read_pack"]

log = structlog.get_logger(__name__)

DEFAULT_RULES = Path(str(DEFAULT_PACK))
"""The shipped rule pack."""

_FILE_POLL_S = 1.0

# How far ahead models are announced, in records: at any load a checkpoint lies before it, so that none is waited for.
_LEAST_AHEAD = 2
_CHECKPOINTS_AHEAD = 8


def read_pack(path: Path) -> RulePack:
    """Read a rule pack.

    Raises
    ------
    RulePackError
        Naming file, rule, column and how to mend it.
    """
    return load_rule_pack(path.read_text(encoding="utf-8"), CATALOG.column_types(), str(path))


class Controls(Service):
    """What should be in force, and its way into the shards.

    Parameters
    ----------
    rules_file
        The rule pack, read again when it changes; a bad one is logged, and the last good one stays in force.
    connection
        Arguments of aiokafka's clients.
    hash_key
        The key of the pseudonyms.
    served
        Follows the models.
    """

    def __init__(
        self, rules_file: Path, connection: Mapping[str, Any], hash_key: HashKey, served: ServedModels
    ) -> None:
        super().__init__()
        self.pack = read_pack(rules_file)
        self.lists = Lists()
        self._rules_file = rules_file
        self._connection = connection
        self._hash_key = hash_key
        self._served = served
        self._lists_ready = asyncio.Event()

    async def resume(self, shard: Shard, replay_until: int) -> None:
        """Put in force what the shard's last checkpoint names, or, in a new shard, what should be.

        Parameters
        ----------
        shard
            Of the payers' table, just recovered.
        replay_until
            End of its source topic now: no decision beyond it can have been taken yet.
        """
        await self._lists_ready.wait()
        if shard.stage.in_force.resume():
            shard.replay_until = replay_until
        else:
            shard.stage.in_force.put(self.pack, self.lists, self._served.models)
            await shard.flush()

    async def apply(self, shard: Shard, next_offset: int) -> None:
        """Put in force, or announce, what has changed, before the shard's next batch.

        Parameters
        ----------
        shard
            Of the payers' table.
        next_offset
            Behind that batch.
        """
        stage, in_force = shard.stage, shard.stage.in_force
        if (stage.state.next_offset(ENRICHED.name) or 0) >= shard.replay_until:
            if in_force.pack.fingerprint != self.pack.fingerprint or in_force.lists.version != self.lists.version:
                await shard.flush()
                in_force.put(self.pack, self.lists)
                await shard.flush()
                log.info("in force", partition=shard.partition, rules=self.pack.name, lists=self.lists.version)
            models = self._served.models
            if in_force.announced is None and in_force.models.versions != models.versions:
                in_force.announce(models, _LEAST_AHEAD + _CHECKPOINTS_AHEAD * shard.unwritten)
                log.info("announced", partition=shard.partition, models=models.versions, at=in_force.switch_at)
        if in_force.switch_at is not None and next_offset > in_force.switch_at and not in_force.is_announced:
            await shard.flush()

    @Service.task
    async def _watch_file(self) -> None:
        read = self._rules_file.read_bytes()
        while not self.should_stop:
            await self.sleep(_FILE_POLL_S)
            try:
                content = await asyncio.to_thread(self._rules_file.read_bytes)
                if content != read:
                    read = content
                    self.pack = load_rule_pack(content.decode("utf-8"), CATALOG.column_types(), str(self._rules_file))
                    log.info("rule pack read", rules=self.pack.name)
            except (OSError, UnicodeDecodeError, RulePackError) as error:
                # No traceback: the message names file, rule and column, and is all that its author needs.
                log.error("rule pack not read, the last good one stays in force", error=str(error))  # noqa: TRY400

    @Service.task
    async def _follow_lists(self) -> None:
        """Read the compacted topic from its beginning: every worker holds all lists."""
        consumer = AIOKafkaConsumer(**self._connection, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partition = TopicPartition(LISTS.name, 0)
            # Before there is a fetch that the broker holds back, behind which the question would wait.
            end = (await consumer.end_offsets([partition]))[partition]
            consumer.assign([partition])
            while not self.should_stop:
                if await consumer.position(partition) >= end:
                    self._lists_ready.set()
                fetched = await consumer.getmany(timeout_ms=200)
                for records in fetched.values():
                    updates = [decode_list_update(record.key, record.value, self._hash_key) for record in records]
                    for record, update in zip(records, updates, strict=True):
                        if isinstance(update, Rejection):
                            log.warning("list entry rejected", offset=record.offset, path=update.path, got=update.got)
                    good = [update for update in updates if not isinstance(update, Rejection)]
                    self.lists = self.lists.apply(good, records[-1].offset + 1)
        finally:
            await consumer.stop()
