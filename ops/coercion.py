"""A cell of a user's file to the JSON value of a field: exactly, or not at all.

What cannot be read exactly (a third decimal of a real, a time without a zone) is a `ValueError`, never a guess. Checks
of range and form are the stream's: they stand in one place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from app.domain.fields import Field, Kind
from ops.mapping import FileMapping, TimestampForm

__all__ = ["Coercer", "coercer", "wanted_form"]

Coercer = Callable[[Any], Any]
"""From a cell that is not empty to a JSON value; raises ValueError where it is not of the field's kind."""

_TRUE = frozenset({"true", "t", "1", "yes", "y", "sim", "s", "verdadeiro"})
_FALSE = frozenset({"false", "f", "0", "no", "n", "não", "nao", "falso"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_PER_MS = {"s": Decimal(1000), "ms": Decimal(1), "us": Decimal("0.001"), "ns": Decimal("0.000001")}
_TAX_ID_PUNCTUATION = str.maketrans("", "", "./- ")
_MAX_NUMBER_CHARACTERS = 40
_DIGITS = {
    # Thousands, where they are marked, are marked throughout: "1.2345,00" is no number.
    ".": re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d*))?", re.ASCII),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:\.\d{3})+|\d+)(?:,(\d*))?", re.ASCII),
}


def coercer(field: Field, mapping: FileMapping) -> Coercer:
    """Return the function that reads cells of this field.

    Examples
    --------
    >>> from app.domain.fields import FIELDS_BY_NAME
    >>> from ops.mapping import AmountForm
    >>> brazilian = FileMapping(amount=AmountForm(unit="reais", decimal=","))
    >>> coercer(FIELDS_BY_NAME["amount_centavos"], brazilian)("R$ 1.234,5")
    123450
    """
    read = _COERCERS.get(field.kind, _any_text)(mapping)
    translated = mapping.values.get(field.name)
    if not translated:
        return read
    return lambda cell: read(translated.get(cell, cell) if isinstance(cell, str) else cell)


def wanted_form(field: Field, mapping: FileMapping) -> str:
    """Return, in words, how a cell of this field is to be written under this mapping."""
    timestamp = mapping.timestamp
    return _WANTED_FORMS.get(field.kind, "text").format(
        written=" or ".join(timestamp.formats) or "ISO 8601",
        zone="" if timestamp.timezone else " with a zone (or timestamp.timezone in the mapping)",
        time_unit=timestamp.unit,
        unit=mapping.amount.unit,
        decimal=mapping.amount.decimal,
        separator=mapping.session_flags.separator,
    )


_WANTED_FORMS = {
    Kind.TIMESTAMP: "time as {written}{zone}, or a number of {time_unit}",
    Kind.CENTAVOS: "amount in {unit}, decimal `{decimal}`",
    Kind.BOOLEAN: "boolean: true or false, 1 or 0, sim or não",
    Kind.COUNT: "whole number",
    Kind.NUMBER: "number, decimal `{decimal}`",
    Kind.FLAGS: "flags, separated by `{separator}`",
}


def _text(cell: object) -> str:
    if isinstance(cell, str):
        return cell
    if type(cell) is int:
        return str(cell)
    raise ValueError


def _ispb(cell: object) -> str:
    """Eight digits; spreadsheets and integer columns lose the zeros in front, which alone can be missing."""
    text = _text(cell).strip()
    return text.zfill(8) if text.isascii() and text.isdigit() else text


def _whole(cell: object, *, decimal: str, places: int) -> int:
    """Read a number times 10**places as an integer, exactly."""
    if isinstance(cell, str):
        return _whole_of_text(cell, decimal, places)
    if type(cell) is int:
        return int(cell * 10**places)
    if isinstance(cell, float | Decimal) and math.isfinite(cell):
        # The shortest text of a float is what its writer meant: 0.29 reais are 29 centavos.
        scaled = Decimal(repr(cell) if isinstance(cell, float) else cell).scaleb(places)
        if scaled == scaled.to_integral_value() and abs(scaled) < Decimal(10) ** 20:
            return int(scaled)
    raise ValueError


