"""Stage 2, pure: frames of one `pix-enriched` partition to decisions and the vectors that they were taken on.

Here a payment meets the profile of its payer. Credit notices and marks only teach; debits are read against what is
known, then scored by the rule pack, then decided. A repeat of a known end_to_end_id gets its first decision again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from app.domain.frames import CREDIT_DTYPE, decode_frame
from app.domain.records import Records
from app.domain.rejection import Reason as Fault
from app.domain.rejection import Rejection, encode_dead_letter
from app.domain.rejection import Source as Place
from app.domain.rows import join, numbers, parts, select
from app.domain.vectors import encode_vectors
from app.topics import DECISIONS, ENRICHED, FEATURES, REJECTED, TRANSACTIONS
from models.rules.pack import RulePack
from models.stages.in_force import InForce
from models.stages.judging import DECIDED_DTYPE, Decided, Observed, judge, name_models, vector_rows
from models.stages.outputs import Send, keyed_sends, sends_by_id
from models.stages.receivers import DEBIT_DTYPE, FEATURES_VERSION, NOTICE_COLUMNS, REUSED_ID
from models.wording.writer import DecisionWriter
from tables.catalog import CATALOG
from tables.events import debit_events, is_refund
from tables.ids import IdMemory, transaction_digest
from tables.layout import EVENT_DTYPE, LOGS
from tables.marks import enter_marks, mark_memory, unseen_marks
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = ["PayerOutput", "PayerStage", "decide"]

_RECEIVER_FEATURES = len(CATALOG.stage_features("receiver"))
_PAYER_FEATURES = len(CATALOG.stage_features("payer"))
_CREDITED = LOGS["payer"].index("credited")
_WINDOWS_HERE = 2
"""How much longer this stage remembers: its clock tells when frames were sent, so two of them may lie further apart
than their transactions did. Stage 1 may fall behind by a whole window, and all that it calls a retry is still known."""


@dataclass(frozen=True, slots=True)
class PayerOutput:
    """What one step brought.

    Parameters
    ----------
    sends
        Decisions, vectors and dead letters.
    decided
        The new decisions.
    retries
        Answers to repeated ids.
    rejections
        One per dead letter.
    """

    sends: list[Send]
    decided: Decided
    retries: int
    rejections: list[Rejection]


class PayerStage:
    """One partition of stage 2.

    Parameters
    ----------
    partition
        Of `pix-enriched`.
    partitions
        Of the keyed topics.
    pack
        The rule pack in force where the state names none.
    retry_window_ms, retry_max_ids
        Bounds of the memory of ids.
    """

    def __init__(
        self, partition: int, partitions: int, pack: RulePack, retry_window_ms: int, retry_max_ids: int
    ) -> None:
        self._ids = IdMemory(DECIDED_DTYPE, _WINDOWS_HERE * retry_window_ms, retry_max_ids)
        self._marker_ids = mark_memory(retry_max_ids)
        self.state = PartitionState(Profiles("payer"), {"payments": self._ids, "markers": self._marker_ids})
        self.in_force = InForce(self.state, pack)
        self.partition = partition
        self.partitions = partitions
        self.writer = DecisionWriter(self.in_force.pack_of, FEATURES_VERSION)

    # -- batches

    def apply(self, records: Records) -> PayerOutput:
        """Apply a batch of `pix-enriched` alone: `decide`."""
        (output,) = decide([(self, records)])
        return output

    def observe(self, records: Records) -> Observed:
        """Let the profiles learn from a batch, and read what each new debit is to be decided on."""
        observed, _ = _observe([(self, records)])
        return observed

    def remember(self, rows: NDArray[np.void]) -> None:
        """Note `DECIDED_DTYPE` rows as the first decisions on their ids."""
        self._ids.append(rows)

    def take(self, records: Records) -> Iterator[_Frame]:
        """What of a batch's frames is new here, frame by frame."""
        fresh = self.state.accept(ENRICHED.name, records)
        if fresh is None:
            return
        for value, log_ms in zip(fresh.values, fresh.timestamps_ms, strict=True):
            frame = decode_frame(value or b"", FEATURES_VERSION, _RECEIVER_FEATURES)
            transactions = frame.debits["transaction"]
            # A payment's credit notice follows its debit.
            new_debits, new_notices = self.state.first_sightings(
                TRANSACTIONS.name,
                (transactions["source_partition"], transactions["source_offset"] * 2),
                (frame.credits["source_partition"], frame.credits["source_offset"] * 2 + 1),
            )
            marks = frame.marks
            if len(marks):
                marks = select(marks, unseen_marks(self._marker_ids, marks, np.full(len(marks), log_ms, np.int64)))
            yield _Frame(select(frame.debits, new_debits), select(frame.credits, new_notices), marks, log_ms)

    def learn(
        self, frames: Sequence[_Frame], events: NDArray[np.void], frame_of: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Enter events and marks into the profiles, and read the events' features.

        Parameters
        ----------
        frames
            Of a batch.
        events
            `EVENT_DTYPE`, shape (n,), in their order.
        frame_of
            Number of each event's frame in `frames`, ascending, shape (n,).

        Returns
        -------
        float32, shape (n, features of the stage).
        """
        # Where its frame stands, not where the batch begins: after a crash the same frames come in other batches.
        found, begin = [], 0
        for number, frame in enumerate(frames):
            if len(frame.marks):
                end = int(np.searchsorted(frame_of, number))
                found.append(self.state.profiles.update(events[begin:end]))
                enter_marks(self.state.profiles, frame.marks)
                begin = end
        last = self.state.profiles.update(events[begin:])
        return np.concatenate([*found, last]) if found else last

    def recognise(
        self, transactions: NDArray[np.void], log_ms: NDArray[np.int64], retries: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which payments are new, and the position, in the memory of ids, of what the others repeat; shapes (n,).

        What stage 1 calls a retry is one even where this partition has forgotten (or never saw) the first: it is
        rejected. What stage 1 has forgotten and this partition has not is answered, and counts here no more.
        """
        return self._ids.first_occurrences(transactions["end_to_end_id"].tolist(), log_ms, retries)

    def answer(
        self, transactions: NDArray[np.void], positions: NDArray[np.int64]
    ) -> tuple[list[Send], list[Rejection]]:
        """Answer repeats with the first decision; an id used for another payment is rejected."""
        ids: list[bytes] = transactions["end_to_end_id"].tolist()
        known = positions >= 0
        originals = self._ids.rows(positions[known])
        same = np.zeros(len(ids), np.bool_)
        same[known] = originals["digest"] == transaction_digest(transactions)[known]
        answers = originals[same[known]]
        (sends,) = sends_by_id((DECISIONS,), self.partitions, answers["id"], (self.writer.encode(answers),))
        letters, rejections = [], []
        for place in np.flatnonzero(~same).tolist():
            fault = REUSED_ID if known[place] else _FORGOTTEN_ID
            row = transactions[place]
            source = Place(TRANSACTIONS.name, int(row["source_partition"]), int(row["source_offset"]), 0)
            letters.append((ids[place], encode_dead_letter(fault, source, None, None)))
            rejections.append(fault)
        return sends + keyed_sends(REJECTED, self.partitions, letters), rejections


@dataclass(frozen=True, slots=True)
class _Frame:
    """The new rows of one frame, and the log's clock."""

    debits: NDArray[np.void]
    notices: NDArray[np.void]
    marks: NDArray[np.void]
    log_ms: int


@dataclass(frozen=True, slots=True)
class _Mine:
    """What of a step is one stage's.

    `debits` of the step's new debits. Of the repeats: transactions, shape (m,), and positions in the memory of ids of
    what they repeat, -1 where it is forgotten, shape (m,).
    """

    debits: slice
    repeats: NDArray[np.void]
    originals: NDArray[np.int64]


def decide(work: Sequence[tuple[PayerStage, Records]]) -> list[PayerOutput]:
    """Apply a batch of `pix-enriched` for each of several partitions of one worker, in one step.

    What needs no state (derived features, rules, wording, sending) has a cost for each call that is a hundred times
    that of a payment, so it is done for all partitions together: for all that are under the same rules and lists.

    Returns
    -------
    One output for each set of rules, lists and models that is in force: as a rule, one.

    Raises
    ------
    GapError
        When the transport skipped records.
    FrameError
        For a frame of another version.
    """
    now, then = [], []
    for stage, records in work:
        before, after = stage.in_force.split(records)
        now += [(stage, before)] if before is not None else []
        then += [(stage, after)] if after is not None else []
    outputs = [_decide(group) for group in _alike(now)]
    for stage, _ in then:
        stage.in_force.switch()
    return outputs + [_decide(group) for group in _alike(then)]


def _alike(work: Sequence[tuple[PayerStage, Records]]) -> list[list[tuple[PayerStage, Records]]]:
    """Group work by what is in force."""
    groups: dict[tuple[object, ...], list[tuple[PayerStage, Records]]] = {}
    for stage, records in work:
        in_force = stage.in_force
        key = (in_force.pack.fingerprint, in_force.lists.version, *in_force.models.versions)
        groups.setdefault(key, []).append((stage, records))
    return list(groups.values())


def _decide(work: Sequence[tuple[PayerStage, Records]]) -> PayerOutput:
    one = work[0][0]
    pack, models = one.in_force.pack, one.in_force.models
    observed, shares = _observe(work)
    transactions = observed.transactions
    scores = models.scores(observed.vectors, transactions["payer_account"], observed.scored)
    rows = judge(observed, pack, one.in_force.lists, scores)
    name_models(rows, models, observed.vectors)
    messages = one.writer.encode(rows)
    decided = Decided(transactions, observed.received_at, rows, messages, observed.vectors, scores, models, pack)
    sends = _decision_sends(decided, one.partitions)
    retries = 0
    rejections: list[Rejection] = []
    for (stage, _), mine in zip(work, shares, strict=True):
        stage.remember(rows[mine.debits])
        if len(mine.repeats):
            answers, faults = stage.answer(mine.repeats, mine.originals)
            sends += answers
            rejections += faults
            retries += len(mine.repeats) - len(faults)
    return PayerOutput(sends, decided, retries, rejections)


def _observe(work: Sequence[tuple[PayerStage, Records]]) -> tuple[Observed, list[_Mine]]:
    """Let the profiles learn from batches, and read what each new debit is to be decided on."""
    stages = [stage for stage, _ in work]
    taken = [list(stage.take(records)) for stage, records in work]
    frames = list(chain.from_iterable(taken))
    stage_of = numbers([len(some) for some in taken])
    debit_frame = numbers([len(frame.debits) for frame in frames])
    notice_frame = numbers([len(frame.notices) for frame in frames])
    debits = join([frame.debits for frame in frames], DEBIT_DTYPE)
    notices = join([frame.notices for frame in frames], CREDIT_DTYPE)
    log_ms = np.array([frame.log_ms for frame in frames], np.int64)[debit_frame]
    transactions = debits["transaction"]

    owner = stage_of[debit_frame]
    shares = parts(owner, len(work))
    first, positions = np.zeros(len(debits), np.bool_), np.zeros(len(debits), np.int64)
    for stage, share in zip(stages, shares, strict=True):
        first[share], positions[share] = stage.recognise(transactions[share], log_ms[share], debits["retry"][share])

    counts = first & ~is_refund(transactions)
    events = debit_events(transactions, debits["receiver"])
    events["wants_features"] &= counts
    events["counts"] &= counts
    events = join([events, _notice_events(notices)], EVENT_DTYPE)
    # In the order in which they came: by frame, upstream partition and place in that.
    frame = np.concatenate([debit_frame, notice_frame])
    upstream = np.concatenate([transactions["source_partition"], notices["source_partition"]])
    place = np.concatenate([transactions["source_offset"] * 2, notices["source_offset"] * 2 + 1])
    order = np.lexsort((place, upstream, frame))
    events, frame = select(events, order), frame[order]
    found = np.empty((len(events), _PAYER_FEATURES), np.float32)
    begins = np.searchsorted(stage_of, np.arange(len(work)))
    for stage, some, begin, share in zip(stages, taken, begins, parts(stage_of[frame], len(work)), strict=True):
        found[share] = stage.learn(some, events[share], frame[share] - begin)
    where = np.empty(len(events), np.int64)
    where[order] = np.arange(len(events))
    payer_slice = found[where[: len(debits)]]

    mine = []
    for share, new in zip(shares, parts(owner[first], len(work)), strict=True):
        repeats = share.start + np.flatnonzero(~first[share])
        mine.append(_Mine(new, select(transactions, repeats), positions[repeats]))
    if not first.all():
        debits, payer_slice, log_ms, counts = select(debits, first), payer_slice[first], log_ms[first], counts[first]
        transactions = debits["transaction"]
    vectors = CATALOG.vector(debits["receiver"], payer_slice, transactions)
    return Observed(transactions, debits["received_at"], log_ms, counts, vectors), mine


def _decision_sends(decided: Decided, partitions: int) -> list[Send]:
    if not len(decided.rows):
        return []
    decisions, vectors = sends_by_id(
        (DECISIONS, FEATURES),
        partitions,
        decided.rows["id"],
        (decided.messages, encode_vectors(vector_rows(decided), decided.vectors, FEATURES_VERSION)),
    )
    return decisions + vectors


def _notice_events(notices: NDArray[np.void]) -> NDArray[np.void]:
    """Events of credit notices: they count, and want no features; `EVENT_DTYPE`, shape (n,)."""
    events = np.zeros(len(notices), EVENT_DTYPE)
    for name, target in NOTICE_COLUMNS.items():
        events[target] = notices[name]
    events["log"] = _CREDITED
    events["counts"] = 1
    return events


_FORGOTTEN_ID = Rejection(
    "$.end_to_end_id", "a repeat within the retry window", "a repeat of an id no longer remembered", Fault.CONTRADICTION
)
