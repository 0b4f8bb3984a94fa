"""Both stages in one process, pure: what the workers do to a log, without workers.

Replay, tests and simulation run this; the agents run the same stages with Kafka between them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.domain.records import Stretch
from app.domain.rejection import Rejection
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.topics import ENRICHED, MARKERS
from models.ensemble import warm_up_models
from models.rules.pack import RulePack
from models.stages.marking import mark_parties
from models.stages.outputs import Send
from models.stages.payers import PayerOutput, PayerStage, decide
from models.stages.receivers import ReceiverOutput, ReceiverStage, receive
from tables.layout import FRAUD_TYPES
from tables.partition import PartitionState

__all__ = ["Message", "Pipeline", "PipelineOutput", "warm_up"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of `pix-transactions` or `pix-feedback`, and its Kafka timestamp, epoch ms (below 0: none)."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class PipelineOutput:
    """What one call of `Pipeline.push` brought."""

    received: ReceiverOutput
    decided: list[PayerOutput]

    @property
    def rejections(self) -> list[Rejection]:
        """All faults, stage 1 first."""
        return [*self.received.rejections, *(fault for output in self.decided for fault in output.rejections)]


_SPECIMEN = (
    b'{"end_to_end_id":"E00000000202601011200aaaaaaaaaaa","timestamp":1767279600000,"amount_centavos":12345,'
    b'"payer_account":"1","payer_ispb":"00000000","receiver_account":"2","receiver_ispb":"00000001",'
    b'"initiation":"MANU","device_id":"3"}'
)


def warm_up(decoder: TransactionDecoder, pack: RulePack) -> None:
    """Compile what deciding, checkpoints and recovery need, on a payment that nobody made.

    Numba compiles at the first call: half a minute without its cache, during which a worker would hold its partitions
    and decide nothing. So it is done before a worker joins its group.
    """
    warm_up_models()
    first, second = (Pipeline(1, decoder, pack) for _ in range(2))
    # One and several: a column of a single row counts as contiguous, and Numba compiles for each kind of array.
    first.push([Message(b"2", _SPECIMEN, -1)])
    first.push([Message(b"2", _SPECIMEN.replace(b"aaaaaaaaaaa", b"%011d" % number), -1) for number in range(3)])
    for full, empty in zip(first.states, second.states, strict=True):
        keys, values = full.export()
        full.acknowledged()
        empty.restore(keys, values)
        empty.finish_restore()
        at = np.ones(1, np.int64)
        full.profiles.mark(at.view(np.uint64), FRAUD_TYPES[0], 1, at)
        full.export()
        full.acknowledged()
        full.profiles.evict(2**62, 0)


class Pipeline:
    """Stages for every partition, and logs that are as long as what was pushed.

    Parameters
    ----------
    partitions
        Of the keyed topics.
    decoder
        Reads messages.
    pack
        The rules in force.
    retry_window_ms, retry_max_ids
        Bounds of the memory of ids.
    """

    def __init__(
        self,
        partitions: int,
        decoder: TransactionDecoder,
        pack: RulePack,
        *,
        retry_window_ms: int = 3_600_000,
        retry_max_ids: int = 200_000,
    ) -> None:
        self._partitions = partitions
        self.receivers = [
            ReceiverStage(partition, partitions, decoder, retry_window_ms, retry_max_ids)
            for partition in range(partitions)
        ]
        self.payers = [
            PayerStage(partition, partitions, pack, retry_window_ms, retry_max_ids) for partition in range(partitions)
        ]
        for stage in self.payers:
            stage.in_force.put(pack, stage.in_force.lists)
        self._ends: defaultdict[tuple[str, int], int] = defaultdict(int)

    @property
    def states(self) -> list[PartitionState]:
        """What every stage remembers."""
        return [stage.state for stage in self.receivers] + [stage.state for stage in self.payers]

    def push(self, messages: Iterable[Message]) -> PipelineOutput:
        """Append messages to `pix-transactions` and carry them through both stages.

        The stages' order is fixed (all of stage 1, then all of stage 2), so the same calls give the same bytes.
        """
        batches: defaultdict[int, list[Message]] = defaultdict(list)
        for message in messages:
            batches[0 if message.key is None else partition_of(message.key, self._partitions)].append(message)
        received = receive(
            [
                (
                    self.receivers[partition],
                    self._stretch("source", partition, [m.key for m in batch], [m.value for m in batch], batch),
                )
                for partition, batch in sorted(batches.items())
            ]
        )
        clock_ms = max((message.timestamp_ms for batch in batches.values() for message in batch), default=-1)
        return PipelineOutput(received, self._decide(received.sends, clock_ms))

    def hear(self, feedback: Iterable[Message], hash_key: HashKey, limits: TimeLimits) -> None:
        """Append messages to `pix-feedback` and carry the markers that follow into the profiles of both stages."""
        told = list(feedback)
        output = mark_parties(
            self._stretch("feedback", 0, [m.key for m in told], [m.value for m in told], told),
            0,
            self._partitions,
            hash_key,
            limits,
        )
        clock_ms = max((message.timestamp_ms for message in told), default=-1)
        for send in output.sends:
            if send.topic == MARKERS.name:
                messages = [Message(None, value, clock_ms) for value in send.values]
                stretch = self._stretch("markers", send.partition, send.keys, send.values, messages)
                self._decide(self.receivers[send.partition].apply_markers(stretch).sends, clock_ms)

    def _decide(self, sends: Iterable[Send], clock_ms: int) -> list[PayerOutput]:
        """Carry frames through stage 2."""
        enriched: defaultdict[int, list[Message]] = defaultdict(list)
        for send in sends:
            if send.topic == ENRICHED.name:
                enriched[send.partition] += [Message(None, value, clock_ms) for value in send.values]
        return decide(
            [
                (
                    self.payers[partition],
                    self._stretch("enriched", partition, [None] * len(frames), [m.value for m in frames], frames),
                )
                for partition, frames in sorted(enriched.items())
            ]
        )

    def _stretch(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        messages: Sequence[Message],
    ) -> Stretch:
        base = self._ends[topic, partition]
        end = self._ends[topic, partition] = base + len(messages)
        return Stretch(base, end, keys, values, range(base, end), [message.timestamp_ms for message in messages])
