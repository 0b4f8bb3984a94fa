"""Stage 2, pure: frames of one `pix-enriched` partition to decisions and the vectors that they were taken on.

Here a payment meets the profile of its payer. Credit notices only teach; debits are read against what is known, then
scored by the rule pack, then decided. A repeat of a known end_to_end_id is answered with its first decision.
"""

from __future__ import annotations

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

__all__ = ["PayerOutput", "PayerStage"]

_RECEIVER_FEATURES = len(CATALOG.stage_features("receiver"))
_CREDITED = LOGS["payer"].index("credited")
_WINDOWS_HERE = 2
"""How much longer this stage remembers: its clock tells when frames were sent, so two of them may lie further apart
than their transactions did. Stage 1 may fall behind by a whole window, and all that it calls a retry is still known."""

_RULES = "rules"
_LISTS = "lists"
_PACK_PREFIX = "pack/"


@dataclass(frozen=True, slots=True)
class PayerOutput:
    """What one batch brought.

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
        self._partition = partition
        self._partitions = partitions
        self._debit_dtype = debit_dtype(_RECEIVER_FEATURES)
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
        """Apply a batch of `pix-enriched`.

        Raises
        ------
        GapError
            When the transport skipped records.
        FrameError
            For a frame of another version.
        """
        observed = self.observe(records)
        rows = judge(observed, self.pack, self.lists)
        decided = Decided(
            observed.transactions, observed.received_at, rows, self.writer.encode(rows), observed.vectors, self.pack
        )
        self.remember(rows)
        sends = self._decision_sends(decided)
        rejections: list[Rejection] = []
        if len(observed.repeats):
            answers, rejections = self._answer(observed.repeats, observed.originals)
            sends += answers
        return PayerOutput(sends, decided, len(observed.repeats) - len(rejections), rejections)

    def observe(self, records: Records) -> Observed:
        """Let the profiles learn from a batch, and read what each new debit is to be decided on."""
        arrivals = self._arrivals(self.state.accept(ENRICHED.name, records))
        transactions = arrivals.debits["transaction"]
        # What stage 1 calls a retry is one even where this partition has forgotten (or never saw) the first: it is
        # rejected. What stage 1 has forgotten and this partition has not is answered, and counts here no more.
        first, positions = self._ids.first_occurrences(
            transactions["end_to_end_id"].tolist(), arrivals.debit_log_ms, arrivals.debits["retry"]
        )
        counts = first & ~is_refund(transactions)
        payer_slice = self._update(arrivals, counts)
        debits = select(arrivals.debits, first)
        vectors = CATALOG.vector(debits["receiver"], payer_slice[first], debits["transaction"])
        return Observed(
            debits["transaction"],
            debits["received_at"],
            arrivals.debit_log_ms[first],
            counts[first],
            vectors,
            select(transactions, ~first),
            positions[~first],
        )

    def remember(self, rows: NDArray[np.void]) -> None:
        """Note `DECIDED_DTYPE` rows as the first decisions on their ids."""
        self._ids.append(rows)

    def _arrivals(self, records: Records | None) -> _Arrivals:
        """What of the frames is new here, and in which order it came."""
        debits, notices, keys = [], [], []
        log_ms: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        values = () if records is None else records.values
        for number, value in enumerate(values):
            frame = decode_frame(value or b"", FEATURES_VERSION, _RECEIVER_FEATURES)
            # A payment's credit notice follows its debit.
            debit_at = frame.debits["transaction"]["source_offset"] * 2
            notice_at = frame.credits["source_offset"] * 2 + 1
            new_debits, new_notices = self.state.first_sightings(
                TRANSACTIONS.name, frame.upstream_partition, debit_at, notice_at
            )
            debits.append(select(frame.debits, new_debits))
            notices.append(select(frame.credits, new_notices))
            keys.append((number, debit_at[new_debits], notice_at[new_notices]))
            log_ms.append(np.full(len(debits[-1]), records.timestamps_ms[number] if records else 0, np.int64))
        order = np.lexsort(
            (
                np.concatenate([np.zeros(0, np.int64), *(at for _, at, _ in keys), *(at for _, _, at in keys)]),
                np.concatenate(
                    [
                        np.zeros(0, np.int64),
                        *(np.full(len(at), number) for number, at, _ in keys),
                        *(np.full(len(at), number) for number, _, at in keys),
                    ]
                ),
            )
        )
        return _Arrivals(join(debits, self._debit_dtype), join(notices, CREDIT_DTYPE), order, np.concatenate(log_ms))

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

    def _decision_sends(self, decided: Decided) -> list[Send]:
        if not len(decided.rows):
            return []
        decisions, vectors = sends_by_id(
            (DECISIONS, FEATURES),
            self._partitions,
            decided.rows["id"],
            (decided.messages, encode_vectors(decided.vectors, FEATURES_VERSION)),
        )
        return decisions + vectors

    def _answer(
        self, transactions: NDArray[np.void], positions: NDArray[np.int64]
    ) -> tuple[list[Send], list[Rejection]]:
        """Answer repeats with the first decision; an id used for another payment is rejected."""
        ids: list[bytes] = transactions["end_to_end_id"].tolist()
        known = positions >= 0
        originals = self._ids.rows(positions[known])
        same = np.zeros(len(ids), np.bool_)
        same[known] = originals["digest"] == transaction_digest(transactions)[known]
        answers = originals[same[known]]
        (sends,) = sends_by_id((DECISIONS,), self._partitions, answers["id"], (self.writer.encode(answers),))
        letters, rejections = [], []
        for place in np.flatnonzero(~same).tolist():
            fault = REUSED_ID if known[place] else _FORGOTTEN_ID
            row = transactions[place]
            source = Place(TRANSACTIONS.name, int(row["source_partition"]), int(row["source_offset"]), 0)
            letters.append((ids[place], encode_dead_letter(fault, source, None, None)))
            rejections.append(fault)
        return sends + keyed_sends(REJECTED, self._partitions, letters), rejections


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
