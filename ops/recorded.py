"""Training sets: from simulated traffic in one process, and from what a running installation has recorded.

Both come from the same path: the vectors are those that payments were decided on, and labels are what a bank comes to
know, when it does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from aiokafka import TopicPartition

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.feedback import decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.labelled import Labelled, decode_labelled
from app.domain.rejection import Rejection
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.kafka_options import client_options
from app.settings import Settings
from app.topic_reading import extent, open_reader, stretches
from app.topics import LABELLED, Topic
from models.batch.training_set import STATE_DTYPE, UNKNOWN, TrainingSet, TrainingSetError
from models.labels.labelling import Label, LabelState, statement
from models.rules.pack import RulePack
from models.stages.pipeline import Message, Pipeline
from models.stages.receivers import FEATURES_VERSION
from ops.traffic.feedback import FeedbackConfig, FeedbackMessage, MedFeedback
from ops.traffic.generator import Simulated, TrafficConfig, generate
from tables.catalog import CATALOG
from tables.layout import DAY_MS

__all__ = ["Simulation", "recorded_set", "simulated_set", "training_set"]

Progress = Callable[[float], None]

MATURITY_DAYS: Final = 91.0
"""80 days to contest and 11 to close: what nobody has contested by then is taken to be honest."""

_BATCH = 500
_PARTITIONS = 2
_HASH_KEY = bytes(range(16))
"""Pseudonyms of people who do not exist need no secret."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What is simulated for a training set; the same values give the same set, byte for byte.

    Parameters
    ----------
    seed
        Of people, payments, frauds and feedback.
    payments
        Messages, about as many rows.
    days
        Of event time over which they spread.
    fraud_share
        Share of payments that belong to a fraud. The real share is 0.000042: raised, so that a short run can be
        learned from.
    delay_scale
        Factor on the delays of feedback and of DICT's counters, for a maturity that fits into `days`.
    maturity_days
        Age at which a label is taken; None: 91 days times `delay_scale`.
    start_ms
        Epoch ms of the first instant.
    absent
        Frauds that begin late: typology, and the day of the simulation before which it does not happen.
    """

    seed: int = 1
    payments: int = 100_000
    days: float = 30.0
    fraud_share: float = 0.005
    delay_scale: float = 0.05
    maturity_days: float | None = None
    start_ms: int = 1_788_220_800_000  # 2026-09-01
    absent: Mapping[str, float] = field(default_factory=dict)

    @property
    def maturity_ms(self) -> int:
        """Age at which a label is taken."""
        days = MATURITY_DAYS * self.delay_scale if self.maturity_days is None else self.maturity_days
        return round(days * DAY_MS)

    @property
    def traffic(self) -> TrafficConfig:
        """The traffic that is generated."""
        return TrafficConfig(
            self.start_ms,
            seed=self.seed,
            rate_per_s=self.payments / (self.days * 86_400),
            count=self.payments,
            fraud_share=self.fraud_share,
            report_delay_scale=self.delay_scale,
        )

    def messages(self) -> Iterator[Simulated]:
        """Yield the traffic in order of arrival, without frauds that have not begun."""
        begins = {name: self.start_ms + days * DAY_MS for name, days in self.absent.items()}
        for simulated in generate(self.traffic):
            if simulated.label is None or simulated.arrival_ms >= begins.get(simulated.label.typology.value, 0):
                yield simulated


def training_set(
    source: Simulation | Iterable[Labelled], *, maturity_ms: int | None = None, progress: Progress | None = None
) -> TrainingSet:
    """Return the labelled vectors of a source: the one way from data to what models learn from.

    Parameters
    ----------
    source
        A simulation, or messages of `pix-labelled` in any order.
    maturity_ms
        Age at which labels of recorded payments are taken; needed for messages.
    progress
        Called with the share done.

    Raises
    ------
    TrainingSetError
        When messages are of several feature sets, or of another one than this version computes.
    """
    if isinstance(source, Simulation):
        return simulated_set(source, progress=progress)
    if maturity_ms is None:
        raise TrainingSetError("training set: expected a maturity for recorded payments, got none")
    return _labelled_set(source, maturity_ms)


# -- simulated


def simulated_set(
    simulation: Simulation, *, pack: RulePack | None = None, progress: Progress | None = None
) -> TrainingSet:
    """Run simulated payments through both stages, with fraud markers as they come, and label them.

    Parameters
    ----------
    simulation
        What is simulated.
    pack
        The rules whose score is recorded; the shipped ones where None.
    progress
        Called with the share done, now and then.

    Returns
    -------
    One row per scored payment (no refunds). Labels are those of maturity; `states` has what became known after it.
    """
    run = _SimulatedRun(simulation, pack or read_pack(DEFAULT_RULES), progress or (lambda _share: None))
    return run.collect()


class _SimulatedRun:
    """One simulation on its way through the pipeline."""

    def __init__(self, simulation: Simulation, pack: RulePack, progress: Progress) -> None:
        self._simulation, self._progress = simulation, progress
        self._hash_key = HashKey.from_bytes(_HASH_KEY)
        self._pipeline = Pipeline(_PARTITIONS, TransactionDecoder(self._hash_key, TimeLimits()), pack)
        self._pending: list[Message] = []
        self._said: dict[bytes, LabelState] = {}
        self._typologies: dict[bytes, str] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in ("vectors", "rules_scores", *_TAKEN.values())}

    def collect(self) -> TrainingSet:
        simulation = self._simulation
        med = MedFeedback(FeedbackConfig(simulation.seed, delay_scale=simulation.delay_scale))
        for number, simulated in enumerate(simulation.messages()):
            for told in med.due(simulated.arrival_ms):
                self._hear(told)
            med.observe(simulated)
            self._take(simulated)
            if number % 2_000 == 0:
                self._progress(number / simulation.payments)
        self._push()
        for told in med.drain():  # the payments are over: what is told now only changes labels
            self._learn_label(told)
        self._progress(1.0)
        return self._labelled()

    def _take(self, simulated: Simulated) -> None:
        if simulated.label is not None and simulated.payment is not None:
            self._typologies[simulated.payment.end_to_end_id.encode()] = simulated.label.typology.value
        self._pending.append(Message(simulated.key, simulated.value, simulated.arrival_ms))
        if len(self._pending) == _BATCH:
            self._push()

    def _push(self) -> None:
        output = self._pipeline.push(self._pending)
        self._pending = []
        for batch in output.decided:
            decided = batch.decided
            scored = decided.rows["scored"]
            self._columns["vectors"].append(decided.vectors[scored])
            self._columns["rules_scores"].append(decided.scores["rules"][scored])
            for source, name in _TAKEN.items():
                self._columns[name].append(decided.transactions[source][scored])

    def _hear(self, told: FeedbackMessage) -> None:
        """Let a message of feedback change labels and, where it is a fraud marker, what is known of the parties."""
        self._learn_label(told)
        if b"FRAUD_MARKER" in told.value:
            self._push()  # payments that came before it do not know of it
            self._pipeline.hear([Message(told.key, told.value, told.at_ms)], self._hash_key, TimeLimits())

    def _learn_label(self, told: FeedbackMessage) -> None:
        feedback = decode_feedback(told.value, told.key, told.at_ms, TimeLimits())
        if isinstance(feedback, Rejection):
            raise TypeError(f"simulated feedback: {feedback.path}: expected {feedback.expected}, got {feedback.got}")
        said = statement(feedback, told.at_ms)
        if said is not None:
            self._said[told.key] = self._said.get(told.key, LabelState()).told([said])

    def _labelled(self) -> TrainingSet:
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        ids: list[bytes] = columns["ids"].tolist()
        matured = columns["event_time"] + self._simulation.maturity_ms
        states = _states(self._said, ids, matured)
        typologies = np.array([self._typologies.get(each, "") for each in ids], np.str_)
        return _from_states(columns.pop("vectors"), states, typologies=typologies, truth=typologies != "", **columns)


_TAKEN = {
    "end_to_end_id": "ids", "timestamp": "event_time", "amount_centavos": "amounts", "initiation": "channels",
}  # fmt: skip
"""Columns of transactions, and the set's that they are."""


