"""Claims: of all who ever owned a partition, only the last can append to its log, by the broker's own rule.

A worker that is paused for longer than its session loses its partitions, and does not know it when it goes on: its late
append would reach the log after its successor's. No look at the clock prevents that, since the pause may come after the
look. Kafka does: the leader of a partition refuses a record batch whose producer epoch is lower than one that it has
seen from the same producer id (INVALID_PRODUCER_EPOCH). So each partition has a transactional id, its own name
``{topic}-{partition}``, and whoever is assigned it

1. asks the transaction coordinator for the producer of that id (InitProducerId): same producer id, next epoch;
2. appends a claim record under this epoch, sequence 0: now the leader knows, and its followers with it;
3. reads the end of the log, recovers up to there, and appends under this epoch from then on.

What a predecessor appended before 2 is read in 3, what it appends later is refused, and a batch that it has in flight
is one of both. Claiming late does no harm either: a zombie that claims takes the partition from its owner, which stops,
but can append nothing that does not rest on all that the log held. No Kafka transaction is ever begun: a claim costs
some milliseconds once per assignment, an append nothing.

A retry carries the same bytes, so the same sequence, and the leader answers it with the offset of the first attempt. A
sequence is used up before its batch is sent: after an append of unknown outcome the next one is refused as out of order
rather than mistaken for a repeat.

What the brokers forget
-----------------------
``producer.id.expiration.ms`` (1 day): the leader forgets the epoch of a producer that is idle, and then takes any epoch
and sequence again, the owner's and the zombie's. ``transactional.id.expiration.ms`` (7 days): the coordinator forgets
the id, and the next claim gets another producer id, which fences nobody; so it does after 32,767 claims. So an owner
renews its claim every 6 hours, however busy: it appends a claim record under its epoch (refused if it is a zombie) and
claims again. And it counts: appended by nobody else, the log's offsets follow each other, across renewals and whatever
the coordinator gave. An append that lands elsewhere stops the worker before anything is acknowledged by it.
Only detected, not prevented: the append of a zombie from before a time in which nobody owned the partition for longer
than these settings, or of a stranger with a producer id of its own. The group will not have such a zombie back, and the
lease (`app.batching.lease`) stops it first.

A secured cluster must allow workers the operations Describe and Write on the TransactionalIds that begin with the app's
id. Brokers need InitProducerId (Kafka 0.11; pixguard needs 4 for other reasons).
"""
# ruff: noqa: SLF001  (faust's producer offers no way to its client)

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    IncompatibleBrokerVersion,
    InvalidProducerEpoch,
    KafkaError,
    NoError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TransactionalIdAuthorizationFailed,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from app.batching.lease import awake_or_not_s
from app.batching.packing import Stamp
from app.batching.producer import BatchProducer

__all__ = ["CLAIM_KEY", "ClaimError", "ClaimRow", "Claims", "FencedError"]

log = structlog.get_logger(__name__)

CLAIM_KEY = b"\0claim"
"""Key of the record with which an owner's part of the log begins; its value is a `ClaimRow` in JSON."""

_RENEW_AFTER_S = 6 * 3600.0
_PATIENCE_S = 30.0
_BACKOFF_S = 0.05
_SEQUENCES = 2**31
_TRANSACTION_TIMEOUT_MS = 60_000  # of transactions that are never begun; every broker allows a minute


class FencedError(Exception):
    """Another worker has claimed the partition: this one must not append to its log any more."""


class ClaimError(Exception):
    """A partition could not be claimed."""


class ClaimRow(msgspec.Struct, frozen=True):
    """Who begins to append, under which producer id and epoch."""

    owner: str
    producer_id: int
    epoch: int


