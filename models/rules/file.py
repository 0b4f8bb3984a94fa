"""Rule packs as YAML files: read strictly, and every fault of a file reported at once.

A fault names the file, the line, the rule, the field, what was expected and what was found. A rule's `example` gives
values on which it must fire; loading a pack tries it, so a rule that can never fire does not go live.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any

from app.domain.columns import ColumnKind, ColumnType
from app.domain.expression import Expression, ExpressionError, compile_expression
from models.rules.costs import Costs
from models.rules.examples import example_batch
from models.rules.pack import RULE_ACTIONS, Rule, RulePack
from models.rules.strict_yaml import StrictYamlError, read_yaml

__all__ = ["DEFAULT_PACK", "MAX_RULES", "RulePackError", "default_pack_text", "load_rule_pack"]

MAX_CHARACTERS = 1_000_000
MAX_RULES = 256

_BRASILIA_OFFSET_MS = -3 * 3_600_000


class RulePackError(ValueError):
    """A file that is no rule pack.

    Parameters
    ----------
    faults
        Every fault, each with file, line, rule and field.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


DEFAULT_PACK = files("models.rules") / "packs" / "default.yaml"
"""The pack that pixguard ships."""


def default_pack_text() -> str:
    """Return the text of the pack that pixguard ships."""
    return DEFAULT_PACK.read_text("utf-8")


