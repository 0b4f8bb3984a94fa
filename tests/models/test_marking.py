"""Feedback becomes markers on receivers and payers, where their payments go."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.feedback import EVENT_STATUSES
from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.domain.records import Stretch
from app.domain.rejection import Reason, decode_dead_letter
from app.domain.siphash import HashKey, hash_account, hash_pix_key
from app.domain.transaction import TransactionDecoder
from models.stages.marking import Marker, MarkingOutput, decode_marker, mark_parties

KAFKA_MS = 1_790_000_000_000
PAYMENT = "E12345678202609211333abcDEF12345"
CPF = "52998224725"
MARKER: dict[str, object] = {
    "end_to_end_id": PAYMENT,
    "timestamp": KAFKA_MS - 1000,
    "event": "FRAUD_MARKER",
    "status": "REGISTERED",
    "report_id": "91d65e98-97c0-4b0f-b577-73625da1f9fc",
    "last_modified": KAFKA_MS - 2000,
    "fraud_type": "MULE_ACCOUNT",
    "pix_key": CPF,
}
BY_ACCOUNT = {"pix_key": ..., "receiver_account": "0001-99", "receiver_ispb": "12345678"}
PARTITIONS = 8
HASH_KEY = HashKey.from_bytes(bytes(range(16)))


def _message(**changes: object) -> bytes:
    """Return the marker with some fields changed; ... leaves one out."""
    return json.dumps({name: value for name, value in (MARKER | changes).items() if value is not ...}).encode()


def _mark(*values: bytes | None, partition: int = 2) -> MarkingOutput:
    count = len(values)
    records = Stretch(100, 100 + count, [PAYMENT.encode()] * count, values, range(100, 100 + count), [KAFKA_MS] * count)
    return mark_parties(records, partition, PARTITIONS, HASH_KEY, TimeLimits())


def _markers(output: MarkingOutput) -> list[tuple[int, Marker]]:
    """Partition and content of what goes to the receivers."""
    return [
        (send.partition, decode_marker(value))
        for send in output.sends
        if send.topic == "pix-markers"
        for value in send.values
    ]


def test_a_registered_marker_marks_the_key() -> None:
    """It goes to the partition of the key's payments."""
    output = _mark(_message())
    ((partition, marker),) = _markers(output)
    assert partition == partition_of(CPF.encode(), PARTITIONS)
    assert (marker.marked, marker.fraud_type, marker.delta) == (hash_pix_key(CPF, HASH_KEY), "MULE_ACCOUNT", 1)
    assert marker.timestamp == KAFKA_MS - 1000
    assert (output.markers, output.rejections) == (1, [])


def test_a_marker_may_name_the_account() -> None:
    """Payments without a Pix key are keyed by it."""
    ((partition, marker),) = _markers(_mark(_message(**BY_ACCOUNT)))
    assert partition == partition_of(b"0001-99", PARTITIONS)
    assert marker.marked == hash_account("12345678", "0001-99", HASH_KEY)


@pytest.mark.parametrize("by_account", [False, True])
def test_the_mark_meets_the_payment(*, by_account: bool) -> None:
    """Receiver hash and partition are those that the transaction decoder and the bank's producer give."""
    payment = {
        "end_to_end_id": PAYMENT,
        "timestamp": KAFKA_MS,
        "amount_centavos": 100,
        "payer_account": "7",
        "payer_ispb": "87654321",
        "receiver_account": "0001-99",
        "receiver_ispb": "12345678",
        "initiation": "MANU" if by_account else "DICT",
    }
    key = b"0001-99" if by_account else CPF.encode()
    if not by_account:
        payment["pix_key"] = CPF
    decoder = TransactionDecoder(HASH_KEY, TimeLimits())
    decoded = decoder.decode([json.dumps(payment).encode()], [key], [KAFKA_MS], [0], 0)
    ((partition, marker),) = _markers(_mark(_message(**BY_ACCOUNT) if by_account else _message()))
    assert decoded.rows["receiver"].tolist() == [marker.marked]
    assert partition == partition_of(key, PARTITIONS)


def test_the_payer_is_marked_too() -> None:
    """Where its debits go, with an id of its own: one partition may hold both parties."""
    named = {"payer_account": "7", "payer_ispb": "87654321"}
    (_, receiver), (partition, payer) = sorted(_markers(_mark(_message(**named))), key=lambda item: item[1].party[::-1])
    assert (receiver.party, payer.party) == ("receiver", "payer")
    assert payer.marked == hash_account("87654321", "7", HASH_KEY)
    assert partition == payer.marked % PARTITIONS
    assert (payer.fraud_type, payer.delta, payer.timestamp) == ("MULE_ACCOUNT", 1, KAFKA_MS - 1000)
    assert payer.id != receiver.id


