"""Models for the benchmark: trained on simulated payments, as large as real ones, and put in force as in a bank.

What they know does not matter here; what they cost does.
"""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaProducer

from agents.learner_log import SNAPSHOT_KEY
from app.model_registry import open_registry
from app.topics import ONLINE_MODEL
from models.batch.registry import CHALLENGER
from models.batch.training import TrainedModel, TrainingPlan, train
from models.online.learner import OnlineLearner
from models.stages.receivers import FEATURES_VERSION
from ops.bakeoff import labelled_rows
from ops.bench.stand import BenchError, Stand, Worker
from ops.recorded import Simulation, simulated_set
from tables.catalog import CATALOG

__all__ = ["BenchModels", "put_in_force", "train_models"]

_ROUNDS = 200
_FOLLOWED_S = 60.0
_BOTH = 2.0
"""Sum of the versions that a worker tells once it has the first of each."""

BenchModels = tuple[TrainedModel, bytes]
"""The batch model, and the online model's snapshot."""


def train_models(payments: int) -> BenchModels:
    """Train both on so many simulated payments, about a thousand a second."""
    simulation = Simulation(seed=1, payments=payments, days=12.0, fraud_share=0.02, delay_scale=0.01)
    rows = simulated_set(simulation)
    trained = train(rows, TrainingPlan(simulation.maturity_ms, rounds=_ROUNDS))
    learner = OnlineLearner(FEATURES_VERSION, CATALOG.names)
    learner.learn(labelled_rows(rows))
    return trained, learner.snapshot(1).to_bytes()


async def put_in_force(stand: Stand, worker: Worker, models: BenchModels) -> None:
    """Register and promote the batch model, publish the online one, and wait until the worker has read both.

    Raises
    ------
    BenchError
        When it has not within a minute.
    """
    trained, snapshot = models

    def promote() -> None:
        registry = open_registry(stand.settings)
        version = registry.log_training(trained, facts={}, figures={}, test_rows=b"")
        registry.promote(version, at_ms=int(time.time() * 1000), reason=f"{CHALLENGER} of the benchmark")

    await asyncio.to_thread(promote)
    async with AIOKafkaProducer(**stand.connection, max_request_size=16 << 20) as producer:
        await producer.send_and_wait(ONLINE_MODEL.name, snapshot, key=SNAPSHOT_KEY, partition=0)
    until_s = time.monotonic() + _FOLLOWED_S
    while worker.metrics().get("pixguard_model_version", 0.0) < _BOTH:
        if time.monotonic() > until_s:
            raise BenchError(f"the worker has not read both models within {_FOLLOWED_S:g} s; its log: {worker.log}")
        await asyncio.sleep(1.0)
