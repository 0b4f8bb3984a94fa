"""Vectors and feedback in any interleaving, with crashes and lost stores, against what the whole record says."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.labelled import Labelled, decode_labelled
from app.domain.records import GapError, Stretch
from app.domain.rejection import DeadLetter, decode_dead_letter
from app.domain.vectors import VECTOR_ROW_DTYPE, encode_vectors
from app.topics import LABELLED, REJECTED
from models.labels.joining import Joiner, JoinOutput, JoinPolicy
from models.labels.labelling import SILENCE, LabelState, statement
from models.labels.messages import sample
from tables.awaiting import Awaiting

_START_MS = 1_764_500_000_000
_MINUTE_MS = 60_000
_MATURITY_MS = 40 * _MINUTE_MS
_LIMITS = TimeLimits(10**12, 10**12)
_REPORTS = (
    ("CONTESTED", "OPEN", None),
    ("INFRACTION_REPORT", "OPEN", None),
    ("INFRACTION_REPORT", "CLOSED", "AGREED"),
    ("INFRACTION_REPORT", "CLOSED", "DISAGREED"),
    ("INFRACTION_REPORT", "CANCELLED", None),
    ("FRAUD_MARKER", "REGISTERED", None),
    ("FRAUD_MARKER", "CANCELLED", None),
    ("FUNDS_RECOVERY", "CREATED", None),
)


def _policy(rate: float = 1.0, *, wait_ms: int = 5 * _MINUTE_MS) -> JoinPolicy:
    return JoinPolicy(_MATURITY_MS, 91 * 86_400_000, wait_ms, rate)


def _id(number: int, at_ms: int) -> str:
    return f"E12345678{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d%H%M}{number:011d}"


def vector(number: int, at_ms: int, *, scored: bool = True) -> bytes:
    """A message of `pix-features`."""
    rows = np.zeros(1, VECTOR_ROW_DTYPE)
    rows["id"], rows["event_time"], rows["decided_at"] = _id(number, at_ms).encode(), at_ms, at_ms + 5
    rows["amount_centavos"], rows["scored"], rows["batch_score"] = number, scored, np.nan
    (message,) = encode_vectors(rows, np.array([[number, np.nan]], "<f4"), "0123456789abcdef")
    assert message is not None
    return message


def feedback(identifier: str, at_ms: int, event: str, status: str, result: str | None) -> bytes:
    """A message of `pix-feedback`."""
    fields = {"end_to_end_id": identifier, "timestamp": at_ms, "event": event, "status": status}
    fields |= {"report_id": event, "last_modified": at_ms}
    return msgspec.json.encode(fields | ({} if result is None else {"analysis_result": result}))


@dataclass
class World:
    """Both logs of a partition in order of time: key, value, when."""

    features: list[tuple[str, bytes, int]] = field(default_factory=list)
    feedback: list[tuple[str, bytes, int]] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    refunds: set[str] = field(default_factory=set)

    def told(self) -> dict[str, list[Feedback]]:
        """All feedback by payment."""
        told = defaultdict(list)
        for key, value, at_ms in self.feedback:
            found = decode_feedback(value, key.encode(), at_ms, _LIMITS)
            assert isinstance(found, Feedback)
            told[key].append(found)
        return told


def world(seed: int, payments: int = 300) -> World:
    """Payments, some of them repeated or refunds, and what becomes known of some, and of some that never were."""
    chance = random.Random(seed)
    made = World()
    later: list[tuple[int, str, tuple[str, str, str | None]]] = []
    for number in range(payments):
        at_ms = _START_MS + number * 20_000
        identifier = _id(number, at_ms)
        is_refund = chance.random() < 0.1
        if number % 17:
            made.places[identifier] = len(made.features)
            made.features.append((identifier, vector(number, at_ms, scored=not is_refund), at_ms + 5))
            made.times[identifier] = at_ms
            if is_refund:
                made.refunds.add(identifier)
        if chance.random() < 0.1 and number > 5:
            made.features.append((*chance.choice(made.features[-4:])[:2], at_ms + 5))
        if chance.random() < 0.3:
            said_ms = at_ms
            for report in chance.choices(_REPORTS, k=chance.randrange(1, 6)):
                said_ms += chance.randrange(1, 20) * _MINUTE_MS
                later.append((said_ms, identifier, report))
    for said_ms, identifier, report in sorted(later):
        made.feedback.append((identifier, feedback(identifier, said_ms, *report), said_ms))
    end_ms = max(said_ms for said_ms, *_ in later) + 2 * _MATURITY_MS
    made.features.append((_id(payments, end_ms), vector(payments, end_ms, scored=False), end_ms))
    return made


@dataclass
class Run:
    """A joiner at work on a world: its store on disk, and what it has sent."""

    world: World
    folder: Path
    policy: JoinPolicy
    labelled: list[Labelled] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        """Go on from the store."""
        self.awaiting = Awaiting(self.folder / "store")
        sent = max((each.source_offset for each in self.labelled if each.kind == "MATURED"), default=-1)
        self.joiner = Joiner(3, 4, self.awaiting, self.policy, _LIMITS, sent + 1)

    def lose(self) -> None:
        """Go on without a store."""
        self.awaiting.close()
        Awaiting.remove(self.folder / "store")
        self.open()

    def reopen(self) -> None:
        """Crash before the last step was committed, and go on."""
        self.awaiting.close()
        self.open()

    def step(self, *, vectors: bool, most: int, produced: tuple[int, int], crash: bool = False) -> None:
        """Take a batch of what is there of one topic."""
        self.joiner.ends = produced
        positions = self.joiner.positions
        log = self.world.features if vectors else self.world.feedback
        base = (positions.features if vectors else positions.feedback) or 0
        past = min(base + most, produced[0 if vectors else 1])
        part = log[base:past]
        keys = [key.encode() for key, _, _ in part]
        values = [value for _, value, _ in part]
        records = Stretch(base, past, keys, values, list(range(base, past)), [at for _, _, at in part])
        output = self.joiner.take_vectors(records) if vectors else self.joiner.take_feedback(records)
        self.send(output)
        if crash:
            self.reopen()
            return
        self.awaiting.commit()
        while output.is_unfinished:
            output = self.joiner.mature()
            self.send(output)
            self.awaiting.commit()

    def send(self, output: JoinOutput) -> None:
        """Keep what is sent."""
        for send in output.sends:
            for key, value in zip(send.keys, send.values, strict=True):
                assert value is not None
                if send.topic == LABELLED.name:
                    self.labelled.append(decode_labelled(value))
                    assert key == self.labelled[-1].end_to_end_id.encode()
                else:
                    assert send.topic == REJECTED.name
                    self.letters.append(decode_dead_letter(value))

    def finish(self) -> None:
        """Read all that is left."""
        ends = (len(self.world.features), len(self.world.feedback))
        while (self.joiner.positions.features or 0, self.joiner.positions.feedback or 0) != ends:
            self.step(vectors=True, most=50, produced=ends)
            self.step(vectors=False, most=50, produced=ends)
        self.step(vectors=False, most=1, produced=ends)
        self.awaiting.close()

    def matured(self) -> list[tuple[str, int | None, str, float]]:
        """What a learner takes of it: nothing that is not above the last place."""
        taken, last = [], -1
        for each in self.labelled:
            if each.kind == "MATURED" and each.source_offset > last:
                last = each.source_offset
                taken.append((each.end_to_end_id, each.label, each.basis, each.weight))
        return taken


def expected_matured(made: World, policy: JoinPolicy) -> list[tuple[str, int | None, str, float]]:
    """What matures, by looking at each payment for itself."""
    told = made.told()
    expected = []
    for identifier, at_ms in made.times.items():
        if identifier in made.refunds:
            continue
        # As in the log: all that is told here is known when the log has it.
        said = [each for each in (statement(one, -1) for one in told[identifier]) if each is not None]
        state, instant = LabelState().told(said), at_ms + policy.maturity_ms
        label = state.as_of(instant)
        if label == SILENCE:
            is_quiet = not state.said_by(instant)
            if is_quiet and not sample(np.array([identifier.encode()], "S32"), policy.negatives_rate)[0]:
                continue
            expected.append((identifier, 0, "MATURITY", 1 / policy.negatives_rate if is_quiet else 1.0))
        elif label.label is not None:
            expected.append((identifier, label.label, label.basis, label.weight))
    return expected


def expected_revisions(made: World) -> set[tuple[str, int, int | None, str]]:
    """Each change of what is known: payment, when, label, basis."""
    revisions = set()
    for identifier, messages in made.told().items():
        if identifier in made.refunds or identifier not in made.times:
            continue
        state = LabelState()
        for message in messages:
            said = statement(message, -1)
            before, state = state, state if said is None else state.told([said])
            if state.latest[:2] != before.latest[:2]:
                revisions.add((identifier, state.known_at, *state.latest[:2]))
    return revisions


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_any_interleaving_with_crashes(tmp_path: Path, seed: int, rate: float) -> None:
    """Live or behind, with steps that crash and stores that are lost or old: every label once, as it was known."""
    chance = random.Random(seed)
    made = world(seed)
    run = Run(made, tmp_path, _policy(rate))
    ends = (len(made.features), len(made.feedback))
    is_live = seed % 2 == 0
    now_ms = _START_MS
    while now_ms < made.features[-2][2]:
        now_ms += chance.randrange(30) * _MINUTE_MS
        produced = (sum(at <= now_ms for *_, at in made.features), sum(at <= now_ms for *_, at in made.feedback))
        for _ in range(chance.randrange(8)):
            run.step(
                vectors=chance.random() < 0.5,
                most=chance.randrange(1, 40),
                produced=produced if is_live else ends,
                crash=chance.random() < 0.1,
            )
        if chance.random() < 0.1:
            run.lose()
        if chance.random() < 0.2:
            run.awaiting.close()
            shutil.rmtree(tmp_path / "old", ignore_errors=True)
            shutil.copytree(tmp_path / "store", tmp_path / "old")
            run.open()
        elif chance.random() < 0.1 and (tmp_path / "old").exists():
            run.awaiting.close()
            shutil.rmtree(tmp_path / "store")
            shutil.copytree(tmp_path / "old", tmp_path / "store")
            run.open()
    run.finish()
    assert run.matured() == expected_matured(made, run.policy)
    revisions = {
        (each.end_to_end_id, each.known_at, each.label, each.basis) for each in run.labelled if each.kind == "REVISION"
    }
    wanted = expected_revisions(made)
    assert revisions == wanted if rate == 1.0 else revisions <= wanted
    unknown = {i for i, (key, _, _) in enumerate(made.feedback) if key not in made.times}
    assert unknown
    assert {letter.source.offset for letter in run.letters} == unknown
    assert all((letter.path, letter.got) == ("$.end_to_end_id", "unknown") for letter in run.letters)
    for each in run.labelled:
        assert each.source_partition == 3
        assert each.source_offset == made.places[each.end_to_end_id]
        assert each.features[0] == each.amount_centavos
        assert each.batch_score is None


def test_without_crashes_nothing_is_repeated(tmp_path: Path) -> None:
    """Each message once."""
    run = Run(world(7), tmp_path, _policy())
    run.finish()
    identities = [(each.kind, each.place, each.known_at, each.label, each.basis) for each in run.labelled]
    assert len(set(identities)) == len(identities)
    sources = [letter.source.offset for letter in run.letters]
    assert len(set(sources)) == len(sources)


def test_a_lost_store_is_made_again(tmp_path: Path) -> None:
    """What has matured before is not sent again; revisions and dead letters are, the same ones."""
    run = Run(world(8), tmp_path, _policy())
    run.finish()
    first, run.labelled = run.labelled, [each for each in run.labelled if each.kind == "MATURED"]
    matured = len(run.labelled)
    assert matured
    run.open()
    run.lose()
    run.finish()
    assert (
        run.labelled[:matured] + [each for each in run.labelled[matured:] if each.kind == "MATURED"]
        == run.labelled[:matured]
    )
    assert [each for each in first if each.kind == "REVISION"] == run.labelled[matured:]


def test_a_payment_waits_for_feedback_that_is_not_read_yet(tmp_path: Path) -> None:
    """Time that the payments have reached says nothing of feedback that lies unread."""
    made = World()
    identifier = _id(0, _START_MS)
    late_ms = _START_MS + 2 * _MATURITY_MS
    made.features = [(identifier, vector(0, _START_MS), _START_MS), (_id(1, late_ms), vector(1, late_ms), late_ms)]
    said_ms = _START_MS + _MINUTE_MS
    made.feedback = [(identifier, feedback(identifier, said_ms, "FRAUD_MARKER", "REGISTERED", None), said_ms)]
    run = Run(made, tmp_path, _policy())
    run.step(vectors=True, most=9, produced=(2, 1))
    assert not run.labelled
    assert run.joiner.lag_ms() > 0
    run.step(vectors=False, most=9, produced=(2, 1))
    assert [(each.kind, each.label) for each in run.labelled] == [("REVISION", 1), ("MATURED", 1)]
    assert run.joiner.lag_ms() == 0


def test_feedback_that_retention_took_is_not_waited_for(tmp_path: Path) -> None:
    """A topic of which all was deleted tells no more than one that never had anything."""
    made = World()
    late_ms = _START_MS + 2 * _MATURITY_MS
    made.features = [(_id(n, at_ms), vector(n, at_ms), at_ms) for n, at_ms in enumerate((_START_MS, late_ms))]
    run = Run(made, tmp_path, _policy())
    run.step(vectors=True, most=1, produced=(2, 5))
    run.joiner.begins = (0, 5)
    run.step(vectors=True, most=1, produced=(2, 5))
    assert [(each.kind, each.label) for each in run.labelled] == [("MATURED", 0)]


def test_what_is_known_later_does_not_teach(tmp_path: Path) -> None:
    """A marker after maturity is a revision of what was learned as honest, where the vector is still there."""
    made = World()
    identifier = _id(0, _START_MS)
    made.features = [(identifier, vector(0, _START_MS), _START_MS)]
    said_ms = _START_MS + _MATURITY_MS + 1
    made.feedback = [(identifier, feedback(identifier, said_ms, "FRAUD_MARKER", "REGISTERED", None), said_ms)]
    run = Run(made, tmp_path, _policy())
    run.step(vectors=True, most=9, produced=(1, 0))
    run.step(vectors=False, most=9, produced=(1, 1))
    found = [(each.kind, each.label, each.known_at) for each in run.labelled]
    assert found == [("REVISION", 1, said_ms), ("MATURED", 0, said_ms - 1)]


def test_feedback_on_a_payment_that_was_dropped_is_counted(tmp_path: Path) -> None:
    """Its vector is gone, but it was decided on: no dead letter."""
    made = World()
    identifier = _id(0, _START_MS)
    late_ms = _START_MS + 3 * _MATURITY_MS
    made.features = [(identifier, vector(0, _START_MS), _START_MS), (_id(1, late_ms), vector(1, late_ms), late_ms)]
    made.feedback = [(identifier, feedback(identifier, late_ms, "FRAUD_MARKER", "REGISTERED", None), late_ms)]
    run = Run(made, tmp_path, _policy(1e-9))
    run.step(vectors=True, most=1, produced=(2, 0))
    run.step(vectors=True, most=1, produced=(2, 0))
    run.joiner.ends = (2, 1)
    key, value, at_ms = made.feedback[0]
    output = run.joiner.take_feedback(Stretch(0, 1, [key.encode()], [value], [0], [at_ms]))
    assert (output.dropped, output.sends, output.rejections, run.joiner.waiting) == (1, [], [], 0)


def test_a_gap_stops_and_what_was_read_is_passed_over(tmp_path: Path) -> None:
    """Positions are the store's."""
    run = Run(world(9), tmp_path, _policy())
    run.step(vectors=True, most=10, produced=(10, 0))
    with pytest.raises(GapError, match="pix-features-3: expected offset 10, got 11; records are missing between them"):
        run.joiner.take_vectors(Stretch(11, 12, [b""], [b""], [11], [0]))
    held = run.joiner.positions.features
    part = run.world.features[5:10]
    again = Stretch(
        5, 10, [key.encode() for key, *_ in part], [value for _, value, _ in part], list(range(5, 10)), [0] * 5
    )
    assert run.joiner.take_vectors(again).sends == []
    assert run.joiner.positions.features == held
    long_ago = Stretch(5, 8, again.keys[:3], again.values[:3], again.offsets[:3], [0] * 3)
    assert run.joiner.take_vectors(long_ago).sends == []
    assert run.joiner.positions.features == held  # it never goes back


def test_messages_of_other_versions(tmp_path: Path) -> None:
    """Those that cannot be read are passed over, and those of another catalog are kept beside the others."""
    rows = np.zeros(1, VECTOR_ROW_DTYPE)
    rows["id"], rows["event_time"], rows["scored"] = _id(1, _START_MS).encode(), _START_MS, True
    (other,) = encode_vectors(rows, np.zeros((1, 5), "<f4"), "fedcba9876543210")
    run = Run(World(), tmp_path, _policy())
    values = [vector(0, _START_MS), other, b"PXGVnoise", None]
    output = run.joiner.take_vectors(Stretch(0, 4, [b""] * 4, values, list(range(4)), [0] * 4))
    assert output.unreadable == 2
    assert [chunk.fingerprint for chunk in run.awaiting.chunks()] == ["0123456789abcdef", "fedcba9876543210"]
