"""After the run: what is in the log against an unbroken run over the same logs, and against the naive oracle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from app.domain.decision import decode_decision
from app.domain.vectors import encode_vectors
from app.topics import ENRICHED, MARKERS, REJECTED, TRANSACTIONS
from models.stages.judging import Decided, Observed, judge, name_models, vector_rows
from models.stages.outputs import Send
from models.stages.payers import PayerStage
from models.stages.receivers import FEATURES_VERSION, ReceiverStage
from tables.events import is_refund, receiver_events

from .naive_check import payer_mismatches, receiver_mismatches
from .states import STEADY, known_ids, profile_rows
from .transport import CHANGELOGS
from .witness import read_frame

if TYPE_CHECKING:
    from .world import World

__all__ = ["check"]

_encode = msgspec.json.Encoder().encode


def check(world: World) -> None:
    """Hold the end of a run against what should be; violations go to the world."""
    letters: defaultdict[tuple[str, int, int], set[bytes]] = defaultdict(set)
    decided: list[Decided] = []
    payers: list[PayerStage] = []
    for partition in range(world.plan.partitions):
        _check_receivers(world, partition, letters)
        stage, output = _check_payers(world, partition, letters)
        payers.append(stage)
        decided.append(output)
    _check_letters(world, letters)
    _check_decisions(world, payers, decided)


# -- states


def _restored(world: World, table: str, partition: int, stage: Any) -> Any:  # noqa: ANN401 - either stage
    log = world.log.partitions[CHANGELOGS[table], partition]
    records = log.read(0, log.end)
    stage.state.restore(records.keys, records.values)
    stage.state.finish_restore()
    return stage


def _compare(world: World, name: str, found: Any, expected: Any) -> None:  # noqa: ANN401 - either stage
    rows, wanted = profile_rows(found), profile_rows(expected)
    wrong = [key.hex() for key in sorted({*rows, *wanted}) if rows.get(key) != wanted.get(key)]
    if wrong:
        world.violated("state equals that of an unbroken run", f"{name}: {len(wrong)} rows, {', '.join(wrong[:4])}")
    positions, ends = found.state.next_offsets(), expected.state.next_offsets()
    if positions != ends:
        world.violated("state reflects the whole log", f"{name}: {positions}, the logs end at {ends}")
    ids = [one.encode() for one in sorted(world.traffic.ids)]
    forgotten = known_ids(found, ids) ^ known_ids(expected, ids)
    if forgotten:
        world.violated(
            "ids known equal those of an unbroken run", f"{name}: {len(forgotten)}, {min(forgotten).decode()}"
        )


def _check_receivers(world: World, partition: int, letters: dict[tuple[str, int, int], set[bytes]]) -> None:
    plan = world.plan
    retry = (plan.retry_window_ms, plan.retry_max_ids)
    reference = ReceiverStage(partition, plan.partitions, world.decoder, *retry)
    log = world.log.partitions[TRANSACTIONS.name, partition]
    frames: list[Any] = []
    if log.end:
        output = reference.apply(log.read(0, log.end))
        _add_letters(letters, output.sends)
        values = [value for send in output.sends if send.topic == ENRICHED.name for value in send.values]
        frames = [debits for _, debits, _ in chain.from_iterable(map(read_frame, values))]
    markers = world.log.partitions[MARKERS.name, partition]
    if markers.end:
        reference.apply_markers(markers.read(0, markers.end))
    found = _restored(world, "receivers", partition, ReceiverStage(partition, plan.partitions, world.decoder, *retry))
    _compare(world, f"receivers-{partition}", found, reference)
    expected = {int(row["transaction"]["source_offset"]): row for frame in frames for row in frame}
    _check_frames(world, partition, expected)


def _first_debits(world: World, upstream: int) -> dict[int, Any]:
    """Return the debits of one upstream partition by source offset: the first of each that the log has."""
    firsts: dict[int, Any] = {}
    for partition in range(world.plan.partitions):
        values = world.log.partitions[ENRICHED.name, partition].values
        for source, debits, _ in chain.from_iterable(map(read_frame, values)):
            if source == upstream:
                for row in debits:
                    firsts.setdefault(int(row["transaction"]["source_offset"]), row)
    return firsts


def _check_frames(world: World, partition: int, expected: dict[int, Any]) -> None:
    found = _first_debits(world, partition)
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        world.violated("every payment reaches stage 2", f"{TRANSACTIONS.name}-{partition}: offsets {odd[:8]}")
        return
    for offset, row in found.items():
        wanted = expected[offset]
        same = all(row[name].tobytes() == wanted[name].tobytes() for name in ("transaction", "received_at", "retry"))
        if not same or row["receiver"][STEADY].tobytes() != wanted["receiver"][STEADY].tobytes():
            world.violated("what stage 1 sends is that of an unbroken run", f"{TRANSACTIONS.name}-{partition}@{offset}")
            return
    if world.plan.forgets_ids or not found:
        return
    ordered = [found[offset] for offset in sorted(found)]
    debits = np.empty(len(ordered), ordered[0].dtype)
    for place, row in enumerate(ordered):
        debits[place] = row
    transactions, features = debits["transaction"], debits["receiver"]
    events = receiver_events(transactions)
    retries = np.array([bool(row["retry"]) for row in ordered])
    events["counts"] &= ~retries
    events["wants_features"] &= ~retries & ~is_refund(transactions)
    for text in receiver_mismatches(events, features):
        world.violated("features equal the naive oracle's", f"{TRANSACTIONS.name}-{partition}: {text}")


def _check_payers(
    world: World, partition: int, letters: dict[tuple[str, int, int], set[bytes]]
) -> tuple[PayerStage, Decided]:
    plan = world.plan
    retry = (plan.retry_window_ms, plan.retry_max_ids)
    reference = PayerStage(partition, plan.partitions, world.packs[0], *retry)
    for pack in world.packs:
        reference.in_force.put(pack, reference.in_force.lists)
    log = world.log.partitions[ENRICHED.name, partition]
    output = reference.apply(log.read(0, log.end))
    _add_letters(letters, output.sends)
    found = _restored(world, "payers", partition, PayerStage(partition, plan.partitions, world.packs[0], *retry))
    if log.end:
        _compare(world, f"payers-{partition}", found, reference)
    if not plan.forgets_ids:
        for text in payer_mismatches(log.values, output.decided):
            world.violated("features equal the naive oracle's", f"{ENRICHED.name}-{partition}: {text}")
    return reference, output.decided


# -- outputs


def _add_letters(letters: dict[tuple[str, int, int], set[bytes]], sends: Iterable[Send]) -> None:
    for send in sends:
        if send.topic == REJECTED.name:
            for value in send.values:
                letter = value or b""
                source = msgspec.json.decode(letter)["source"]
                letters[source["topic"], source["partition"], source["offset"]].add(letter)


def _check_letters(world: World, expected: dict[tuple[str, int, int], set[bytes]]) -> None:
    found = {where: texts for where, texts in world.witness.letters.items() if where[0] == TRANSACTIONS.name}
    wrong = sorted(where for where in {*found, *expected} if found.get(where, set()) != expected.get(where, set()))
    if wrong:
        world.violated("one dead letter for each bad message", f"{len(wrong)}, the first of {wrong[0]}")


def _check_decisions(world: World, payers: list[PayerStage], decided: list[Decided]) -> None:
    found: dict[tuple[str, int, int], bytes] = {}
    for values in world.witness.decisions.values():
        for value in values:
            decision = decode_decision(value)
            where = (decision.end_to_end_id, decision.source.partition, decision.source.offset)
            if where in found:
                other = decode_decision(found[where])
                text = (
                    f"{where[0]}: {other.versions} at {other.decided_at}, {decision.versions} at {decision.decided_at}"
                )
                world.violated("no decision differs from its first", text)
            found.setdefault(where, value)
    expected = {
        (row["id"].decode(), int(row["source_partition"]), int(row["source_offset"]))
        for one in decided
        for row in one.rows
    }
    if found.keys() != expected:
        odd = sorted(found.keys() ^ expected)
        world.violated("one decision for each payment", f"{len(odd)} too many or too few: {odd[:4]}")
        return
    lost = sorted(world.traffic.ids - {where[0] for where in found})
    if lost:
        world.violated("every payment is decided on", ", ".join(lost[:4]))
    if not world.plan.forgets_ids and len(found) != len({where[0] for where in found}):
        world.violated("one decision for each id", f"{len(found)} decisions")
    for stage, one in zip(payers, decided, strict=True):
        _check_contents(world, stage, one, found)


def _check_contents(
    world: World, stage: PayerStage, decided: Decided, found: dict[tuple[str, int, int], bytes]
) -> None:
    """Take each decision again, under the rules, lists and models that it names."""
    groups: defaultdict[tuple[str, int, tuple[int, int]], list[int]] = defaultdict(list)
    values = []
    for place, row in enumerate(decided.rows):
        values.append(found[row["id"].decode(), int(row["source_partition"]), int(row["source_offset"])])
        versions = decode_decision(values[-1]).versions
        models = (versions.batch_model or 0, versions.online_model or 0)
        groups[versions.rules, versions.lists, models].append(place)
    packs = {pack.name: pack for pack in world.packs}
    told = []
    for (rules, lists, models), places in groups.items():
        part = Observed(
            decided.transactions[places],
            decided.received_at[places],
            decided.rows["timestamp"][places],
            decided.rows["scored"][places],
            decided.vectors[places],
        )
        set_of_models = world.models_by_version[models]
        scores = set_of_models.scores(part.vectors, part.transactions["payer_account"], part.scored)
        rows = judge(part, packs[rules], world.lists_by_version[lists], scores)
        name_models(rows, set_of_models, part.vectors)
        for place, decision in zip(places, stage.writer.decisions(rows), strict=True):
            if _encode(decision) != values[place]:
                world.violated("a decision follows from its versions", f"{decision.end_to_end_id}, rules {rules}")
                return
        decided_again = Decided(
            part.transactions, part.received_at, rows, (), part.vectors, scores, set_of_models, packs[rules]
        )
        messages = encode_vectors(vector_rows(decided_again), part.vectors, FEATURES_VERSION)
        told += zip(rows["id"].tolist(), messages, strict=True)
    for end_to_end_id, message in told:
        if message not in world.witness.vectors[end_to_end_id]:
            world.violated("a vector is that of an unbroken run", end_to_end_id.decode())
            return
