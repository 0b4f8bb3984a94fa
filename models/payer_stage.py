"""Stage 2, pure: frames of one `pix-enriched` partition to decisions and the vectors that they were taken on.

Here a payment meets the profile of its payer. Credit notices only teach; debits are read against what is known, then
scored by the rule pack, then decided. A repeat of a known end_to_end_id is answered with its first decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import encode_vectors
from app.domain.frames import CREDIT_DTYPE, debit_dtype, decode_frame
from app.domain.records import Records
from app.domain.rejection import Reason as Fault
from app.domain.rejection import Rejection, encode_dead_letter
from app.domain.rejection import Source as Place
from app.domain.rows import join, select
from app.topics import DECISIONS, ENRICHED, FEATURES, REJECTED, TRANSACTIONS
from models.judging import DECIDED_DTYPE, Decided, Observed, judge
from models.lists import Lists
from models.outputs import Send, keyed_sends, sends_by_id
from models.receiver_stage import FEATURES_VERSION, NOTICE_COLUMNS, REUSED_ID
from models.rule_file import load_rule_pack
from models.rules import RulePack
from models.wording import DecisionWriter
from tables.catalog import CATALOG
from tables.events import debit_events, is_refund
from tables.ids import IdMemory, transaction_digest
from tables.layout import EVENT_DTYPE, LOGS
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = ["PayerOutput", "PayerStage", "decide"]

_RECEIVER_FEATURES = len(CATALOG.stage_features("receiver"))
_DEBIT_DTYPE = debit_dtype(_RECEIVER_FEATURES)
_CREDITED = LOGS["payer"].index("credited")
_WINDOWS_HERE = 2
"""How much longer this stage remembers: its clock tells when frames were sent, so two of them may lie further apart
than their transactions did. Stage 1 may fall behind by a whole window, and all that it calls a retry is still known."""

_RULES = "rules"
_LISTS = "lists"
_PACK_PREFIX = "pack/"


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
        self.state = PartitionState(Profiles("payer"), {"payments": self._ids})
        self.pack = pack
        self.lists = Lists()
        self._packs: dict[bytes, RulePack] = {}
        self.partition = partition
        self.partitions = partitions
        self.writer = DecisionWriter(self._pack, FEATURES_VERSION)

    # -- control inputs: put in force between two checkpoints, so that a replay decides under what the first run had

    def put_in_force(self, pack: RulePack, lists: Lists) -> None:
        """Decide by this pack and these lists from now on; the next checkpoint records it."""
        self.pack, self.lists = pack, lists
        fingerprint = pack.fingerprint
        self.state.set_control(_RULES, fingerprint.encode())
        self.state.set_control(_PACK_PREFIX + fingerprint, pack.text.encode())
        self.state.set_control(_LISTS, lists.to_bytes())
        self._packs[fingerprint.encode()] = pack

    def resume(self) -> bool:
        """After recovery, take up the pack and lists of the last checkpoint; whether there were any."""
        fingerprint = self.state.control(_RULES)
        if fingerprint is None:
            return False
        self.pack = self._pack(fingerprint)
        self.lists = Lists.from_bytes(self.state.control(_LISTS) or Lists().to_bytes())
        return True

    def _pack(self, fingerprint: bytes) -> RulePack:
        pack = self._packs.get(fingerprint)
        if pack is None:
            text = self.state.control(_PACK_PREFIX + fingerprint.decode())
            if text is None:
                raise LookupError(f"rule pack {fingerprint.decode()} is not in the state")
            pack = self._packs[fingerprint] = load_rule_pack(
                text.decode(), CATALOG.column_types(), f"pack {fingerprint.decode()}"
            )
        return pack

    # -- batches

    def apply(self, records: Records) -> PayerOutput:
        """Apply a batch of `pix-enriched` alone: `decide`."""
        (output,) = decide([(self, records)])
        return output

    def observe(self, records: Records) -> Observed:
        """Let the profiles learn from a batch, and read what each new debit is to be decided on."""
        return _observed([self.meet(records)])

    def meet(self, records: Records) -> Met:
        """Let the profiles learn from a batch.

        Raises
        ------
        GapError
            When the transport skipped records.
        FrameError
            For a frame of another version.
        """
        arrivals = self._arrivals(self.state.accept(ENRICHED.name, records))
        transactions = arrivals.debits["transaction"]
        # What stage 1 calls a retry is one even where this partition has forgotten (or never saw) the first: it is
        # rejected. What stage 1 has forgotten and this partition has not is answered, and counts here no more.
        first, positions = self._ids.first_occurrences(
            transactions["end_to_end_id"].tolist(), arrivals.debit_log_ms, arrivals.debits["retry"]
        )
        counts = first & ~is_refund(transactions)
        payer_slice = self._update(arrivals, counts)
        if first.all():
            return Met(
                arrivals.debits, payer_slice, arrivals.debit_log_ms, counts, transactions[:0], np.zeros(0, np.int64)
            )
        return Met(
            select(arrivals.debits, first),
            payer_slice[first],
            arrivals.debit_log_ms[first],
            counts[first],
            select(transactions, ~first),
            positions[~first],
        )

    def remember(self, rows: NDArray[np.void]) -> None:
        """Note `DECIDED_DTYPE` rows as the first decisions on their ids."""
        self._ids.append(rows)

    def _arrivals(self, records: Records | None) -> _Arrivals:
        """What of the frames is new here, and in which order it came."""
        debits, notices = [], []
        # Of each row: number of its frame, upstream partition, place within that; of debits, then of notices.
        debit_keys, notice_keys = [_NO_KEYS], [_NO_KEYS]
        log_ms: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        values = () if records is None else records.values
        for number, value in enumerate(values):
            frame = decode_frame(value or b"", FEATURES_VERSION, _RECEIVER_FEATURES)
            # A payment's credit notice follows its debit.
            debit_key = _keys(number, frame.debits["transaction"], 0)
            notice_key = _keys(number, frame.credits, 1)
            new_debits, new_notices = self.state.first_sightings(
                TRANSACTIONS.name, (debit_key[1], debit_key[0]), (notice_key[1], notice_key[0])
            )
            debits.append(select(frame.debits, new_debits))
            notices.append(select(frame.credits, new_notices))
            debit_keys.append(debit_key[:, new_debits])
            notice_keys.append(notice_key[:, new_notices])
            log_ms.append(np.full(len(debits[-1]), records.timestamps_ms[number] if records else 0, np.int64))
        order = np.lexsort(np.concatenate([*debit_keys, *notice_keys], axis=1))
        return _Arrivals(join(debits, _DEBIT_DTYPE), join(notices, CREDIT_DTYPE), order, np.concatenate(log_ms))

    def _update(self, arrivals: _Arrivals, counts: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Run the kernel over debits and credit notices in their order; the debits' features, (n, payer features)."""
        debits = debit_events(arrivals.debits["transaction"], arrivals.debits["receiver"])
        debits["wants_features"] &= counts
        debits["counts"] &= counts
        events = join([debits, _notice_events(arrivals.notices)], EVENT_DTYPE)
        features = self.state.profiles.update(select(events, arrivals.order))
        place = np.empty(len(events), np.int64)
        place[arrivals.order] = np.arange(len(events))
        return features[place[: len(arrivals.debits)]]

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
class Met:
    """What the profiles of one partition know of a batch of debits.

    Parameters
    ----------
    debits
        The new ones, `debit_dtype`, shape (n,).
    payer_slice
        float32, shape (n, features of the stage).
    log_ms
        The log's clock for each, epoch ms.
    scored
        False for MED refunds.
    repeats
        Transactions whose id was known already, shape (m,).
    originals
        Positions in the memory of ids of what they repeat, -1 where it is forgotten, shape (m,).
    """

    debits: NDArray[np.void]
    payer_slice: NDArray[np.float32]
    log_ms: NDArray[np.int64]
    scored: NDArray[np.bool_]
    repeats: NDArray[np.void]
    originals: NDArray[np.int64]


