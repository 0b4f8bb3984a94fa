"""`pixguard send` on the real broker; its answers come from a small consumer that decodes as the stream does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.domain.field_checks import TimeLimits, Values, check_fields, check_kafka_key, check_time
from app.domain.fields import FIELDS, FIELDS_BY_NAME
from app.domain.json_object import parse_object
from app.domain.partitioner import partition_of
from app.domain.rejection import Rejection, Source, encode_dead_letter
from app.settings import Settings, load_settings
from app.topics import DECISIONS, REJECTED, TRANSACTIONS
from ops.answers import RejectionGroup
from ops.broker import LocalBroker
from ops.mapping import AmountForm, FileMapping
from ops.send import MAX_MESSAGE_BYTES, SendError, SendProgress, send_file
from ops.topic_admin import ensure_topics

NOW_MS = round(time.time() * 1000)


@pytest.fixture
async def settings(broker: LocalBroker) -> Settings:
    """A cluster with the three topics that sending needs."""
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [TRANSACTIONS, DECISIONS, REJECTED], partitions=3)
    return load_settings(broker=broker.bootstrap)


def transaction(number: int, **changes: object) -> dict[str, object]:
    """A transaction that the stream accepts, from the number alone."""
    return {
        "end_to_end_id": f"E12345678202401010000{number:011d}",
        "timestamp": NOW_MS + number,
        "amount_centavos": 100 + number,
        "payer_account": f"payer-{number % 97}",
        "payer_ispb": "12345678",
        "receiver_account": f"receiver-{number % 89}",
        "receiver_ispb": "00000000",
        "initiation": "MANU",
        **changes,
    }


def write_lines(path: Path, messages: list[dict[str, object] | bytes]) -> Path:
    """An NDJSON file of these objects and raw lines."""
    lines = [each if isinstance(each, bytes) else msgspec.json.encode(each) for each in messages]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def judge(value: bytes | None, key: bytes | None, timestamp_ms: int) -> Values | Rejection:
    """What the stream's strict decoder says of a message, from its own parts."""
    found = parse_object(value, FIELDS_BY_NAME)
    if isinstance(found, Rejection):
        return found
    values = check_fields(found, FIELDS)
    if isinstance(values, Rejection):
        return values
    fault = check_kafka_key(key, values, "pix_key", "receiver_account") or check_time(
        values, timestamp_ms, TimeLimits()
    )
    return fault or values


@asynccontextmanager
async def answering(settings: Settings) -> AsyncIterator[list[tuple[int, bytes | None, bytes]]]:
    """Answer as the stream does, every message from now on; gives the partition, key and value of each."""
    seen: list[tuple[int, bytes | None, bytes]] = []
    async with (
        AIOKafkaConsumer(TRANSACTIONS.name, bootstrap_servers=settings.broker, auto_offset_reset="latest") as consumer,
        AIOKafkaProducer(bootstrap_servers=settings.broker) as producer,
    ):
        for place in consumer.assignment():
            await consumer.position(place)

        async def answer() -> None:
            async for record in consumer:
                seen.append((record.partition, record.key, record.value))
                values = judge(record.value, record.key, record.timestamp)
                if isinstance(values, Rejection):
                    source = Source(record.topic, record.partition, record.offset, record.timestamp)
                    letter = encode_dead_letter(values, source, record.key, record.value)
                    await producer.send(REJECTED.name, letter, key=record.key)
                else:
                    action = ("APPROVE", "HOLD", "DENY")[int(str(values["amount_centavos"])) % 3]
                    decision = {"end_to_end_id": values["end_to_end_id"], "decision": action, "score": 0.5}
                    await producer.send(DECISIONS.name, json.dumps(decision).encode())

        task = asyncio.create_task(answer())
        yield seen
        if task.done():
            task.result()
        task.cancel()


