"""The DICT data that a bank would hold about a payee at the moment of a payment, consistent with age and history."""

from __future__ import annotations

from typing import Final

from app.domain.fields import DICT_COUNTERS, DICT_SUBJECTS, DICT_WINDOWS
from ops.traffic.population import Population
from ops.traffic.seasons import HOUR_MS

__all__ = ["CORE_COUNTERS", "SNAPSHOT_LIFE_MS", "SnapshotWriter"]

SNAPSHOT_LIFE_MS: Final = 12 * HOUR_MS
"""DICT's statistics may be this old."""

CORE_COUNTERS: Final = frozenset({"settlements", "application_frauds", "mule_accounts", "scammer_accounts",
                                  "fraud_reporters", "rejected_reports"})  # fmt: skip

_WINDOW_DAYS = {"d90": 90.0, "m12": 365.0, "m60": 1826.0}
_CURRENT_MONTH_DAYS = 15.0  # m12 and m60 leave out the current month: half a month on average


class SnapshotWriter:
    """Writes the ``dict_*`` fields of a payee.

    Parameters
    ----------
    population
        Whose data they are.
    full
        Whether every counter of DICT is written, or those that banks use most.
    """

    def __init__(self, population: Population, *, full: bool) -> None:
        self._population = population
        self._windows = DICT_WINDOWS if full else ("d90", "m12")
        counters = tuple(name for name in DICT_COUNTERS if full or name in CORE_COUNTERS)
        self._zeros: dict[str, dict[str, object]] = {
            subject: {f"dict_{subject}_{counter}_{window}": 0 for counter in counters for window in self._windows}
            for subject in DICT_SUBJECTS
        }

    def watermark(self, entity: int, at_ms: int) -> int:
        """Return when the statistics that are served at ``at_ms`` were made: at most 12 h before."""
        phase = entity * 7_919_000 % SNAPSHOT_LIFE_MS
        return (at_ms - phase) // SNAPSHOT_LIFE_MS * SNAPSHOT_LIFE_MS + phase

    def person(self, entity: int, watermark_ms: int) -> dict[str, object]:
        """Return what getPersonStatistics knows, and the account's opening date."""
        return {
            "dict_account_opened_at": int(self._population.account_opened_at[entity]),
            "dict_watermark": watermark_ms,
            **self._statistics("person", entity, 1.0),
            "dict_person_open_reports": int(self._population.open_reports[entity]),
            "dict_person_open_reporters": min(int(self._population.open_reports[entity]), 3),
            "dict_person_accounts": int(self._population.accounts[entity]),
        }

    def key(self, entity: int) -> dict[str, object]:
        """Return what getEntryStatistics knows about the entity's key, and the key's dates."""
        population = self._population
        return {
            "dict_key_created_at": int(population.key_created_at[entity]),
            "dict_key_owned_since": int(population.key_owned_since[entity]),
            **self._statistics("key", entity, 0.8),
            "dict_key_open_reports": int(population.open_reports[entity]),
            "dict_key_open_reporters": min(int(population.open_reports[entity]), 3),
            "dict_key_accounts": 1,
        }

    def _statistics(self, subject: str, entity: int, settled_share: float) -> dict[str, object]:
        population = self._population
        fields = self._zeros[subject].copy()
        age_days = float(population.settlements_age_days[entity])
        per_day = float(population.settlements_per_day[entity]) * settled_share
        for window in self._windows:
            skipped = 0.0 if window == "d90" else _CURRENT_MONTH_DAYS
            settled = int(per_day * max(min(age_days, _WINDOW_DAYS[window]) - skipped, 0.0))
            fields[f"dict_{subject}_settlements_{window}"] = settled
        markers, rejected = int(population.markers[entity]), int(population.rejected_reports[entity])
        if markers or rejected:  # of most payees there is nothing to tell
            kind = "mule_accounts" if entity < population.people else "scammer_accounts"
            kind = "application_frauds" if entity % 7 == 0 else kind
            totals = {kind: markers, "fraud_reporters": min(markers, 4), "rejected_reports": rejected}
            for counter, total in totals.items():
                for window in self._windows:
                    # What is counted within a year was not all reported within its last quarter.
                    value = total // 2 + (total & entity & 1) if window == "d90" else total
                    fields[f"dict_{subject}_{counter}_{window}"] = value
        return fields
