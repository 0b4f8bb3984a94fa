"""Watches the log while the run lasts: what is acknowledged, committed or restored must be backed by what is in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from app.domain.field_checks import TimeLimits
from app.domain.frames import decode_frame
from app.domain.records import Stretch
from app.domain.rejection import decode_dead_letter
from app.domain.siphash import HashKey
from app.topics import DECISIONS, ENRICHED, FEATURES, FEEDBACK, MARKERS, REJECTED, TRANSACTIONS
from models.stages.marking import decode_marker, mark_parties
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.partition import POSITION_KEY, PartitionState

from .log import TopicPartition
from .transport import CHANGELOGS

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["Witness", "read_frame", "read_marks"]

_TABLES = {topic: table for table, topic in CHANGELOGS.items()}
_TABLE_OF = {TRANSACTIONS.name: "receivers", MARKERS.name: "receivers", ENRICHED.name: "payers"}
_RECEIVER_FEATURES = len(CATALOG.stage_features("receiver"))

Violated = Callable[[str, str], None]


def read_frame(value: bytes | None) -> list[tuple[int, Any, Any]]:
    """Return partition, debits and credit notices for each upstream partition of a message of `pix-enriched`."""
    frame = decode_frame(value or b"", FEATURES_VERSION, _RECEIVER_FEATURES)
    debits_of, notices_of = frame.debits["transaction"]["source_partition"], frame.credits["source_partition"]
    return [
        (upstream, frame.debits[debits_of == upstream], frame.credits[notices_of == upstream])
        for upstream in np.union1d(debits_of, notices_of).tolist()
    ]


def read_marks(value: bytes | None) -> Any:  # noqa: ANN401 - records of MARK_DTYPE
    """Return the marks of a message of `pix-enriched`."""
    return decode_frame(value or b"", FEATURES_VERSION, _RECEIVER_FEATURES).marks


def _position(stretch: Stretch) -> dict[str, int] | None:
    """Return the position that a checkpoint names."""
    state = PartitionState(None, {})  # type: ignore[arg-type] # the position alone is read
    rows = [item for item in zip(stretch.keys, stretch.values, strict=True) if item[0] == POSITION_KEY]
    state.restore([key for key, _ in rows], [value for _, value in rows])
    return state.next_offsets() if rows else None


class Witness:
    """What is durable, by meaning.

    Parameters
    ----------
    violated
        Is told of each violation: invariant, detail.
    hash_key, time_limits, partitions
        Of the run.
    """

    def __init__(self, violated: Violated, hash_key: HashKey, time_limits: TimeLimits, partitions: int) -> None:
        self.decisions: defaultdict[bytes, dict[bytes, int]] = defaultdict(dict)
        """By id: each distinct decision, and how often it was sent."""
        self.vectors: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self.letters: defaultdict[tuple[str, int, int], set[bytes]] = defaultdict(set)
        """By topic, partition and offset of what was rejected."""
        self.positions: dict[tuple[str, int], dict[str, int]] = {}
        """By table and partition: the durable one."""
        self._violated = violated
        self._mark = (partitions, hash_key, time_limits)
        self._framed: defaultdict[int, set[int]] = defaultdict(set)
        self._markers: set[bytes | None] = set()
        self._marked: set[bytes] = set()
        self._restored: dict[tuple[str, int], dict[str, int]] = {}

    # -- what is in the log

    def appended(self, where: TopicPartition, stretch: Stretch) -> None:
        """Take note of a record batch."""
        topic, partition = where
        if topic in _TABLES:
            self._checkpoint((_TABLES[topic], partition), stretch)
        elif topic == ENRICHED.name:
            for upstream, debits, _ in chain.from_iterable(map(read_frame, stretch.values)):
                self._framed[upstream] |= set(debits["transaction"]["source_offset"].tolist())
            for value in stretch.values:
                self._marked.update(read_marks(value)["id"].tolist())
        elif topic == MARKERS.name:
            self._markers.update(stretch.values)
        elif topic in (DECISIONS.name, FEATURES.name, REJECTED.name):
            for key, value in zip(stretch.keys, stretch.values, strict=True):
                self._output(topic, key or b"", value or b"")

    def _output(self, topic: str, key: bytes, value: bytes) -> None:
        if topic == DECISIONS.name:
            known = self.decisions[key]
            known[value] = known.get(value, 0) + 1
        elif topic == FEATURES.name:
            self.vectors[key].add(value)
        else:
            source = decode_dead_letter(value).source
            self.letters[source.topic, source.partition, source.offset].add(value)

    def _checkpoint(self, shard: tuple[str, int], stretch: Stretch) -> None:
        position = _position(stretch)
        if position is None:
            self._violated("a checkpoint is whole", f"{shard}: a record batch without position")
            return
        self._not_back("a checkpoint never goes back", shard, self.positions.get(shard, {}), position)
        self.positions[shard] = position

    def _not_back(self, invariant: str, shard: tuple[str, int], before: dict[str, int], after: dict[str, int]) -> None:
        if any(after.get(topic, 0) < offset for topic, offset in before.items()):
            self._violated(invariant, f"{shard[0]}-{shard[1]}: from {before} to {after}")

    # -- what workers claim

    def acknowledged(self, worker: Worker, where: TopicPartition, batch: Stretch) -> None:
        """Hold an acknowledgement against what is durable at this moment."""
        topic, partition = where
        name = f"{worker.life.name} acknowledges {topic}-{partition} [{batch.base}, {batch.next_offset})"
        table = _TABLE_OF.get(topic)
        if table is not None:
            durable = self.positions.get((table, partition), {}).get(topic, 0)
            if durable < batch.next_offset:
                self._violated("acknowledged after its checkpoint", f"{name}, checkpoint at {durable}")
        missing = self._missing(topic, partition, batch)
        if missing:
            self._violated("acknowledged after its outputs", f"{name}, without {missing[:5]}")

    def _missing(self, topic: str, partition: int, batch: Stretch) -> list[object]:
        if topic == TRANSACTIONS.name:
            done = self._framed[partition]
            return [at for at in batch.offsets if at not in done and (topic, partition, at) not in self.letters]
        if topic == ENRICHED.name:
            missing: list[object] = []
            for upstream, debits, _ in chain.from_iterable(map(read_frame, batch.values)):
                rows = debits["transaction"]
                for one, at in zip(rows["end_to_end_id"].tolist(), rows["source_offset"].tolist(), strict=True):
                    if one not in self.decisions and (TRANSACTIONS.name, upstream, at) not in self.letters:
                        missing.append((one, upstream, at))
            return missing
        if topic == MARKERS.name:
            markers_told = map(decode_marker, map(bytes, filter(None, batch.values)))
            return [one for one in markers_told if one.party == "payer" and one.id not in self._marked]
        if topic == FEEDBACK.name:
            sends = mark_parties(batch, partition, *self._mark).sends
            markers = [value for send in sends if send.topic == MARKERS.name for value in send.values]
            return [value for value in markers if value not in self._markers]
        return []

    def committed(self, where: TopicPartition, before: int, offset: int) -> None:
        """Hold a commit against the checkpoint that it stands for."""
        topic, partition = where
        if offset < before:
            self._violated("commits never go back", f"{topic}-{partition}: from {before} to {offset}")
        table = _TABLE_OF.get(topic)
        durable = self.positions.get((table or "", partition), {}).get(topic, 0)
        if table is not None and durable < offset:
            self._violated("committed after its checkpoint", f"{topic}-{partition}: {offset}, checkpoint at {durable}")

    def handed_over(self, worker: Worker) -> None:
        """Hold a handover against what the agents have taken."""
        for where, progress in worker.progress.items():
            if any(message.tracked and not message.acked for message in progress._pending):
                self._violated("handed over with everything acknowledged", f"{worker.life.name}: {where}")

    def restored(self, table: str, partition: int, state: PartitionState) -> None:
        """Hold a recovered state against the changelog and against the last recovery."""
        position = state.next_offsets()
        durable = self.positions.get((table, partition), {})
        if position != durable:
            self._violated("recovered to the end", f"{table}-{partition}: {position}, the changelog has {durable}")
        before = self._restored.get((table, partition), {})
        self._not_back("a recovered position never goes back", (table, partition), before, position)
        self._restored[table, partition] = position
