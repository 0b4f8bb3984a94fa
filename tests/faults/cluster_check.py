"""What must hold of the topics after a run: pure, so that it can be shown to notice what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from app.batching import CLAIM_KEY
from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.rejection import decode_dead_letter
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.domain.vectors import decode_vectors
from app.settings import Settings
from app.topics import (
    DECISIONS,
    ENRICHED,
    FEATURES,
    FEEDBACK,
    MARKERS,
    PAYERS_TABLE,
    RECEIVERS_TABLE,
    REJECTED,
    TRANSACTIONS,
    Topic,
    changelog,
)
from models.rules.pack import RulePack
from models.stages.marking import mark_parties
from models.stages.payers import PayerStage
from models.stages.receivers import ReceiverStage

from .cluster_log import Places
from .cluster_traffic import Expected
from .states import STEADY, known_ids, profile_rows
from .witness import read_frame

__all__ = ["Found", "check_logs"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the topics hold, as figures, and what is wrong with it: invariant, detail."""

    counts: Mapping[str, int]
    violations: tuple[tuple[str, str], ...]


class _Check:
    """One check of all logs of a run."""

    def __init__(self, logs: Places, expected: Expected, settings: Settings, pack: RulePack) -> None:
        self.logs = logs
        self.expected = expected
        self.pack = pack
        self.settings = settings
        self.partitions = range(settings.partitions)
        self.hash_key = HashKey.from_bytes(settings.read_hash_key())
        self.violations: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.ids = [one.encode() for one in sorted(expected.sent)]

    def violated(self, invariant: str, detail: str) -> None:
        self.violations.append((invariant, detail))

    def by_key(self, topic: Topic) -> dict[bytes, list[bytes]]:
        """Return the values of each key, in the log's order: a key has one partition."""
        values: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for partition in self.partitions:
            log = self.logs[topic.name, partition]
            for key, value in zip(log.keys, log.values, strict=True):
                values[key or b""].append(value or b"")
        return values

    # -- what went out

    def decisions(self) -> None:
        """Every payment has one decision, and as many answers as it was sent."""
        decisions = self.by_key(DECISIONS)
        sent = {one.encode(): times for one, times in self.expected.sent.items()}
        self.counts["payments"] = len(sent)
        self.counts["decisions"] = sum(map(len, decisions.values()))
        self.counts["repeats"] = self.counts["decisions"] - sum(sent.values())
        lost = sorted(sent.keys() - decisions.keys())
        if lost:
            self.violated("every payment is decided on", f"{len(lost)} are not: {lost[:4]}")
        odd = sorted(decisions.keys() - sent.keys())
        if odd:
            self.violated("nothing else is decided on", f"{len(odd)}: {odd[:4]}")
        changed = {key: values for key, values in decisions.items() if len(set(values)) > 1}
        if changed:
            first = next(iter(changed.values()))
            self.violated("no decision differs from its first", f"{len(changed)} do: {list(dict.fromkeys(first))}")
        silent = [key for key, times in sent.items() if 0 < len(decisions.get(key, ())) < times]
        if silent:
            self.violated("each of the producer's retries is answered", f"{len(silent)} are not: {silent[:4]}")

    def dead_letters(self) -> None:
        """Every bad message has one dead letter, or the same one again; nothing else has."""
        letters: defaultdict[tuple[str, int, int], set[bytes]] = defaultdict(set)
        for values in self.by_key(REJECTED).values():
            for value in values:
                source = decode_dead_letter(value).source
                letters[source.topic, source.partition, source.offset].add(value)
        self.counts["dead letters"] = len(letters)
        bad = self.expected.bad
        if letters.keys() != bad:
            text = f"missing {sorted(bad - letters.keys())[:4]}, odd {sorted(letters.keys() - bad)[:4]}"
            self.violated("one dead letter for each bad message", text)
        changed = [place for place, values in letters.items() if len(values) > 1]
        if changed:
            self.violated("no dead letter differs from its first", f"{len(changed)} do: {changed[:4]}")

    def markers(self) -> None:
        """Every marker that follows from the feedback is there, as often as it was told or more."""
        wanted: Counter[bytes] = Counter()
        limits = TimeLimits()
        for partition in self.partitions:
            log = self.logs[FEEDBACK.name, partition]
            for send in mark_parties(log, partition, len(self.partitions), self.hash_key, limits).sends:
                wanted.update(value or b"" for value in (send.values if send.topic == MARKERS.name else ()))
        found: Counter[bytes] = Counter()
        for partition in self.partitions:
            found.update(value or b"" for value in self.logs[MARKERS.name, partition].values)
        self.counts["markers"] = wanted.total()
        if wanted - found or found.keys() - wanted.keys():
            text = f"{(wanted - found).total()} missing, {len(found.keys() - wanted.keys())} odd"
            self.violated("one marker for each marker of the feedback", text)

    # -- what is kept

    def receivers(self) -> None:
        """Restored receivers are those of an unbroken run over payments and markers; frames are what it sends."""
        wanted: defaultdict[tuple[int, int], set[bytes]] = defaultdict(set)
        for partition in self.partitions:
            unbroken = self._receiver_stage(partition)
            for output in _feed(unbroken.apply, self.logs[TRANSACTIONS.name, partition]):
                for send in output.sends:
                    _add_debits(wanted, send.values if send.topic == ENRICHED.name else ())
            _feed(unbroken.apply_markers, self.logs[MARKERS.name, partition])
            self._compare(RECEIVERS_TABLE, partition, self._receiver_stage(partition), unbroken)
        found: defaultdict[tuple[int, int], set[bytes]] = defaultdict(set)
        for partition in self.partitions:
            _add_debits(found, self.logs[ENRICHED.name, partition].values)
        wrong = [place for place in sorted({*found, *wanted}) if found.get(place) != wanted.get(place)]
        if wrong:
            self.violated("what stage 1 sends is that of an unbroken run", f"{len(wrong)} differ: {wrong[:4]}")

    def payers(self) -> None:
        """Restored payers are those of an unbroken run over the frames, and vectors are what it computes."""
        vectors: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for partition in self.partitions:
            unbroken = self._payer_stage(partition)
            unbroken.in_force.put(self.pack, unbroken.in_force.lists)
            for output in _feed(unbroken.apply, self.logs[ENRICHED.name, partition]):
                for send in output.sends:
                    if send.topic == FEATURES.name:
                        for key, value in zip(send.keys, send.values, strict=True):
                            vectors[key].add(_vector(value))
            self._compare(PAYERS_TABLE, partition, self._payer_stage(partition), unbroken)
        found = {key: set(map(_vector, values)) for key, values in self.by_key(FEATURES).items()}
        wrong = [key for key in sorted({*found, *vectors}) if found.get(key) != vectors.get(key)]
        if wrong:
            self.violated("every vector is that of an unbroken run", f"{len(wrong)} are not: {wrong[:4]}")

    def _receiver_stage(self, partition: int) -> ReceiverStage:
        limits = TimeLimits(
            self.settings.max_event_age_days * 86_400_000, self.settings.max_event_lead_hours * 3_600_000
        )
        return ReceiverStage(
            partition, len(self.partitions), TransactionDecoder(self.hash_key, limits), *_retry(self.settings)
        )

    def _payer_stage(self, partition: int) -> PayerStage:
        return PayerStage(partition, len(self.partitions), self.pack, *_retry(self.settings))

    def _compare(self, table: str, partition: int, restored: Any, unbroken: Any) -> None:  # noqa: ANN401 - either stage
        log = self.logs[changelog(self.settings.app_id, table).name, partition]
        rows = [(key, value) for key, value in zip(log.keys, log.values, strict=True) if key != CLAIM_KEY]
        restored.state.restore([key for key, _ in rows], [value for _, value in rows])
        restored.state.finish_restore()
        self.counts["rows compacted away"] += log.next_offset - len(log.keys)
        found, wanted = profile_rows(restored), profile_rows(unbroken)
        self.counts[f"{table} compared"] += len(wanted)
        wrong = [key.hex() for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
        name = f"{table}-{partition}"
        if wrong:
            text = f"{name}: {len(wrong)} of {len(wanted)} rows differ: {wrong[:4]}"
            self.violated("state equals that of an unbroken run", text)
        positions, ends = restored.state.next_offsets(), unbroken.state.next_offsets()
        if {topic: offset for topic, offset in positions.items() if offset} != ends:
            self.violated("state reflects the whole log", f"{name}: {positions}, the logs end at {ends}")
        odd = known_ids(restored, self.ids) ^ known_ids(unbroken, self.ids)
        if odd:
            self.violated("ids known are those of an unbroken run", f"{name}: {len(odd)} differ: {sorted(odd)[:4]}")


def _retry(settings: Settings) -> tuple[int, int]:
    return settings.retry_window_s * 1000, settings.retry_max_ids


def _vector(message: bytes) -> bytes:
    """Return what a message says of a payment whatever the rules in force: the vector itself."""
    return decode_vectors([message]).matrix.tobytes()


def _feed(apply: Callable[[Stretch], Any], log: Stretch) -> list[Any]:
    return [apply(log)] if log.next_offset else []


def _add_debits(debits: dict[tuple[int, int], set[bytes]], values: Iterable[bytes | None]) -> None:
    """Take up the debits of frames, by partition and offset of the payment, without what depends on markers.

    A replay may meet markers earlier than the first run did; stage 2 has decided on the first run's by then.
    """
    for upstream, rows, _ in chain.from_iterable(map(read_frame, values)):
        for row in rows:
            steady = row["receiver"][STEADY].tobytes()
            seen = row["transaction"].tobytes() + row["received_at"].tobytes() + row["retry"].tobytes() + steady
            debits[upstream, int(row["transaction"]["source_offset"])].add(seen)


def check_logs(logs: Places, expected: Expected, settings: Settings, pack: RulePack) -> Found:
    """Hold the topics of a run against what was sent and against an unbroken run over them.

    Parameters
    ----------
    logs
        All topics.
    expected
        What the producer was told is in the log.
    settings
        Of the workers.
    pack
        Any: the state does not depend on it.
    """
    check = _Check(logs, expected, settings, pack)
    check.decisions()
    check.dead_letters()
    check.markers()
    check.receivers()
    check.payers()
    return Found(check.counts, tuple(check.violations))
