"""Sliding windows, drawn as timelines.

Each line is a stretch of time, one character a second: digits are payments of so many reais, `?` asks what the last
minute held, `.` is nothing. Below it: what each `?` finds.
"""

from __future__ import annotations

import numpy as np
import pytest

from tables.catalog import CATALOG, Catalog, Levels
from tables.layout import EVENT_DTYPE
from tables.profiles import Profiles

START_MS = 1_773_526_380_000
SECOND_MS = 1000


def ask(timeline: str, feature: str, catalog: Catalog) -> list[float | None]:
    """Play a timeline, return the feature at each `?`."""
    profiles = Profiles("payer", catalog)
    answers = []
    for second, character in enumerate(timeline):
        if character == ".":
            continue
        event = np.zeros(1, EVENT_DTYPE)
        event["key"], event["other"], event["timestamp"] = 1, 2, START_MS + second * SECOND_MS
        event["wants_features"] = character == "?"
        event["counts"] = character != "?"
        event["amount"] = 0 if character == "?" else int(character) * 100
        found = profiles.update(event)[0, catalog.positions("payer")[feature]]
        if character == "?":
            answers.append(None if np.isnan(found) else float(found))
    return answers


SUMMED = Catalog(levels=Levels(scan=-1))


@pytest.mark.parametrize("catalog", [CATALOG, SUMMED], ids=["scanned", "summed"])
@pytest.mark.parametrize(
    ("timeline", "feature", "expected"),
    [
        # A payment is in the window from its own second on, and out of it 60 seconds later, to the second.
        ("?5?" + "." * 57 + "??", "payer_sent_count_1min", [0, 1, 1, 0]),
        ("1..2" + "." * 56 + "?..?", "payer_sent_sum_1min", [200, 0]),
        # The greatest leaves, and the next greatest is found.
        ("9.1.4.." + "." * 52 + "??" + "." * 3 + "?", "payer_sent_max_1min", [900, 400, None]),
        ("3?1?2?" + "." * 70 + "?", "payer_sent_mean_1min", [300, 200, 200, None]),
        # Spread around the mean: 1 and 3 are one real away from 2.
        ("1?3?" + "." * 70 + "?", "payer_sent_std_1min", [None, 100, None]),
        ("1" + "." * 9 + "?" + "." * 9 + "?", "payer_sent_since_last_ms", [10_000, 20_000]),
        # Each larger than the one before: two rises, until the series breaks.
        ("1.2.3.?.2.?", "payer_sent_rising_30d", [2, 0]),
        ("1.1.8.?", "payer_sent_growth_30d", [8]),
    ],
)
def test_a_window_holds_what_is_younger_than_its_width(
    catalog: Catalog, timeline: str, feature: str, expected: list[float | None]
) -> None:
    """Each `?` finds the payments of the last minute, those of its own second included."""
    assert ask(timeline, feature, catalog) == expected


@pytest.mark.parametrize("catalog", [CATALOG, SUMMED], ids=["scanned", "summed"])
def test_a_late_payment_sees_its_own_past_only(catalog: Catalog) -> None:
    """It arrives last, and finds only what was not later than itself; from then on it counts where it belongs."""
    profiles = Profiles("payer", catalog)
    events = np.zeros(6, EVENT_DTYPE)
    events["key"], events["other"], events["amount"] = 1, 2, (1, 2, 4, 8, 16, 32)
    #                                            on time: 1 2 4       late: 8     then: 16      32
    events["timestamp"] = START_MS + np.array([0, 10, 30, 20, 70, 85]) * SECOND_MS
    events["wants_features"] = events["counts"] = 1
    found = profiles.update(events)[:, catalog.positions("payer")["payer_sent_sum_1min"]]
    assert found.tolist() == [0, 1, 3, 3, 4 + 8, 4 + 16]
