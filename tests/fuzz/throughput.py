"""What bad messages cost: the same traffic with and without them, in turn, in processor time per message."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.rejection import Rejection
from app.domain.transaction import TransactionDecoder, decode_strict
from models.stages.pipeline import Message, Pipeline
from ops.traffic.generator import TrafficConfig, generate

from .corpus import build_corpus
from .differential import LIMITS, make_decoder
from .mutants import make_mutant

__all__ = ["BAD_SHARE", "MAX_SLOWDOWN", "Cost", "measure_cost"]

BAD_SHARE = 0.01
MAX_SLOWDOWN = 1.05
"""What the issue allows."""

_BATCH = 2000
_ROUND = 4000
_MAX_BAD_BYTES = 65_536
_START_MS = 1_790_000_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured: medians over the rounds, in us of processor time per message.

    Parameters
    ----------
    clean_decoder_us, bad_decoder_us
        The decoder alone, without bad messages and with `BAD_SHARE` of them.
    clean_path_us, bad_path_us
        Decoder, both stages, rules, encoding, dead letters and checkpoints: the worker without its Kafka clients.
    reasons
        Why the bad ones are rejected.
    mean_bad_bytes
        Their mean size.
    """

    clean_decoder_us: float
    bad_decoder_us: float
    clean_path_us: float
    bad_path_us: float
    reasons: Counter[str]
    mean_bad_bytes: float

    @property
    def decoder_ratio(self) -> float:
        """How much dearer a message is for the decoder alone."""
        return self.bad_decoder_us / self.clean_decoder_us

    @property
    def path_ratio(self) -> float:
        """How much dearer a message is on the whole path; at most `MAX_SLOWDOWN`."""
        return self.bad_path_us / self.clean_path_us


def measure_cost(seed: int, rounds: int) -> Cost:
    """Measure, round by round, the order of the two changing.

    Parameters
    ----------
    seed
        Of the mutants that are mixed in: whatever the strict decoder rejects among them, in their natural mix, up to
        64 KiB each (a megabyte of noise once would be all that one round shows).
    rounds
        Of 4,000 messages each, after two that warm up.
    """
    chance = random.Random(seed)
    traffic = _traffic((rounds + 2) * _ROUND)
    bad: list[tuple[bytes, Rejection]] = []
    mutants = _bad_messages(seed)
    every = round(1 / BAD_SHARE)
    spoilt = list(traffic)
    for start in range(0, len(traffic), every):  # one in each hundred, so that every round has its share exactly
        place = start + chance.randrange(every)
        spoilt[place] = _spoilt(traffic[place], mutants, bad)
    decoder, pack = make_decoder(), read_pack(DEFAULT_RULES)
    clean_pipeline, bad_pipeline = Pipeline(1, decoder, pack), Pipeline(1, decoder, pack)
    works: tuple[tuple[Sequence[Message], Callable[[list[Message]], object]], ...] = (
        (traffic, lambda batch: _decode(decoder, batch)),
        (spoilt, lambda batch: _decode(decoder, batch)),
        (traffic, lambda batch: _push(clean_pipeline, batch)),
        (spoilt, lambda batch: _push(bad_pipeline, batch)),
    )
    measured: list[list[float]] = [[] for _ in works]
    for start in range(0, len(traffic), _ROUND):
        order = chance.sample(range(len(works)), len(works))
        for place in order:
            messages, work = works[place]
            measured[place].append(_per_message_us(messages[start : start + _ROUND], work))
    clean_decoder_us, bad_decoder_us, clean_path_us, bad_path_us = (median(figures[2:]) for figures in measured)
    reasons = Counter(fault.reason.value for _, fault in bad)
    mean_bytes = sum(len(value) for value, _ in bad) / len(bad)
    return Cost(clean_decoder_us, bad_decoder_us, clean_path_us, bad_path_us, reasons, mean_bytes)


def _traffic(number: int) -> list[Message]:
    config = TrafficConfig(start_ms=_START_MS, count=number, rate_per_s=100.0, malformed_share=0.0)
    return [Message(one.key, one.value, one.arrival_ms) for one in generate(config)]


def _bad_messages(seed: int) -> Iterator[tuple[bytes, bytes | None]]:
    corpus = build_corpus()
    for number in count():
        mutant = make_mutant(corpus, seed, number)
        if mutant.value is not None and len(mutant.value) <= _MAX_BAD_BYTES:
            yield mutant.value, mutant.key


def _spoilt(
    message: Message, mutants: Iterator[tuple[bytes, bytes | None]], bad: list[tuple[bytes, Rejection]]
) -> Message:
    """Return the next mutant that is rejected, at the place and time of a good message."""
    for value, key in mutants:
        fault = decode_strict(value, key, message.timestamp_ms, LIMITS)
        if isinstance(fault, Rejection):
            bad.append((value, fault))
            return Message(key, value, message.timestamp_ms)
    return message


def _per_message_us(messages: Sequence[Message], work: Callable[[list[Message]], object]) -> float:
    batches = [list(messages[start : start + _BATCH]) for start in range(0, len(messages), _BATCH)]
    started = time.process_time()
    for batch in batches:
        work(batch)
    return (time.process_time() - started) / len(messages) * 1e6


def _decode(decoder: TransactionDecoder, batch: list[Message]) -> None:
    decoder.decode(
        [one.value for one in batch],
        [one.key for one in batch],
        [one.timestamp_ms for one in batch],
        range(len(batch)),
        0,
    )


def _push(pipeline: Pipeline, batch: list[Message]) -> None:
    pipeline.push(batch)
    for state in pipeline.states:
        state.export()
        state.acknowledged()
