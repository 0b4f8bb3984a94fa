"""Feedback joins the vector that its payment was decided on: one partition of `pix-features` and `pix-feedback`.

Both topics are keyed by `end_to_end_id`, so what belongs together meets here. A payment is learned from at one age,
whatever is known of it: `maturity_ms` after the earlier of its event and its decision. Where nothing is known by then
it counts as honest, and of those only a sample is kept, chosen by the id: the same one whoever chooses.

Two topics have no common order, so time must not run ahead of what either has told:

- a payment matures only by the time up to which feedback was read, unless all feedback was read that there is;
- feedback whose payment is not known waits until all payments were read that there are, and `wait_ms` longer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.labelled import Kind, encode_labelled
from app.domain.records import Records, unread
from app.domain.rejection import Reason, Rejection, Source, encode_dead_letter
from app.domain.vectors import FeatureVectorError, Vectors, decode_vectors
from app.topics import FEATURES, FEEDBACK, LABELLED, REJECTED
from models.labels.labelling import SILENCE, Label, LabelState, Statement, known_at, statement
from models.labels.messages import labelled_message, sample
from models.stages.outputs import Send, keyed_sends
from tables.awaiting import Awaiting
from tables.awaiting_rows import Chunk

__all__ = ["JoinOutput", "JoinPolicy", "Joiner"]

_MATURE_MOST = 4096
"""Vectors that one step looks at, at most, for maturity."""

_SWEEP_MS = 600_000
"""What is too old is removed this often, by the partition's own time."""


@dataclass(frozen=True, slots=True)
class JoinPolicy:
    """How long, and how much.

    Parameters
    ----------
    maturity_ms
        Age at which a payment is learned from.
    horizon_ms
        Age at which it is forgotten.
    wait_ms
        How long feedback waits for its payment.
    negatives_rate
        Share, in (0, 1], of the payments that nothing was said about by maturity which is kept.
    """

    maturity_ms: int
    horizon_ms: int
    wait_ms: int
    negatives_rate: float


