"""Traffic that several tests look at, generated once."""

from __future__ import annotations

import pytest

from ops.traffic.generator import Simulated, TrafficConfig, generate

MONDAY_5H_MS = 1_789_948_800_000 + 8 * 3_600_000
"""2026-09-21 05:00 in Brasília, a Monday."""


@pytest.fixture(scope="session")
def dense_config() -> TrafficConfig:
    """Return a configuration with enough frauds to see every typology within two days."""
    return TrafficConfig(start_ms=MONDAY_5H_MS, seed=7, rate_per_s=0.25, duration_s=2 * 86_400, fraud_share=0.03)


@pytest.fixture(scope="session")
def dense(dense_config: TrafficConfig) -> list[Simulated]:
    """Return its messages."""
    return list(generate(dense_config))
