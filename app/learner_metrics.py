"""Metrics of the process `pixguard learner`; its `/metrics` exposes them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CHECKPOINT_BYTES",
    "DROPPED",
    "HELD_BYTES",
    "LABELLED",
    "LABELS_LEARNED",
    "LABELS_READ",
    "LABEL_DELAY_SECONDS",
    "LEARN_SECONDS",
    "MATURITY_LAG_SECONDS",
    "MODEL_VERSION",
    "PUBLISHED_AT",
    "PUBLISH_SECONDS",
    "QUALITY",
    "REBUILD_RECORDS_LEFT",
    "UNREADABLE",
    "VECTORS",
    "WAITING",
    "WATERMARK",
]

_DELAY_BUCKETS_S = (60, 600, 3600, 6 * 3600, 86_400, 3 * 86_400, 8 * 86_400, 30 * 86_400, 91 * 86_400)

VECTORS = Counter("pixguard_awaiting_vectors_total", "Vectors read from pix-features")
HELD_BYTES = Gauge("pixguard_awaiting_bytes", "Bytes on disk of what awaits labels", ["partition"])
UNREADABLE = Counter("pixguard_awaiting_unreadable_total", "Messages of pix-features that another version has written")
LABELLED = Counter("pixguard_labelled_total", "Messages sent to pix-labelled", ["kind", "basis", "label"])
DROPPED = Counter("pixguard_labels_dropped_total", "Feedback on payments whose vector is not kept any more")
WAITING = Gauge("pixguard_feedback_waiting", "Feedback that waits for its payment", ["partition"])
MATURITY_LAG_SECONDS = Gauge(
    "pixguard_maturity_lag_seconds", "How late the oldest payment is that should have matured", ["partition"]
)
WATERMARK = Gauge("pixguard_label_watermark_seconds", "Time of a partition, epoch seconds", ["partition"])
REBUILD_RECORDS_LEFT = Gauge(
    "pixguard_awaiting_rebuild_records_left", "Records to read until a store is what it was", ["partition"]
)
LABEL_DELAY_SECONDS = Histogram(
    "pixguard_label_delay_seconds", "From a payment to each change of what is known of it", buckets=_DELAY_BUCKETS_S
)

LABELS_LEARNED = Gauge("pixguard_online_labels_learned", "Labels that the online model has learned in all its life")
MODEL_VERSION = Gauge("pixguard_online_model_version", "Version of the online model that was published last")
PUBLISHED_AT = Gauge("pixguard_online_model_published_seconds", "When it was published, epoch seconds")
LABELS_READ = Counter("pixguard_online_labels_total", "Messages of pix-labelled, by what became of them", ["fate"])
LEARN_SECONDS = Counter("pixguard_online_learn_seconds_total", "Time spent on learning")
PUBLISH_SECONDS = Histogram("pixguard_online_publish_seconds", "From the end of learning to the acknowledged snapshot")
CHECKPOINT_BYTES = Gauge("pixguard_online_checkpoint_bytes", "Size of the learner's last checkpoint")
QUALITY = Gauge("pixguard_online_quality", "What the learner says of itself, such as average precision", ["measure"])
