"""A short run of the fuzzer, and the fuzzer itself: what is wrong with a decoder must come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.fields import FIELDS, Kind
from app.domain.rejection import Reason
from app.domain.transaction import Decoded, TransactionDecoder

from .corpus import build_corpus, token
from .differential import HASH_KEY, LIMITS, Finding, MakeDecoder, check_mutants, check_unit, make_decoder
from .draft import ACCEPTED, Claim
from .minimise import minimise, minimised
from .mutants import MUTATORS, NEIGHBOUR_EVERY, Mutant, make_mutant
from .run import UNIT, numbers_for, run
from .throughput import measure_cost

CORPUS = build_corpus()
FATAL_NUMBER = 2
ROOT = Path(__file__).parents[2]


def test_the_decoder_is_the_strict_one() -> None:
    """Ten thousand mutants: no difference, every reject explained, every known outcome met; none is left out."""
    tallies = [check_unit(CORPUS, 1, range(start, start + UNIT)) for start in range(0, 5 * UNIT, UNIT)]
    total = tallies[0]
    for tally in tallies[1:]:
        total.add(tally)
    assert [finding.what for finding in total.findings] == []
    assert (total.mutated, total.neighbours) == (10_000, 1_000)
    assert {name for name in MUTATORS if total.mutators[name] < 30} == set()
    assert {reason for reason in Reason if total.reasons[reason] < 30} == set()
    assert 1_500 < total.accepted - total.neighbours < 6_000, "the mix is one-sided"
    assert total.claims > 3_000


def test_a_message_cut_off_at_each_offset() -> None:
    """Is rejected, however little is missing."""
    whole = CORPUS.specimens[0]
    claim = Claim("$", (Reason.NOT_JSON, Reason.NOT_UTF8))
    cut = [
        Mutant(size, whole.value[:size], whole.key, whole.kafka_ms, ("truncate",), claim, whole.secrets)
        for size in range(len(whole.value))
    ]
    tally = check_mutants(make_decoder(), cut)
    assert (tally.findings, tally.accepted) == ([], 0)


def test_corpus_has_everything_that_a_message_may_hold() -> None:
    """Every field, and every admitted value of the enumerated ones."""
    for field in FIELDS:
        assert CORPUS.tokens[field.name]
        if field.kind is Kind.ENUM:
            assert {token(value) for value in field.values} <= set(CORPUS.tokens[field.name])


@pytest.mark.parametrize("number", [0, 1, 5, 4_321, 9_999_999])
def test_a_mutant_depends_on_seed_and_number_alone(number: int) -> None:
    """So a replay makes the same one, and another seed another."""
    assert make_mutant(CORPUS, 7, number) == make_mutant(CORPUS, 7, number)
    assert make_mutant(CORPUS, 7, number).value != make_mutant(CORPUS, 8, number).value


@pytest.mark.parametrize("messages", [1, 9, 10, 11, 1000, 10_000_000])
def test_a_run_has_as_many_mutants_as_asked_for(messages: int) -> None:
    """Good messages come on top."""
    numbers = numbers_for(messages)
    assert len(numbers) - len(range(0, len(numbers), NEIGHBOUR_EVERY)) == messages


class Faulty(TransactionDecoder):
    """Decodes rightly, then spoils the result."""

    def __init__(self) -> None:
        super().__init__(HASH_KEY, LIMITS)

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps_ms: Sequence[int] | NDArray[np.int64],
        offsets: Sequence[int] | NDArray[np.int64],
        partition: int,
    ) -> Decoded:
        """Decode and spoil."""
        decoded = super().decode(values, keys, timestamps_ms, offsets, partition)
        return self.spoil(decoded, values, list(offsets))

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:
        """Return another result."""
        raise NotImplementedError


class WrongAmount(Faulty):
    """Adds a centavo to one payment of R$ 1."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """Change one column of one row."""
        decoded.rows["amount_centavos"][-1:] += 1
        return decoded


class Swallows(Faulty):
    """Loses rejections for their depth."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """Leave some out."""
        kept = [(place, fault) for place, fault in decoded.rejected if fault.reason is not Reason.TOO_DEEP]
        return Decoded(decoded.rows, kept)


class Reorders(Faulty):
    """Gives the rows in another order."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """Turn them about."""
        return Decoded(decoded.rows[::-1].copy(), decoded.rejected)


class Raises(Faulty):
    """Cannot stand rejections."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """Raise on the first one."""
        raise ValueError(decoded.rejected[0][1].path)


class Dies(Faulty):
    """Ends its process at one message, as a wrong address in compiled code does."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """End the process."""
        if FATAL_NUMBER in offsets:
            os._exit(11)
        return decoded


class DislikesTabs(Faulty):
    """Loses the rejections of a batch that ends with a message in which a tab stands."""

    def spoil(self, decoded: Decoded, values: Sequence[bytes | None], offsets: list[int]) -> Decoded:  # noqa: ARG002 (each spoils by what it needs)
        """Lose them."""
        return Decoded(decoded.rows, []) if b"\t" in (values[-1] or b"") else decoded


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (WrongAmount, "columns differ: amount_centavos"),
        (Swallows, "has neither a row nor a rejection, or both"),
        (Reorders, "came out in another order"),
        (Raises, "raised ValueError"),
    ],
)
def test_a_faulty_decoder_is_found_out(make: MakeDecoder, what: str) -> None:
    """Whatever it gets wrong."""
    findings = check_unit(CORPUS, 1, range(300), make).findings
    assert any(what in finding.what for finding in findings)


def test_a_message_that_ends_the_process_is_named() -> None:
    """By its number, though its process can tell nothing any more."""
    total = run(1, range(2, 4), 1, make=Dies)
    assert [(finding.number, finding.mutant) for finding in total.findings] == [(FATAL_NUMBER, None)]
    assert "exit code 11" in total.findings[0].what


def test_a_wrong_claim_and_a_loose_tongue_are_findings() -> None:
    """The strict decoder is held to what a mutator knows, and its rejections to silence about people."""
    good = CORPUS.specimens[0]
    wrong = Mutant(0, good.value, good.key, good.kafka_ms, (), Claim("$.ip", (Reason.MISSING,)), ())
    loose = Mutant(1, b"[", good.key, good.kafka_ms, (), None, ("JSON object",))
    refused = Mutant(2, b"[", good.key, good.kafka_ms, (), ACCEPTED, ())
    found = check_mutants(make_decoder(), [wrong, loose, refused]).findings
    assert [(finding.number, finding.what.split(" ")[:2]) for finding in found] == [
        (0, ["its", "mutator"]),
        (1, ["a", "rejection"]),
        (2, ["its", "mutator"]),
    ]


def test_a_failing_message_is_made_small() -> None:
    """Down to what matters, wherever it stands."""
    assert minimise(b"an example of a long text", lambda value: b"x" in value and b"g" in value) == b"gx"
    value = b'{"end_to_end_id":\t"E1","timestamp":1}'
    mutant = Mutant(3, value, None, 0, ("white_space",), None, ())
    assert minimised(Finding(3, "lost", mutant), DislikesTabs) == b"\t"
    assert minimised(Finding(3, "not lost", mutant)) is None


def test_command_line() -> None:
    """Runs in several processes and prints one JSON object; other processes make the same messages."""
    command = [sys.executable, "-m", "fuzz", "--seed", "5", "--jobs", "2", "--only", "100-3399", "--json"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    figures = json.loads(done.stdout)
    assert (figures["mutated"], figures["good_between"], figures["findings"]) == (3000, 300, 0)
    assert figures["accepted"] + sum(figures["rejected"].values()) == 3300
    values = (make_mutant(CORPUS, 5, number).value or b"" for number in range(100, 3400))
    assert figures["checksum"] == f"{sum(map(zlib.crc32, values)):x}"


def test_cost_of_bad_messages_is_measured() -> None:
    """Two rounds are too few for the figure, not for its parts: all ways of being bad, no cost out of measure."""
    cost = measure_cost(1, rounds=2)
    assert len(cost.reasons) >= 8
    assert 0.9 < cost.decoder_ratio < 2
    assert 0.8 < cost.path_ratio < 1.5
