"""What models learn from: vectors as they were decided on, with labels as a bank comes to know them.

Two times matter for each label: when the payment happened, and when the label became known. A set remembers every state
that a label went through, so that `as_of` gives what could have been learned at an instant, and nothing from later.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tables.calendar import BRASILIA_MS, NIGHT_FROM, NIGHT_TO
from tables.layout import HOUR_MS

__all__ = ["STATE_DTYPE", "UNKNOWN", "TrainingSet", "TrainingSetError"]

UNKNOWN = -1
"""A label that is not known, or that was withdrawn: such a row teaches nothing."""

STATE_DTYPE = np.dtype([("row", "i8"), ("known_at", "i8"), ("label", "i1"), ("weight", "f8")])
"""One state of a label: of which row, since when it was known (epoch ms), what it was (1, 0 or UNKNOWN) and what the
row weighed with it."""

_COLUMNS: dict[str, str] = {
    "labels": "i1", "weights": "f8", "event_time": "i8", "known_at": "i8", "amounts": "i8", "channels": "u1",
    "rules_scores": "f4", "online_scores": "f4", "batch_scores": "f4", "typologies": "U", "ids": "S32", "truth": "i1",
}  # fmt: skip
_STATE_COLUMNS = {"known_at": "known_at", "label": "labels", "weight": "weights"}
_MISSING: dict[str, Any] = {
    "weights": 1.0, "channels": 0, "rules_scores": np.nan, "online_scores": np.nan, "batch_scores": np.nan,
    "typologies": "", "truth": UNKNOWN,
}  # fmt: skip


class TrainingSetError(ValueError):
    """Columns that do not make a training set, or a set that is too small or too one-sided for what is asked."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Labelled vectors, ordered by event time; make one with `build`.

    Parameters
    ----------
    fingerprint
        Of the catalog that the vectors are of (as messages carry it).
    names
        Of the features, f of them.
    vectors
        float32, shape (n, f), NaN for missing.
    labels
        1 fraud, 0 none; UNKNOWN only for rows that `known` would drop. Shape (n,), as all that follow.
    weights
        Sampling weight times confidence of the label, above 0.
    event_time, known_at
        When the payment happened and since when `labels` holds, epoch ms.
    amounts
        Centavos.
    channels
        1-based position in `app.domain.fields.INITIATIONS`; 0 where it is not known.
    rules_scores, online_scores, batch_scores
        What the payment was scored with when it was decided on, NaN where there was no such score.
    typologies
        Of the fraud, empty where it is none or not known.
    ids
        The end_to_end_id.
    truth
        What really happened, which only a simulator knows; UNKNOWN elsewhere. For evaluation, never for training.
    states
        `STATE_DTYPE`, ordered by known_at: every state of every label, those in `labels` included.
    """

    fingerprint: str
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    labels: NDArray[np.int8]
    weights: NDArray[np.float64]
    event_time: NDArray[np.int64]
    known_at: NDArray[np.int64]
    amounts: NDArray[np.int64]
    channels: NDArray[np.uint8]
    rules_scores: NDArray[np.float32]
    online_scores: NDArray[np.float32]
    batch_scores: NDArray[np.float32]
    typologies: NDArray[np.str_]
    ids: NDArray[np.bytes_]
    truth: NDArray[np.int8]
    states: NDArray[np.void]

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.vectors.shape != (n, len(self.names)):
            raise TrainingSetError(
                f"training set: expected vectors of shape ({n}, {len(self.names)}), one row per id and one column per "
                f"feature name, got {self.vectors.shape}"
            )
        for name in _COLUMNS:
            if getattr(self, name).shape != (n,):
                raise TrainingSetError(
                    f"training set: expected {name} of shape ({n},), got {getattr(self, name).shape}"
                )
        if n and (np.diff(self.event_time) < 0).any():
            raise TrainingSetError("training set: expected rows in order of event_time; `TrainingSet.build` sorts them")
        rows = self.states["row"]
        if len(rows) and not 0 <= rows.min() <= rows.max() < n:
            raise TrainingSetError(f"training set: expected states of rows 0 to {n - 1}, got {rows.min()}-{rows.max()}")

    @classmethod
    def build(
        cls,
        fingerprint: str,
        names: Sequence[str],
        vectors: NDArray[np.float32],
        *,
        states: NDArray[np.void] | None = None,
        **columns: Any,  # noqa: ANN401 - anything that NumPy makes a column of
    ) -> TrainingSet:
        """Make a set from columns in any order.

        Parameters
        ----------
        fingerprint, names, vectors
            As in the class.
        states
            Where left out, each label has had one state: `labels` since `known_at`.
        columns
            As in the class; those that nobody knows may be left out.

        Raises
        ------
        TrainingSetError
            When a column is missing, unknown or of another length.
        """
        n = len(vectors)
        unknown = set(columns) - set(_COLUMNS)
        lacking = set(_COLUMNS) - set(_MISSING) - set(columns)
        if unknown or lacking:
            raise TrainingSetError(
                f"training set: expected columns {', '.join(_COLUMNS)}; "
                f"unknown: {', '.join(sorted(unknown)) or 'none'}, missing: {', '.join(sorted(lacking)) or 'none'}"
            )
        made = {
            name: np.asarray(columns[name] if name in columns else np.full(n, _MISSING[name])).astype(dtype)
            for name, dtype in _COLUMNS.items()
        }
        for name, column in made.items():
            if column.shape != (n,):
                raise TrainingSetError(f"training set: expected {name} of shape ({n},), got {column.shape}")
        if states is None:
            states = np.zeros(n, STATE_DTYPE)
            for name, column in (("row", np.arange(n)), *((name, made[of]) for name, of in _STATE_COLUMNS.items())):
                states[name] = column
        # The id breaks ties, so that the order in which rows were collected leaves no trace.
        order = np.lexsort((made["ids"], made["event_time"]))
        made = {name: column[order] for name, column in made.items()}
        return cls(
            fingerprint,
            tuple(names),
            np.ascontiguousarray(vectors, np.float32)[order],
            **made,
            states=_renumbered(states, order, n),
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    @property
    def positives(self) -> int:
        """Rows labelled as fraud."""
        return int((self.labels == 1).sum())

    @property
    def night(self) -> NDArray[np.bool_]:
        """Whether each payment happened in the regulatory night (20:00-06:00 in Brasília)."""
        hour = (self.event_time + BRASILIA_MS) // HOUR_MS % 24
        return np.asarray((hour >= NIGHT_FROM) | (hour < NIGHT_TO), np.bool_)

    @property
    def digest(self) -> str:
        """sha256 (hex) over all that could change a model: what names the data of a training run."""
        digest = hashlib.sha256(f"{self.fingerprint}\0{chr(10).join(self.names)}\0{len(self)}".encode())
        for field in fields(self)[2:]:
            column = np.ascontiguousarray(getattr(self, field.name))
            if column.dtype.kind == "U":  # its width follows from the longest word, which may be another row's
                digest.update("\n".join(column.tolist()).encode())
            else:
                digest.update(column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def take(self, chosen: NDArray[Any] | slice) -> TrainingSet:
        """Return some rows.

        Parameters
        ----------
        chosen
            A mask of shape (n,), ascending positions, or a slice.
        """
        rows = np.arange(len(self))[chosen]
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        states = _renumbered(self.states, rows, len(self))
        return replace(self, vectors=self.vectors[rows], states=states, **columns)

    def as_of(self, instant: int) -> TrainingSet:
        """Return the rows whose label was known at an instant, with what it was then.

        Parameters
        ----------
        instant
            Epoch ms. What became known later, reversals included, has not happened yet.
        """
        states = self.states[self.states["known_at"] <= instant]
        columns: dict[str, Any] = {name: getattr(self, name).copy() for name in _STATE_COLUMNS.values()}
        columns["labels"][:] = UNKNOWN
        for name, of in _STATE_COLUMNS.items():
            # In order of known_at, so that of one row's states the last is the one that stays.
            columns[of][states["row"]] = states[name]
        return replace(self, states=states, **columns).known()

    def known(self) -> TrainingSet:
        """Return the rows whose label is known."""
        return self.take(self.labels != UNKNOWN)

    def to_bytes(self) -> bytes:
        """Return the set as a compressed NumPy archive, without pickles."""
        buffer = io.BytesIO()
        columns: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        columns["names"] = np.array(self.names, np.str_)
        np.savez_compressed(buffer, **columns)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingSet:
        """Read what `to_bytes` wrote.

        Raises
        ------
        TrainingSetError
            For anything else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                columns: dict[str, Any] = {field.name: archive[field.name] for field in fields(cls)}
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingSetError(f"training set: expected what to_bytes writes, got {error!r}") from error
        columns["names"], columns["fingerprint"] = tuple(columns["names"].tolist()), str(columns["fingerprint"])
        return cls(**columns)

    def split_by_time(self, train_until: int, gap_ms: int) -> tuple[TrainingSet, TrainingSet]:
        """Return what happened before an instant, as it was known when the gap was over, and what happened after it.

        Parameters
        ----------
        train_until
            Epoch ms; the earlier part ends before it.
        gap_ms
            What happens within it belongs to neither: as a rule the maturity, so that the earlier part's labels
            were known before the later part began.
        """
        begins = train_until + gap_ms
        earlier = self.take(self.event_time < train_until).as_of(begins)
        return earlier, self.take(self.event_time >= begins)


def _renumbered(states: NDArray[np.void], rows: NDArray[np.int64], n: int) -> NDArray[np.void]:
    """Return the states of some rows, by their new places, in order of known_at."""
    places = np.full(n, -1, np.int64)
    places[rows] = np.arange(len(rows))
    kept = states[places[states["row"]] >= 0].copy()
    kept["row"] = places[kept["row"]]
    # Stable: of two states of one instant the one that was given later is the later one.
    ordered: NDArray[np.void] = kept[np.argsort(kept["known_at"], kind="stable")]
    return ordered