def _whole_of_text(text: str, decimal: str, places: int) -> int:
    plain = text.strip().removeprefix("R$").strip()
    found = _DIGITS[decimal].fullmatch(plain)
    if found is None or len(plain) > _MAX_NUMBER_CHARACTERS:
        raise ValueError
    sign, whole, fraction = found.groups(default="")
    digits = fraction.rstrip("0")
    if len(digits) > places:
        raise ValueError
    number = int(whole.replace(".", "").replace(",", "") + digits.ljust(places, "0"))
    return -number if sign == "-" else number


def _number(cell: object, *, decimal: str) -> int | float:
    if isinstance(cell, str):
        plain = cell.strip().replace(decimal, ".")
        if _NUMBER.fullmatch(plain) is None or len(plain) > _MAX_NUMBER_CHARACTERS:
            raise ValueError
        cell = float(plain)
    if type(cell) is int:
        return int(cell)
    if isinstance(cell, float | Decimal) and math.isfinite(cell):
        return float(cell)
    raise ValueError


def _boolean(cell: object) -> bool:
    if isinstance(cell, bool):
        return cell
    word = str(cell).strip().lower()
    if type(cell) in (str, int) and (word in _TRUE or word in _FALSE):
        return word in _TRUE
    raise ValueError


def _flags(cell: object, *, separator: str) -> list[str]:
    if isinstance(cell, str):
        return [flag.strip() for flag in cell.split(separator) if flag.strip()]
    if isinstance(cell, list) and all(isinstance(flag, str) for flag in cell):
        return cell
    raise ValueError


def _timestamp(cell: object, *, form: TimestampForm, zone: ZoneInfo | None) -> int:
    """Read a time as whole epoch milliseconds; what is finer is cut off."""
    if isinstance(cell, str):
        text = cell.strip()
        if not form.formats and _NUMBER.fullmatch(text) and len(text) <= _MAX_NUMBER_CHARACTERS:
            cell = Decimal(text)
        else:
            cell = _moment(text, form.formats)
    if isinstance(cell, datetime):
        return _epoch_ms(cell, zone)
    if isinstance(cell, date):
        return _epoch_ms(datetime(cell.year, cell.month, cell.day), zone)  # noqa: DTZ001 (the zone follows)
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal) or not math.isfinite(cell):
        raise ValueError
    scaled = Decimal(repr(cell) if isinstance(cell, float) else cell) * _PER_MS[form.unit]
    if abs(scaled) >= Decimal(10) ** 18:
        raise ValueError
    return math.floor(scaled)


def _moment(text: str, formats: tuple[str, ...]) -> datetime:
    if not formats:
        return datetime.fromisoformat(text)
    for form in formats:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 (a zone that it lacks comes from the mapping)
        except ValueError:
            continue
    raise ValueError


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _epoch_ms(moment: datetime, zone: ZoneInfo | None) -> int:
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError
        moment = moment.replace(tzinfo=zone)
    # Integer arithmetic: `datetime.timestamp()` is a float, which may fall just short of its millisecond.
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000


def _timestamp_coercer(mapping: FileMapping) -> Coercer:
    named = mapping.timestamp.timezone
    return partial(_timestamp, form=mapping.timestamp, zone=ZoneInfo(named) if named else None)


def _any_text(_mapping: FileMapping) -> Coercer:
    return _text


_COERCERS: dict[Kind, Callable[[FileMapping], Coercer]] = {
    Kind.TIMESTAMP: _timestamp_coercer,
    Kind.CENTAVOS: lambda mapping: partial(
        _whole, decimal=mapping.amount.decimal, places=2 if mapping.amount.unit == "reais" else 0
    ),
    Kind.COUNT: lambda mapping: partial(_whole, decimal=mapping.amount.decimal, places=0),
    Kind.NUMBER: lambda mapping: partial(_number, decimal=mapping.amount.decimal),
    Kind.BOOLEAN: lambda _mapping: _boolean,
    Kind.FLAGS: lambda mapping: partial(_flags, separator=mapping.session_flags.separator),
    Kind.ISPB: lambda _mapping: _ispb,
    Kind.TAX_ID: lambda _mapping: lambda cell: _text(cell).translate(_TAX_ID_PUNCTUATION),
    Kind.END_TO_END_ID: lambda _mapping: lambda cell: _text(cell).strip(),
    Kind.ENUM: lambda _mapping: lambda cell: _text(cell).strip(),
}
