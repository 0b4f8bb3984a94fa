"""Decisions and vectors as messages."""

from __future__ import annotations

import datetime as dt
import json
import zoneinfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.decision import (
    ACTIONS,
    Decision,
    Reason,
    Source,
    Versions,
    decode_decision,
    hold_minutes,
)

FINGERPRINT = "0123456789abcdef"
HELD = Decision(
    end_to_end_id="E12345678202601011200abcdefghijk",
    decision="HOLD",
    score=0.75,
    reasons=(Reason("NEW_KEY", 0.5, "R1"), Reason("NIGHT", 0.25, "R2")),
    rules=("R2", "R1"),
    versions=Versions(rules="1+abc", lists=3, features=FINGERPRINT),
    source=Source(3, 2**40),
    event_time=1_767_225_600_000,
    decided_at=1_767_225_600_005,
    hold_minutes=60,
)


def test_a_decision_comes_back() -> None:
    """Through JSON, field by field."""
    assert decode_decision(msgspec.json.encode(HELD)) == HELD


def test_the_message_reads_as_documented() -> None:
    """Consumers in other languages know it by these names."""
    message = json.loads(msgspec.json.encode(HELD))
    assert list(message) == [
        "end_to_end_id",
        "decision",
        "score",
        "scored",
        "reasons",
        "rules",
        "versions",
        "source",
        "event_time",
        "decided_at",
        "hold_minutes",
    ]
    assert message["source"] == {"partition": 3, "offset": 2**40}
    assert message["reasons"][0] == {"code": "NEW_KEY", "weight": 0.5, "rule": "R1"}
    assert message["versions"]["online_model"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decision": "MAYBE"}, r"\$\.decision"),
        ({"score": "high"}, r"Expected `float`, got `str` - at `\$\.score`"),
        ({"source": {"partition": 1}}, r"`offset` - at `\$\.source`"),
    ],
)
def test_what_is_no_decision_is_an_error(change: dict[str, object], said: str) -> None:
    """The error names path, expected and got."""
    message = json.loads(msgspec.json.encode(HELD)) | change
    with pytest.raises(msgspec.ValidationError, match=said):
        decode_decision(json.dumps(message).encode())


def test_actions_are_in_order_of_severity() -> None:
    """Their position is their code in arrays, so the order is part of the format."""
    assert ACTIONS == ("APPROVE", "HOLD", "DENY")


@pytest.mark.parametrize(
    ("clock", "minutes"),
    [("05:59:59.999", 60), ("06:00:00.000", 30), ("12:00:00.000", 30), ("19:59:59.999", 30), ("20:00:00.000", 60)],
)
def test_holds_are_longer_at_night(clock: str, minutes: int) -> None:
    """20:00 to 06:00 in Brasilia, to the millisecond."""
    time = dt.datetime.fromisoformat(f"2026-03-01T{clock}-03:00")
    assert hold_minutes(round(time.timestamp() * 1000)) == minutes


@settings(max_examples=200)
@given(st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2100, 1, 1)))  # noqa: DTZ001 - UTC is added below
def test_brasilia_has_no_summer_time(moment: dt.datetime) -> None:
    """The fixed offset agrees with the time zone database."""
    moment = moment.replace(microsecond=0, tzinfo=dt.UTC)
    hour = moment.astimezone(zoneinfo.ZoneInfo("America/Sao_Paulo")).hour
    assert hold_minutes(int(moment.timestamp()) * 1000) == (30 if 6 <= hour < 20 else 60)
