"""The README against the program: its feature table, commands, examples and required fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
import yaml

from app.cli import app
from app.domain.decision import ACTIONS, decode_decision
from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS
from app.domain.rejection import Rejection, decode_dead_letter, encode_dead_letter
from app.domain.transaction import decode_strict
from app.topics import topics
from models.rules.file import default_pack_text
from ops.readme import BEGIN, END, README, ReadmeError, features_block, render_features, replace_features
from tables.catalog import CATALOG

TEXT = README.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_feature_table_is_what_the_catalog_gives() -> None:
    """A feature that changed without `python -m ops.readme` fails here."""
    assert features_block(TEXT) == render_features(CATALOG.rows()), "run: python -m ops.readme"


def test_replacing_the_table_changes_nothing_else() -> None:
    """Text on both sides stays, and writing twice is writing once."""
    once = replace_features(f"a\n{BEGIN}\nold\n{END}\nb\n", "new")
    assert once == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    assert replace_features(once, "new") == once


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_must_stand_once_and_in_order(text: str) -> None:
    """A README without a clear place for the table is refused, not damaged."""
    with pytest.raises(ReadmeError, match="README: expected"):
        replace_features(text, "new")


def _commands(commands: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield prefix + name, command
        else:
            yield from _commands(inner, f"{prefix}{name} ")


def test_every_command_and_option_is_listed() -> None:
    """The table of commands names exactly the commands and the options that exist, those of a group one by one."""
    listed = {
        name: set(re.findall(r"--[a-z-]+", options))
        for name, options in re.findall(
            r"^\| `pixguard ([a-z]+(?: [a-z]+)?)[^`]*` \|[^|]*\| `([^`]*)` \|$", TEXT, re.MULTILINE
        )
    }
    group = typer.main.get_command(app)
    existing = {
        name: {
            # A switch that is on by default is listed by the name that turns it off.
            parameter.secondary_opts[-1] if parameter.secondary_opts else parameter.opts[0]
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name != "help"
        }
        for name, command in _commands(group.commands)  # type: ignore[attr-defined] # a group, since there are commands
    }
    assert listed == existing


def test_transaction_example_holds_the_required_fields() -> None:
    """The example is the smallest transaction: every required field, and no other."""
    message = _blocks("json")[0].encode()
    fields = json.loads(message)
    assert set(fields) == {field.name for field in FIELDS if field.required}
    decoded = decode_strict(message, fields["receiver_account"].encode(), fields["timestamp"], TimeLimits())
    assert not isinstance(decoded, Rejection), decoded


def test_decision_example_is_one() -> None:
    """The decision shown can be decoded, and its score is that of its reasons."""
    decision = decode_decision(_blocks("json")[1].encode())
    passing = 1.0
    for reason in decision.reasons:
        passing *= 1 - reason.weight
    assert decision.decision in ACTIONS
    assert decision.score == pytest.approx(1 - passing)
    assert set(json.loads(_blocks("json")[1])) == set(decision.__struct_fields__)


def test_dead_letter_example_is_one() -> None:
    """The dead letter shown is the one that its own raw bytes bring about."""
    letter = decode_dead_letter(_blocks("json")[2].encode())
    key, value, at_ms = letter.kafka_key_base64, letter.raw_base64, letter.source.timestamp
    fault = decode_strict(value, key, at_ms, TimeLimits())
    assert isinstance(fault, Rejection)
    assert decode_dead_letter(encode_dead_letter(fault, letter.source, key, value)) == letter


def test_rule_example_and_count_are_those_of_the_shipped_pack() -> None:
    """The rule shown stands in the pack word for word, and the pack has as many rules as said."""
    rules = yaml.safe_load(default_pack_text())["rules"]
    assert yaml.safe_load(_blocks("yaml")[0])[0] in rules
    assert f"holds {len(rules)}:" in TEXT


def test_topics_are_named() -> None:
    """Every topic but the changelogs is explained."""
    names = {topic.name for topic in topics("pixguard") if not topic.name.endswith("-changelog")}
    assert {name for name in names if name not in TEXT} == set()
