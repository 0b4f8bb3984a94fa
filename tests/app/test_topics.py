"""The declared topics fit together."""

from __future__ import annotations

import re

import pytest

from app.domain.fields import FIELDS_BY_NAME
from app.settings import load_settings
from app.topics import (
    DECISIONS,
    ENRICHED,
    FEATURES,
    FEEDBACK,
    LABELLED,
    LISTS,
    MARKERS,
    MAX_CHECKPOINT_BYTES,
    ONLINE_MODEL,
    PAYERS_TABLE,
    RECEIVERS_TABLE,
    REJECTED,
    TRANSACTIONS,
    Topic,
    changelog,
    topics,
)

ALL = topics("pixguard")
DAY_MS = 86_400_000


def _retention_days(topic: Topic) -> int:
    return int(topic.config["retention.ms"]) // DAY_MS


def test_names_are_unique_and_legal() -> None:
    """Kafka takes letters, digits, dot, underscore and hyphen, up to 249 of them."""
    names = [topic.name for topic in ALL]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,248}", name) for name in names)


def test_the_longest_app_id_makes_legal_changelogs() -> None:
    """The setting's bound is 64 characters."""
    app_id = load_settings(app_id="a" * 64).app_id
    assert all(len(topic.name) <= 249 for topic in topics(app_id))


def test_every_topic_is_declared_once() -> None:
    """Whatever a constant names is created by `pixguard topics`."""
    keyed = (TRANSACTIONS, ENRICHED, DECISIONS, FEATURES, REJECTED, FEEDBACK, MARKERS)
    names = {topic.name for topic in (*keyed, LABELLED, ONLINE_MODEL, LISTS)}
    assert names < {topic.name for topic in ALL}
    assert {topic.name for topic in ALL} - names == {"pixguard-receivers-changelog", "pixguard-payers-changelog"}


def test_changelogs_are_named_as_faust_names_them() -> None:
    """`{app id}-{table}-changelog`; installations on one cluster are apart."""
    assert changelog("bank-a", RECEIVERS_TABLE).name == "bank-a-receivers-changelog"
    assert changelog("bank-b", PAYERS_TABLE).name == "bank-b-payers-changelog"


@pytest.mark.parametrize("table", [RECEIVERS_TABLE, PAYERS_TABLE])
def test_state_is_never_deleted_by_age(table: str) -> None:
    """And a checkpoint, one record batch, fits."""
    topic = changelog("pixguard", table)
    assert topic.config["cleanup.policy"] == "compact"
    assert "retention.ms" not in topic.config
    assert int(topic.config["max.message.bytes"]) >= MAX_CHECKPOINT_BYTES
    assert topic.internal


def test_keyed_topics_share_their_number_of_partitions() -> None:
    """State, its sources and its changelog meet by partition; lists and the online model reach every worker whole.

    There is one learner, so one partition of what it learns from.
    """
    single = {topic.name for topic in ALL if topic.partitions is not None}
    assert single == {"pix-labelled", "pix-online-model", "pix-lists"}
    assert all(topic.partitions == 1 for topic in (LABELLED, ONLINE_MODEL, LISTS))
    assert all(topic.config["cleanup.policy"] == "compact" for topic in (ONLINE_MODEL, LISTS))


def test_vectors_outlive_the_feedback_on_them() -> None:
    """A label finds the vector that it is about: MED takes up to 91 days."""
    assert _retention_days(FEATURES) >= 91
    assert _retention_days(FEEDBACK) >= 91


def test_rejected_messages_fit_their_dead_letter() -> None:
    """Base64 makes a third more of the largest transaction, and the letter has words of its own."""
    largest = int(TRANSACTIONS.config["max.message.bytes"])
    assert int(REJECTED.config["max.message.bytes"]) > largest * 4 / 3 + (1 << 16)


def test_settings_are_kafkas() -> None:
    """Strings, as the admin protocol takes them; retention in whole days."""
    known = {"cleanup.policy", "retention.ms", "max.message.bytes", "segment.bytes"}
    for topic in ALL:
        assert set(topic.config) <= known
        assert all(isinstance(value, str) for value in topic.config.values())
        if topic.config["cleanup.policy"] == "delete":
            assert int(topic.config["retention.ms"]) % DAY_MS == 0


def test_topics_cannot_be_changed() -> None:
    """One worker sees what the others do."""
    with pytest.raises(AttributeError):
        TRANSACTIONS.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TRANSACTIONS.config["retention.ms"] = "1"  # type: ignore[index]


def test_keys_name_fields_that_exist() -> None:
    """A key's description is of the transaction's own fields."""
    for topic in (TRANSACTIONS, DECISIONS, FEATURES, FEEDBACK):
        named = set(re.findall(r"[a-z]+(?:_[a-z]+)+", topic.key))
        assert named
        assert named <= set(FIELDS_BY_NAME)


def test_topics_say_what_they_are_for() -> None:
    """Key, value and purpose are told to people: in the README and AsyncAPI."""
    for topic in ALL:
        assert topic.key
        assert topic.why.endswith(".")
        assert re.fullmatch(r"[A-Z][A-Za-z]+", topic.value)