def _states(said: Mapping[bytes, LabelState], ids: list[bytes], matured: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return every state of each label from its maturity on; `STATE_DTYPE`."""
    states: list[tuple[int, int, int, float]] = []
    silent: list[int] = []
    for row, (identity, at_ms) in enumerate(zip(ids, matured.tolist(), strict=True)):
        state = said.get(identity)
        if state is None:
            silent.append(row)
            continue
        instants = sorted({at_ms, *(each.known_at for each in state.statements if each.known_at > at_ms)})
        states += [(row, instant, *_as_number(state.as_of(instant))) for instant in instants]
    spoken = np.array(states, STATE_DTYPE)
    quiet = np.zeros(len(silent), STATE_DTYPE)
    quiet["row"], quiet["known_at"], quiet["weight"] = silent, matured[silent], 1.0
    return np.concatenate([quiet, spoken])


def _as_number(label: Label) -> tuple[int, float]:
    """Return label and weight at or after maturity: where nobody says anything, the payment was honest."""
    if label.basis == "MATURITY":
        return 0, label.weight
    return (UNKNOWN if label.label is None else label.label), label.weight


def _from_states(vectors: np.ndarray[Any, Any], states: np.ndarray[Any, Any], **columns: Any) -> TrainingSet:  # noqa: ANN401
    """Make a set whose labels are the first known states of their rows."""
    n = len(vectors)
    labels, known_at, weights = np.full(n, UNKNOWN, np.int8), np.zeros(n, np.int64), np.ones(n)
    ordered = states[np.argsort(states["known_at"], kind="stable")]
    # Written from the last to the first, so that the first known one stays.
    for state in (ordered[::-1], ordered[ordered["label"] != UNKNOWN][::-1]):
        labels[state["row"]] = state["label"]
        known_at[state["row"]] = state["known_at"]
        weights[state["row"]] = state["weight"]
    return TrainingSet.build(
        FEATURES_VERSION,
        CATALOG.names,
        vectors,
        states=ordered,
        labels=labels,
        known_at=known_at,
        weights=weights,
        **columns,
    )


# -- recorded


async def recorded_set(
    settings: Settings, *, maturity_ms: int, topic: Topic = LABELLED, progress: Progress | None = None
) -> TrainingSet:
    """Read `pix-labelled` from its oldest retained message to its present end.

    Parameters
    ----------
    settings
        Name the cluster.
    maturity_ms
        Age at which labels are taken.
    topic
        Another one with such messages, for example a copy of an earlier recording.
    progress
        Called with the share read.

    Raises
    ------
    TrainingSetError
        When nothing usable has been recorded.
    LabelledError, aiokafka.errors.KafkaError
        For a message that is none; when the cluster cannot be reached.
    """
    messages = [message async for message in _read(settings, topic, progress or (lambda _share: None))]
    return training_set(messages, maturity_ms=maturity_ms)


async def _read(settings: Settings, topic: Topic, progress: Progress) -> AsyncIterator[Labelled]:
    place = TopicPartition(topic.name, 0)
    async with open_reader(client_options(settings)) as consumer:
        begin, end = await extent(consumer, place)
        async for stretch in stretches(consumer, place, begin, end):
            for value in stretch.values:
                yield decode_labelled(value)
            progress((stretch.next_offset - begin) / (end - begin))


def _labelled_set(messages: Iterable[Labelled], maturity_ms: int) -> TrainingSet:
    """Join what was said of each payment; repeats after a crash change nothing."""
    matured: dict[str, Labelled] = {}
    revisions: dict[str, list[Labelled]] = {}
    for message in messages:
        if message.rules_score is None:  # a refund, which nobody scores
            continue
        if message.fingerprint != FEATURES_VERSION:
            raise TrainingSetError(
                f"training set: expected vectors of the feature set {FEATURES_VERSION}, got {message.fingerprint} of "
                f"{message.end_to_end_id}: another version of pixguard recorded them; train with that version, or "
                "wait until the recording has aged out"
            )
        if message.kind == "MATURED":
            matured.setdefault(message.end_to_end_id, message)
        else:
            revisions.setdefault(message.end_to_end_id, []).append(message)
    rows: list[Labelled] = []
    states: list[tuple[int, int, int, float]] = []
    for identity in dict.fromkeys([*matured, *revisions]):
        later = revisions.get(identity, [])
        first = matured.get(identity) or later[0]
        # What was not matured with a label was unknown then: what is told of it is taken at the same age, or later.
        due = min(first.event_time, first.decided_at) + maturity_ms
        base = first.known_at if first.kind == "MATURED" else due
        told = [] if first.kind == "REVISION" else [(base, first)]
        told += [(max(each.known_at, base), each) for each in later if each.known_at > base or not told]
        for known_at, each in told:
            label, weight = _as_number(Label(each.label, each.basis, each.weight))
            states.append((len(rows), known_at, label, weight))
        rows.append(first)
    if not rows:
        raise TrainingSetError(
            f"training set: {LABELLED.name} holds no labelled payment yet: labels are taken "
            f"{maturity_ms / DAY_MS:g} days after a payment; wait, or simulate with faster feedback"
        )
    return _from_states(
        np.stack([each.features for each in rows]),
        np.array(states, STATE_DTYPE),
        ids=[each.end_to_end_id.encode() for each in rows],
        event_time=[each.event_time for each in rows],
        amounts=[each.amount_centavos for each in rows],
        channels=[each.channel for each in rows],
        # What a bank knows of the typology is the situation of the report.
        typologies=[(each.situation or each.fraud_type or "").lower() for each in map(_latest(revisions), rows)],
        **{name: [_number(getattr(each, source)) for each in rows] for name, source in _SCORES.items()},
    )


_SCORES = {"rules_scores": "rules_score", "online_scores": "online_score", "batch_scores": "batch_score"}


def _latest(revisions: Mapping[str, list[Labelled]]) -> Callable[[Labelled], Labelled]:
    return lambda message: revisions.get(message.end_to_end_id, [message])[-1]


def _number(score: float | None) -> float:
    return float("nan") if score is None else score
