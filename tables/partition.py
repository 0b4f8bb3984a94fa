"""All that one partition of a stage remembers, and how it becomes a checkpoint and comes back from one.

A checkpoint is a list of changelog rows: changed profiles, new id segments, changed control rows, and last the
position row, which says how far the sources are reflected in all the others. It is appended as one record batch, so
a reader finds all of it or nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn
from app.domain.records import Records, unread
from tables.ids import IdMemory
from tables.profiles import Profiles

__all__ = ["PartitionState"]

PROFILE_KEY_BYTES = 8
"""A profile's key is its 64-bit hash; control rows start with NUL and have any other length."""

POSITION_KEY = b"\0position"
_IDS_PREFIX = "\0ids/"
_CONTROL_PREFIX = b"\0control/"


class _Position(msgspec.Struct):
    """The position row."""

    next_offset: dict[str, int]
    seen: dict[str, dict[int, int]]


def _none_seen() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


_position_encoder = msgspec.msgpack.Encoder()
_position_decoder = msgspec.msgpack.Decoder(_Position)


class PartitionState:
    """One partition's profiles, ids, positions and control rows.

    Parameters
    ----------
    profiles
        The partition's rows.
    memories
        By name, ids already handled: of payments, of markers.
    """

    def __init__(self, profiles: Profiles, memories: Mapping[str, IdMemory]) -> None:
        self.profiles = profiles
        self.memories = memories
        self._next_offset: dict[str, int] = {}
        self._seen: defaultdict[str, NDArray[np.int64]] = defaultdict(_none_seen)
        self._control: dict[str, bytes] = {}
        self._exported_control: set[str] = set()
        self._changed_control: set[str] = set()

    def next_offset(self, topic: str) -> int | None:
        """First offset of `topic` that this state does not reflect; None before anything was read."""
        return self._next_offset.get(topic)

    def next_offsets(self) -> dict[str, int]:
        """First offset not reflected, by source topic."""
        return dict(self._next_offset)

    def accept(self, topic: str, records: Records) -> Records | None:
        """What of `records` this state does not reflect yet, and moves the position behind it; None if nothing.

        Raises
        ------
        GapError
            When records between the position and `records` are missing.
        """
        fresh = unread(records, self._next_offset.get(topic), topic)
        if fresh is not None:
            self._next_offset[topic] = records.next_offset
        return fresh

    def first_sightings(
        self, topic: str, *sightings: tuple[NDArray[np.int32], NDArray[np.int64]]
    ) -> tuple[NDArray[np.bool_], ...]:
        """Which rows of one upstream message are new here; repeats after an upstream crash are not.

        Parameters
        ----------
        topic
            What the rows were made from.
        sightings
            Partition and sequence number of rows, shapes (n,). A partition's rows reach this one in ascending order,
            or again; those of one message are seen together.

        Returns
        -------
        One mask per pair.
        """
        last = self._seen[topic]
        highest = max([int(partitions.max(initial=-1)) for partitions, _ in sightings], default=-1)
        if highest >= len(last):
            last = self._seen[topic] = np.append(last, np.full(highest + 1 - len(last), -1))
        new = tuple(sequences > last[partitions] for partitions, sequences in sightings)
        for partitions, sequences in sightings:
            np.maximum.at(last, partitions, sequences)
        return new

    def control(self, name: str) -> bytes | None:
        """A control input that was in force at the last checkpoint, e.g. the rule pack."""
        return self._control.get(name)

    def set_control(self, name: str, content: bytes) -> None:
        """Put a control input in force; it is written with the next checkpoint."""
        if self._control.get(name) != content:
            self._control[name] = content
            self._changed_control.add(name)

    def is_durable(self, name: str) -> bool:
        """Whether the changelog holds a control input as it is now: a recovery would find it."""
        return name in self._control and name not in self._changed_control | self._exported_control

    def export(self) -> tuple[ByteColumn, ByteColumn]:
        """A checkpoint: keys and values of what changed since the last one, the position row last."""
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        profile_keys, profile_values = self.profiles.export_dirty()
        for name, memory in self.memories.items():
            written, removed = memory.close_segment()
            for sequence, content in (*written, *((sequence, None) for sequence in removed)):
                keys.append(f"{_IDS_PREFIX}{name}/{sequence}".encode())
                values.append(content)
        for name in sorted(self._changed_control):
            keys.append(_CONTROL_PREFIX + name.encode())
            values.append(self._control[name])
        self._exported_control |= self._changed_control
        self._changed_control.clear()
        keys.append(POSITION_KEY)
        values.append(_position_encoder.encode(_Position(self._next_offset, self._seen_rows())))
        return (
            ByteColumn.joined([profile_keys, ByteColumn.from_list(keys)]),
            ByteColumn.joined([profile_values, ByteColumn.from_list(values)]),
        )

    def _seen_rows(self) -> dict[str, dict[int, int]]:
        return {
            topic: {partition: offset for partition, offset in enumerate(last.tolist()) if offset >= 0}
            for topic, last in self._seen.items()
        }

    def acknowledged(self) -> None:
        """Note that the changelog holds what was exported: its rows may now leave memory."""
        self.profiles.clear_dirty()
        self._exported_control.clear()

    def restore(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Take up changelog rows in log order; may be called many times, then `finish_restore` once.

        Raises
        ------
        ValueError
            For a row that this version did not write.
        """
        named, rows = ByteColumn.of(keys), ByteColumn.of(values)
        if len(named) != len(rows):
            raise ValueError(f"changelog: expected a value for each of {len(named)} keys, got {len(rows)}")
        are_profiles = (named.lengths == PROFILE_KEY_BYTES) & (rows.lengths >= 0)
        for place in np.flatnonzero(~are_profiles).tolist():
            self._restore_control_row(named[place], rows[place])
        profiles = np.flatnonzero(are_profiles)
        if len(profiles):
            self.profiles.restore(named.take(profiles), rows.take(profiles))

    def _restore_control_row(self, key: bytes | None, value: bytes | None) -> None:
        if key is None:
            raise ValueError("changelog: expected a key, got none")
        if key.startswith(_IDS_PREFIX.encode()):
            name, _, sequence = key.decode().removeprefix(_IDS_PREFIX).partition("/")
            if name not in self.memories:
                raise ValueError(f"changelog: expected ids of {', '.join(self.memories)}, got those of {name}")
            self.memories[name].restore_segment(int(sequence), value)
        elif key.startswith(_CONTROL_PREFIX) and value is not None:
            self._control[key.removeprefix(_CONTROL_PREFIX).decode()] = value
        elif key == POSITION_KEY and value is not None:
            position = _position_decoder.decode(value)
            self._next_offset = position.next_offset
            self._seen.clear()
            for topic, seen in position.seen.items():
                last = self._seen[topic] = np.full(max(seen, default=-1) + 1, -1, np.int64)
                last[list(seen)] = list(seen.values())
        else:
            raise ValueError(f"changelog: unknown row {key[:24]!r}")

    def finish_restore(self) -> None:
        """Make what was restored usable."""
        for memory in self.memories.values():
            memory.finish_restore()
