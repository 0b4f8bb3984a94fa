"""The real decoder against the strict one, message by message and bit by bit."""

from __future__ import annotations

import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.domain.field_checks import TimeLimits
from app.domain.rejection import Rejection, Source, decode_dead_letter, encode_dead_letter
from app.domain.siphash import HashKey
from app.domain.transaction import Decoded, TransactionDecoder, decode_strict, empty_rows, write_row

from .corpus import Corpus
from .draft import Claim
from .mutants import Mutant, make_mutant

__all__ = ["HASH_KEY", "LIMITS", "Finding", "MakeDecoder", "Tally", "check_mutants", "check_unit", "make_decoder"]

HASH_KEY = HashKey.from_bytes(bytes(range(16)))
LIMITS = TimeLimits()
_PARTITION = 7

MakeDecoder = Callable[[], TransactionDecoder]


def make_decoder() -> TransactionDecoder:
    """Return the real decoder."""
    return TransactionDecoder(HASH_KEY, LIMITS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One message on which something is wrong.

    Parameters
    ----------
    number
        Its number in the run.
    what
        What is wrong, with both answers.
    mutant
        The message; None where the process that had it is gone.
    """

    number: int
    what: str
    mutant: Mutant | None


@dataclass(slots=True)
class Tally:
    """What a run has seen so far.

    Parameters
    ----------
    mutators
        Messages by mutator; one that met three counts under each.
    reasons
        Rejected messages by reason.
    mutated, neighbours, accepted, claims
        Messages; of these the good ones between, the accepted ones, and those whose outcome was known beforehand.
    size_bytes, checksum
        Of all messages: the same ones have the same sum of CRC-32.
    seconds
        Processor time by part: mutate, decode, strict, compare.
    findings
        What is wrong.
    """

    mutators: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    mutated: int = 0
    neighbours: int = 0
    accepted: int = 0
    claims: int = 0
    size_bytes: int = 0
    checksum: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another tally has seen."""
        self.mutators += other.mutators
        self.reasons += other.reasons
        for part, seconds in other.seconds.items():
            self.seconds[part] += seconds
        self.mutated += other.mutated
        self.neighbours += other.neighbours
        self.accepted += other.accepted
        self.claims += other.claims
        self.size_bytes += other.size_bytes
        self.checksum += other.checksum
        self.findings += other.findings


def check_unit(
    corpus: Corpus,
    seed: int,
    numbers: Sequence[int],
    make: MakeDecoder = make_decoder,
    started: Callable[[int], None] = lambda _number: None,
) -> Tally:
    """Decode the messages of these numbers both ways, in batches of any size by one decoder, and compare.

    Parameters
    ----------
    corpus, seed, numbers
        Which messages, as `make_mutant` takes them.
    make
        Makes the decoder under test.
    started
        Called with the first number of each batch before it is decoded.
    """
    tally = Tally()
    decoder = make()
    sizes = random.Random(f"{seed} {numbers[0]}")
    first = 0
    while first < len(numbers):
        batch = numbers[first : first + sizes.choice((1, 40, 700, len(numbers), len(numbers)))]
        start = time.process_time()
        mutants = [make_mutant(corpus, seed, number) for number in batch]
        tally.seconds["mutate"] += time.process_time() - start
        started(batch[0])
        tally.add(check_mutants(decoder, mutants))
        first += len(batch)
    return tally


def check_mutants(decoder: TransactionDecoder, mutants: list[Mutant]) -> Tally:
    """Decode one batch both ways and compare."""
    tally = Tally()
    clock = time.process_time
    start = clock()
    try:
        decoded = _decode(decoder, mutants)
    except Exception as error:  # noqa: BLE001 - whatever is raised is what we look for
        tally.findings.append(Finding(mutants[0].number, f"its batch of {len(mutants)} raised {error!r}", mutants[0]))
        return tally
    after_decoder = clock()
    expected, outcomes = _strict(mutants)
    after_strict = clock()
    for mutant, what in _differences(mutants, decoded, expected, outcomes):
        tally.findings.append(Finding(mutant.number, what, mutant))
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        what = _unclaimed(mutant.claim, outcome) or (_unexplained(mutant, outcome) if outcome is not None else "")
        if what:
            tally.findings.append(Finding(mutant.number, what, mutant))
        tally.mutators.update(mutant.mutators)
        tally.reasons.update([] if outcome is None else [outcome.reason.value])
        tally.size_bytes += len(mutant.value or b"")
        tally.checksum += zlib.crc32(mutant.value or b"")
    tally.claims += sum(mutant.claim is not None for mutant in mutants)
    neighbours = sum(mutant.mutators == ("none",) for mutant in mutants)
    tally.neighbours += neighbours
    tally.mutated += len(mutants) - neighbours
    tally.accepted += outcomes.count(None)
    tally.seconds["decode"] = after_decoder - start
    tally.seconds["strict"] = after_strict - after_decoder
    tally.seconds["compare"] = clock() - after_strict
    return tally


def _decode(decoder: TransactionDecoder, mutants: list[Mutant]) -> Decoded:
    return decoder.decode(
        [mutant.value for mutant in mutants],
        [mutant.key for mutant in mutants],
        [mutant.kafka_ms for mutant in mutants],
        [mutant.number for mutant in mutants],
        _PARTITION,
    )


def _strict(mutants: list[Mutant]) -> tuple[NDArray[np.void], list[Rejection | None]]:
    """Return a row for each message, with rubbish for rejected ones, and each one's rejection."""
    rows = empty_rows(len(mutants))
    rows["source_partition"] = _PARTITION
    rows["source_offset"] = [mutant.number for mutant in mutants]
    outcomes: list[Rejection | None] = []
    for place, mutant in enumerate(mutants):
        outcome = decode_strict(mutant.value, mutant.key, mutant.kafka_ms, LIMITS)
        if isinstance(outcome, Rejection):
            outcomes.append(outcome)
        else:
            write_row(rows, place, outcome, HASH_KEY)
            outcomes.append(None)
    return rows, outcomes


def _differences(
    mutants: list[Mutant], decoded: Decoded, expected: NDArray[np.void], outcomes: list[Rejection | None]
) -> list[tuple[Mutant, str]]:
    accepted = np.array([outcome is None for outcome in outcomes], np.bool_)
    rejected = [(place, outcome) for place, outcome in enumerate(outcomes) if outcome is not None]
    if decoded.rejected == rejected and decoded.rows.tobytes() == expected[accepted].tobytes():
        return []
    found: list[tuple[Mutant, str]] = []
    real = dict(decoded.rejected)
    row_of = {int(row["source_offset"]): row for row in decoded.rows}
    for place, (mutant, outcome) in enumerate(zip(mutants, outcomes, strict=True)):
        row = row_of.get(mutant.number)
        if (row is None) == (place not in real):
            found.append((mutant, "has neither a row nor a rejection, or both"))
        elif real.get(place) != outcome:
            found.append((mutant, f"decoder: {real.get(place)}, strict decoder: {outcome}"))
        elif row is not None and row.tobytes() != expected[place].tobytes():
            names = [name for name in row.dtype.names if row[name].tobytes() != expected[place][name].tobytes()]
            found.append((mutant, f"columns differ: {', '.join(names)}"))
    return found or [(mutants[0], f"its batch of {len(mutants)} came out in another order")]


def _unclaimed(claim: Claim | None, outcome: Rejection | None) -> str:
    """Return how the outcome differs from what its mutator claims, "" where it does not."""
    if claim is None or (outcome is None and not claim.reasons):
        return ""
    is_right = outcome is not None and outcome.reason in claim.reasons and claim.path in ("", outcome.path)
    return "" if is_right else f"its mutator claims {claim}, the strict decoder says {outcome}"


def _unexplained(mutant: Mutant, fault: Rejection) -> str:
    """Return what a rejection lacks or tells too much, "" where it is well."""
    shown = f"{fault.path} {fault.expected} {fault.got}"
    if not (fault.path and fault.expected and fault.got):
        return f"a rejection explains nothing: {fault}"
    if any(secret in shown for secret in mutant.secrets):
        return f"a rejection repeats what the message says about a person, at {fault.path}: {fault.reason}"
    source = Source("pix-transactions", _PARTITION, mutant.number, mutant.kafka_ms)
    letter = decode_dead_letter(encode_dead_letter(fault, source, mutant.key, mutant.value))
    told = letter.reason, letter.path, letter.expected, letter.got, letter.source
    is_whole = told == (fault.reason, fault.path, fault.expected, fault.got, source)
    if not is_whole or letter.kafka_key_base64 != mutant.key or letter.raw_base64 != mutant.value:
        return f"the dead letter is another: {letter.path} {letter.reason}"
    return ""
