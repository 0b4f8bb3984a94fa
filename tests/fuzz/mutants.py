"""The mutants: each a function of the seed and of its number alone, so that any of them can be made again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from app.domain.rejection import Reason

from .corpus import Corpus
from .damage import DAMAGES, noise, replace_bytes
from .draft import ACCEPTED, Claim, Draft
from .structure import STRUCTURAL

__all__ = ["MUTATORS", "NEIGHBOUR_EVERY", "Mutant", "make_mutant"]

NEIGHBOUR_EVERY = 11
"""Numbers that it divides are good messages: they must come through whatever stands beside them."""

_STRUCTURAL, _DAMAGES = tuple(STRUCTURAL.items()), tuple(DAMAGES.items())
MUTATORS: tuple[str, ...] = ("none", *STRUCTURAL, *DAMAGES, "tombstone")
"""Names of all mutators; "none" for the good neighbours."""

_NUMBER_BITS = 48


@dataclass(frozen=True, slots=True)
class Mutant:
    """One message of a run.

    Parameters
    ----------
    number
        Names it within the run.
    value, key, kafka_ms
        The message as Kafka delivers it, and its Kafka timestamp.
    mutators
        What was done to it, in order.
    claim
        What must come of it, where that is known.
    secrets
        What its original said about people.
    """

    number: int
    value: bytes | None
    key: bytes | None
    kafka_ms: int
    mutators: tuple[str, ...]
    claim: Claim | None
    secrets: tuple[str, ...]


def make_mutant(corpus: Corpus, seed: int, number: int) -> Mutant:
    """Return one message of the run.

    Parameters
    ----------
    corpus
        Of `build_corpus`.
    seed
        Of the run, 0 or more.
    number
        From 0 on.
    """
    chance = random.Random(seed << _NUMBER_BITS | number)
    specimen = chance.choice(corpus.specimens)
    if number % NEIGHBOUR_EVERY == 0:
        key, kafka_ms = specimen.key, specimen.kafka_ms
        return Mutant(number, specimen.value, key, kafka_ms, ("none",), ACCEPTED, specimen.secrets)
    if chance.random() < 0.01:
        dead = Claim("$", (Reason.TOMBSTONE,))
        return Mutant(number, None, specimen.key, specimen.kafka_ms, ("tombstone",), dead, specimen.secrets)
    draft = Draft(specimen, corpus, list(specimen.pairs), specimen.key, specimen.kafka_ms)
    names: list[str] = []
    claim: Claim | None = None
    is_structural = chance.random() < 0.7
    if is_structural:
        claim = _restructure(chance, draft, names)
    value = draft.write() if is_structural else specimen.value
    if not is_structural or chance.random() < 0.15:
        claim = None
        for _ in range(chance.choice((1, 1, 2, 3))):
            name, damage = chance.choice(_DAMAGES)
            if damage is noise and chance.random() < 0.8:  # the least of all mutators
                name, damage = "replace_bytes", replace_bytes
            names.append(name)
            value = damage(chance, value, corpus)
        if names == ["truncate"]:
            claim = Claim("$", (Reason.NOT_JSON, Reason.NOT_UTF8))
    return Mutant(number, value, draft.key, draft.kafka_ms, tuple(names), claim, specimen.secrets)


def _restructure(chance: random.Random, draft: Draft, names: list[str]) -> Claim | None:
    """Apply one to three structural mutators; return what a lone one claims."""
    claim = None
    steps = chance.choice((1, 1, 1, 2, 3))
    for _ in range(steps):
        name, mutate = chance.choice(_STRUCTURAL)
        names.append(name)
        claim = mutate(chance, draft)
    if claim is None and names != ["wrong_kafka_key"] and chance.random() < 0.8:
        draft.rekey()  # or most changes of a key or an account would show as a wrong Kafka key and as nothing else
    return claim if steps == 1 else None
