"""A worker in memory and the web view on it, for all tests of the view."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import ClassVar

import httpx
import msgspec
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, Counter

from app.domain.columns import transaction_columns
from app.domain.decision import Decision, Reason, Source, Versions
from app.web.api import create_app
from app.web.security import Guard
from app.web.service import WebService
from app.web.view import DecisionView, PartitionView, WorkerStatus
from models.rules.file import load_rule_pack
from tables.recovery import RecoveryProgress, TableRecovery

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
"""What an attacker would write into whatever text reaches the page."""

ACCOUNT = "12345678/0001-99887766"
"""An account that has a profile."""

STARTED_AT_MS = 1_790_000_000_000

STATUS = WorkerStatus(
    name="worker-1",
    version="0.1.0",
    phase="ready",
    broker="127.0.0.1:9092",
    app_id="pixguard",
    started_at_ms=STARTED_AT_MS,
    transactions=1_284_310,
    decisions={"APPROVE": 1_280_002, "HOLD": 3_911, "DENY": 397},
    rejected=1_204,
    repeats=88,
    transactions_per_s=8_412.6,
    rules_version="2026.11+5d0c1f2e",
    features_version="f3a9c2d4b1e07788",
    lists_version=12,
)

RECOVERY = RecoveryProgress(
    tables=[
        TableRecovery(table="payers", partitions=[0, 1], rows_read=150_000, rows=600_000),
        TableRecovery(table="receivers", partitions=[0, 1], rows_read=100_000, rows=400_000),
    ],
    rows_read=250_000,
    rows=1_000_000,
    percent=25.0,
    rows_per_s=125_000.0,
    seconds=2.0,
)


def decision_view(number: int, action: str = "APPROVE", reasons: tuple[Reason, ...] = ()) -> DecisionView:
    """The decision on payment `number`; later numbers are later payments."""
    score = 1.0
    for reason in reasons:
        score *= 1 - reason.weight
    event_time = STARTED_AT_MS + 137 * number
    decision = Decision(
        end_to_end_id=f"E12345678202609211422{number:011d}",
        decision=action,  # type: ignore[arg-type] # one of ACTIONS
        score=1 - score,
        reasons=reasons,
        rules=tuple(reason.rule for reason in reasons),
        versions=Versions(rules=STATUS.rules_version, lists=STATUS.lists_version, features=STATUS.features_version),
        source=Source(number % 8, 1_000 + number),
        event_time=event_time,
        decided_at=event_time + 4,
        hold_minutes=30 if action == "HOLD" else None,
    )
    return DecisionView(
        decision=decision,
        amount_centavos=1_990 + 7_919 * number,
        initiation=("DICT", "QRDN", "MANU", "QRES")[number % 4],
        payer=f"{0x9E3779B97F4A7C15 * (number + 1) % 2**64:016x}",
        receiver=f"{0xC2B2AE3D27D4EB4F * (number + 1) % 2**64:016x}",
        payer_ispb="12345678",
        receiver_ispb="87654321",
        values={"payer_amount_centavos_sum_1h": 125_000.0 + number, "receiver_payers_24h": 3.0, "key_age_days": None},
    )


_NIGHT = Reason("NIGHT_LIMIT_EXCEEDED", 0.6, "night-limit")
_FIRST = Reason("FIRST_PAIR_LARGE_AMOUNT", 0.35, "first-pair-large")


def _decisions() -> list[DecisionView]:
    cases = {3: ("DENY", (_NIGHT, _FIRST)), 1: ("HOLD", (_FIRST,)), 5: ("APPROVE", (_FIRST,))}
    return [decision_view(number, *cases.get(number % 9, ("APPROVE", ()))) for number in range(60, 0, -1)]


@dataclass
class SampleWorker:
    """A worker whose state is what a test says."""

    hostile: ClassVar[str] = HOSTILE
    account: ClassVar[str] = ACCOUNT
    recovery: ClassVar[RecoveryProgress] = RECOVERY
    current: WorkerStatus = STATUS
    decisions: list[DecisionView] = field(default_factory=_decisions)
    looked_up: list[tuple[str, str]] = field(default_factory=list)

    def status(self) -> WorkerStatus:
        """As set."""
        return self.current

    def partitions(self) -> list[PartitionView]:
        """Two shards, one of which has no checkpoint yet."""
        shard = PartitionView(
            table="payers",
            partition=0,
            role="active",
            profiles=52_110,
            remembered_ids=18_344,
            dirty_rows=412,
            checkpoints=97,
            recovered_rows=40_000,
            changelog_offset=2_188_412,
            next_offset={"pix-enriched": 160_539},
        )
        new = msgspec.structs.replace(
            shard, table="receivers", partition=4, role="standby", changelog_offset=None, next_offset={}
        )
        return [shard, new]

    def recent_decisions(self, limit: int, action: str | None = None) -> list[DecisionView]:
        """The newest of the decisions that were set."""
        return [view for view in self.decisions if action in {None, view.decision.decision}][:limit]

    def profile(self, kind: str, value: str) -> dict[str, object] | None:
        """One account and one key have a profile; one account breaks the look-up."""
        self.looked_up.append((kind, value))
        if value == "00000000/broken":
            raise ValueError(f"no such row: {value}")
        if value not in {ACCOUNT, "52998224725"}:
            return None
        return {"payer_amount_centavos_sum_1h": 125_000.0, "payer_amount_centavos_std_7d": None, "note": HOSTILE}


PACK = load_rule_pack(
    f"""
version: "2026.11"
thresholds: {{hold: 0.5, deny: 0.9}}
rules:
  - id: {_NIGHT.rule}
    when: amount_centavos > 100000
    action: DENY
    weight: {_NIGHT.weight}
    reason: {_NIGHT.code}
    text: The night limit of the account is exceeded.
    from: 2026-10-01
    regulation: Res. BCB 142/2021
    example: {{amount_centavos: 100001, timestamp: 2026-11-01T00:00:00-03:00}}
  - id: {_FIRST.rule}
    when: amount_centavos > 200000
    action: HOLD
    weight: {_FIRST.weight}
    reason: {_FIRST.code}
    text: {json.dumps(HOSTILE)}
    example: {{amount_centavos: 200001}}
""",
    transaction_columns(),
    "sample.yaml",
)

FEATURE_ROWS = [
    {"name": "payer_amount_centavos_sum_1h", "key": "payer", "window": "1 h", "why": "A drained account sends much."},
    {"name": "receiver_payers_24h", "key": "receiver", "window": "24 h", "why": HOSTILE},
]


def create_view(worker: SampleWorker, web_host: str = "127.0.0.1") -> Guard:
    """The application on a worker, with metrics of its own."""
    registry = CollectorRegistry()
    Counter("pixguard_sample_total", "One", registry=registry).inc()
    return create_app(
        worker,
        features=FEATURE_ROWS,
        rules=lambda: PACK,
        asyncapi={"asyncapi": "3.0.0"},
        web_host=web_host,
        registry=registry,
    )


@pytest.fixture
def worker() -> SampleWorker:
    """A worker that is ready."""
    return SampleWorker()


@pytest_asyncio.fixture
async def service(worker: SampleWorker) -> AsyncIterator[WebService]:
    """The view on `worker`, served by uvicorn in the test's loop."""
    running = WebService(create_view(worker), "127.0.0.1", 0)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def client(service: WebService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that server; it ignores the environment's proxies."""
    async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=5) as running:
        yield running


@pytest.fixture
def view_for() -> Callable[[str], Guard]:
    """Build the application for a worker that listens on a certain address."""
    return lambda web_host: create_view(SampleWorker(), web_host)
