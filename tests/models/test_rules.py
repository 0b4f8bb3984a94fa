"""Rule packs: how rules that fire become a score, an action and reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.columns import Array, ColumnKind, ColumnType, transaction_columns
from app.domain.decision import ACTIONS, Reason
from models.rules.file import load_rule_pack
from models.rules.lists import FOR_EVER_MS, Lists, ListUpdate
from models.rules.pack import RulePack, Verdicts

COLUMNS = {**transaction_columns(), **{name: ColumnType(ColumnKind.NUMBER) for name in "abcd"}}

# 2026-10-01, midnight in Brasília.
OCTOBER_MS = 1_790_823_600_000


def rule(name: str, action: str, weight: float | None, when: str = "", **more: str) -> str:
    """Write a rule that fires where the column of its name is above 0."""
    fields = {
        "id": f"rule-{name}",
        "when": when or f"{name} > 0",
        "action": action,
        "reason": f"CODE_{name.upper()}",
        "text": f"The column {name} is above 0.",
        "example": f"{{{name}: 1}}",
        **({} if weight is None else {"weight": str(weight)}),
        **{key.removesuffix("_"): value for key, value in more.items()},
    }
    return "  - " + "\n    ".join(f"{key}: {value}" for key, value in fields.items()) + "\n"


def pack(*rules: str, hold: float = 0.5, deny: float = 0.9) -> RulePack:
    """Load a pack of these rules."""
    text = f'version: "1"\nthresholds: {{hold: {hold}, deny: {deny}}}\nrules:\n' + "".join(rules)
    return load_rule_pack(text, COLUMNS, "test.yaml")


def judge(rules: RulePack, rows: Mapping[str, object], n: int = 1, **more: Any) -> Verdicts:  # noqa: ANN401 (arguments)
    """Judge rows in which a column that is not named is missing."""
    columns = {name: np.full(n, math.nan) for name in "abcd"}
    columns |= {name: np.array(values, float) for name, values in rows.items()}
    columns.setdefault("timestamp", np.full(n, OCTOBER_MS))
    return rules.evaluate(columns, n, **more)


def actions(verdicts: Verdicts) -> list[str]:
    """Name the actions."""
    return [ACTIONS[code] for code in verdicts.actions]


def test_the_score_is_a_noisy_or_of_the_weights() -> None:
    """Two weak signs add up, and never beyond 1."""
    rules = pack(rule("a", "WATCH", 0.4), rule("b", "WATCH", 0.5), rule("c", "WATCH", 1))
    verdicts = judge(rules, {"a": [0, 1, 1, 1], "b": [0, 0, 1, 1], "c": [0, 0, 0, 1]}, 4)
    np.testing.assert_allclose(verdicts.scores, [0, 0.4, 0.7, 1], rtol=1e-15)
    assert actions(verdicts) == ["APPROVE", "APPROVE", "HOLD", "DENY"]
    assert verdicts.fired.tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_score_at_the_threshold_reaches_it() -> None:
    """A single rule of weight 0.5 holds at a threshold of 0.5, and 0.9 denies at 0.9."""
    rules = pack(rule("a", "WATCH", 0.5), rule("b", "WATCH", 0.9))
    assert actions(judge(rules, {"a": [1, 0], "b": [0, 1]}, 2)) == ["HOLD", "DENY"]


def test_a_rule_s_action_is_a_floor() -> None:
    """HOLD and DENY rules act whatever their weight; WATCH does not."""
    rules = pack(rule("a", "HOLD", 0), rule("b", "DENY", 0.1), rule("c", "WATCH", 0.1))
    verdicts = judge(rules, {"a": [1, 1, 0], "b": [0, 1, 0], "c": [1, 1, 1]}, 3)
    assert actions(verdicts) == ["HOLD", "DENY", "APPROVE"]


@pytest.mark.parametrize(
    ("action", "regulation", "decided"),
    [("WATCH", "", "APPROVE"), ("HOLD", "", "APPROVE"), ("HOLD", "Res. BCB 142/2021", "HOLD"), ("DENY", "", "DENY")],
)
def test_allow_lifts_all_but_deny_and_the_law(action: str, regulation: str, decided: str) -> None:
    """ALLOW overrides the score and HOLD rules, never a DENY rule or one that cites a regulation."""
    more = {"regulation": regulation} if regulation else {}
    rules = pack(rule("a", action, 0.95, **more), rule("b", "ALLOW", None))
    verdicts = judge(rules, {"a": [1], "b": [1]})
    assert actions(verdicts) == [decided]
    assert verdicts.scores[0] == 0.95
    assert actions(judge(rules, {"a": [1], "b": [0]})) == ["DENY"]


def test_a_rule_does_not_fire_on_a_missing_value() -> None:
    """Neither the comparison nor its negation."""
    rules = pack(rule("a", "DENY", 1), rule("b", "DENY", 1, when="not b < 1"))
    assert not judge(rules, {"a": [math.nan], "b": [math.nan]}).fired.any()


def test_a_rule_is_in_force_from_and_until_midnight_in_brasilia() -> None:
    """`from` includes its day's first instant, `until` leaves it out; the payment's own time counts."""
    rules = pack(rule("a", "HOLD", 0.1, from_="2026-10-01", until="2026-10-02"))
    times = [OCTOBER_MS - 1, OCTOBER_MS, OCTOBER_MS + 86_399_999, OCTOBER_MS + 86_400_000]
    verdicts = judge(rules, {"a": [1] * 4, "timestamp": times}, 4)
    assert verdicts.fired[:, 0].tolist() == [False, True, True, False]


def test_a_disabled_rule_is_checked_but_not_evaluated() -> None:
    """It is no part of the pack's rules, yet part of its fingerprint."""
    off = pack(rule("a", "DENY", 1, enabled="false"), rule("b", "WATCH", 0.1))
    on = pack(rule("a", "DENY", 1), rule("b", "WATCH", 0.1))
    assert [each.id for each in off.rules] == ["rule-b"]
    assert actions(judge(off, {"a": [1], "b": [1]})) == ["APPROVE"]
    assert off.fingerprint != on.fingerprint


