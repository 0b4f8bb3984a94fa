"""What the worker shows of a decision: rendered when somebody looks."""

from __future__ import annotations

import msgspec
import numpy as np

from app.domain.decision import Decision, Reason, Source, Versions
from app.domain.fields import TRANSACTION_DTYPE
from app.worker_view import _render, _Seen
from tables.catalog import CATALOG

MANY_PAYERS, KEY_AGE = "receiver_received_counterparties_24h", "dict_key_age_ms"


def test_a_models_reasons_come_in_words_with_the_payments_own_value() -> None:
    """In both languages, and for features only: what a rule says of itself the page knows from the pack."""
    decision = Decision(
        end_to_end_id="E12345678202601011200abcdefghijk",
        decision="HOLD",
        score=0.4,
        reasons=(
            Reason("NIGHT", 0.5, "night-limit"),
            Reason("RECEIVER_PAYERS_24H", 0.41, feature=MANY_PAYERS),
            Reason("DICT_KEY_AGE", 0.2, feature=KEY_AGE),
        ),
        versions=Versions("1+abc", 3, "0123456789abcdef", online_model=3, batch_model=4),
        source=Source(1, 2),
        event_time=1_767_225_600_000,
        decided_at=1_767_225_600_005,
        hold_minutes=30,
    )
    vector = np.full(len(CATALOG), np.nan, np.float32)
    vector[CATALOG.names.index(MANY_PAYERS)] = 40
    seen = _Seen(1, 2, msgspec.json.encode(decision), np.zeros(1, TRANSACTION_DTYPE)[0], vector)
    view = _render(seen)
    assert view.decision == decision
    assert view.sentences == {
        MANY_PAYERS: (
            "Different payers who paid the receiver in 24 hours: 40.",
            "Pagadores diferentes do recebedor em 24 horas: 40.",
        ),
        KEY_AGE: ("Age of the receiver's key: no data.", "Idade da chave do recebedor: sem dados."),
    }
