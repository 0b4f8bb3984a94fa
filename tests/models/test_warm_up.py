"""Warming up must really go through both stages: a specimen that is rejected would compile half of it."""

from __future__ import annotations

from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.pipeline import _SPECIMEN, Message, Pipeline, warm_up
from models.rule_file import default_pack_text, load_rule_pack
from tables.catalog import CATALOG


def test_the_specimen_is_decided_on() -> None:
    """Both stages see it, and it comes back from a checkpoint."""
    decoder = TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits())
    pack = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
    warm_up(decoder, pack)
    output = Pipeline(1, decoder, pack).push([Message(b"2", _SPECIMEN, -1)])
    assert output.rejections == []
    assert [len(batch.decided.messages) for batch in output.decided] == [1]
