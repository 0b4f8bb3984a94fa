"""Every topic, declared once: what it carries, how it is keyed, how it is kept.

`pixguard topics` creates and checks them, the agents name them, and `app/asyncapi.py` renders them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = [
    "DECISIONS",
    "ENRICHED",
    "FEATURES",
    "FEEDBACK",
    "LABELLED",
    "LISTS",
    "MARKERS",
    "MAX_CHECKPOINT_BYTES",
    "ONLINE_MODEL",
    "PAYERS_TABLE",
    "RECEIVERS_TABLE",
    "REJECTED",
    "TRANSACTIONS",
    "Topic",
    "changelog",
    "topics",
]

MAX_CHECKPOINT_BYTES = 32 << 20
"""A checkpoint is ONE record batch, so that it is appended whole or not at all."""

_DAY_MS = 86_400_000

RECEIVERS_TABLE = "receivers"
PAYERS_TABLE = "payers"


def _kept(days: int, **more: str) -> Mapping[str, str]:
    return MappingProxyType({"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS), **more})


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic.

    Parameters
    ----------
    name
        Its name on the cluster.
    key
        What its Kafka key is, for people.
    value
        What a message holds: the name of a schema of `app/asyncapi.py`.
    why
        One line for the README and AsyncAPI.
    partitions
        None: the setting `partitions`. Topics that share an agent's state must be co-partitioned.
    config
        Topic settings as Kafka spells them.
    internal
        Whether only pixguard's own workers read and write it.
    """

    name: str
    key: str
    value: str
    why: str
    partitions: int | None = None
    config: Mapping[str, str] = field(default_factory=lambda: _kept(7))
    internal: bool = False


TRANSACTIONS = Topic(
    "pix-transactions",
    key="pix_key, or receiver_account where there is none",
    value="Transaction",
    why="Payments to decide on. The bank's producer writes here.",
    config=_kept(7, **{"max.message.bytes": str(2 << 20)}),
)
ENRICHED = Topic(
    "pix-enriched",
    key="none: the partition is that of the account",
    value="EnrichedFrame",
    why="Stage 1 to stage 2: debits with their receiver's features, and credit notices, as packed binary rows.",
    config=_kept(2, **{"max.message.bytes": str(MAX_CHECKPOINT_BYTES)}),
    internal=True,
)
DECISIONS = Topic(
    "pix-decisions",
    key="end_to_end_id",
    value="Decision",
    why="One decision per end_to_end_id (or bit-identical repeats of it).",
    config=_kept(90),
)
FEATURES = Topic(
    "pix-features",
    key="end_to_end_id",
    value="FeatureVector",
    why="The exact vector that each decision was taken on.",
    config=_kept(91),
)
REJECTED = Topic(
    "pix-rejected",
    key="Kafka key of the rejected message",
    value="DeadLetter",
    why="Whatever could not be decided on: path, expected, got, and the raw bytes.",
    config=_kept(30, **{"max.message.bytes": str(8 << 20)}),
)
FEEDBACK = Topic(
    "pix-feedback",
    key="end_to_end_id",
    value="Feedback",
    why="MED: infraction reports, fraud markers, refunds, blocks, analysts' decisions. Pix has no chargeback.",
    config=_kept(91),
)
MARKERS = Topic(
    "pix-markers",
    key="none: the partition is that of the receiver on pix-transactions, its hash is in the value",
    value="Marker",
    why="Confirmed-fraud markers, re-keyed so that they reach the receiver's state.",
    internal=True,
)
LABELLED = Topic(
    "pix-labelled",
    key="end_to_end_id",
    value="Labelled",
    why="Vectors with their labels: what the online model learns from, and the record that training sets are made of.",
    partitions=1,  # one learner, so that every decision can name the exact state of the online model
    config=_kept(91),
)
ONLINE_MODEL = Topic(
    "pix-online-model",
    key="snapshot, or checkpoint",
    value="OnlineModel",
    why="The online model's last snapshot, by which workers score, and the learner's checkpoint, written together.",
    partitions=1,
    config=MappingProxyType(
        {
            "cleanup.policy": "compact",
            "max.message.bytes": str(MAX_CHECKPOINT_BYTES),
            # Workers read it from its beginning, and only closed segments are compacted.
            "segment.bytes": str(64 << 20),
        }
    ),
    internal=True,
)
LISTS = Topic(
    "pix-lists",
    key="LIST/KIND/VALUE, e.g. deny/account/12345678/0001-99887766",
    value="ListEntry",
    why="Allow, deny and watch lists of accounts, keys and devices; a tombstone removes an entry.",
    partitions=1,
    config=MappingProxyType({"cleanup.policy": "compact"}),
)


def changelog(app_id: str, table: str) -> Topic:
    """The compacted topic behind one table, named as Faust names it."""
    return Topic(
        f"{app_id}-{table}-changelog",
        key="64-bit key hash, or a control row that starts with a NUL byte",
        value="ChangelogRow",
        why=f"Checkpoints of the `{table}` table: changed rows and the source offset that they reflect.",
        config=MappingProxyType(
            {
                "cleanup.policy": "compact",
                "max.message.bytes": str(MAX_CHECKPOINT_BYTES),
                # Only closed segments are compacted; a recovery reads the open one whole, and Kafka's default is 1 GB.
                "segment.bytes": str(64 << 20),
            }
        ),
        internal=True,
    )


def topics(app_id: str) -> tuple[Topic, ...]:
    """All topics of one installation, in the order in which data flow through them."""
    return (
        TRANSACTIONS,
        REJECTED,
        ENRICHED,
        DECISIONS,
        FEATURES,
        FEEDBACK,
        MARKERS,
        LABELLED,
        ONLINE_MODEL,
        LISTS,
        changelog(app_id, RECEIVERS_TABLE),
        changelog(app_id, PAYERS_TABLE),
    )
