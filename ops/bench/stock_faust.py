"""The baseline of `pixguard bench`: the same job in stock Faust, one event at a time, and how fast it goes.

Written as a good Faust user would: two agents in a row, the first keyed by the receiver, the second by the payer; each
keeps windowed tables with their changelogs and reads six windows before it updates them. It does less than pixguard,
so that pixguard's speed over its own is a lower bound:

- 24 features (count and sum over six windows, for receiver and payer) rather than all of the catalog, and no second
  role of a party: a payer's credits are not counted;
- tumbling windows, which are the cheapest that Faust has: one row per window, of what happened since the window began.
  Hopping windows with 12 steps, which come nearer to a sliding window, cost twelve rows for each of ours;
- count and sum share a row, so that there are 12 table writes per payment and not 24;
- a handful of rules, no models, no validation, no dead letters, no retries recognised, and at-least-once: a crash
  counts some payments twice.

`packed` is what an expert may do who gives Faust's windows up: the newest tumbling window of each length, all in one
row of a plain table, so 2 table writes per payment instead of 12. It never expires a key.

Measured (processor time per payment, 2 shared and busy cores): 1.37 ms, `packed` 0.45 ms, so a table write with its
changelog message costs some 90 us. Chosen for speed: tables in memory rather than in RocksDB (1.7 ms), tumbling rather
than hopping windows of 12 steps (9.4 ms), debug records off (1.6 ms with them), plain JSON objects rather than
`faust.Record` (35 us more for each message read), and a codec on msgspec rather than the standard library's (80 us
less a payment). A producer in a thread of its own (`producer_threaded`) failed with an error of Faust's.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import faust
import msgspec
from faust.serializers.codecs import Codec, register
from faust.tables.wrappers import WindowWrapper
from faust.utils.json import on_default

from app.topics import Topic

__all__ = ["RULES", "WINDOWS_S", "Rule", "StockTopics", "build_stock_app", "decide"]

WINDOWS_S: Mapping[str, int] = {"1m": 60, "5m": 300, "1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
"""Name of each window in the features' names, and its length in seconds."""

_SIDES = ("receiver", "payer")

_LATENESS_S = 3600
_CLEANUP_INTERVAL_S = 3600
"""Faust expires windows by the wall clock, whatever the event time: hourly, so that a backlog of old payments is worked
off before its windows go. It saves the baseline a scan every 30 s."""

_BUFFERED_MESSAGES = 5000
"""Table writes that may wait for the producer. At Faust's 100, which no setting changes, a dozen tables stall it."""

_DENY_SCORE, _HOLD_SCORE = 0.8, 0.5


class Rule(NamedTuple):
    """One rule on the features.

    Parameters
    ----------
    name
        What a decision gives as its reason.
    weight
        Probability of fraud where this rule alone fires.
    fires
        The rule; it sees the 24 features and `amount_centavos`.
    """

    name: str
    weight: float
    fires: Callable[[Mapping[str, int]], bool]


RULES: tuple[Rule, ...] = (
    Rule("receiver_fan_in", 0.45, lambda seen: seen["receiver_count_1h"] >= 20),
    Rule(
        "receiver_wakes_up",
        0.40,
        lambda seen: seen["receiver_count_1h"] >= 5 and seen["receiver_count_1h"] == seen["receiver_count_30d"],
    ),
    Rule("payer_burst", 0.35, lambda seen: seen["payer_count_1m"] >= 3 or seen["payer_count_5m"] >= 6),
    Rule("payer_drained", 0.50, lambda seen: seen["payer_sum_1h"] + seen["amount_centavos"] >= 1_000_000),
    Rule(
        "payer_unusual_amount",
        0.35,
        lambda seen: (
            seen["payer_count_30d"] >= 3
            and seen["amount_centavos"] * seen["payer_count_30d"] > 10 * seen["payer_sum_30d"]
        ),
    ),
    Rule("large_amount", 0.30, lambda seen: seen["amount_centavos"] >= 500_000),
)


def decide(end_to_end_id: str, seen: Mapping[str, int]) -> dict[str, Any]:
    """Return the decision on one payment, as it goes to the decisions topic.

    Parameters
    ----------
    end_to_end_id
        Of the payment.
    seen
        Its features and `amount_centavos`.

    Examples
    --------
    >>> quiet = {f"{side}_{what}_{window}": 0 for side in ("receiver", "payer")
    ...          for what in ("count", "sum") for window in WINDOWS_S}
    >>> decide("E1", quiet | {"amount_centavos": 600_000})
    {'end_to_end_id': 'E1', 'action': 'APPROVE', 'score': 0.3, 'reasons': ['large_amount']}
    """
    fired = [rule for rule in RULES if rule.fires(seen)]
    honest = 1.0
    for rule in fired:
        honest *= 1.0 - rule.weight
    score = round(1.0 - honest, 4)
    action = "DENY" if score >= _DENY_SCORE else "HOLD" if score >= _HOLD_SCORE else "APPROVE"
    reasons = [rule.name for rule in sorted(fired, key=lambda rule: -rule.weight)]
    return {"end_to_end_id": end_to_end_id, "action": action, "score": score, "reasons": reasons}


