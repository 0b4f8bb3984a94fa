"""Why a model took a payment for fraud, in words: codes and sentences that follow from the catalog's declarations.

A base feature's code and sentence are put together from its key, log, aggregate, flag and window, so a new one has them
at once; a new aggregate or flag needs a phrase in `models.wording.phrases`, and so does a derived feature.
Phrases state a fact and no suspicion, since a model may mind a low value as well as a high one: the value is told, and
on which side of the usual one it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.fields import MAX_AMOUNT_CENTAVOS
from models.wording import phrases
from models.wording.phrases import Texts
from tables.aggregates import Aggregate
from tables.catalog import CATALOG, Entry, window_name
from tables.features import Feature

__all__ = ["ModelReason", "model_reasons", "reason_code", "reason_sentences", "reason_texts"]


@dataclass(frozen=True, slots=True)
class ModelReason:
    """One feature that pushed a payment toward fraud.

    Parameters
    ----------
    code
        Stable, one for each feature: RECEIVER_PAYERS_24H.
    feature
        Name in the catalog.
    weight
        What the feature adds to the model's margin; above 0.
    value
        Of the feature; None where it is missing.
    usual
        What is usual of it; None where nothing is.
    """

    code: str
    feature: str
    weight: float
    value: float | None
    usual: float | None = None

    @property
    def text_en(self) -> str:
        """One sentence in English."""
        return reason_sentences(self.feature, self.value, self.usual)[0]

    @property
    def text_pt(self) -> str:
        """The same in Portuguese."""
        return reason_sentences(self.feature, self.value, self.usual)[1]


def _aggregate(feature: Feature) -> Aggregate:
    return feature.aggregate() if isinstance(feature.aggregate, type) else feature.aggregate


def _phrased(feature: Feature) -> tuple[str, str, str]:
    """Part of the code, and the phrases, of a base feature; what is most precise wins."""
    aggregate = _aggregate(feature)
    kind = type(aggregate).__name__
    flag: str = getattr(aggregate, "flag", "")
    detail = getattr(aggregate, "fraud_type", None) or getattr(aggregate, "name", None) or feature.log
    code, *texts = phrases.AGGREGATES.get(f"{kind} {detail}") or phrases.AGGREGATES[kind]
    flags = (phrases.FLAGS.get(f"{feature.log} {flag}") or phrases.FLAGS[flag]) if flag else ("", "")
    events, of, by = phrases.LOGS[feature.log], phrases.OF_KEYS[feature.key], phrases.BY_KEYS[feature.key]
    english, portuguese = (
        text.format(events=events[place], flag=flags[place], of=of[place], by=by[place])
        for place, text in enumerate(texts)
    )
    return code.format(log=phrases.LOG_CODES[feature.log], FLAG=flag), english, portuguese


_PERIODS = {"min": ("minute", "minuto"), "h": ("hour", "hora"), "d": ("day", "dia")}


def _within(window: str) -> Texts:
    """A window, named as in features' names, in words."""
    unit = window.lstrip("0123456789")
    count = int(window.removesuffix(unit))
    english, portuguese = (name if count == 1 else f"{name}s" for name in _PERIODS[unit])
    return f" in {count} {english}", f" em {count} {portuguese}"


@dataclass(frozen=True, slots=True)
class _Explained:
    entry: Entry
    code: str
    texts: Texts


def _explain_base(entry: Entry, feature: Feature) -> _Explained:
    code, english, portuguese = _phrased(feature)
    if feature.window is None:
        return _Explained(entry, f"{feature.key.upper()}_{code}", (english, portuguese))
    window = window_name(feature.window)
    within = _within(window)
    texts = english + within[0], portuguese + within[1]
    return _Explained(entry, f"{feature.key.upper()}_{code}_{window.upper()}", texts)


def _explain_derived(entry: Entry) -> _Explained:
    texts = phrases.DERIVED[entry.name]
    window = entry.name.rpartition("_")[2]
    if window[0].isdigit() and window.lstrip("0123456789") in _PERIODS:
        within = _within(window)
        texts = texts[0] + within[0], texts[1] + within[1]
    return _Explained(entry, entry.name.removesuffix("_ms").upper(), texts)


def _explain_catalog() -> tuple[_Explained, ...]:
    base = len(CATALOG.features)
    pairs = zip(CATALOG.entries[:base], CATALOG.features, strict=True)
    return (*(_explain_base(*pair) for pair in pairs), *map(_explain_derived, CATALOG.entries[base:]))


_EXPLAINED = _explain_catalog()
_BY_NAME = {explained.entry.name: explained for explained in _EXPLAINED}


def reason_code(feature: str) -> str:
    """Return a feature's code.

    Raises
    ------
    KeyError
        For a name that is not in the catalog.

    Examples
    --------
    >>> reason_code("receiver_received_counterparties_24h"), reason_code("dict_key_age_ms")
    ('RECEIVER_PAYERS_24H', 'DICT_KEY_AGE')
    """
    return _BY_NAME[feature].code


def reason_texts(feature: str) -> tuple[str, str]:
    """Return what a feature is, in English and in Portuguese.

    Raises
    ------
    KeyError
        For a name that is not in the catalog.

    Examples
    --------
    >>> reason_texts("payer_sent_sum_1h")
    ('Total of payments by the payer in 1 hour', 'Valor total de pagamentos do pagador em 1 hora')
    """
    english, portuguese = _BY_NAME[feature].texts
    return english[0].upper() + english[1:], portuguese[0].upper() + portuguese[1:]