def test_a_marker_may_name_the_payer_alone() -> None:
    """One who was defrauded over another rail, say."""
    ((_, marker),) = _markers(_mark(_message(pix_key=..., payer_account="7", payer_ispb="87654321")))
    assert marker.party == "payer"


def test_a_cancellation_takes_the_mark_away() -> None:
    """Same receiver and type, delta -1, and an id of its own so that it is not taken for a repeat."""
    ((_, registered), (_, cancelled)) = _markers(_mark(_message(), _message(status="CANCELLED")))
    assert (cancelled.marked, cancelled.fraud_type, cancelled.delta) == (registered.marked, "MULE_ACCOUNT", -1)
    assert cancelled.id != registered.id


def test_a_repeat_has_the_same_id() -> None:
    """Sent twice, or revised without a change of state, it counts once; another report counts for itself."""
    values = [_message(), _message(last_modified=KAFKA_MS - 1500), _message(report_id="another")]
    first, revised, other = (marker.id for _, marker in _markers(_mark(*values)))
    assert first == revised != other
    assert len(first) == 16


def test_ids_fit_the_memory_of_markers() -> None:
    """As S32, without a NUL at the end that NumPy would drop."""
    for number in range(300):
        ((_, marker),) = _markers(_mark(_message(report_id=f"report-{number}")))
        assert bytes(np.array([marker.id], "S32")[0]) == marker.id


def test_an_unnamed_type_is_other() -> None:
    """The mark counts all the same."""
    ((_, marker),) = _markers(_mark(_message(fraud_type=...)))
    assert marker.fraud_type == "OTHER"


@pytest.mark.parametrize("event", [event for event in EVENT_STATUSES if event != "FRAUD_MARKER"])
def test_nothing_else_marks(event: str) -> None:
    """A contested payment is confirmed one time in ten."""
    for status in EVENT_STATUSES[event]:
        output = _mark(_message(event=event, status=status, analysis_result="AGREED"))
        assert (output.sends, output.markers, output.rejections) == ([], 0, [])


def test_a_marker_without_parties_marks_nobody() -> None:
    """It is feedback on a payment, and no fault."""
    output = _mark(_message(pix_key=...))
    assert (output.sends, output.markers, output.rejections) == ([], 0, [])


def test_a_fault_becomes_a_dead_letter_and_stops_nobody() -> None:
    """It says where the message stands, and keeps it byte for byte."""
    output = _mark(_message(), b"{", None, _message(report_id="second"))
    assert output.markers == 2
    assert [fault.reason for fault in output.rejections] == [Reason.NOT_JSON, Reason.TOMBSTONE]
    (send,) = [send for send in output.sends if send.topic == "pix-rejected"]
    assert send.partition == partition_of(PAYMENT.encode(), PARTITIONS)
    assert list(send.keys) == [PAYMENT.encode()] * 2
    broken, tombstone = map(decode_dead_letter, send.values)
    assert (broken.source.topic, broken.source.partition, broken.source.offset) == ("pix-feedback", 2, 101)
    assert (broken.raw_base64, tombstone.raw_base64) == (b"{", None)


def test_no_personal_data_leaves_in_clear() -> None:
    """Neither the key nor the account nor the report is in a marker."""
    output = _mark(_message(payer_account="0002-11", payer_ispb="87654321"), _message(**BY_ACCOUNT))
    sent = b"".join(value for send in output.sends for value in send.values)
    assert CPF.encode() not in sent
    assert b"0002-11" not in sent
    assert b"0001-99" not in sent
    assert str(MARKER["report_id"]).encode() not in sent
    assert all(key is None for send in output.sends for key in send.keys)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12))
def test_markers_of_a_receiver_stay_in_order(changes: list[tuple[int, bool]]) -> None:
    """One send a partition; the markers of one receiver follow each other as the feedback did."""
    values = [
        _message(
            **BY_ACCOUNT | {"receiver_account": f"acc-{receiver}"},
            status="REGISTERED" if registered else "CANCELLED",
            report_id=f"report-{place}",
            timestamp=KAFKA_MS - 1000 + place,
        )
        for place, (receiver, registered) in enumerate(changes)
    ]
    output = _mark(*values)
    partitions = [send.partition for send in output.sends]
    assert partitions == sorted(set(partitions))
    assert output.markers == len(changes)
    for send in output.sends:
        times = [decode_marker(value).timestamp for value in send.values]
        assert all(earlier < later for earlier, later in pairwise(times))
    found = {marker.timestamp: marker.delta for _, marker in _markers(output)}
    assert found == {KAFKA_MS - 1000 + place: 1 if registered else -1 for place, (_, registered) in enumerate(changes)}


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", msgspec.msgpack.encode(["id", 1])])
def test_what_is_no_marker_is_an_error(value: bytes) -> None:
    """The worker must not go on over it."""
    with pytest.raises(msgspec.MsgspecError):
        decode_marker(value)