class _FastJson(Codec):
    """JSON by msgspec, in place of Faust's codec of the same name."""

    def _loads(self, s: bytes) -> Any:  # noqa: ANN401 - any JSON value
        return msgspec.json.decode(s)

    def _dumps(self, s: Any) -> bytes:  # noqa: ANN401 - any JSON value
        return msgspec.json.encode(s, enc_hook=on_default)


class StockTopics(NamedTuple):
    """Names of the topics, all with the app's id in front."""

    transactions: str
    enriched: str
    decisions: str
    features: str

    @classmethod
    def of(cls, app_id: str) -> StockTopics:
        """Return those of one app."""
        names = ("pix-transactions", "stock-enriched", "stock-decisions", "stock-features")
        return cls(*(f"{app_id}-{name}" for name in names))

    def declared(self, app_id: str, *, packed: bool) -> list[Topic]:
        """Return all topics, the tables' changelogs too.

        Faust makes changelogs that are missing, but may then read of too few partitions, and an agent dies of it.
        """
        visible = [Topic(name, key="bytes", value="JSON", why="The baseline's.") for name in self]
        if packed:
            return visible + [_changelog(app_id, side, {"cleanup.policy": "compact"}) for side in _SIDES]
        return visible + [
            _changelog(
                app_id,
                f"{side}-{name}",
                {"cleanup.policy": "compact,delete", "retention.ms": str((size_s + _LATENESS_S) * 1000)},
            )
            for side in _SIDES
            for name, size_s in WINDOWS_S.items()
        ]


def _changelog(app_id: str, table: str, config: Mapping[str, str]) -> Topic:
    return Topic(
        f"{app_id}-{table}-changelog", "JSON", "JSON", "A table of the baseline.", config=config, internal=True
    )


class _Windows:
    """Count and sum per key over each window, in one tumbling table per window."""

    def __init__(self, app: faust.App, side: str, partitions: int) -> None:
        self._tables = [
            (
                f"{side}_count_{name}",
                f"{side}_sum_{name}",
                _by_event_time(app, f"{side}-{name}", size_s, partitions),
            )
            for name, size_s in WINDOWS_S.items()
        ]

    def observe(self, key: str, payment: Mapping[str, Any]) -> dict[str, int]:
        """Return the features of the windows of the event being processed, as they were, then count its payment."""
        amount_centavos = payment["amount_centavos"]
        seen = {}
        for count_name, sum_name, table in self._tables:
            count, total = seen[count_name], seen[sum_name] = table[key].value()
            table[key] = (count + 1, total + amount_centavos)
        return seen


class _PackedWindows:
    """Count and sum per key over each window: one row per key, in a plain table, with the newest window of each length.

    What comes too late for its window is not counted, and sees an empty one.
    """

    def __init__(self, app: faust.App, side: str, partitions: int) -> None:
        self._table = app.Table(side, partitions=partitions)
        self._windows = [(f"{side}_count_{name}", f"{side}_sum_{name}", size) for name, size in WINDOWS_S.items()]
        self._unseen = [(0, 0, 0)] * len(WINDOWS_S)

    def observe(self, key: str, payment: Mapping[str, Any]) -> dict[str, int]:
        """Return the features of the payment's windows as they were, then count it."""
        amount_centavos, second = payment["amount_centavos"], payment["timestamp"] // 1000
        seen, row = {}, []
        stored = self._table.get(key, self._unseen)
        for (count_name, sum_name, size_s), (held, held_count, held_total) in zip(self._windows, stored, strict=True):
            window = second // size_s
            count, total = seen[count_name], seen[sum_name] = (held_count, held_total) if window == held else (0, 0)
            late = window < held
            row.append((held, held_count, held_total) if late else (window, count + 1, total + amount_centavos))
        self._table[key] = row
        return seen


def _by_event_time(app: faust.App, name: str, size_s: int, partitions: int) -> WindowWrapper:
    table = app.Table(name, default=_nothing, partitions=partitions).tumbling(size_s, expires=size_s + _LATENESS_S)
    return cast("WindowWrapper", cast("WindowWrapper", table).relative_to(_event_time))


