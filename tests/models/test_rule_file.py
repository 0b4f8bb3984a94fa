"""Rule packs as files: every fault is reported, each with file, line, rule, field and a remedy."""

from __future__ import annotations

import pytest

from app.domain.columns import ColumnKind, ColumnType, transaction_columns
from models.rules.file import RulePackError, load_rule_pack

COLUMNS = {**transaction_columns(), "velocity": ColumnType(ColumnKind.NUMBER)}

GOOD = """\
version: "1"
thresholds: {hold: 0.5, deny: 0.9}
rules:
  - id: fast
    when: velocity > 3
    action: HOLD
    weight: 0.3
    reason: TOO_FAST
    text: Too many payments.
    example: {velocity: 4}
"""


def faults(text: str) -> tuple[str, ...]:
    """Return the faults of a file."""
    with pytest.raises(RulePackError) as caught:
        load_rule_pack(text, COLUMNS, "pack.yaml")
    return caught.value.faults


def test_a_good_pack_loads() -> None:
    """The file that the other tests spoil is right."""
    pack = load_rule_pack(GOOD, COLUMNS, "pack.yaml")
    assert (pack.version, pack.hold, pack.deny, len(pack.rules)) == ("1", 0.5, 0.9, 1)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("velocity > 3", "velo > 3", "pack.yaml:4: rule fast: when: character 1: expected a known column, got 'velo'"),
        ("velocity > 3", "velocty > 3", "got 'velocty' (did you mean velocity?), in: velocty > 3"),
        ("velocity > 3", "velocity", "pack.yaml:4: rule fast: when: expected a condition, got the number velocity"),
        ("velocity > 3", "5", "pack.yaml:4: rule fast: when: expected a condition, got 5"),
        ("HOLD", "BLOCK", "rule fast: action: expected one of DENY, HOLD, WATCH, ALLOW, got 'BLOCK'"),
        ("0.3", "1.3", "rule fast: weight: expected a number from 0 to 1, got 1.3"),
        ("0.3", "true", "rule fast: weight: expected a number from 0 to 1, got True"),
        ("0.3", ".nan", "rule fast: weight: expected a number from 0 to 1, got nan"),
        ("    weight: 0.3\n", "", "rule fast: weight: expected a number from 0 to 1, got nothing"),
        ("HOLD", "ALLOW", "rule fast: weight: expected none beside ALLOW"),
        ("TOO_FAST", "too fast", "rule fast: reason: expected a code such as NIGHT_LIMIT, got 'too fast'"),
        ("id: fast", "id: Fast!", "rule Fast!: id: expected a name such as night-limit, got 'Fast!'"),
        ("id: fast", "name: fast", "rule number 1: name: expected one of id, when"),
        ("weight: 0.3", "weight: 0.3\n    wieght: 1", "rule fast: wieght: expected one of id, when"),
        ("weight: 0.3", "weight: 0.3\n    weight: 1", "pack.yaml:8: weight: expected one key of this name"),
        ("weight: 0.3", "weight: 0.3\n    from: soon", "rule fast: from: expected a date such as 2026-10-01"),
        ("weight: 0.3", "weight: 0.3\n    from: 2026-10-01T10:00:00Z", "rule fast: from: expected a date"),
        ("weight: 0.3", "weight: 0.3\n    from: 2026-13-01", "expected plain values, got: month must be in 1..12"),
        ("weight: 0.3", "weight: 0.3\n    from: 2026-02-01\n    until: 2026-01-01", "until: expected a date after"),
        ("weight: 0.3", "weight: 0.3\n    enabled: 1", "rule fast: enabled: expected true or false, got 1"),
        ("{velocity: 4}", "{velocity: 2}", "rule fast: example: expected values on which the rule fires"),
        ("{velocity: 4}", "{}", "(missing in it: velocity)"),
        ("{velocity: 4}", "{velocity: high}", "rule fast: example: velocity: expected a number, got 'high'"),
        ("{velocity: 4}", "{speed: 4}", "rule fast: example: speed: expected a known column"),
        ("{velocity: 4}", "{velocity: 4, channel: FAX}", "example: channel: expected one of MOBILE, WEB"),
        ("{velocity: 4}", "{velocity: 4, lists: {black: [ip]}}", "lists: expected columns by list (allow,"),
        ("{velocity: 4}", "{velocity: 4, lists: {deny: [x]}}", "lists: x: expected a known column"),
        ("    example: {velocity: 4}\n", "", "rule fast: example: expected values by column on which the rule fires"),
        ('version: "1"', "version: 1.0", 'pack: version: expected a quoted name such as "2026.11", got 1.0'),
        ("hold: 0.5", "hold: 0.95", "thresholds: hold: expected at most deny (0.9), got 0.95"),
        ("hold: 0.5, ", "", "thresholds: hold: expected a score from 0 to 1, got nothing"),
        ("rules:", "rule:", "pack: rules: expected a list of rules, got nothing"),
        (GOOD, "", "expected a mapping of names to values"),
        (GOOD, "a: [", "pack.yaml:1: expected YAML, got:"),
        (GOOD, "a: \x00", "expected YAML, got:"),
        (GOOD, "a: &x 1\nb: *x\n", "pack.yaml:2: expected YAML, got: aliases (*name) are not allowed"),
        (GOOD, "a: !!python/object/apply:os.system [ls]", "got: could not determine a constructor"),
        (GOOD, "[" * 5_000, "expected YAML, got:"),
        (GOOD, "#" * 1_000_001, "expected at most 1000000 characters"),
        ("{velocity: 4}", "{velocity: 4}\n  - 7", "pack.yaml:11: rule number 2: expected id, when"),
    ],
)  # fmt: skip
def test_a_fault_names_file_rule_and_field(old: str, new: str, fault: str) -> None:
    """Each way to spoil a pack gives a fault that says where, what, and how to mend it."""
    spoiled = GOOD.replace(old, new)
    assert spoiled != GOOD
    assert fault in "\n".join(faults(spoiled))
    assert all(each.startswith("pack.yaml") for each in faults(spoiled))


def test_all_faults_come_at_once() -> None:
    """Two rules with several faults each: none hides another."""
    second = GOOD.split("rules:\n")[1].replace("fast", "slow").replace("velocity >", "velo >")
    text = GOOD.replace("HOLD", "BLOCK").replace("0.3", "3") + second.replace("TOO_FAST", "too fast")
    found = faults(text)
    assert [each.split(": ")[1:3] for each in found] == [
        ["rule fast", "action"],
        ["rule fast", "weight"],
        ["rule slow", "reason"],
        ["rule slow", "when"],
    ]


def test_two_rules_never_share_an_id() -> None:
    """A decision's rule id means one rule."""
    assert "id: expected a name of its own" in faults(GOOD + GOOD.split("rules:\n")[1])[0]
