"""Two small rule packs: what rules cost is not the point here; that decisions name the pack they follow is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from models.rules.file import load_rule_pack
from models.rules.pack import RulePack
from models.stages import in_force
from tables.catalog import CATALOG

__all__ = ["packs_read_once", "rule_packs"]

_PACK = """
version: "{version}"
thresholds: {{hold: 0.4, deny: 0.9}}
rules:
  - id: many-payments
    when: payer_sent_count_24h >= {count}
    action: WATCH
    weight: {weight}
    reason: MANY_PAYMENTS
    text: More payments than usual.
    example: {{payer_sent_count_24h: 9}}
  - id: marked-receiver
    when: receiver_fraud_marks >= 1
    action: HOLD
    weight: 0.3
    reason: MARKED_RECEIVER
    text: The receiver is marked.
    example: {{receiver_fraud_marks: 1}}
  - id: denied-receiver
    when: listed("deny", receiver_account)
    action: DENY
    weight: 1
    reason: RECEIVER_DENIED
    text: The receiver is on the list.
    example: {{receiver_account: bad, lists: {{deny: [receiver_account]}}}}
"""


@cache
def rule_packs() -> tuple[RulePack, RulePack]:
    """Return both packs."""
    first, second = (
        load_rule_pack(text, CATALOG.column_types(), "simulated")
        for text in (_PACK.format(version="a", count=2, weight=0.5), _PACK.format(version="b", count=3, weight=0.6))
    )
    return first, second


@contextmanager
def packs_read_once() -> Iterator[None]:
    """Let a worker that recovers a pack from its text reuse what another has read: YAML takes a tenth of all time."""
    read: dict[str, RulePack] = {}

    def load(text: str, columns: Any, source: str) -> RulePack:  # noqa: ANN401 - as in models.rules.file
        if text not in read:
            read[text] = load_rule_pack(text, columns, source)
        return read[text]

    in_force.load_rule_pack = load  # type: ignore[attr-defined] # an import of its own
    try:
        yield
    finally:
        in_force.load_rule_pack = load_rule_pack  # type: ignore[attr-defined]