def _nothing() -> tuple[int, int]:
    return 0, 0


def _event_time(event: faust.EventT[Any] | None = None) -> float:
    """Seconds since the epoch, from the payment of the event: what chooses the window."""
    if event is None:
        raise RuntimeError("windows are read and written by agents only")
    return float(cast("dict[str, Any]", event.value)["timestamp"]) / 1000


def build_stock_app(broker: str, app_id: str, partitions: int, data_dir: Path, *, packed: bool) -> faust.App:
    """Return the whole job as a Faust app; nothing is started.

    Parameters
    ----------
    broker
        `HOST:PORT`.
    app_id
        Consumer group, and what the names of all topics begin with.
    partitions
        Of every topic; `StockTopics.declared` exist already.
    data_dir
        Faust's own directory.
    packed
        Whether a key's windows share one row of a plain table, instead of lying in windowed tables.
    """
    register("json", _FastJson())
    app = faust.App(
        app_id,
        broker=f"kafka://{broker}",
        store="memory://",
        datadir=data_dir,
        value_serializer="json",
        topic_partitions=partitions,
        topic_disable_leader=True,
        table_standby_replicas=0,
        table_cleanup_interval=_CLEANUP_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=10,
        broker_heartbeat_interval=2,
        broker_commit_every=10_000,
        broker_commit_interval=3.0,
        stream_buffer_maxsize=16_384,
        stream_recovery_delay=0.0,
        producer_linger=0.005,
        producer_max_batch_size=256 << 10,
    )
    app.boot_strategy.enable_web = False  # `web_enabled=False` alone leaves the port open

    async def widen_buffer() -> None:
        app.producer.buffer.max_messages = _BUFFERED_MESSAGES

    app.task(widen_buffer)
    _add_agents(app, StockTopics.of(app_id), partitions, _PackedWindows if packed else _Windows)
    return app


def _add_agents(app: faust.App, names: StockTopics, partitions: int, windows: type[_Windows | _PackedWindows]) -> None:
    transactions, enriched, decisions, features = (app.topic(name, key_type=bytes) for name in names)
    receiver_windows, payer_windows = (windows(app, side, partitions) for side in _SIDES)

    @app.agent(transactions, name="receivers")
    async def receivers(stream: faust.StreamT[Any]) -> None:
        async for payment in stream:
            receiver = payment.get("pix_key") or payment["receiver_account"]
            payment["receiver"] = receiver_windows.observe(receiver, payment)
            await enriched.send(key=_payer(payment).encode(), value=payment)

    @app.agent(enriched, name="payers")
    async def payers(stream: faust.StreamT[Any]) -> None:
        async for payment in stream:
            seen = payment["receiver"] | payer_windows.observe(_payer(payment), payment)
            seen["amount_centavos"] = payment["amount_centavos"]
            end_to_end_id = payment["end_to_end_id"]
            key = end_to_end_id.encode()
            await decisions.send(key=key, value=decide(end_to_end_id, seen))
            await features.send(key=key, value=seen)


def _payer(payment: Mapping[str, Any]) -> str:
    """Two banks may use one account number."""
    return f"{payment['payer_ispb']}/{payment['payer_account']}"


def _run_worker(broker: str, app_id: str, partitions: int, data_dir: Path, *, packed: bool) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)  # Faust makes no parents
    # `loglevel` is that of the handlers: each send would still make a debug record, a tenth of the worker's time.
    logging.disable(logging.INFO)
    app = build_stock_app(broker, app_id, partitions, data_dir, packed=packed)
    faust.Worker(app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False).execute_from_commandline()


def _end_with_owner() -> None:
    """End the process, at once, when the other end of standard input is closed: its owner is gone, however it went."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _main() -> None:
    parser = argparse.ArgumentParser(description="The baseline of `pixguard bench`: stock Faust.")
    worker = parser.add_subparsers(required=True).add_parser("worker", help="run a worker until a signal")
    worker.add_argument("--broker", required=True, help="HOST:PORT")
    worker.add_argument("--app-id", required=True, help="group, and what the topics' names begin with")
    worker.add_argument("--partitions", required=True, type=int, help="of every topic")
    worker.add_argument("--data", required=True, type=Path, help="directory of Faust's own files")
    worker.add_argument("--packed", action="store_true", help="one row per key instead of windowed tables")
    worker.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.until_eof:
        threading.Thread(target=_end_with_owner, daemon=True).start()
    _run_worker(options.broker, options.app_id, options.partitions, options.data, packed=options.packed)


if __name__ == "__main__":
    _main()
