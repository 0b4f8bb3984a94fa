"""Reasons of models in words: every feature has them, in both languages, and only what speaks for fraud is told."""

from __future__ import annotations

import re

import numpy as np
import pytest

from models.wording import phrases
from models.wording.explaining import model_reasons, reason_code, reason_sentences, reason_texts
from tables.aggregates import AGGREGATES
from tables.catalog import CATALOG

POSITIONS = {name: place for place, name in enumerate(CATALOG.names)}

WITHOUT_ACCENT = re.compile(
    r"\b(nao|credito\w*|media|medio|ultim\w+|numero|codigo|instituic\w+|denuncias?|ligac\w+|aplicac\w+|horario|mes"
    r"|dinamico|estatico|variac\w+|confirmac\w+|aleatoria|servico|emprestimo|desvio padrao|proxim\w+|mudanca|titulares?"
    r"|telefonica|a noite|as 6h|proteca\w*|pessoas fisicas|analise|habitua|estatistica\w*|reivindicac\w+|multipl\w+)\b"
)
ENGLISH = re.compile(r"\b(the|of|payer|receiver|payments|amount|in|days|hours|device|key)\b")


def _row(**values: float) -> np.ndarray:
    row = np.full(len(CATALOG), np.nan, np.float32)
    for name, value in values.items():
        row[POSITIONS[name]] = value
    return row


def _weights(**weights: float) -> np.ndarray:
    row = np.zeros(len(CATALOG) + 1)
    for name, weight in weights.items():
        row[POSITIONS[name]] = weight
    row[-1] = 100.0  # the expectation: no feature's
    return row


@pytest.mark.parametrize("name", CATALOG.names)
def test_every_feature_has_a_code_and_texts(name: str) -> None:
    """A feature added without words fails here, or before: no reason falls back on a bare name."""
    code, (english, portuguese) = reason_code(name), reason_texts(name)
    assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", code)
    for text in (english, portuguese):
        assert text[0].isupper()
        assert " " in text or text == "Amount"
        assert not re.search(r"[{}_]|  |\.$|\bNone\b|\bpor o\b|\bde o\b", text), text
        assert name not in text or "_" not in name
    assert english != portuguese or name == "cash"
    assert not WITHOUT_ACCENT.search(portuguese.lower()), portuguese
    assert not ENGLISH.search(portuguese.lower()), portuguese


def test_codes_and_texts_are_each_features_own() -> None:
    """A code that is stored leads back to one feature, and no two reasons read alike."""
    assert len({reason_code(name) for name in CATALOG.names}) == len(CATALOG)
    assert len({reason_texts(name)[0] for name in CATALOG.names}) == len(CATALOG)
    assert len({reason_texts(name)[1] for name in CATALOG.names}) == len(CATALOG)


def test_no_phrase_is_left_over() -> None:
    """Phrases of derived features and aggregates that are gone go too."""
    assert set(phrases.DERIVED) == {item.name for item in CATALOG.derived}
    assert {name.split(" ")[0] for name in phrases.AGGREGATES} == {kind.__name__ for kind in AGGREGATES}


def test_codes_of_old_decisions_stay() -> None:
    """Codes are stored in decisions, so a change of the way in which they are derived must not rename them."""
    for name, code in {
        "receiver_received_counterparties_24h": "RECEIVER_PAYERS_24H",
        "receiver_received_count_1min": "RECEIVER_PAYMENTS_1MIN",
        "receiver_received_new_counterparty_share_30d": "RECEIVER_PAYMENTS_NEW_COUNTERPARTY_SHARE_30D",
        "receiver_mule_account_marks": "RECEIVER_CONFIRMED_MULE",
        "payer_credited_sum_10min": "PAYER_CREDITS_AMOUNT_10MIN",
        "payer_sent_first_time": "PAYER_NEW_RECEIVER",
        "payer_night_natural_sum": "PAYER_NIGHT_AMOUNT_TO_PEOPLE",
        "dict_key_age_ms": "DICT_KEY_AGE",
        "session_on_call": "SESSION_ON_CALL",
    }.items():
        assert reason_code(name) == code


def test_only_what_pushes_toward_fraud_heaviest_first() -> None:
    """Neither zeros, nor what speaks for the payment, nor the expectation; equal weights in the catalog's order."""
    weights = _weights(night=0.5, cash=0.5, session_on_call=2.0, same_owner=-3.0, round_50=0.1)
    row = _row(night=1, cash=1, session_on_call=1, same_owner=1, round_50=1)
    reasons = model_reasons(weights, row, most=9)
    assert [reason.feature for reason in reasons] == ["session_on_call", "cash", "night", "round_50"]
    assert [reason.weight for reason in reasons] == [2.0, 0.5, 0.5, 0.1]
    assert [reason.feature for reason in model_reasons(weights, row)] == ["session_on_call", "cash", "night"]
    assert model_reasons(weights, row, most=0) == ()
    assert model_reasons(-weights, _row(), most=3)[0].feature == "same_owner"
    assert model_reasons(_weights(), row) == ()