class _Claim:
    """What its owner knows of one claimed partition."""

    def __init__(self, producer_id: int, epoch: int) -> None:
        self.lock = asyncio.Lock()
        self.end: int | None = None
        """Offset that the next append must have."""
        self.set_producer(producer_id, epoch)

    def set_producer(self, producer_id: int, epoch: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.sequence = 0
        self.claimed_s = awake_or_not_s()

    def stamp(self, records: int) -> Stamp:
        """Return the stamp of the next batch, whose sequence numbers are used up by that."""
        stamp = Stamp(self.producer_id, self.epoch, self.sequence)
        self.sequence = (self.sequence + records) % _SEQUENCES
        return stamp


class Claims:
    """The partitions of one topic that this worker has claimed.

    Parameters
    ----------
    producer
        Returns the app's producer, which sends; Faust makes it when the app starts.
    topic
        The log.
    owner
        Name of this worker, for the claim records.
    renew_after_s
        Age at which `renew_due` renews a claim.
    """

    def __init__(
        self, producer: Callable[[], BatchProducer], topic: str, owner: str, *, renew_after_s: float = _RENEW_AFTER_S
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._owner = owner
        self._renew_after_s = renew_after_s
        self._held: dict[int, _Claim] = {}

    async def keep(self, partitions: set[int]) -> None:
        """Claim those of `partitions` that are not claimed yet, and let go of all others.

        Raises
        ------
        ClaimError
            If the coordinator refuses, or does not answer within half a minute.
        FencedError
            If another worker has claimed at the same time, and later.
        """
        self._held = {partition: claim for partition, claim in self._held.items() if partition in partitions}
        new = sorted(partitions - set(self._held))
        started_s = time.monotonic()
        await asyncio.gather(*(self._take(partition) for partition in new))
        if new:
            log.info("claimed", log=self._topic, partitions=new, seconds=round(time.monotonic() - started_s, 3))

    async def append(
        self, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None], timestamp_ms: int
    ) -> int:
        """Append one record batch to a claimed partition; the offset of its last record, once it is acknowledged.

        Raises
        ------
        FencedError
            If the partition is not claimed by this worker, or not any more.
        OversizeError
            If the records do not fit into one batch.
        """
        claim = self._held.get(partition)
        if claim is None:
            raise FencedError(f"{self._name(partition)}: expected a claim of this worker, got none")
        async with claim.lock:
            return await self._append(partition, claim, keys, values, timestamp_ms)

    async def renew_due(self) -> None:
        """Renew the claims that the brokers might forget.

        Raises
        ------
        FencedError
            If another worker has claimed the partition meanwhile.
        ClaimError
            If the coordinator refuses, or does not answer within half a minute.
        """
        for partition, claim in list(self._held.items()):
            if awake_or_not_s() - claim.claimed_s >= self._renew_after_s:
                await self._renew(partition, claim)

    async def _take(self, partition: int) -> None:
        claim = _Claim(*await self._next_producer(self._name(partition)))
        await self._declare(partition, claim)
        self._held[partition] = claim

    async def _renew(self, partition: int, claim: _Claim) -> None:
        async with claim.lock:
            await self._declare(partition, claim)  # a zombie gets no further, and takes nothing from the owner
            given = await self._next_producer(self._name(partition))
            if self._held.get(partition) is not claim:
                return  # revoked meanwhile
            claim.set_producer(*given)
            await self._declare(partition, claim)
        log.info("claim renewed", log=self._topic, partition=partition, epoch=claim.epoch)

    async def _declare(self, partition: int, claim: _Claim) -> None:
        row = msgspec.json.encode(ClaimRow(self._owner, claim.producer_id, claim.epoch))
        await self._append(partition, claim, [CLAIM_KEY], [row], int(time.time() * 1000))

    async def _append(
        self,
        partition: int,
        claim: _Claim,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamp_ms: int,
    ) -> int:
        producer = self._producer()
        await producer.room()
        stamp = claim.stamp(len(keys))
        sent = producer.send_records(self._topic, partition, keys, values, timestamp_ms, atomic=True, stamp=stamp)
        try:
            offset = await sent
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise FencedError(
                f"{self._name(partition)}: epoch {claim.epoch} of producer {claim.producer_id} is over: another worker "
                "has claimed the partition, as it may once this one was silent for longer than its session timeout. "
                "The log's last claim record names it; nothing of this append is in the log"
            ) from error
        except OutOfOrderSequenceNumber as error:
            raise FencedError(
                f"{self._name(partition)}: sequence {stamp.sequence} of epoch {claim.epoch} is not the next one: an "
                "earlier append of this worker failed or was given up"
            ) from error
        # Below zero: a repeat so old that the broker has forgotten where it is.
        if offset < 0 or claim.end not in {None, offset}:
            raise FencedError(
                f"{self._name(partition)}: expected offset {claim.end} for the append, got {offset}: somebody "
                "else has appended to the log"
            )
        claim.end = offset + len(keys)
        return claim.end - 1

    async def _next_producer(self, transactional_id: str) -> tuple[int, int]:
        """Return the producer id of a transactional id, and its next epoch."""
        client = self._producer()._ensure_producer().client
        request = InitProducerIdRequest(transactional_id, _TRANSACTION_TIMEOUT_MS)
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                node = await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
                answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
                error = for_code(answer.error_code)
                if error is NoError:
                    return answer.producer_id, answer.producer_epoch
                raise error
            except TransactionalIdAuthorizationFailed as error:
                raise ClaimError(
                    f"{transactional_id}: expected the right to Describe and Write this TransactionalId, got none"
                ) from error
            except IncompatibleBrokerVersion as error:
                raise ClaimError(f"{transactional_id}: expected a broker with InitProducerId v0, got none") from error
            except KafkaError as error:
                if not _is_temporary(error) or time.monotonic() > deadline_s:
                    raise ClaimError(f"{transactional_id}: expected a producer id, got {error}") from error
                if error.invalid_metadata:
                    await client.force_metadata_update()
            await asyncio.sleep(_BACKOFF_S)

    def _name(self, partition: int) -> str:
        return f"{self._topic}-{partition}"


def _is_temporary(error: KafkaError) -> bool:
    return error.retriable or isinstance(error, ConcurrentTransactions | CoordinatorLoadInProgressError)