async def test_every_row_is_answered_for(settings: Settings, tmp_path: Path) -> None:
    """Decided rows are counted by action, rejected ones by path and expectation, with the lines on which they stand."""
    messages: list[dict[str, object] | bytes] = [transaction(number) for number in range(3000)]
    messages[10] = b'{"amount_centavos": }'
    messages[20] = transaction(20, amount_centavos="many")
    messages[2999] = transaction(2999, amount_centavos="many")
    messages[500] = transaction(500, timestamp=1_600_000_000_000)
    messages[501] = transaction(501, timestamp=1_600_000_000_001)
    path = write_lines(tmp_path / "pix.ndjson", messages)
    told: list[SendProgress] = []
    async with answering(settings) as seen:
        report = await send_file(settings, path, patience_s=5, progress=told.append)
    assert (report.sent, report.unanswered, report.interrupted, report.failure) == (3000, 0, False, None)
    assert sum(report.decided.values()) == 2995
    assert report.decided["HOLD"] == sum(
        1 for n in range(3000) if (100 + n) % 3 == 1 and n not in {10, 20, 500, 501, 2999}
    )
    by_path = {group.path: (group.count, sorted(group.rows)) for group in report.rejected}
    assert by_path == {"$": (1, [11]), "$.amount_centavos": (2, [21, 3000]), "$.timestamp": (2, [501, 502])}
    assert {value for _, _, value in seen} == set(path.read_bytes().splitlines())
    assert told[-1].share == 1.0
    assert told[-1].unanswered == 0


async def test_a_key_lies_where_every_kafka_client_puts_it(settings: Settings, tmp_path: Path) -> None:
    """Rows are keyed by `pix_key`, or by the account, in Kafka's own partitions, and keep their order within a key."""
    keyed = [transaction(n, pix_key="pix@bcb.gov.br" if n % 2 else None, initiation="DICT") for n in range(400)]
    async with answering(settings) as seen:
        report = await send_file(settings, write_lines(tmp_path / "pix.ndjson", [*keyed]))
    assert (report.unanswered, report.rejected) == (0, [])
    partitions = {partition for partition, *_ in seen}
    count = 3 if len(partitions) == 3 else max(partitions) + 1
    assert all(key is not None and partition == partition_of(key, count) for partition, key, _ in seen)
    of_one_key = [json.loads(value)["timestamp"] for _, key, value in seen if key == b"pix@bcb.gov.br"]
    assert len(of_one_key) == 200
    assert of_one_key == sorted(of_one_key)


async def test_what_the_file_could_not_say_is_told_in_its_own_terms(settings: Settings, tmp_path: Path) -> None:
    """A cell that is no amount is sent, rejected by the stream, and reported with the form that the mapping wants."""
    rows = [{**transaction(n), "valor": "1,50" if n else "1.5.0"} for n in range(3)]
    for row in rows:
        del row["amount_centavos"]
    header = list(rows[0])
    text = "\n".join(";".join(map(str, cells)) for cells in [header, *(row.values() for row in rows)])
    (tmp_path / "pix.csv").write_text(text)
    mapping = FileMapping({"valor": "amount_centavos"}, amount=AmountForm("reais", ","))
    async with answering(settings):
        report = await send_file(settings, tmp_path / "pix.csv", mapping=mapping)
    assert report.rejected == [RejectionGroup("$.amount_centavos", "amount in reais, decimal `,`", 1, [2])]
    assert report.decided == {"APPROVE": 2, "HOLD": 0, "DENY": 0}  # 150 centavos


async def test_repeats_and_a_damaged_twin_are_answered_once_each(settings: Settings, tmp_path: Path) -> None:
    """Rows with one id share its decision; one of them that was rejected counts as rejected, in whatever order."""
    twin = transaction(1, amount_centavos=-1)
    path = write_lines(tmp_path / "pix.ndjson", [transaction(1), twin, transaction(1), transaction(2)])
    async with answering(settings):
        report = await send_file(settings, path)
    assert report.unanswered == 0
    assert sum(report.decided.values()) == 3
    assert [(group.path, group.rows) for group in report.rejected] == [("$.amount_centavos", [2])]


async def test_without_a_stream_rows_stay_unanswered(settings: Settings, tmp_path: Path) -> None:
    """Waiting ends once nothing has come for the patience given."""
    path = write_lines(tmp_path / "pix.ndjson", [transaction(n) for n in range(5)])
    report = await send_file(settings, path, patience_s=0.3)
    assert (report.sent, report.unanswered, sum(report.decided.values())) == (5, 5, 0)


async def test_without_waiting_answers_are_not_counted(settings: Settings, tmp_path: Path) -> None:
    """The report then says nothing of them, and the limit is kept."""
    path = write_lines(tmp_path / "pix.ndjson", [transaction(n) for n in range(50)])
    report = await send_file(settings, path, wait=False, limit=20)
    assert (report.sent, report.unanswered) == (20, None)


