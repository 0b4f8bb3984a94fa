"""Figures of a training run, as PNG: precision against recall, calibration, what the model looks at."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.batch.training import TrainedModel
from models.quality.assessment import ALERT_SHARES
from models.quality.evaluation import average_precision, calibration_bins, precision_recall_curve

__all__ = ["training_figures"]

_NAMES = {"model": "this model", "champion": "champion", "rules": "rules", "amount": "amount alone"}
_FEATURES_SHOWN = 25


def training_figures(trained: TrainedModel) -> dict[str, bytes]:
    """Return PNG images by name; the same run gives the same bytes."""
    return {
        "precision_recall": _png(lambda axes: _precision_recall(axes, trained), (7.0, 5.0)),
        "calibration": _png(lambda axes: _calibration(axes, trained), (6.0, 5.0)),
        "importance": _png(lambda axes: _importance(axes, trained), (8.0, 7.0)),
    }


def _precision_recall(axes: Axes, trained: TrainedModel) -> None:
    rows = trained.test
    labels = rows.labels == 1
    for name, scores in trained.scores.items():
        curve = precision_recall_curve(labels, scores, rows.weights)
        area = average_precision(labels, scores, rows.weights)
        # As average precision adds it up: a group of equal scores is reached with the precision that it has as a whole.
        axes.step(curve.recall, curve.precision, where="pre", label=f"{_NAMES[name]}: {area:.3f}")
    caught = trained.report["scores"]["model"]
    told = ", ".join(f"{caught[f'recall_at_{share * 100:g}pct']:.0%} at {share:.1%} alerts" for share in ALERT_SHARES)
    axes.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
        title=f"{rows.positives} frauds in {len(rows):,} later payments; caught: {told}",
    )  # fmt: skip
    axes.title.set_fontsize(9)
    axes.legend(title="average precision")


def _calibration(axes: Axes, trained: TrainedModel) -> None:
    rows = trained.test
    for name in ("model", "champion"):
        if name in trained.scores:
            means, rates, _ = calibration_bins(rows.labels == 1, trained.scores[name], rows.weights)
            axes.plot(means, rates, marker="o", label=_NAMES[name])
    least = max(1.0 / max(len(rows), 1), 1e-6)
    axes.plot([least, 1.0], [least, 1.0], color="grey", linestyle=":", label="kept word")
    error = trained.report["scores"]["model"]["calibration_error"]
    # Down to 0, where bins without a fraud lie.
    axes.set(
        xlabel="promised probability", ylabel="share of frauds", xlim=(least, 1.0), ylim=(0.0, 1.0),
        title=f"{trained.model.calibration.kind} calibration, expected error {error:.4f}",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=least)
    axes.legend()


def _importance(axes: Axes, trained: TrainedModel) -> None:
    shown = list(trained.importance.items())[:_FEATURES_SHOWN][::-1]
    total = sum(trained.importance.values()) or 1.0
    axes.barh(np.arange(len(shown)), [gain / total for _, gain in shown])
    axes.set_yticks(np.arange(len(shown)), [name for name, _ in shown], fontsize=7)
    axes.set(xlabel="share of the gain", title=f"{trained.report['trees']} trees, first {len(shown)} features")


def _png(draw: Callable[[Axes], None], size: tuple[float, float]) -> bytes:
    # Agg by name: no display is needed, and whatever backend a user has set stays as it is.
    with mpl.rc_context():
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", backend="agg", metadata={"Software": None})
    return buffer.getvalue()
