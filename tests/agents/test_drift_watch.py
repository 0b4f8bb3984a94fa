"""Drift in the learner's process: a bounded, even sample; gauges; and whatever fails, learning goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from agents.drift import DriftWatch
from app.domain.records import Stretch
from app.domain.vectors import encode_vectors
from models.batch.model import BatchModel
from models.batch.training_set import TrainingSet
from models.drift.look import reference_of
from models.drift.reference import Reference
from tables.catalog import CATALOG
from tests.models.drift_windows import as_labelled, as_vectors
from tests.models.test_ensemble import batch_model
from tests.models.training_rows import made_up_rows

HOUR_MS = 3_600_000


class Clock:
    """A clock that stands."""

    def now_ms(self) -> int:
        """Some instant."""
        return 1_700_000_000_000

    def monotonic_s(self) -> float:
        """Another one."""
        return 5.0


class Shelf:
    """A registry: the champion's training window, which may be out of reach."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.version, self.is_down = reference, 1, False

    def look(self, held: int) -> tuple[int, Reference | None]:
        """Answer as `ReferenceLook` says."""
        if self.is_down:
            raise ConnectionError("out of reach")
        return self.version, self.reference if self.version not in (0, held) else None


@pytest.fixture(scope="module")
def model() -> BatchModel:
    """Any model."""
    return batch_model(0, 1)


@pytest.fixture(scope="module")
def shelf(model: BatchModel) -> Shelf:
    """A registry with its window."""
    return Shelf(reference_of(made_up_rows(4_000), model))


def stretch(rows: TrainingSet, model: BatchModel, first_ms: int = 0, step_ms: int = 1) -> Stretch:
    """These rows as a batch of `pix-features`."""
    vectors = as_vectors(rows, model)
    values = encode_vectors(vectors.rows, vectors.matrix, vectors.fingerprint)
    n = len(rows)
    return Stretch(0, n, [b""] * n, values, range(n), [first_ms + step_ms * at for at in range(n)])


def gauge(name: str, **labels: Any) -> float | None:  # noqa: ANN401 - labels
    """Return what a gauge stands at."""
    return REGISTRY.get_sample_value(f"pixguard_{name}", labels)


async def test_a_look_is_told_in_gauges(shelf: Shelf, model: BatchModel) -> None:
    """Scores, families, alarms, estimates and what was realised; a change shows at the next look."""
    watch = DriftWatch(Clock(), shelf.look, 1.0, rows=40_000)
    assert await watch.take_look() is None
    await watch.poll()
    found = await watch.take_look()
    assert found is not None
    assert found.drift.findings == []
    assert gauge("drift_rows") == 0
    now = made_up_rows(1_500, seed=3)
    watch.see(stretch(now, model))
    scores = as_vectors(now, model).rows["score"]
    watch.hear([*as_labelled(now, scores), *as_labelled(now.take(slice(0, 3)), scores, "REVISION")])
    found = await watch.take_look()
    assert found is not None
    assert (found.rows, found.matured, found.delay.count) == (1_500, 1_500, 3)
    assert gauge("drift_alarms", change="shifted") == len([each for each in found.drift.findings if each.shifted]) == 0
    assert gauge("drift_psi", of="network") == found.worst()["network"]
    assert gauge("drift_rows") == 1_500
    assert gauge("drift_reference_version") == 1
    told = found.estimates["score"]["average_precision"].estimate
    assert gauge("performance_estimated", score="score", measure="average_precision") == told
    told = found.realised["rules"]["average_precision"].estimate
    assert gauge("performance_realised", score="rules", measure="average_precision") == told
    assert gauge("calibration_deviations", score="score") == found.gaps["score"].deviations

    vectors = now.vectors.copy()
    vectors[:, CATALOG.names.index("payer_sent_count_1h")] += 3.0
    watch.see(stretch(replace(now, vectors=vectors), model, first_ms=3 * HOUR_MS))
    found = await watch.take_look()
    assert found is not None
    assert found.rows == 1_500  # those of before are older than the window
    assert "payer_sent_count_1h" in {each.name for each in found.drift.alarms}
    assert (gauge("drift_alarms", change="shifted") or 0) >= 1


def test_the_sample_is_bounded_and_even(model: BatchModel, shelf: Shelf) -> None:
    """A burst takes a twentieth; from then on what time allows, spread over each batch."""
    watch = DriftWatch(Clock(), shelf.look, 1.0, rows=1_000, window_ms=1_000_000)
    rows = made_up_rows(500, seed=4)
    watch.see(stretch(rows, model))
    assert len(watch._payments) == 50
    taken = [at for at, _ in watch._payments]
    assert np.diff(taken).tolist() == [10] * 49
    watch.see(stretch(rows, model, first_ms=499))
    assert len(watch._payments) == 50  # no time has passed for more than a part of one
    for number in range(1, 300):
        watch.see(stretch(rows, model, first_ms=10_000 * number))
    assert len(watch._payments) == 1_000
    spent = [at for at, _ in watch._payments]
    assert spent == sorted(spent)
    # 10 of each 10 s: the sample is the last window, evenly.
    assert spent[0] == pytest.approx(300 * 10_000 - 1_000_000, abs=10_500)


async def test_nothing_that_fails_reaches_the_learner(model: BatchModel, shelf: Shelf) -> None:
    """A registry that is down, vectors of another catalog or of none: the last window stays, the failure is counted."""
    watch = DriftWatch(Clock(), shelf.look, 1.0, rows=40_000)
    await watch.poll()
    before = gauge("drift_failures_total", cause="registry") or 0.0
    shelf.is_down = True
    await watch.poll()
    shelf.is_down = False
    assert gauge("drift_failures_total", cause="registry") == before + 1
    rows = made_up_rows(600, seed=5)
    watch.see(stretch(rows, model))
    assert await watch.take_look() is not None
    before = gauge("drift_failures_total", cause="stream") or 0.0
    watch.see(stretch(replace(rows, fingerprint="0" * 16), model, first_ms=1_000))
    assert await watch.take_look() is None
    assert gauge("drift_failures_total", cause="stream") == before + 1
    assert gauge("drift_psi", of="network") is None
    watch.see(Stretch(0, 1, [b""], [b"no vector"], [0], [2_000]))
    assert await watch.take_look() is None
    shelf.version = 0
    await watch.poll()
    assert await watch.take_look() is None
    assert gauge("drift_reference_version") == 0
    shelf.version = 1


async def test_without_a_registry_nothing_is_watched(model: BatchModel) -> None:
    """Nor kept."""
    watch = DriftWatch(Clock(), None, 1.0)
    rows = made_up_rows(100, seed=6)
    watch.see(stretch(rows, model))
    watch.hear(as_labelled(rows, rows.rules_scores))
    await watch.poll()
    assert await watch.take_look() is None
    assert not watch._payments
    assert not watch._labels
