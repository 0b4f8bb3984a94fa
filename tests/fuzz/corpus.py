"""Real messages to mutate: simulated traffic in which every field and every admitted value occurs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

from app.domain.fields import FIELDS, FIELDS_BY_NAME, Kind
from ops.traffic.generator import TrafficConfig, generate

__all__ = ["Corpus", "Pair", "Specimen", "build_corpus", "token"]

Pair = tuple[bytes, bytes]
"""A name and a value as they stand in the message: the name with its quotes, the value as a JSON token."""

_START_MS = 1_790_000_000_000
_MESSAGES = 1500
"""Of each sort of traffic: with the DICT counters that banks use most, and with all of them."""

_COMMON_VALUE: dict[Kind, object] = {Kind.TIMESTAMP: 1_700_000_000_000, Kind.COUNT: 3, Kind.CENTAVOS: 250_000}
"""For each optional field of these kinds, in case traffic has none."""

_PERSONAL = (Kind.IDENTIFIER, Kind.TAX_ID, Kind.PIX_KEY, Kind.TEXT)
_MIN_SECRET = 8
"""Shorter texts may stand in a rejection by chance, as part of a bound or of an offset."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """One good message.

    Parameters
    ----------
    value, key, kafka_ms
        The message as Kafka delivers it, and its Kafka timestamp.
    pairs
        Its fields, in order.
    secrets
        What it says about people: no rejection may repeat it.
    """

    value: bytes
    key: bytes
    kafka_ms: int
    pairs: tuple[Pair, ...]
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All specimens, and for each field the tokens that they hold."""

    specimens: tuple[Specimen, ...]
    tokens: dict[str, tuple[bytes, ...]]


def token(value: object) -> bytes:
    """Return the JSON of a value, in the form in which most programs write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def build_corpus() -> Corpus:
    """Return the corpus; always the same one, since a replay must find it again."""
    traffic = chain.from_iterable(
        generate(
            TrafficConfig(start_ms=_START_MS, count=_MESSAGES, rate_per_s=2.0, malformed_share=0.0, full_snapshot=full)
        )
        for full in (False, True)
    )
    specimens = [_specimen(one.value, one.key, one.arrival_ms) for one in traffic]
    specimens += _with_rare_values(specimens)
    tokens: defaultdict[str, dict[bytes, None]] = defaultdict(dict)
    for specimen in specimens:
        for name, value in specimen.pairs:
            tokens[name[1:-1].decode()][value] = None
    return Corpus(tuple(specimens), {name: tuple(found) for name, found in tokens.items()})


def _specimen(value: bytes, key: bytes, kafka_ms: int) -> Specimen:
    fields: dict[str, object] = json.loads(value)
    pairs = tuple((token(name), token(member)) for name, member in fields.items())
    secrets = (str(member) for name, member in fields.items() if FIELDS_BY_NAME[name].kind in _PERSONAL)
    return Specimen(value, key, kafka_ms, pairs, tuple(secret for secret in secrets if len(secret) >= _MIN_SECRET))


def _with_rare_values(specimens: list[Specimen]) -> Iterator[Specimen]:
    """Yield specimens with what traffic seldom or never shows, such as a refund's purpose or an open claim."""
    for place, (name, value) in enumerate(_rare_values()):
        specimen = specimens[place]
        fields: dict[str, object] = json.loads(specimen.value) | {name: value}
        yield _specimen(token(fields), specimen.key, specimen.kafka_ms)


def _rare_values() -> Iterator[tuple[str, object]]:
    for field in FIELDS:
        if field.required and not field.values:
            continue
        if field.kind in _COMMON_VALUE:
            yield field.name, _COMMON_VALUE[field.kind]
        if field.name != "pix_key_type":  # which follows from the key; traffic has all of them
            for value in field.values:
                yield field.name, [value] if field.kind is Kind.FLAGS else value
