"""A step over several partitions does what as many steps over one would do, in whatever company each comes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest

from app.domain.field_checks import TimeLimits
from app.domain.frames import decode_frame
from app.domain.partitioner import partition_of
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.topics import ENRICHED
from models.rules.file import default_pack_text, load_rule_pack
from models.rules.lists import Lists
from models.stages.outputs import Send
from models.stages.payers import PayerStage, decide
from models.stages.receivers import FEATURES_VERSION, ReceiverStage, receive
from ops.traffic.generator import TrafficConfig, generate
from tables.catalog import CATALOG

PARTITIONS = 4
PACK = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
OTHER_PACK = load_rule_pack(default_pack_text().replace("hold: ", "hold:  ", 1), CATALOG.column_types(), "other")
DECODER = TransactionDecoder(HashKey(1, 2), TimeLimits())
RETRY = (3_600_000, 10_000)

Batches = list[dict[int, Stretch]]


def _stretches(batches: Iterable[dict[int, list[tuple[bytes | None, bytes | None, int]]]]) -> Batches:
    """Give the messages of each partition consecutive offsets."""
    ends: Counter[int] = Counter()
    made: Batches = []
    for batch in batches:
        step = {}
        for partition, messages in sorted(batch.items()):
            base, end = ends[partition], ends[partition] + len(messages)
            keys, values, times = (list(column) for column in zip(*messages, strict=True))
            step[partition] = Stretch(base, end, keys, values, range(base, end), times)
            ends[partition] = end
        made.append(step)
    return made


@pytest.fixture(scope="module")
def traffic() -> Batches:
    """Batches of all partitions, with retries, reused ids and noise."""
    config = TrafficConfig(start_ms=1_789_977_600_000, seed=5, rate_per_s=5, count=2_400, malformed_share=0.03)
    messages = [(each.key, each.value, each.arrival_ms) for each in generate(config)]
    rng = np.random.default_rng(1)
    for place in rng.integers(50, len(messages) - 1, 60).tolist():
        key, value, _ = messages[place - int(rng.integers(1, 50))]
        if value is not None and rng.random() < 0.3:
            value = value.replace(b'"amount_centavos":', b'"amount_centavos":1', 1)
        messages.insert(place, (key, value, messages[place][2]))
    batches = []
    for begin in range(0, len(messages), 400):
        batch = defaultdict(list)
        for message in messages[begin : begin + 400]:
            batch[0 if message[0] is None else partition_of(message[0], PARTITIONS)].append(message)
        batches.append(dict(batch))
    return _stretches(batches)


def _receivers() -> list[ReceiverStage]:
    return [ReceiverStage(partition, PARTITIONS, DECODER, *RETRY) for partition in range(PARTITIONS)]


def _payers() -> list[PayerStage]:
    stages = [PayerStage(partition, PARTITIONS, PACK, *RETRY) for partition in range(PARTITIONS)]
    for stage in stages:
        stage.in_force.put(OTHER_PACK if stage.partition == 3 else PACK, Lists())
    return stages


def _rows(sends: Iterable[Send]) -> tuple[dict[tuple[int, int], list[bytes]], Counter[tuple[str, int, bytes | None]]]:
    """What is sent: rows of frames by target and upstream partition, in order; and every other message."""
    rows: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    others: Counter[tuple[str, int, bytes | None]] = Counter()
    for send in sends:
        for value in send.values:
            if send.topic != ENRICHED.name:
                others[send.topic, send.partition, value] += 1
                continue
            frame = decode_frame(value or b"", FEATURES_VERSION, len(CATALOG.stage_features("receiver")))
            for upstream, row in zip(frame.debits["transaction"]["source_partition"], frame.debits, strict=True):
                rows[send.partition, int(upstream)].append(row.tobytes())
            for upstream, row in zip(frame.credits["source_partition"], frame.credits, strict=True):
                rows[send.partition, 100 + int(upstream)].append(row.tobytes())
    return dict(rows), others


def test_stage_1_takes_partitions_together_as_it_takes_them_alone(traffic: Batches) -> None:
    """The same rows in the same order, the same dead letters, counts and checkpoints."""
    alone, together = _receivers(), _receivers()
    for step in traffic:
        singles = [alone[partition].apply(records) for partition, records in step.items()]
        output = receive([(together[partition], records) for partition, records in step.items()])
        assert _rows(output.sends) == _rows(send for single in singles for send in single.sends)
        assert output.accepted == {k: v for single in singles for k, v in single.accepted.items()}
        assert output.retries == sum(single.retries for single in singles)
        assert output.rejections == [fault for single in singles for fault in single.rejections]
    assert [stage.state.export() for stage in together] == [stage.state.export() for stage in alone]


def test_the_order_in_which_partitions_arrived_does_not_show(traffic: Batches) -> None:
    """Of two payments with one id in two of them, one is the first: for the memory of ids and for the profiles."""
    ordered, reversed_ = _receivers(), _receivers()
    for step in traffic:
        sends, others = (
            receive([(stages[partition], records) for partition, records in items]).sends
            for stages, items in ((ordered, step.items()), (reversed_, reversed(step.items())))
        )
        assert [(send.topic, send.partition, send.values) for send in others] == [
            (send.topic, send.partition, send.values) for send in sends
        ]


def test_stage_2_takes_partitions_together_as_it_takes_them_alone(traffic: Batches) -> None:
    """The same decisions and answers byte by byte, under two packs, with repeats of frames from upstream."""
    upstream = _receivers()
    frames = []
    for step in traffic:
        batch = defaultdict(list)
        for send in receive([(upstream[partition], records) for partition, records in step.items()]).sends:
            if send.topic == ENRICHED.name:
                batch[send.partition] += [(None, value, 1_789_977_700_000) for value in send.values]
        frames.append(dict(batch))
    alone, together = _payers(), _payers()
    packs, retries = set(), 0
    for step in _stretches([*frames[:3], frames[1], *frames[3:]]):
        singles = [alone[partition].apply(records) for partition, records in step.items()]
        outputs = decide([(together[partition], records) for partition, records in step.items()])
        assert _rows(send for output in outputs for send in output.sends) == _rows(
            send for single in singles for send in single.sends
        )
        assert sum(output.retries for output in outputs) == sum(single.retries for single in singles)
        assert sum(len(output.decided.rows) for output in outputs) == sum(len(one.decided.rows) for one in singles)
        packs |= {output.decided.pack.fingerprint for output in outputs}
        retries += sum(output.retries for output in outputs)
    assert packs == {PACK.fingerprint, OTHER_PACK.fingerprint}
    assert retries > 10
    assert [stage.state.export() for stage in together] == [stage.state.export() for stage in alone]


def test_a_step_of_what_is_known_brings_nothing(traffic: Batches) -> None:
    """A batch that was applied before a crash and comes again."""
    stages = _receivers()
    work = [(stages[partition], records) for partition, records in traffic[0].items()]
    receive(work)
    output = receive(work)
    assert (output.sends, output.accepted, output.retries, output.rejections) == ([], {}, 0, [])