@pytest.mark.parametrize(
    ("name", "value", "english", "portuguese"),
    [
        (
            "receiver_received_counterparties_24h",
            1234,
            "Different payers who paid the receiver in 24 hours: 1,234.",
            "Pagadores diferentes do recebedor em 24 horas: 1.234.",
        ),
        (
            "payer_sent_sum_1h",
            123456,
            "Total of payments by the payer in 1 hour: R$ 1,234.56.",
            "Valor total de pagamentos do pagador em 1 hora: R$ 1.234,56.",
        ),
        ("amount_log", np.log1p(5000), "Amount: R$ 50.00.", "Valor do pagamento: R$ 50,00."),
        ("dict_key_age_ms", 90_000_000, "Age of the receiver's key: 1 day.", "Idade da chave do recebedor: 1 dia."),
        ("dict_key_age_ms", 7_300_000, "Age of the receiver's key: 2 hours.", "Idade da chave do recebedor: 2 horas."),
        ("dict_key_age_ms", 45_000, "Age of the receiver's key: 45 s.", "Idade da chave do recebedor: 45 s."),
        (
            "share_of_limit",
            0.954,
            "Amount as a share of the payer's limit: 95 %.",
            "Valor como parcela do limite do pagador: 95 %.",
        ),
        (
            "amount_to_payer_zscore_30d",
            3.25,
            "Amount's distance from the payer's mean in 30 days: 3.2 standard deviations.",
            "Distância do valor em relação à média do pagador em 30 dias: 3,2 desvios padrão.",
        ),
        (
            "pass_through_1h",
            np.inf,
            "Money sent against money just received in 1 hour: beyond measure.",
            "Valor enviado comparado ao recém-recebido em 1 hora: fora de medida.",
        ),
        ("weekday_number", 6, "Day of the week: Sunday.", "Dia da semana: domingo."),
        ("session_on_call", 1, "A telephone call was on.", "Ligação telefônica em andamento."),
        (
            "payer_credited_by_counterparty",
            0,
            "The receiver has paid the payer before: no.",
            "O recebedor já pagou ao pagador: não.",
        ),
        (
            "payer_account_age_ms",
            np.nan,
            "Age of the payer's account: no data.",
            "Idade da conta do pagador: sem dados.",
        ),
        (
            "hour_of_day_sin",
            0.3,
            "Time of day, between morning and evening.",
            "Horário, entre a manhã e o fim do dia.",
        ),
    ],
)
def test_sentences(name: str, value: float, english: str, portuguese: str) -> None:
    """Values come in their unit, as people write numbers in either language; a missing one is told to be."""
    (reason,) = model_reasons(_weights(**{name: 1.0}), _row(**{name: value}))
    assert (reason.text_en, reason.text_pt) == (english, portuguese)
    assert (reason.code, reason.feature) == (reason_code(name), name)
    assert reason.value == (None if np.isnan(value) else np.float32(value))


def test_sentences_tell_high_from_low() -> None:
    """With what is usual, a reader sees on which side of it a value is; where nothing is usual, no side is told."""
    name = "receiver_received_counterparties_24h"
    usual = _row(**{name: 3.0})

    def told(value: float) -> str:
        (reason,) = model_reasons(_weights(**{name: 1.0}), _row(**{name: value}), usual=usual)
        return reason.text_pt

    assert told(40) == "Pagadores diferentes do recebedor em 24 horas: 40, acima do usual (3)."
    assert told(0) == "Pagadores diferentes do recebedor em 24 horas: 0, abaixo do usual (3)."
    assert told(3) == "Pagadores diferentes do recebedor em 24 horas: 3."
    assert told(np.nan) == "Pagadores diferentes do recebedor em 24 horas: sem dados."
    (reason,) = model_reasons(_weights(month_day=1.0), _row(month_day=5), usual=usual)
    assert reason.text_en == "Day of the month: 5."


def test_the_calendar_has_no_sides() -> None:
    """No Saturday is above the usual Thursday."""
    assert reason_sentences("weekday_number", 5.0, 3.0) == ("Day of the week: Saturday.", "Dia da semana: sábado.")
    assert reason_sentences("month_day", 30.0, 15.0)[0] == "Day of the month: 30."


def test_every_feature_can_be_told() -> None:
    """With any value, no sentence has holes."""
    for value in (np.nan, 0.0, 1.0, -2.5, 1e12, np.inf, -np.inf):
        row = np.full(len(CATALOG), value, np.float32)
        reasons = model_reasons(np.ones(len(CATALOG) + 1), row, most=len(CATALOG), usual=np.ones(len(CATALOG)))
        assert [reason.feature for reason in reasons] == list(CATALOG.names)
        for reason in reasons:
            for text in (reason.text_en, reason.text_pt):
                assert re.fullmatch(r"[^{}_]+[^ .:]\.", text), text


def test_rows_of_another_catalog_are_refused() -> None:
    """Words would stand beside the wrong numbers."""
    with pytest.raises(
        ValueError, match=rf"contributions: expected shape \({len(CATALOG) + 1},\).*got \({len(CATALOG)},\)"
    ):
        model_reasons(np.zeros(len(CATALOG)), _row())
    with pytest.raises(ValueError, match=rf"vector: expected shape \({len(CATALOG)},\).*got \(3,\)"):
        model_reasons(_weights(), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="usual: expected shape"):
        model_reasons(_weights(), _row(), usual=np.zeros(3))
