"""Decided rows as messages."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.domain.decision import ACTIONS
from models.judging import DECIDED_DTYPE
from models.rule_file import default_pack_text, load_rule_pack
from models.wording import DecisionWriter
from tables.catalog import CATALOG

_PACK = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
_HOSTILE = dataclasses.replace(
    _PACK,
    version='100 % "sure" "score":0.123456789 "partition":-900000001',
    rules=_PACK.rules[:3],
    fingerprint="hostile",
)
_PACKS = {pack.fingerprint.encode(): pack for pack in (_PACK, _HOSTILE)}


@st.composite
def _rows(draw: st.DrawFn) -> np.ndarray:
    count = draw(st.integers(0, 8))
    rows = np.zeros(count, DECIDED_DTYPE)
    for row in rows:
        row["id"] = b"E123456782026010112" + draw(st.text("09azAZ", min_size=13, max_size=13)).encode()
        row["timestamp"] = draw(st.integers(0, 2**62))
        row["event_time"] = draw(st.integers(0, 2**45))
        row["score"] = draw(st.sampled_from([0.0, 1.0, 0.5, 1e-6, 0.123457, 0.999999]) | st.floats(0, 1))
        row["source_partition"] = draw(st.integers(0, 2**31 - 1))
        row["source_offset"] = draw(st.integers(0, 2**62))
        row["lists"] = draw(st.integers(0, 2**62))
        row["action"] = draw(st.integers(0, len(ACTIONS) - 1))
        row["scored"] = draw(st.booleans())
        row["pack"] = draw(st.sampled_from(sorted(_PACKS)))
        fired = draw(st.sets(st.integers(0, len(_PACKS[row["pack"]].rules) - 1), max_size=4))
        mask = np.zeros(8 * row["fired"].size, np.bool_)
        mask[list(fired)] = True
        row["fired"] = np.packbits(mask)
    return rows


@given(_rows())
def test_a_message_is_the_json_of_its_decision(rows: np.ndarray) -> None:
    """Forms that are encoded once and filled in give what encoding each decision gives, whatever a pack is called."""
    writer = DecisionWriter(_PACKS.__getitem__, "0123456789abcdef")
    expected = [msgspec.json.encode(decision) for decision in writer.decisions(rows)]
    assert writer.encode(rows) == expected
    assert writer.encode(rows) == expected