def decide(work: Sequence[tuple[PayerStage, Records]]) -> list[PayerOutput]:
    """Apply a batch of `pix-enriched` for each of several partitions of one worker, in one step.

    What needs no state (derived features, rules, wording, sending) has a cost for each call that is a hundred times
    that of a payment, so it is done for all partitions together: for all that are under the same rules and lists.

    Returns
    -------
    One output for each pack and version of the lists that is in force: as a rule, one.

    Raises
    ------
    GapError
        When the transport skipped records.
    FrameError
        For a frame of another version.
    """
    groups: dict[tuple[str, int], list[tuple[PayerStage, Met]]] = {}
    for stage, records in work:
        groups.setdefault((stage.pack.fingerprint, stage.lists.version), []).append((stage, stage.meet(records)))
    return [_decide(group) for group in groups.values()]


def _decide(group: Sequence[tuple[PayerStage, Met]]) -> PayerOutput:
    one = group[0][0]
    observed = _observed([met for _, met in group])
    rows = judge(observed, one.pack, one.lists)
    decided = Decided(
        observed.transactions, observed.received_at, rows, one.writer.encode(rows), observed.vectors, one.pack
    )
    first = 0
    for stage, met in group:
        stage.remember(rows[first : first + len(met.debits)])
        first += len(met.debits)
    sends = _decision_sends(decided, one.partitions)
    rejections: list[Rejection] = []
    for stage, met in group:
        if len(met.repeats):
            answers, faults = stage.answer(met.repeats, met.originals)
            sends += answers
            rejections += faults
    return PayerOutput(sends, decided, sum(len(met.repeats) for _, met in group) - len(rejections), rejections)


