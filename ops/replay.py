"""`pixguard replay`: a recorded stretch, or a file, decided on again by other rules.

From the topics: `pix-enriched` is read from its oldest retained offset and goes through stage 2 as it did live (its
order is the live order), under the lists that each live decision names, with the scores of models that `pix-features`
recorded beside it. With the rules of the live run the decisions come out byte for byte. Where retention has cut the
log, the profiles of that time are gone: then the vectors on `pix-features` take the computed ones' place.

From a file: both stages run from an empty state, and the rules in force are the comparison.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from app.domain.decision import Decision, decode_decision
from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.rejection import Rejection
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.domain.vectors import decode_vectors
from app.kafka_options import client_options
from app.settings import Settings
from app.topic_reading import extent, open_reader, stretches
from app.topics import DECISIONS, ENRICHED, FEATURES, LISTS, Topic
from models.ensemble import no_scores
from models.rules.lists import Lists, ListUpdate, decode_list_update
from models.rules.pack import RulePack
from models.stages.judging import Observed, judge, quote_models, recorded_scores
from models.stages.payers import PayerStage
from models.stages.pipeline import Message, Pipeline
from ops.files import read_transactions
from ops.mapping import FileMapping

__all__ = ["ReplayReport", "replay_file", "replay_topics"]

_EXAMPLES = 10
_NO_MODEL = b'"online_model":null,"batch_model":null'

Progress = Callable[[float], None]


@dataclass(slots=True)
class ReplayReport:
    """What other rules would change.

    Parameters
    ----------
    before, after
        Names of the rule packs (several before, where the live run changed its own).
    transactions
        Decisions compared.
    identical
        Of these, the same to the byte.
    actions
        Count and centavos by (action before, action after).
    rules
        By rule: fired before, fired after.
    examples
        A few whose action changes: before, after.
    unmatched
        Decisions without a recorded one to compare with.
    recomputed, recorded
        Vectors that were computed again, and that were taken from `pix-features`.
    rejected
        Messages of a file that were no transactions.
    """

    before: set[str] = field(default_factory=set)
    after: str = ""
    transactions: int = 0
    identical: int = 0
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    centavos: Counter[tuple[str, str]] = field(default_factory=Counter)
    rules: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    examples: list[tuple[Decision, Decision]] = field(default_factory=list)
    unmatched: int = 0
    recomputed: int = 0
    recorded: int = 0
    rejected: int = 0

    @property
    def changed(self) -> int:
        """Transactions whose action changes."""
        return sum(count for (before, after), count in self.actions.items() if before != after)

    def compare(self, before: Decision, after: Decision, amount_centavos: int, *, same_bytes: bool) -> None:
        """Count one transaction."""
        self.before.add(before.versions.rules)
        self.transactions += 1
        self.identical += same_bytes
        pair = (before.decision, after.decision)
        self.actions[pair] += 1
        self.centavos[pair] += amount_centavos
        for rule in before.rules:
            self.rules[rule][0] += 1
        for rule in after.rules:
            self.rules[rule][1] += 1
        if before.decision != after.decision and len(self.examples) < _EXAMPLES:
            self.examples.append((before, after))


def replay_file(
    settings: Settings,
    path: Path,
    *,
    before: RulePack,
    after: RulePack,
    mapping: FileMapping | None = None,
    format: str | None = None,  # noqa: A002 - the name of the command's option
    progress: Progress | None = None,
) -> ReplayReport:
    """Run a file through both stages and compare two packs on each transaction.

    Raises
    ------
    FileError, MappingError
        When the file cannot be read.
    """
    hash_key = HashKey.from_bytes(settings.read_hash_key())
    # A file's messages carry no Kafka timestamp of their own: each is taken to arrive at its own time.
    decoder = TransactionDecoder(hash_key, TimeLimits())
    pipeline = Pipeline(
        settings.partitions,
        decoder,
        before,
        retry_window_ms=settings.retry_window_s * 1000,
        retry_max_ids=settings.retry_max_ids,
    )
    judge_stage = PayerStage(0, 1, after, 1000, 1)
    judge_stage.in_force.put(after, Lists())
    report = ReplayReport(after=after.name)
    for chunk in read_transactions(path, mapping=mapping, format=format, on_position=progress):
        output = pipeline.push(
            Message(key, value, -1 if time_ms is None else time_ms)
            for key, value, time_ms in zip(chunk.keys, chunk.values, chunk.times_ms, strict=True)
        )
        report.rejected += len(output.rejections)
        for batch in output.decided:
            decided = batch.decided
            report.recomputed += len(decided.rows)
            observed = Observed(
                decided.transactions,
                decided.received_at,
                decided.rows["timestamp"],
                decided.rows["scored"],
                decided.vectors,
            )
            rows = judge(observed, after, Lists(), no_scores(len(decided.rows)))
            again = judge_stage.writer.encode(rows)
            amounts = decided.transactions["amount_centavos"].tolist()
            for old, new, amount in zip(decided.messages, again, amounts, strict=True):
                report.compare(decode_decision(old), decode_decision(new), amount, same_bytes=old == new)
    return report


async def replay_topics(settings: Settings, pack: RulePack, *, progress: Progress | None = None) -> ReplayReport:
    """Decide again on what `pix-enriched` still holds, and compare with the live decisions.

    Raises
    ------
    FrameError
        When another version of pixguard wrote the topic.
    aiokafka.errors.KafkaError
        When the cluster cannot be reached.
    """
    async with open_reader(client_options(settings)) as consumer:
        log = _Log(consumer, settings.partitions)
        report = ReplayReport(after=pack.name)
        history = await _list_history(log, settings)
        live = {record.key: record.value async for record in log.records(DECISIONS)}
        total, done = await log.size(ENRICHED), 0
        is_cut = {partition: await log.begin(ENRICHED, partition) > 0 for partition in log.partitions(ENRICHED)}
        vectors: dict[bytes, bytes] = {}
        if any(is_cut.values()) or not all(_NO_MODEL in value for value in live.values()):
            vectors = {record.key: record.value async for record in log.records(FEATURES)}
        for partition in log.partitions(ENRICHED):
            stage = PayerStage(
                partition, settings.partitions, pack, settings.retry_window_s * 1000, settings.retry_max_ids
            )
            stage.in_force.put(pack, Lists())
            async for stretch in log.stretches(ENRICHED, partition):
                _decide_again(stage, stretch, live, vectors, history, report, is_cut=is_cut[partition])
                done += stretch.next_offset - stretch.base
                if progress is not None and total:
                    progress(done / total)
                await asyncio.sleep(0)
        return report


def _decide_again(
    stage: PayerStage,
    stretch: Stretch,
    live: dict[bytes, bytes],
    vectors: dict[bytes, bytes],
    history: _ListHistory,
    report: ReplayReport,
    *,
    is_cut: bool,
) -> None:
    pack = stage.in_force.pack
    observed = stage.observe(stretch)
    ids: list[bytes] = observed.transactions["end_to_end_id"].tolist()
    stage.remember(judge(observed, pack, Lists(), no_scores(len(ids))))
    recorded = [live.get(end_to_end_id) for end_to_end_id in ids]
    report.unmatched += recorded.count(None)
    found = [place for place, end_to_end_id in enumerate(ids) if end_to_end_id in vectors]
    told = decode_vectors([vectors[ids[place]] for place in found])
    scores = no_scores(len(ids))
    scores[found] = recorded_scores(told.rows)
    report.recomputed += len(ids) - (len(found) if is_cut else 0)
    if is_cut and found:
        report.recorded += len(found)
        matrix = observed.vectors.copy()
        matrix[found] = told.matrix
        observed = replace(observed, vectors=matrix)
    before = [None if value is None else decode_decision(value) for value in recorded]
    by_lists: defaultdict[int, list[int]] = defaultdict(list)
    for place, decision in enumerate(before):
        if decision is not None:
            by_lists[decision.versions.lists].append(place)
    for version, places in by_lists.items():
        part = Observed(
            observed.transactions[places],
            observed.received_at[places],
            observed.log_ms[places],
            observed.scored[places],
            observed.vectors[places],
        )
        rows = judge(part, pack, history.at(version), scores[places])
        quote_models(rows, [before[place] for place in places])
        again = stage.writer.encode(rows)
        amounts = part.transactions["amount_centavos"].tolist()
        for place, new, amount in zip(places, again, amounts, strict=True):
            old = before[place]
            if old is not None:
                report.compare(old, decode_decision(new), amount, same_bytes=new == recorded[place])


class _ListHistory:
    """The lists as they were at each version; what compaction has removed cannot be brought back."""

    def __init__(self, updates: Iterable[tuple[int, ListUpdate | None]]) -> None:
        self._updates = list(updates)
        self._known: dict[int, Lists] = {}

    def at(self, version: int) -> Lists:
        lists = self._known.get(version)
        if lists is None:
            updates = [update for offset, update in self._updates if offset < version and update is not None]
            lists = self._known[version] = Lists().apply(updates, version)
        return lists


async def _list_history(log: _Log, settings: Settings) -> _ListHistory:
    hash_key = HashKey.from_bytes(settings.read_hash_key())
    updates = []
    async for record in log.records(LISTS):
        update = decode_list_update(record.key, record.value, hash_key)
        updates.append((record.offset, None if isinstance(update, Rejection) else update))
    return _ListHistory(updates)


class _Log:
    """Reads topics from their oldest offset to where they end now."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: int) -> None:
        self._consumer = consumer
        self._partitions = partitions

    def partitions(self, topic: Topic) -> range:
        return range(topic.partitions or self._partitions)

    async def begin(self, topic: Topic, partition: int) -> int:
        return (await extent(self._consumer, TopicPartition(topic.name, partition)))[0]

    async def size(self, topic: Topic) -> int:
        extents = [
            await extent(self._consumer, TopicPartition(topic.name, number)) for number in self.partitions(topic)
        ]
        return sum(end - begin for begin, end in extents)

    async def stretches(self, topic: Topic, partition: int) -> AsyncIterator[Stretch]:
        place = TopicPartition(topic.name, partition)
        async for stretch in stretches(self._consumer, place, *await extent(self._consumer, place)):
            yield stretch

    async def records(self, topic: Topic) -> AsyncIterator[_Record]:
        for partition in self.partitions(topic):
            async for stretch in self.stretches(topic, partition):
                for record in _rows(stretch):
                    yield record


@dataclass(frozen=True, slots=True)
class _Record:
    key: bytes
    value: bytes
    offset: int


def _rows(stretch: Stretch) -> Iterator[_Record]:
    for key, value, offset in zip(stretch.keys, stretch.values, stretch.offsets, strict=True):
        yield _Record(key or b"", value or b"", offset)