_WEEKDAYS = (
    ("Monday", "segunda-feira"),
    ("Tuesday", "terça-feira"),
    ("Wednesday", "quarta-feira"),
    ("Thursday", "quinta-feira"),
    ("Friday", "sexta-feira"),
    ("Saturday", "sábado"),
    ("Sunday", "domingo"),
)

_DURATIONS = ((86_400_000, "day", "dia"), (3_600_000, "hour", "hora"), (60_000, "minute", "minuto"))

_GREATEST_LOG = math.log1p(MAX_AMOUNT_CENTAVOS)

_SWAP = str.maketrans(",.", ".,")


def _number(value: float, digits: int = 0, template: str = "{}") -> Texts:
    text = template.format(f"{value:,.{digits}f}")
    return text, text.translate(_SWAP)


def _duration(value: float) -> Texts:
    for width, *names in _DURATIONS:
        if abs(value) >= width:
            count = int(value / width)
            english, portuguese = (name if abs(count) == 1 else f"{name}s" for name in names)
            numbers = _number(count)
            return f"{numbers[0]} {english}", f"{numbers[1]} {portuguese}"
    return _number(value / 1000, template="{} s")


def _deviations(value: float) -> Texts:
    english, portuguese = _number(value, 1)
    return f"{english} standard deviations", f"{portuguese} desvios padrão"


_UNITS: dict[str, Callable[[float], Texts]] = {
    "centavos": lambda value: _number(value / 100, 2, "R$ {}"),
    "log centavos": lambda value: _number(math.expm1(min(value, _GREATEST_LOG)) / 100, 2, "R$ {}"),
    "share": lambda value: _number(value * 100, template="{} %"),
    "ratio": lambda value: _number(value, 1, "{} x"),
    "ms": _duration,
    "standard deviations": _deviations,
    # These numbers tell a reader nothing.
    "sine": lambda _: ("", ""),
    "cosine": lambda _: ("", ""),
}
"""A value in words, by its feature's unit; what is not here is counted."""


_SIDELESS = frozenset({"days"})
"""Units of features of the calendar: no Saturday is above a Thursday."""


def _worded(value: float, entry: Entry) -> Texts:
    if not math.isfinite(value):
        return "beyond measure", "fora de medida"
    if entry.name == "weekday_number":
        return _WEEKDAYS[int(value) % 7]
    return _UNITS.get(entry.unit, _number)(value)


def reason_sentences(feature: str, value: float | None, usual: float | None = None) -> Texts:
    """Return what a feature says of one payment, in English and in Portuguese.

    Parameters
    ----------
    feature
        Name in the catalog.
    value
        Of the payment; None where it is missing.
    usual
        What is usual, such as the median in training: with it sentences say whether a value is high or low.

    Examples
    --------
    >>> reason_sentences("receiver_received_counterparties_24h", 40.0, 3.0)[0]
    'Different payers who paid the receiver in 24 hours: 40, above the usual 3.'
    """
    entry = _BY_NAME[feature].entry
    subjects = reason_texts(feature)
    if value is None:
        return f"{subjects[0]}: no data.", f"{subjects[1]}: sem dados."
    if entry.unit == "indicator":
        return (f"{subjects[0]}.", f"{subjects[1]}.") if value else (f"{subjects[0]}: no.", f"{subjects[1]}: não.")
    words = _worded(value, entry)
    if not words[0]:
        return f"{subjects[0]}.", f"{subjects[1]}."
    english, portuguese = (f"{subject}: {word}" for subject, word in zip(subjects, words, strict=True))
    normal = ("", "") if usual is None or entry.unit in _SIDELESS else _worded(usual, entry)
    if normal[0] and normal != words:
        sides = ("above", "acima") if usual is not None and value > usual else ("below", "abaixo")
        return f"{english}, {sides[0]} the usual {normal[0]}.", f"{portuguese}, {sides[1]} do usual ({normal[1]})."
    return f"{english}.", f"{portuguese}."


def model_reasons(
    contributions_row: NDArray[np.float64],
    vector_row: NDArray[np.float32],
    most: int = 3,
    usual: NDArray[np.floating[Any]] | None = None,
) -> tuple[ModelReason, ...]:
    """Return the features that push one payment toward fraud, heaviest first; by position where they weigh the same.

    Parameters
    ----------
    contributions_row
        From `Forest.contributions`, shape (features + 1,); the last is no feature's.
    vector_row
        float32, shape (features,), NaN for missing.
    most
        How many at most.
    usual
        Of each feature what is usual, such as its median in training, shape (features,): with it sentences say whether
        a value is high or low. NaN where nothing is.

    Raises
    ------
    ValueError
        For rows that are not the catalog's.
    """
    features = len(_EXPLAINED)
    wanted: dict[str, tuple[NDArray[Any], int]] = {
        "contributions": (contributions_row, features + 1),
        "vector": (vector_row, features),
    }
    if usual is not None:
        wanted["usual"] = (usual, features)
    for name, (row, length) in wanted.items():
        if row.shape != (length,):
            raise ValueError(f"{name}: expected shape ({length},) as the catalog has features, got {row.shape}")
    weights = contributions_row[:features]
    heaviest = np.argsort(-weights, kind="stable")[: max(most, 0)]
    reasons = []
    for place in heaviest[weights[heaviest] > 0].tolist():
        explained, weight = _EXPLAINED[place], float(weights[place])
        value, normal = _known(vector_row[place]), None if usual is None else _known(usual[place])
        reasons.append(ModelReason(explained.code, explained.entry.name, weight, value, normal))
    return tuple(reasons)


def _known(value: np.floating[Any]) -> float | None:
    return None if math.isnan(value) else float(value)