def _observed(parts: Sequence[Met]) -> Observed:
    debits = join([met.debits for met in parts], _DEBIT_DTYPE)
    transactions = debits["transaction"]
    vectors = CATALOG.vector(debits["receiver"], np.concatenate([met.payer_slice for met in parts]), transactions)
    return Observed(
        transactions,
        debits["received_at"],
        np.concatenate([met.log_ms for met in parts]),
        np.concatenate([met.scored for met in parts]),
        vectors,
    )


def _decision_sends(decided: Decided, partitions: int) -> list[Send]:
    if not len(decided.rows):
        return []
    decisions, vectors = sends_by_id(
        (DECISIONS, FEATURES),
        partitions,
        decided.rows["id"],
        (decided.messages, encode_vectors(decided.vectors, FEATURES_VERSION)),
    )
    return decisions + vectors


_NO_KEYS = np.zeros((3, 0), np.int64)


def _keys(number: int, rows: NDArray[np.void], after: int) -> NDArray[np.int64]:
    """Place of each row of a frame in the order of arrival, for `numpy.lexsort`; shape (3, n)."""
    keys = np.empty((3, len(rows)), np.int64)
    keys[0] = rows["source_offset"] * 2 + after
    keys[1] = rows["source_partition"]
    keys[2] = number
    return keys


def _notice_events(notices: NDArray[np.void]) -> NDArray[np.void]:
    """Events of credit notices: they count, and want no features; `EVENT_DTYPE`, shape (n,)."""
    events = np.zeros(len(notices), EVENT_DTYPE)
    for name, target in NOTICE_COLUMNS.items():
        events[target] = notices[name]
    events["log"] = _CREDITED
    events["counts"] = 1
    return events


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """The new rows of a batch of frames.

    `order` puts debits followed by notices into the order in which they came, shape (debits + notices,).
    """

    debits: NDArray[np.void]
    notices: NDArray[np.void]
    order: NDArray[np.int64]
    debit_log_ms: NDArray[np.int64]


_FORGOTTEN_ID = Rejection(
    "$.end_to_end_id", "a repeat within the retry window", "a repeat of an id no longer remembered", Fault.CONTRADICTION
)
