"""What the worker shows of a decision: rendered when somebody looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from app.domain.decision import ACTIONS, Decision, Reason, Source, Versions
from app.domain.fields import TRANSACTION_DTYPE
from app.domain.siphash import HashKey
from app.settings import Settings
from app.web.view import DecisionView
from app.worker_view import LiveView
from models.batch.model import BatchModel
from models.calibration import Calibration
from models.ensemble import NO_MODELS, Models, no_scores
from models.rules.file import default_pack_text, load_rule_pack
from models.rules.pack import RulePack
from models.stages.judging import DECIDED_DTYPE, Decided
from models.stages.payers import PayerOutput
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tests.models.forests import random_forest

MANY_PAYERS, KEY_AGE, SENT = "receiver_received_counterparties_24h", "dict_key_age_ms", "payer_sent_sum_1h"
DECISION = Decision(
    end_to_end_id="E12345678202601011200abcdefghijk",
    decision="HOLD",
    score=0.4,
    reasons=(
        Reason("NIGHT", 0.5, "night-limit"),
        Reason("RECEIVER_PAYERS_24H", 0.41, feature=MANY_PAYERS),
        Reason("DICT_KEY_AGE", 0.2, feature=KEY_AGE),
        Reason("PAYER_SUM_1H", 0.1, feature=SENT),
    ),
    versions=Versions("1+abc", 3, "0123456789abcdef", online_model=3, batch_model=4),
    source=Source(1, 2),
    event_time=1_767_225_600_000,
    decided_at=1_767_225_600_005,
    hold_minutes=30,
)


@pytest.fixture(scope="module")
def pack() -> RulePack:
    """The rules that come with pixguard."""
    return load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")


def champion(usual: np.ndarray | None) -> BatchModel:
    """A batch model in force."""
    forest = random_forest(np.random.default_rng(1), 2, 4)
    return BatchModel(4, "pixguard", FEATURES_VERSION, forest, Calibration(), 0, usual)


def shown(models: Models, pack: RulePack) -> DecisionView:
    """`DECISION` on a payment to a receiver of many payers, taken by models, as the page gets it."""
    vector = np.full((1, len(CATALOG)), np.nan, np.float32)
    vector[0, CATALOG.names.index(MANY_PAYERS)] = 40
    vector[0, CATALOG.names.index(SENT)] = 5_000
    rows = np.zeros(1, DECIDED_DTYPE)
    rows["action"] = ACTIONS.index("HOLD")
    decided = Decided(
        np.zeros(1, TRANSACTION_DTYPE),
        np.zeros(1, np.int64),
        rows,
        [msgspec.json.encode(DECISION)],
        vector,
        no_scores(1),
        models,
        pack,
    )
    view = LiveView(Settings(), cast("Any", None), HashKey.from_bytes(bytes(16)))
    view.watch_decided(PayerOutput([], decided, 0, []))
    (found,) = view.recent_decisions(5)
    return found


def test_a_models_reasons_come_in_words_with_the_payments_own_value(pack: RulePack) -> None:
    """In both languages, and for features only: what a rule says of itself the page knows from the pack."""
    view = shown(NO_MODELS, pack)
    assert view.decision == DECISION
    assert view.sentences == {
        MANY_PAYERS: (
            "Different payers who paid the receiver in 24 hours: 40.",
            "Pagadores diferentes do recebedor em 24 horas: 40.",
        ),
        KEY_AGE: ("Age of the receiver's key: no data.", "Idade da chave do recebedor: sem dados."),
        SENT: (
            "Total of payments by the payer in 1 hour: R$ 50.00.",
            "Valor total de pagamentos do pagador em 1 hora: R$ 50,00.",
        ),
    }


def test_a_batch_model_tells_what_would_be_usual(pack: RulePack) -> None:
    """The medians that the model in force has learned from say whether a value is high or low."""
    usual = np.full(len(CATALOG), np.nan, np.float32)
    for name, value in ((MANY_PAYERS, 3), (SENT, 12_000), (KEY_AGE, 1e9)):
        usual[CATALOG.names.index(name)] = value
    models = replace(NO_MODELS, champion=champion(usual))
    assert shown(models, pack).sentences == {
        MANY_PAYERS: (
            "Different payers who paid the receiver in 24 hours: 40, above the usual 3.",
            "Pagadores diferentes do recebedor em 24 horas: 40, acima do usual (3).",
        ),
        KEY_AGE: ("Age of the receiver's key: no data.", "Idade da chave do recebedor: sem dados."),
        SENT: (
            "Total of payments by the payer in 1 hour: R$ 50.00, below the usual R$ 120.00.",
            "Valor total de pagamentos do pagador em 1 hora: R$ 50,00, abaixo do usual (R$ 120,00).",
        ),
    }


def test_a_model_that_knows_nothing_usual_tells_no_side(pack: RulePack) -> None:
    """One that was trained before models had medians, and one whose medians are missing."""
    plain = shown(NO_MODELS, pack).sentences
    for usual in (None, np.full(len(CATALOG), np.nan, np.float32)):
        assert shown(replace(NO_MODELS, champion=champion(usual)), pack).sentences == plain