def load_rule_pack(text: str, columns: Mapping[str, ColumnType], source: str) -> RulePack:
    """Read a rule pack.

    Parameters
    ----------
    text
        The YAML.
    columns
        Types of the columns that rules may read: the transaction's and the features'.
    source
        What faults call the file.

    Raises
    ------
    RulePackError
        With every fault of the file.
    """
    reader = _Reader(source, columns)
    pack = reader.pack(text)
    if reader.faults or pack is None:
        raise RulePackError(tuple(reader.faults))
    return pack


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field of a rule is checked: `accept` tells a right value, `expected` says what that is."""

    accept: Callable[[Any], bool]
    expected: str
    required: bool = False


def _text(most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value.strip()) > 0 and len(value) <= most


def _form(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_date(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


_RULE_FIELDS: dict[str, _Field] = {
    "id": _Field(_form(r"[a-z0-9][a-z0-9-]{1,63}"), "a name such as night-limit", required=True),
    "when": _Field(_text(1_000), "a condition", required=True),
    "action": _Field(lambda value: value in RULE_ACTIONS, f"one of {', '.join(RULE_ACTIONS)}", required=True),
    "weight": _Field(_between(0, 1), "a number from 0 to 1"),
    "reason": _Field(_form(r"[A-Z][A-Z0-9_]{2,63}"), "a code such as NIGHT_LIMIT", required=True),
    "text": _Field(_text(300), "a sentence of at most 300 characters", required=True),
    "from": _Field(_is_date, "a date such as 2026-10-01 (Brasília, from its first instant on)"),
    "until": _Field(_is_date, "a date such as 2026-10-01 (Brasília, up to its first instant)"),
    "regulation": _Field(_text(200), "the norm that demands the rule"),
    "typology": _Field(_form(r"[a-z][a-z0-9_]{1,63}"), "a name such as mule_account"),
    "enabled": _Field(lambda value: isinstance(value, bool), "true or false"),
    "example": _Field(lambda value: isinstance(value, dict), "values by column on which the rule fires", required=True),
}
_PACK_FIELDS: dict[str, _Field] = {
    "version": _Field(_form(r"[A-Za-z0-9._-]{1,32}"), 'a quoted name such as "2026.11"', required=True),
    "thresholds": _Field(lambda value: isinstance(value, dict), "hold and deny", required=True),
    "costs": _Field(lambda value: isinstance(value, dict), "prices of decisions"),
    "rules": _Field(lambda value: isinstance(value, list), "a list of rules", required=True),
}
_THRESHOLD_FIELDS: dict[str, _Field] = {
    "hold": _Field(_between(0, 1), "a score from 0 to 1", required=True),
    "deny": _Field(_between(0, 1), "a score from 0 to 1", required=True),
}


_PROBABILITY = _Field(_between(0, 1), "a number from 0 to 1")
_PRICE = _Field(_between(0, 10**12), "centavos, 0 or more")
_COST_FIELDS = {name: _PRICE if name.endswith("_centavos") else _PROBABILITY for name in Costs.names()}


class _Reader:
    """Reads one file and collects its faults."""

    def __init__(self, source: str, columns: Mapping[str, ColumnType]) -> None:
        self.source = source
        self.columns = columns
        self.faults: list[str] = []

    def _fault(self, where: str, message: str, line: int | None = None) -> None:
        place = self.source if line is None else f"{self.source}:{line}"
        self.faults.append(f"{place}: {where}{': ' if where else ''}{message}")

    def pack(self, text: str) -> RulePack | None:
        """Return the pack, or None where the faults leave none."""
        if len(text) > MAX_CHARACTERS:
            self._fault("", f"expected at most {MAX_CHARACTERS} characters, got {len(text)}")
            return None
        try:
            content, lines = read_yaml(text)
        except StrictYamlError as error:
            for line, message in error.faults:
                self._fault("", message, line)
            return None
        if not self._check(content, _PACK_FIELDS, "pack"):
            return None
        thresholds = content["thresholds"]
        if self._check(thresholds, _THRESHOLD_FIELDS, "thresholds") and thresholds["hold"] > thresholds["deny"]:
            self._fault("thresholds", f"hold: expected at most deny ({thresholds['deny']}), got {thresholds['hold']}")
        costs = content.get("costs", {})
        self._check(costs, _COST_FIELDS, "costs")
        rules = self._rules(content["rules"], lines["rules"])
        if self.faults:
            return None
        return RulePack(
            version=content["version"],
            fingerprint=_fingerprint(content),
            hold=float(thresholds["hold"]),
            deny=float(thresholds["deny"]),
            costs=Costs(**{name: float(price) for name, price in costs.items()}),
            rules=tuple(rules),
            columns=self.columns,
            text=text,
        )

    def _check(self, content: object, fields: Mapping[str, _Field], where: str, line: int | None = None) -> bool:
        """Report every unknown, missing and wrong field; return whether there was none."""
        before = len(self.faults)
        if not isinstance(content, dict):
            self._fault(where, f"expected {', '.join(fields)}", line)
            return False
        for name in content:
            if name not in fields:
                self._fault(where, f"{name}: expected one of {', '.join(fields)}", line)
        for name, field in fields.items():
            if name not in content:
                if field.required:
                    self._fault(where, f"{name}: expected {field.expected}, got nothing", line)
            elif not field.accept(content[name]):
                self._fault(where, f"{name}: expected {field.expected}, got {_shown(content[name])}", line)
        return len(self.faults) == before

    def _rules(self, entries: list[Any], lines: list[int]) -> list[Rule]:
        if len(entries) > MAX_RULES:
            self._fault("rules", f"expected at most {MAX_RULES}, got {len(entries)}")
        seen: set[str] = set()
        rules = []
        for place, (entry, line) in enumerate(zip(entries, lines, strict=True), 1):
            named = isinstance(entry, dict) and isinstance(entry.get("id"), str)
            where = f"rule {entry['id']}" if named else f"rule number {place}"
            if not self._check(entry, _RULE_FIELDS, where, line):
                # Its condition is checked all the same: all faults at once.
                if isinstance(entry, dict) and isinstance(entry.get("when"), str):
                    self._condition(entry["when"], where, line)
                continue
            if entry["id"] in seen:
                self._fault(where, "id: expected a name of its own, got one that an earlier rule has", line)
            seen.add(entry["id"])
            rule = self._rule(entry, where, line)
            if rule is not None and entry.get("enabled", True):
                rules.append(rule)
        return rules

    def _condition(self, text: str, where: str, line: int) -> Expression | None:
        try:
            expression = compile_expression(text.strip(), self.columns)
        except ExpressionError as error:
            self._fault(where, f"when: {error}, in: {text.strip()}", line)
            return None
        if expression.kind is not ColumnKind.CONDITION:
            self._fault(where, f"when: expected a condition, got the number {text.strip()} (compare it)", line)
            return None
        return expression

    def _rule(self, entry: Mapping[str, Any], where: str, line: int) -> Rule | None:
        before = len(self.faults)
        when = self._condition(entry["when"], where, line)
        weight = entry.get("weight")
        if entry["action"] == "ALLOW" and weight:
            self._fault(
                where, f"weight: expected none beside ALLOW, which lifts what others ask for, got {weight}", line
            )
        if entry["action"] != "ALLOW" and weight is None:
            self._fault(where, f"weight: expected {_RULE_FIELDS['weight'].expected}, got nothing", line)
        if "from" in entry and "until" in entry and entry["from"] >= entry["until"]:
            self._fault(where, f"until: expected a date after from ({entry['from']}), got {entry['until']}", line)
        if when is None or len(self.faults) > before:
            return None
        rule = Rule(
            id=entry["id"],
            when=when,
            action=entry["action"],
            weight=float(weight or 0),
            reason=entry["reason"],
            text=" ".join(entry["text"].split()),
            from_ms=_brasilia_midnight_ms(entry.get("from")),
            until_ms=_brasilia_midnight_ms(entry.get("until")),
            regulation=entry.get("regulation", ""),
            typology=entry.get("typology", ""),
            example=entry["example"],
        )
        self._try_example(rule, where, line)
        return rule

    def _try_example(self, rule: Rule, where: str, line: int) -> None:
        try:
            batch = example_batch(rule.example, self.columns)
        except ValueError as error:
            self._fault(where, f"example: {error}", line)
            return
        # Whether the rule is in force on the example's day is not in question.
        if not rule.when.evaluate_batch(batch)[0]:
            unnamed = [name for name in rule.when.names if name not in rule.example and name != "timestamp"]
            missing = f" (missing in it: {', '.join(unnamed)})" if unnamed else ""
            self._fault(
                where, f"example: expected values on which the rule fires, got some on which it does not{missing}", line
            )


def _brasilia_midnight_ms(day: date | None) -> int | None:
    if day is None:
        return None
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000 - _BRASILIA_OFFSET_MS


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fingerprint(content: Mapping[str, Any]) -> str:
    """Return a short digest of all that decides or is shown; examples, order of keys and layout are left out."""
    rules = [{name: value for name, value in rule.items() if name != "example"} for rule in content["rules"]]
    canonical = json.dumps({**content, "rules": rules}, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