@dataclass
class JoinOutput:
    """What one step brought.

    Parameters
    ----------
    sends
        Messages, to be acknowledged before the step is committed.
    labels
        Messages of `pix-labelled` by kind, basis and label ("1", "0", "unknown").
    delays_ms
        Of each label that a revision brought: from the event to when it became known.
    rejections
        Faults behind the dead letters.
    dropped
        Changes of labels whose vector was dropped before.
    unreadable
        Messages of `pix-features` that another version has written.
    is_unfinished
        Whether more has matured than one step may take: call `mature` again.
    """

    sends: list[Send] = field(default_factory=list)
    labels: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    delays_ms: list[int] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    dropped: int = 0
    unreadable: int = 0
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Feedback without a payment, as Kafka delivered it."""

    feedback: Feedback
    key: bytes | None
    value: bytes | None
    timestamp_ms: int

    @property
    def known_at(self) -> int:
        return known_at(self.feedback, self.timestamp_ms)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Waiting).decode


class Joiner:
    """One partition.

    Parameters
    ----------
    partition, partitions
        Of the keyed topics.
    awaiting
        Its store. The caller commits it once a step's sends are acknowledged.
    policy
        How long, and how much.
    limits
        As for transactions.
    sent_until
        Vectors at lower offsets have matured, and `pix-labelled` has all that followed: a store that is made again
        does not send it again. Revisions and dead letters are repeated: few, and the same.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        awaiting: Awaiting,
        policy: JoinPolicy,
        limits: TimeLimits,
        sent_until: int = 0,
    ) -> None:
        self.partition = partition
        self.awaiting = awaiting
        self.positions = awaiting.positions
        self.ends = (0, 0)
        """Where both topics end, asked after the batch was fetched that is taken up next: set by the caller."""
        self.begins = (0, 0)
        """Where both topics begin, set by the caller: where nothing was read, what retention took is not waited for."""
        self.sent_until = sent_until
        self._partitions = partitions
        self._policy = policy
        self._limits = limits
        self._waiting: defaultdict[str, dict[int, _Waiting]] = defaultdict(dict)
        self._swept_ms = 0
        self._next_age = self._oldest()
        for offset, packed in awaiting.waiting().items():
            self._remember(offset, _unpack(packed))

    @property
    def waiting(self) -> int:
        """Feedback that waits for its payment."""
        return sum(map(len, self._waiting.values()))

    @property
    def reached(self) -> tuple[int, int]:
        """Up to where vectors and feedback were read."""
        features, feedback = self.positions.features, self.positions.feedback
        return self.begins[0] if features is None else features, self.begins[1] if feedback is None else feedback

    def lag_ms(self) -> int:
        """By how much the oldest payment that has not matured is late, 0 where none is."""
        if self._next_age is None:
            return 0
        return max(0, self.positions.watermark - self._next_age - self._policy.maturity_ms)

    def is_ahead(self, records: Records) -> bool:
        """Whether feedback is of a time of which the payments were not read yet: it would have to wait for them."""
        if not len(records.timestamps_ms) or self.reached[0] >= self.ends[0]:
            return False
        return records.timestamps_ms[0] > self.positions.vector_clock

    def take_vectors(self, records: Records) -> JoinOutput:
        """Take up a batch of `pix-features`.

        Raises
        ------
        GapError
            When it does not start where the last one ended.
        """
        output = JoinOutput()
        fresh = unread(records, self.positions.features, f"{FEATURES.name}-{self.partition}")
        if fresh is None:
            return self._finish([], output)
        self.positions.features = fresh.next_offset
        messages: list[tuple[bytes, bytes]] = []
        for offsets, vectors in _decode(fresh, output):
            chunk = self._date(offsets, vectors)
            chunk = chunk.take(self.awaiting.new(chunk.rows["id"]))
            self.awaiting.add(chunk, chunk.rows["scored"])
            if self._next_age is None and len(chunk):
                self._next_age = int(chunk.ages[0])
            if self._waiting:
                for end_to_end_id in {each.decode() for each in chunk.rows["id"].tolist()} & self._waiting.keys():
                    for offset, waiting in sorted(self._waiting.pop(end_to_end_id).items()):
                        self.awaiting.wait(offset, None)
                        messages += self._hear(waiting.feedback, waiting.timestamp_ms, output) or []
        return self._finish(messages, output)

    def take_feedback(self, records: Records) -> JoinOutput:
        """Take up a batch of `pix-feedback`; messages with faults are left to those who make dead letters of them.

        Raises
        ------
        GapError
            When it does not start where the last one ended.
        """
        output = JoinOutput()
        fresh = unread(records, self.positions.feedback, f"{FEEDBACK.name}-{self.partition}")
        if fresh is None:
            return self._finish([], output)
        self.positions.feedback = fresh.next_offset
        messages: list[tuple[bytes, bytes]] = []
        for key, value, offset, timestamp_ms in zip(
            fresh.keys, fresh.values, fresh.offsets, fresh.timestamps_ms, strict=True
        ):
            feedback = decode_feedback(value, key, timestamp_ms, self._limits)
            if isinstance(feedback, Rejection):
                continue
            clock = max(self.positions.feedback_clock, known_at(feedback, timestamp_ms))
            self.positions.feedback_clock = clock
            found = self._hear(feedback, timestamp_ms, output)
            if found is None:
                waiting = _Waiting(feedback, key, value, timestamp_ms)
                self._remember(offset, waiting)
                self.awaiting.wait(offset, _pack(waiting))
            else:
                messages += found
        return self._finish(messages, output)

    def mature(self) -> JoinOutput:
        """Go on with what a step has left unfinished."""
        return self._finish([], JoinOutput())

    def _finish(self, messages: list[tuple[bytes, bytes]], output: JoinOutput) -> JoinOutput:
        messages += self._mature(output)
        letters = self._give_up(output)
        self._sweep()
        if messages:
            keys, values = zip(*messages, strict=True)
            output.sends.append(Send(LABELLED.name, 0, keys, values))
        output.sends += keyed_sends(REJECTED, self._partitions, letters)
        return output

    # -- vectors

    def _date(self, offsets: NDArray[np.int64], vectors: Vectors) -> Chunk:
        """Give each vector the instant from which its age counts: never earlier than its predecessor's."""
        times = np.minimum(vectors.rows["event_time"], vectors.rows["decided_at"])
        ages = np.maximum.accumulate(np.concatenate(([self.positions.vector_clock], times)))[1:]
        self.positions.vector_clock = int(ages[-1])
        return Chunk(offsets, ages, vectors.rows, vectors.matrix, vectors.fingerprint)

    def _oldest(self) -> int | None:
        """From when the age of the first vector counts that has not matured; None where there is none."""
        for chunk in self.awaiting.chunks(self.positions.matured):
            first = int(np.searchsorted(chunk.offsets, self.positions.matured))
            if first < len(chunk):
                return int(chunk.ages[first])
        return None

    def _mature(self, output: JoinOutput) -> Iterator[tuple[bytes, bytes]]:
        """Learn from what has come of age, in order of offsets, each once."""
        positions, policy = self.positions, self._policy
        told_all = self.reached[1] >= self.ends[1]
        limit = (positions.watermark if told_all else positions.feedback_clock) - policy.maturity_ms
        if self._next_age is not None and self._next_age > limit:
            return
        self._next_age = None
        looked_at = 0
        for whole in self.awaiting.chunks(positions.matured):
            old = int(np.searchsorted(whole.offsets, positions.matured))
            ripe = int(np.searchsorted(whole.ages, limit, side="right"))
            if ripe > old:
                yield from self._mature_rows(whole, old, ripe, output)
                positions.matured = int(whole.offsets[ripe - 1]) + 1
                looked_at += ripe - old
            if max(old, ripe) < len(whole):
                self._next_age = int(whole.ages[max(old, ripe)])
                return
            if looked_at >= _MATURE_MOST:
                self._next_age, output.is_unfinished = limit, True
                return

    def _mature_rows(self, whole: Chunk, old: int, ripe: int, output: JoinOutput) -> Iterator[tuple[bytes, bytes]]:
        policy = self._policy
        states = self.awaiting.labels(int(whole.offsets[0]), int(whole.offsets[-1]))
        sampled = sample(whole.rows["id"], policy.negatives_rate)
        kept = sampled.copy()
        for offset in states:
            kept[int(np.searchsorted(whole.offsets, offset))] = True
        unsent = kept & (whole.offsets >= self.sent_until)
        for row in (np.flatnonzero(unsent[old:ripe]) + old).tolist():
            instant = int(whole.ages[row]) + policy.maturity_ms
            packed = states.get(int(whole.offsets[row]))
            state = LabelState() if packed is None else LabelState.from_bytes(packed)
            label = state.as_of(instant)
            if label == SILENCE:
                is_quiet = not state.said_by(instant)
                if is_quiet and not sampled[row]:
                    continue
                label = label._replace(label=0, weight=1 / policy.negatives_rate if is_quiet else 1.0)
            if label.label is not None:
                yield self._tell("MATURED", whole.take(slice(row, row + 1)), label, instant, output)
        # What has not come of age stays as it is; the blob is written once, when all of it has.
        if ripe == len(whole):
            self.awaiting.keep(whole, kept)

    def _sweep(self) -> None:
        now_ms = self.positions.watermark
        if now_ms - self._swept_ms >= _SWEEP_MS:
            self._swept_ms = now_ms
            self.awaiting.forget(now_ms - self._policy.horizon_ms)

    # -- feedback

    def _hear(self, feedback: Feedback, timestamp_ms: int, output: JoinOutput) -> list[tuple[bytes, bytes]] | None:
        """Join one message, and return what changes; None where its payment is not known."""
        place = self.awaiting.find(feedback.end_to_end_id)
        if place is None:
            return None
        said = statement(feedback, timestamp_ms)
        if said is None:
            return []
        if place.vector is None:
            output.dropped += 1
            return []
        return self._revise(place.offset, place.vector, said, output)

    def _revise(self, offset: int, vector: Chunk, said: Statement, output: JoinOutput) -> list[tuple[bytes, bytes]]:
        packed = self.awaiting.label(offset)
        before = LabelState() if packed is None else LabelState.from_bytes(packed)
        after = before.told([said])
        if after == before:
            return []
        self.awaiting.put_label(offset, after.to_bytes())
        label = after.latest
        if label[:2] == before.latest[:2]:
            return []
        output.delays_ms.append(max(0, after.known_at - int(vector.rows["event_time"][0])))
        return [self._tell("REVISION", vector, label, after.known_at, output)]

    def _give_up(self, output: JoinOutput) -> list[tuple[bytes | None, bytes]]:
        """Make dead letters of what has waited for too long, once all payments were read."""
        if not self._waiting or self.reached[0] < self.ends[0]:
            return []
        patient_ms = self.positions.watermark - self._policy.wait_ms
        letters = []
        for end_to_end_id in list(self._waiting):
            group = self._waiting[end_to_end_id]
            for offset, waiting in list(group.items()):
                if waiting.known_at > patient_ms:
                    continue
                del group[offset]
                self.awaiting.wait(offset, None)
                fault = Rejection("$.end_to_end_id", "a payment that was decided on", "unknown", Reason.CONTRADICTION)
                source = Source(FEEDBACK.name, self.partition, offset, waiting.timestamp_ms)
                letters.append((waiting.key, encode_dead_letter(fault, source, waiting.key, waiting.value)))
                output.rejections.append(fault)
            if not group:
                del self._waiting[end_to_end_id]
        return letters

    def _remember(self, offset: int, waiting: _Waiting) -> None:
        self._waiting[waiting.feedback.end_to_end_id][offset] = waiting

    def _tell(self, kind: Kind, vector: Chunk, label: Label, known_at: int, output: JoinOutput) -> tuple[bytes, bytes]:
        told = "unknown" if label.label is None else str(label.label)
        output.labels[kind, label.basis, told] += 1
        message = labelled_message(kind, self.partition, vector, label, known_at)
        return bytes(vector.rows["id"][0]), encode_labelled(message)


def _decode(records: Records, output: JoinOutput) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Read vectors, those of each catalog by themselves; what another version has written is passed over."""
    offsets = np.asarray(records.offsets, np.int64)
    if not len(offsets):
        return
    try:
        yield offsets, decode_vectors(records.values)
    except FeatureVectorError:
        for offset, value in zip(offsets.tolist(), records.values, strict=True):
            try:
                vectors = decode_vectors([value])
            except FeatureVectorError:
                output.unreadable += 1
            else:
                yield np.array([offset]), vectors