async def test_a_message_beyond_the_topics_limit_is_reported_and_its_neighbours_pass(
    settings: Settings, tmp_path: Path
) -> None:
    """What the cluster would not take never fails the batch that it stands in."""
    long = transaction(1, note="x" * MAX_MESSAGE_BYTES)
    almost = transaction(2, note="x" * (MAX_MESSAGE_BYTES - 1500))
    path = write_lines(tmp_path / "pix.ndjson", [transaction(0), long, almost, transaction(3)])
    async with answering(settings):
        report = await send_file(settings, path)
    assert (report.unanswered, report.failure, sum(report.decided.values())) == (0, None, 3)
    assert [(group.path, group.rows) for group in report.rejected] == [("$", [2])]


async def test_a_damaged_file_is_sent_up_to_the_damage(settings: Settings, tmp_path: Path) -> None:
    """The report has the failure and the answers to what came before it."""
    path = write_lines(tmp_path / "pix.ndjson", [transaction(n) for n in range(2)])
    with path.open("ab") as file:
        file.write(b"x" * (17 << 20))
    async with answering(settings):
        report = await send_file(settings, path)
    assert sum(report.decided.values()) == 2
    assert report.failure is not None
    assert "line 3 is longer than 16 MiB" in report.failure


async def test_ctrl_c_ends_with_a_report_so_far(settings: Settings, tmp_path: Path) -> None:
    """The first interrupt stops reading, waits for the acknowledgements, and reports."""
    path = write_lines(tmp_path / "pix.ndjson", [transaction(n) for n in range(1000)])
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
    report = await send_file(settings, path, rate=100.0)
    assert report.interrupted
    assert 0 < report.sent < 1000
    assert report.unanswered == report.sent


async def test_event_time_sets_the_pace(settings: Settings, tmp_path: Path) -> None:
    """At speed 10 a file of 5 s takes 0.5 s, moved so that its newest row happens as it is sent, ages unchanged."""
    start = NOW_MS - 40_000_000
    rows = [transaction(n, timestamp=start + n * 50, payer_account_opened_at=start - 7) for n in range(101)]
    path = write_lines(tmp_path / "pix.ndjson", [*rows])
    async with answering(settings) as seen:
        report = await send_file(settings, path, speed=10.0, shift_to_now=True)
        done_ms = time.time() * 1000
    assert report.unanswered == 0
    assert 0.5 <= report.seconds < 2.0
    moved = sorted((json.loads(value) for _, _, value in seen), key=lambda each: each["timestamp"])
    assert [each["timestamp"] - moved[0]["timestamp"] for each in moved] == [n * 50 for n in range(101)]
    assert moved[0]["payer_account_opened_at"] == moved[0]["timestamp"] - 7
    assert done_ms - 3000 < moved[-1]["timestamp"] <= done_ms


async def test_a_file_may_be_sent_again_when_it_is_moved(settings: Settings, tmp_path: Path) -> None:
    """Each time its payments have ids of their own, in the minute in which they now happen; retries stay retries."""
    old = NOW_MS - 40 * 86_400_000
    minute = time.strftime("%Y%m%d%H%M", time.gmtime(old / 1000))
    rows = [transaction(n, timestamp=old, end_to_end_id=f"E12345678{minute}{n:011d}") for n in range(30)]
    path = write_lines(tmp_path / "pix.ndjson", [*rows, rows[-1]])
    sendings = []
    for _ in range(2):
        async with answering(settings) as seen:
            report = await send_file(settings, path, shift_to_now=True)
        assert (report.unanswered, report.rejected) == (0, [])
        sendings.append([json.loads(value) for _, _, value in seen])
    first, second = ({each["end_to_end_id"] for each in sending} for sending in sendings)
    assert len(first) == len(second) == 30
    assert first.isdisjoint(second)
    for each in sendings[0]:
        moved_minute = time.strftime("%Y%m%d%H%M", time.gmtime(each["timestamp"] / 1000))
        assert each["end_to_end_id"][:21] == f"E12345678{moved_minute}"


async def test_a_cluster_without_the_topics_is_an_error(
    make_broker: Callable[..., LocalBroker], tmp_path: Path
) -> None:
    """It is said which topic is missing and how to make it; nothing is created on the way."""
    path = write_lines(tmp_path / "pix.ndjson", [transaction(1)])
    with make_broker() as broker, pytest.raises(SendError, match=r"no topic pix-transactions: .*`pixguard topics`"):
        await send_file(load_settings(broker=broker.bootstrap), path)
