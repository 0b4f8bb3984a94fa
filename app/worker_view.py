"""The live worker as its web view sees it: read-only, cheap, and without clear identifiers."""

from __future__ import annotations

import time
from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import ACTIONS, decode_decision
from app.domain.fields import INITIATIONS
from app.domain.partitioner import account_partitions, partition_of
from app.domain.rows import select
from app.domain.siphash import HashKey, hash_account, hash_pix_key
from app.settings import Settings
from app.web.view import DecisionView, PartitionView, WorkerStatus
from models.stages.payers import PayerOutput
from models.stages.receivers import FEATURES_VERSION, ReceiverOutput
from models.wording.explaining import reason_sentences
from tables.catalog import CATALOG

if TYPE_CHECKING:
    from app.worker import PixguardApp

__all__ = ["LiveView"]

_KEPT_PER_ACTION = 500
_KEPT_PER_BATCH = 10
"""Per action: at full load nobody reads more, and copying costs."""

_RATE_SPAN_S = 5.0


class LiveView:
    """Implements `app.web.view.WorkerView`.

    Parameters
    ----------
    settings
        Of the worker.
    app
        The Faust app with its tables and controls.
    hash_key
        The key of the pseudonyms, for look-ups.
    """

    def __init__(self, settings: Settings, app: PixguardApp, hash_key: HashKey) -> None:
        self._settings = settings
        self._app = app
        self._hash_key = hash_key
        self._started_at_ms = int(time.time() * 1000)
        self._counts = np.zeros(len(ACTIONS), np.int64)
        self._rejected = 0
        self._repeats = 0
        # Newest last, per action.
        self._recent: dict[str, deque[_Seen]] = {action: deque(maxlen=_KEPT_PER_ACTION) for action in ACTIONS}
        self._rate: deque[tuple[float, int]] = deque()

    def watch_received(self, output: ReceiverOutput) -> None:
        """Take note of a batch of stage 1."""
        self._rejected += len(output.rejections)

    def watch_decided(self, output: PayerOutput) -> None:
        """Take note of a batch of stage 2."""
        decided = output.decided
        self._repeats += output.retries
        self._rejected += len(output.rejections)
        if not len(decided.rows):
            return
        actions = decided.rows["action"]
        champion = decided.models.champion
        usual = None if champion is None else champion.usual
        self._counts += np.bincount(actions, minlength=len(ACTIONS))
        for code, action in enumerate(ACTIONS):
            newest = np.flatnonzero(actions == code)[-_KEPT_PER_BATCH:]
            # Copies: a view would keep the whole batch alive.
            seen = zip(
                decided.rows["timestamp"][newest].tolist(),
                decided.rows["source_offset"][newest].tolist(),
                [decided.messages[place] for place in newest.tolist()],
                select(decided.transactions, newest),
                decided.vectors[newest],
                strict=True,
            )
            self._recent[action].extend(_Seen(*item, usual) for item in seen)
        now_s = time.monotonic()
        self._rate.append((now_s, len(actions)))
        while self._rate and self._rate[0][0] < now_s - _RATE_SPAN_S:
            self._rate.popleft()

    def status(self) -> WorkerStatus:
        """State and counters."""
        app = self._app
        now_s = time.monotonic()
        recent = sum(count for at_s, count in self._rate if at_s >= now_s - _RATE_SPAN_S)
        return WorkerStatus(
            name=self._settings.name,
            version=version("pixguard"),
            phase=app.phase,
            broker=self._settings.broker,
            app_id=self._settings.app_id,
            started_at_ms=self._started_at_ms,
            transactions=int(self._counts.sum()),
            decisions=dict(zip(ACTIONS, self._counts.tolist(), strict=True)),
            rejected=self._rejected,
            repeats=self._repeats,
            transactions_per_s=recent / _RATE_SPAN_S,
            rules_version=app.controls.pack.name,
            features_version=FEATURES_VERSION,
            lists_version=app.controls.lists.version,
            recovery=app.recovery_progress(),
        )

    def partitions(self) -> list[PartitionView]:
        """All shards of this worker."""
        views = []
        for table in (self._app.receivers, self._app.payers):
            for partition, shard in sorted(table.shards.held.items()):
                state = shard.stage.state
                views.append(
                    PartitionView(
                        table=table.name,
                        partition=partition,
                        role="standby" if table.is_standby(partition) else "active",
                        profiles=len(state.profiles),
                        remembered_ids=sum(map(len, state.memories.values())),
                        dirty_rows=state.profiles.dirty,
                        checkpoints=shard.checkpoints,
                        recovered_rows=shard.recovered_rows,
                        changelog_offset=shard.changelog_offset,
                        next_offset=state.next_offsets(),
                    )
                )
        return views

    def recent_decisions(self, limit: int, action: str | None = None) -> list[DecisionView]:
        """Newest first; `action` keeps only APPROVE, HOLD or DENY."""
        kept = [item for name in ACTIONS if action in {None, name} for item in self._recent[name]]
        kept.sort(key=lambda item: item[:2])
        return [_render(item) for item in reversed(kept[-limit:])]

    def profile(self, kind: str, value: str) -> dict[str, object] | None:
        """A profile by `account` (ISPB/ACCOUNT) or `key` (a Pix key), None where this worker has none."""
        if kind == "key":
            hashed = hash_pix_key(value, self._hash_key)
            partition = partition_of(value.encode(), self._settings.partitions)
            shard = self._app.receivers.shards.held.get(partition)
        else:
            ispb, _, account = value.partition("/")
            hashed = hash_account(ispb, account, self._hash_key)
            partition = int(account_partitions(np.array([hashed], np.uint64), self._settings.partitions)[0])
            shard = self._app.payers.shards.held.get(partition)
        if shard is None:
            return None
        found: dict[str, object] | None = shard.stage.state.profiles.query(hashed, int(time.time() * 1000))
        return found


class _Seen(NamedTuple):
    """A decision as it is kept for the page: rendered only when somebody looks."""

    decided_at: int
    source_offset: int
    message: bytes
    transaction: np.void
    vector: NDArray[np.float32]
    usual: NDArray[np.float32] | None
    """Of the batch model in force, which all decisions by it share."""


def _render(seen: _Seen) -> DecisionView:
    row = seen.transaction
    initiation = int(row["initiation"])
    decision = decode_decision(seen.message)
    values = _by_name(seen.vector)
    usual = {} if seen.usual is None else _by_name(seen.usual)
    features = [reason.feature for reason in decision.reasons if reason.feature is not None]
    return DecisionView(
        decision=decision,
        amount_centavos=int(row["amount_centavos"]),
        initiation=INITIATIONS[initiation - 1] if initiation else "",
        payer=f"{int(row['payer_account']):016x}",
        receiver=f"{int(row['receiver']):016x}",
        payer_ispb=bytes(row["payer_ispb"]).decode(),
        receiver_ispb=bytes(row["receiver_ispb"]).decode(),
        values=values,
        sentences={feature: reason_sentences(feature, values[feature], usual.get(feature)) for feature in features},
    )


def _by_name(vector: NDArray[np.float32]) -> dict[str, float | None]:
    return {name: None if np.isnan(x) else x for name, x in zip(CATALOG.names, vector.tolist(), strict=True)}