def test_refunds_are_not_scored() -> None:
    """Nothing fires on what the mask leaves out."""
    rules = pack(rule("a", "DENY", 1))
    verdicts = judge(rules, {"a": [1, 1]}, 2, scored=np.array([True, False]))
    assert actions(verdicts) == ["DENY", "APPROVE"]
    assert verdicts.scores.tolist() == [1, 0]
    assert verdicts.fired.tolist() == [[True], [False]]
    assert verdicts.scored.tolist() == [True, False]


def test_reasons_come_heaviest_first() -> None:
    """Equal weights keep the pack's order; the fired rules alone appear."""
    rules = pack(rule("a", "WATCH", 0.1), rule("b", "WATCH", 0.3), rule("c", "HOLD", 0.3), rule("d", "WATCH", 0.9))
    verdicts = judge(rules, {"a": [1], "b": [1], "c": [1], "d": [0]})
    assert rules.reasons_of(verdicts.fired[0]) == (
        Reason("CODE_B", 0.3, "rule-b"),
        Reason("CODE_C", 0.3, "rule-c"),
        Reason("CODE_A", 0.1, "rule-a"),
    )


def test_an_explanation_shows_what_the_rule_read() -> None:
    """Names for codes, hexadecimal for hashes, None for missing."""
    when = 'a > 0 and initiation == "MANU" and "ROOTED" in session_flags and missing(device_id) and not missing(ip)'
    example = "{a: 1, initiation: MANU, session_flags: [ROOTED], ip: x}"
    rules = pack(rule("a", "WATCH", 0.1, when=f"'{when}'", example=example))
    columns = {
        "a": np.array([2.5]),
        "initiation": np.array([1], np.uint8),
        "session_flags": np.array([0b1000_0001], np.uint32),
        "device_id": np.array([0], np.uint64),
        "ip": np.array([255], np.uint64),
    }
    (finding,) = rules.explain(rules.evaluate(columns, 1), 0, columns)
    assert finding.reason == Reason("CODE_A", 0.1, "rule-a")
    assert finding.text == "The column a is above 0."
    assert finding.values == {
        "a": 2.5,
        "initiation": "MANU",
        "session_flags": ["REMOTE_ACCESS", "ROOTED"],
        "device_id": None,
        "ip": "00000000000000ff",
    }


def test_rules_read_the_lists() -> None:
    """An account on the deny list is denied until its entry ends."""
    when = "'listed(\"deny\", receiver_account)'"
    example = "{receiver_account: x, lists: {deny: [receiver_account]}}"
    rules = pack(rule("a", "DENY", 1, when=when, example=example))
    lists = Lists().apply([ListUpdate("deny", "account", 7, FOR_EVER_MS)], version=1)
    columns = {"receiver_account": np.array([7, 8, 0], np.uint64), "timestamp": np.full(3, OCTOBER_MS)}
    assert actions(rules.evaluate(columns, 3, listed=lists.listed)) == ["DENY", "APPROVE", "APPROVE"]
    assert actions(rules.evaluate(columns, 3)) == ["APPROVE"] * 3


def test_the_name_holds_version_and_fingerprint() -> None:
    """A decision can name the exact rules; layout and examples do not change them, a weight does."""
    first, same = pack(rule("a", "HOLD", 0.1)), pack(rule("a", "HOLD", 0.1, example="{a: 7}"))
    other = pack(rule("a", "HOLD", 0.2))
    assert first.name == same.name == f"1+{first.fingerprint}"
    assert first.name != other.name


def test_the_columns_of_each_rule_are_known() -> None:
    """For the documentation: which rule reads what."""
    assert pack(rule("a", "HOLD", 0.1, when="a > b or b > c", example="{b: 9, c: 1}")).columns_used() == {
        "rule-a": ("a", "b", "c")
    }


RULES = pack(
    rule("a", "WATCH", 0.17),
    rule("b", "HOLD", 0.33, when="log1p(b) > 1 and b / a > 2", example="{a: 1, b: 9}"),
    rule("c", "DENY", 0.71),
    rule("d", "ALLOW", None),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([math.nan, 0.0, 1.0, 9.0])] * 4), min_size=1, max_size=20))
def test_decisions_do_not_depend_on_the_batch(rows: list[tuple[float, ...]]) -> None:
    """One batch and single rows agree bit for bit in action, score and fired rules."""

    def evaluated(part: list[tuple[float, ...]]) -> Verdicts:
        return judge(RULES, dict(zip("abcd", np.array(part).T, strict=True)), len(part))

    def joined(name: str) -> Array:
        return np.concatenate([getattr(evaluated([row]), name) for row in rows])

    whole = evaluated(rows)
    for name in ("actions", "scores", "fired"):
        assert getattr(whole, name).tobytes() == joined(name).tobytes()


def test_an_empty_batch_is_no_special_case() -> None:
    """No rows, no verdicts."""
    verdicts = judge(RULES, {}, 0)
    assert (verdicts.actions.shape, verdicts.fired.shape) == ((0,), (0, 4))
