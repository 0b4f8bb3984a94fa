"""How a user's file becomes transactions: the mapping file, in YAML or TOML.

Everything in it is optional. A file whose columns bear our names, with amounts in centavos and times in epoch
milliseconds or in ISO 8601 with a zone, needs none::

    columns:                        # theirs: ours; a column that is not named here keeps its name
      id_transacao: end_to_end_id
      valor: amount_centavos
    defaults:                       # where the file has no such column, or the cell is empty
      payer_ispb: "12345678"
    values:                         # field: {theirs: ours}
      payer_person: {PF: NATURAL, PJ: LEGAL}
    timestamp:                      # every field that is a time
      format: "%d/%m/%Y %H:%M:%S"   # as Python's strptime; or several in a list, tried in turn; ISO 8601 without it
      unit: ms                      # of times that are numbers: s, ms, us, ns
      timezone: America/Sao_Paulo   # of times that state no zone; without it these are rejected, not guessed
    amount:                         # every field in centavos
      unit: reais                   # or centavos
      decimal: ","                  # of all numbers; "." or ","
    session_flags:
      separator: "|"
    csv:
      separator: ";"                # without it: that of , ; tab | which the header has most of
      encoding: cp1252              # without it: UTF-8
"""

from __future__ import annotations

import codecs
import difflib
import tomllib
import zoneinfo
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from app.domain.fields import FIELDS_BY_NAME, Kind

__all__ = [
    "AmountForm",
    "CsvForm",
    "FileMapping",
    "FlagsForm",
    "MappingError",
    "TimestampForm",
    "load_mapping",
    "nearest",
]

_TEXT_KINDS = (Kind.END_TO_END_ID, Kind.ISPB, Kind.IDENTIFIER, Kind.TAX_ID, Kind.PIX_KEY, Kind.ENUM, Kind.TEXT)


class MappingError(ValueError):
    """A mapping file that cannot be used; the message says where, what is right, and what comes nearest."""


class TimestampForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How times are written: see the module."""

    format: str | tuple[str, ...] = ()
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    timezone: str | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats in the order in which they are tried; none: ISO 8601."""
        return (self.format,) if isinstance(self.format, str) else self.format


class AmountForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How amounts are written: see the module."""

    unit: Literal["reais", "centavos"] = "centavos"
    decimal: Literal[".", ","] = "."


class FlagsForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How `session_flags` stand in one cell."""

    separator: str = "|"


class CsvForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a CSV file is written; `separator` None: found in the header."""

    separator: str | None = None
    encoding: str = "utf-8-sig"


class FileMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file: see the module."""

    columns: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    values: dict[str, dict[str, str]] = {}
    timestamp: TimestampForm = TimestampForm()
    amount: AmountForm = AmountForm()
    session_flags: FlagsForm = FlagsForm()
    csv: CsvForm = CsvForm()


def load_mapping(path: Path) -> FileMapping:
    """Read and check a mapping file; by its extension it is TOML, or else YAML.

    Raises
    ------
    MappingError
        Where it cannot be read, or names what does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        raw = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise MappingError(f"{path}: {error}") from error
    try:
        _check_names(raw)
        mapping = msgspec.convert(raw or {}, FileMapping)
        _check(mapping)
    except (MappingError, msgspec.ValidationError) as error:
        raise MappingError(f"{path}: {error}") from error
    return mapping


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the nearest known name, or nothing where none is near.

    Examples
    --------
    >>> nearest("ammount_centavos", ["amount_centavos", "timestamp"])
    '; did you mean `amount_centavos`?'
    """
    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), lower, n=1)
    if not found and name:
        found = [each for each in lower if each.startswith(name.lower())]
    return f"; did you mean `{lower[found[0]]}`?" if found else ""


def _check_names(raw: object) -> None:
    """Say which option was meant, where msgspec would only say that there is none."""
    if not isinstance(raw, dict):
        return
    levels: list[tuple[str, Any, tuple[str, ...]]] = [
        ("", raw, FileMapping.__struct_fields__),
        ("timestamp.", raw.get("timestamp"), TimestampForm.__struct_fields__),
        ("amount.", raw.get("amount"), AmountForm.__struct_fields__),
        ("session_flags.", raw.get("session_flags"), FlagsForm.__struct_fields__),
        ("csv.", raw.get("csv"), CsvForm.__struct_fields__),
    ]
    for where, options, known in levels:
        for name in options if isinstance(options, dict) else ():
            if name not in known:
                hint = nearest(str(name), known) or f"; expected one of {', '.join(known)}"
                raise MappingError(f"no option `{where}{name}`{hint}")


def _check(mapping: FileMapping) -> None:
    for where, names in (
        *((f"columns.{theirs}", [ours]) for theirs, ours in mapping.columns.items()),
        ("defaults", mapping.defaults),
        ("values", mapping.values),
    ):
        for name in names:
            if name not in FIELDS_BY_NAME:
                raise MappingError(f"{where}: no field `{name}`{nearest(name, FIELDS_BY_NAME)}")
    targets = list(mapping.columns.values())
    for name in targets:
        if targets.count(name) > 1:
            raise MappingError(f"columns: more than one column becomes `{name}`")
    _check_constants(mapping)
    _check_forms(mapping)


def _check_constants(mapping: FileMapping) -> None:
    for name, default in mapping.defaults.items():
        if FIELDS_BY_NAME[name].kind in _TEXT_KINDS and not isinstance(default, str):
            # YAML reads an ISPB of 01234567 as an octal number.
            raise MappingError(f"defaults.{name}: expected a string in quotes, got {type(default).__name__}")
    for name, translated in mapping.values.items():
        field = FIELDS_BY_NAME[name]
        for theirs, ours in translated.items():
            if field.kind is Kind.ENUM and ours not in field.values:
                hint = nearest(ours, field.values) or f"; expected one of {', '.join(field.values)}"
                raise MappingError(f"values.{name}.{theirs}: {name} is never `{ours}`{hint}")


def _check_forms(mapping: FileMapping) -> None:
    zone = mapping.timestamp.timezone
    if zone is not None:
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            hint = nearest(zone, zoneinfo.available_timezones())
            raise MappingError(f"timestamp.timezone: no zone `{zone}` on this machine{hint}") from error
    for form in mapping.timestamp.formats:
        if zone is None and "%z" not in form:
            raise MappingError(
                f"timestamp.format: `{form}` has no zone (%z): say timestamp.timezone, e.g. America/Sao_Paulo"
            )
    separator = mapping.csv.separator
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise MappingError(f"csv.separator: expected one character, got {separator!r}")
    if not mapping.session_flags.separator:
        raise MappingError("session_flags.separator: expected at least one character")
    try:
        codecs.lookup(mapping.csv.encoding)
    except LookupError as error:
        raise MappingError(f"csv.encoding: {error}") from error
