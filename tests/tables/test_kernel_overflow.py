"""What is approximate, and by how much at most: condensed logs, linear counters, Bloom memory, bounded device sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.catalog import CATALOG, Catalog, Levels
from tables.kernel_panes import SHARE
from tables.kernel_tags import GENERATION_TAGS
from tables.layout import EVENT_DTYPE, FLAGS, PANES, WINDOWS_MS
from tables.plan import Period
from tables.profiles import Profiles

if TYPE_CHECKING:
    from tables.layout import Array

START_MS = 1_773_526_380_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

TINY = Catalog(levels=Levels(scan=1, log=2, tags=1, devices=1))
"""Eight events are kept exactly: condensing begins at the ninth."""


def make_events(times_ms: Array, amounts: Array | int = 100, others: Array | int = 2, key: int = 1) -> Array:
    """Return events of one key, which want features and count."""
    events = np.zeros(len(times_ms), EVENT_DTYPE)
    events["key"], events["other"], events["amount"], events["timestamp"] = key, others, amounts, times_ms
    events["wants_features"] = events["counts"] = 1
    return events


def panes_of(profiles: Profiles, log: int = 0) -> Array:
    """Return the panes of the only row."""
    record = profiles._state.logs[1, log]
    base = int(record["panes"]) * PANES
    return profiles._state.panes[base : base + int(record["pane_count"])] if record["panes"] else np.empty(0)


def take_out(profiles: Profiles) -> tuple[list[bytes], list[bytes]]:
    """Return keys and blobs of all rows, which leave."""
    profiles.export_dirty()
    profiles.clear_dirty()
    return profiles.evict(2**62)


def hashes(n: int, seed: int = 7) -> Array:
    """Return n different hashes."""
    return np.random.default_rng(seed).integers(1, 2**64 - 1, n, dtype=np.uint64)


STREAM = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 5), st.integers(0, 3 * MINUTE_MS), st.integers(0, 2 * DAY_MS)),
        st.one_of(st.just(0), st.integers(0, 2 * HOUR_MS)),
        st.integers(1, 10**13),
    ),
    min_size=60,  # Hypothesis draws short lists unless told
    max_size=150,
)


@settings(max_examples=80, deadline=None)
@given(stream=STREAM)
def test_a_window_is_exact_but_for_panes_that_its_ends_cut(stream: list[tuple[int, int, int]]) -> None:
    """Count and sum are off by no more than what the cut panes hold, and exact where none is cut."""
    profiles = Profiles("payer", TINY)
    columns = TINY.positions("payer")
    clock = START_MS
    past: list[tuple[int, int]] = []
    for gap, late, amount in stream:
        clock += gap
        at = clock - late
        panes = panes_of(profiles).copy()
        found = profiles.update(make_events(np.array([at]), amount))[0]
        for width, name in ((MINUTE_MS, "1min"), (HOUR_MS, "1h"), (DAY_MS, "24h"), (30 * DAY_MS, "30d")):
            inside = [paid for time, paid in past if at - width < time <= at]
            cut = [
                pane
                for pane in panes
                if pane["first"] <= at - width < pane["last"] or pane["first"] <= at < pane["last"]
            ]
            count, total = found[columns[f"payer_sent_count_{name}"]], found[columns[f"payer_sent_sum_{name}"]]
            assert abs(count - len(inside)) <= sum(int(pane["count"]) for pane in cut)
            slack = sum(int(pane["total"]) for pane in cut) * (1 + 1e-6)
            assert abs(float(total) - sum(inside)) <= slack + sum(inside) * 1e-7
        past.append((at, amount))


@settings(max_examples=60, deadline=None)
@given(stream=STREAM)
def test_condensing_loses_no_event_and_no_centavo_of_the_last_thirty_days(stream: list[tuple[int, int, int]]) -> None:
    """Log and panes together hold every event that a window may still see, in order."""
    profiles = Profiles("payer", TINY)
    times = np.cumsum([gap for gap, _, _ in stream]) + START_MS - np.array([late for _, late, _ in stream])
    amounts = np.array([amount for _, _, amount in stream])
    profiles.update(make_events(times, amounts))
    record, panes = profiles._state.logs[1, 0], panes_of(profiles)
    cells = profiles._state.cells[int(record["block"]) : int(record["block"]) + int(record["length"])]
    assert (np.diff(cells["timestamp"]) >= 0).all()
    if len(panes):
        assert (panes["first"] <= panes["last"]).all()
        assert (np.diff(panes["first"]) >= 0).all()
    recent = times > times.max() - 30 * DAY_MS
    held = int(panes["count"].sum() if len(panes) else 0) + len(cells)
    total = int((cells["value"] >> 16).sum()) + int(panes["total"].sum() if len(panes) else 0)
    assert recent.sum() <= held <= len(times)
    assert int(amounts[recent].sum()) <= total <= int(amounts.sum())


@pytest.mark.parametrize(("per_hour", "span_days"), [(4, 40), (60, 20), (1200, 2)], ids=["dense", "busy", "merchant"])
def test_a_steady_stream_beyond_the_cap_keeps_long_windows_within_one_percent(per_hour: int, span_days: int) -> None:
    """Beyond 512 events, counts and sums of a steady stream stay within 1 % in the mean and 4 % at most."""
    n = per_hour * 24 * span_days
    rng = np.random.default_rng(per_hour)
    times = np.sort(START_MS + rng.integers(0, span_days * DAY_MS, n))
    profiles = Profiles("payer")
    found = profiles.update(make_events(times, rng.integers(1, 100_00, n)))
    columns = CATALOG.positions("payer")
    assert len(panes_of(profiles))
    for width, name in ((HOUR_MS, "1h"), (DAY_MS, "24h"), (7 * DAY_MS, "7d"), (30 * DAY_MS, "30d")):
        truth = np.arange(n) - np.searchsorted(times, times - width, side="right")
        counts = found[:, columns[f"payer_sent_count_{name}"]]
        # Simultaneous events: those before it in the stream count, those behind it do not.
        error = np.abs(counts - truth)[truth > 600] / truth[truth > 600]
        if len(error):
            assert error.mean() < 0.01
            assert error.max() < 0.04


def test_a_pane_spans_at_most_a_share_of_the_window_that_its_age_fits_in() -> None:
    """The blur of a window's edge is bounded: 1/32 of the window, doubled only as often as 64 panes require."""
    rng = np.random.default_rng(3)
    times = START_MS + np.cumsum(np.exp(rng.uniform(0, 16, 6000)).astype(np.int64))
    profiles = Profiles("payer")
    profiles.update(make_events(times))
    widths = np.array(WINDOWS_MS)
    for pane in panes_of(profiles):
        age = times[-1] - pane["last"]
        window = widths[min(np.searchsorted(widths, age, side="right"), len(widths) - 1)]
        assert pane["last"] - pane["first"] <= window * 8 // SHARE


@settings(max_examples=50, deadline=None)
@given(stream=STREAM, flagged=st.lists(st.booleans(), min_size=150, max_size=150))
def test_a_calendar_sum_beyond_the_cap_is_never_too_small(
    stream: list[tuple[int, int, int]], flagged: list[bool]
) -> None:
    """Nobody evades a legal limit by burying it under small payments: a condensed day is rounded up, never down."""
    profiles = Profiles("payer", TINY)
    column = TINY.positions("payer")["payer_unregistered_device_day_sum"]
    clock = START_MS
    past: list[tuple[int, int, bool]] = []
    for (gap, _, amount), flag in zip(stream, flagged, strict=False):
        clock += gap % HOUR_MS
        event = make_events(np.array([clock]), amount)
        event["flags"] = flag << FLAGS.index("UNREGISTERED_DEVICE")
        found = float(profiles.update(event)[0, column])
        midnight = (clock - 3 * HOUR_MS) // DAY_MS * DAY_MS + 3 * HOUR_MS
        today = sum(paid for time, paid, marked in past if marked and time >= midnight)
        yesterday = sum(paid for time, paid, marked in past if marked and time < midnight)
        assert today * (1 - 1e-6) <= found <= (today + yesterday) * (1 + 1e-6)
        past.append((clock, amount, flag))


def test_a_pane_across_midnight_counts_for_the_new_day() -> None:
    """R$ 700 at 23:59:30 and R$ 800 at 00:00:30 are condensed into one pane: the new day has all of it, not nothing."""
    midnight = 1_773_543_600_000  # 2026-03-15T03:00:00Z, 00:00 in Brasilia
    times = np.concatenate([midnight + np.array([-30_000, 30_000]), midnight + HOUR_MS * np.arange(1, 12)])
    events = make_events(times, np.array([700_00, 800_00] + [1] * 11))
    events["flags"][:2] = 1 << FLAGS.index("UNREGISTERED_DEVICE")
    profiles = Profiles("payer", TINY)
    found = profiles.update(events)[:, TINY.positions("payer")["payer_unregistered_device_day_sum"]]
    assert panes_of(profiles)[0]["count"] == 2
    assert found[2] == 800_00  # exact while the log holds both
    assert found[-1] == 1_500_00


def test_a_night_sum_survives_hundreds_of_small_payments() -> None:
    """R$ 900 at 20:05, then 2,000 payments of one centavo: the night's sum is exact at 05:00."""
    evening = 1_773_529_500_000  # 2026-03-14T23:05:00Z, 20:05 in Brasilia
    times = np.concatenate([[evening], evening + 1 + np.arange(2000) * 9000, [evening + 9 * HOUR_MS - 5 * MINUTE_MS]])
    events = make_events(times, np.array([900_00] + [1] * 2001))
    events["flags"] = 1 << FLAGS.index("NIGHT") | 1 << FLAGS.index("NATURAL_PAIR")
    found = Profiles("payer").update(events)
    assert found[-1, CATALOG.positions("payer")["payer_night_natural_sum"]] == 900_00 + 2000


def test_distinct_counterparties_are_exact_to_64() -> None:
    """Every count up to 64 is exact, in every window."""
    found = Profiles("payer").update(make_events(START_MS + np.arange(65), others=hashes(65)))
    for name in ("1h", "24h", "7d", "30d"):
        assert found[:, CATALOG.positions("payer")[f"payer_sent_counterparties_{name}"]].tolist() == list(range(65))


@pytest.mark.parametrize(("n", "error"), [(100, 0.05), (500, 0.065), (1000, 0.11)])
def test_more_counterparties_are_estimated_within_the_stated_error(n: int, error: float) -> None:
    """Standard error 5 % at 100, 6.5 % at 500, 11 % at 1,000, without bias, in every window."""
    estimates = []
    for seed in range(40):
        profiles = Profiles("payer")
        profiles.update(make_events(START_MS + np.arange(n), others=hashes(n, seed)))
        found = profiles.update(make_events(np.array([START_MS + n])))[0]
        estimates.append([found[CATALOG.positions("payer")[f"payer_sent_counterparties_{w}"]] for w in ("1h", "30d")])
    relative = np.array(estimates) / n - 1
    assert np.sqrt((relative**2).mean()) < 1.4 * error
    assert abs(relative.mean()) < error / 2


def test_the_linear_counter_forgets_what_a_window_has_left() -> None:
    """After a burst of 500 payees, the hour is empty an hour later, and the day is not."""
    profiles = Profiles("payer")
    profiles.update(make_events(START_MS + np.arange(500), others=hashes(500)))
    found = profiles.update(make_events(np.array([START_MS + HOUR_MS + 2000])))[0]
    columns = CATALOG.positions("payer")
    assert found[columns["payer_sent_counterparties_1h"]] == 0
    assert found[columns["payer_sent_counterparties_24h"]] == pytest.approx(500, rel=0.15)


def test_a_known_counterparty_beyond_the_exact_set_is_still_known() -> None:
    """Of 384 payees after the set has overflowed, each is known the second time."""
    profiles = Profiles("payer")
    tags = hashes(GENERATION_TAGS)
    first_time = CATALOG.positions("payer")["payer_sent_first_time"]
    profiles.update(make_events(START_MS + np.arange(len(tags)), others=tags))
    again = profiles.update(make_events(START_MS + 10_000 + np.arange(len(tags)), others=tags))
    assert not again[:, first_time].any()


def test_strangers_are_rarely_taken_for_known_however_many_were_met() -> None:
    """At most 1.3 % of strangers, with both Bloom generations full."""
    profiles = Profiles("payer")
    tags = hashes(6000)
    found = profiles.update(make_events(START_MS + np.arange(len(tags)), others=tags))
    first_time = found[:, CATALOG.positions("payer")["payer_sent_first_time"]]
    assert first_time[:64].all()
    assert 1 - first_time[768:].mean() < 0.013


def test_a_full_set_drops_only_what_no_window_counts() -> None:
    """Of five payees in a set for four, the first one is an hour short of 30 days old, and still counts."""
    profiles = Profiles("payer", TINY)
    times = START_MS + np.array([0, 1, 2, 3, 30 * DAY_MS - HOUR_MS])
    profiles.update(make_events(times, others=hashes(5)))
    columns = TINY.positions("payer")
    for at, payees in ((30 * DAY_MS - 1, 5), (30 * DAY_MS + 5, 1)):
        found = profiles.update(make_events(np.array([START_MS + at]), others=hashes(5)[4]))[0]
        assert found[columns["payer_sent_counterparties_30d"]] == payees


def test_payees_of_former_months_are_known_although_the_set_has_dropped_them() -> None:
    """A payee paid once, 70 payees and two months ago, is no new payee."""
    profiles = Profiles("payer")
    tags = hashes(71)
    profiles.update(make_events(START_MS + np.arange(71) * 2 * DAY_MS, others=tags))
    found = profiles.update(make_events(np.array([START_MS + 150 * DAY_MS]), others=tags[0]))[0]
    columns = CATALOG.positions("payer")
    assert found[columns["payer_sent_first_time"]] == 0
    assert np.isnan(found[columns["payer_sent_since_pair_ms"]])
    assert found[columns["payer_sent_counterparties_30d"]] == 10  # exact: no counter guesses


def test_of_many_devices_the_last_64_are_known() -> None:
    """The 65th device takes the place of the one used longest ago."""
    profiles = Profiles("payer")
    events = make_events(START_MS + np.arange(65))
    events["device"] = hashes(65)
    profiles.update(events)
    again = make_events(START_MS + 1000 + np.arange(2))
    again["device"] = events["device"][[0, 64]]
    again["counts"] = 0
    columns = CATALOG.positions("payer")
    found = profiles.update(again)
    assert found[:, columns["payer_new_device"]].tolist() == [1, 0]
    assert found[0, columns["payer_devices_30d"]] == 64


@pytest.mark.parametrize("catalog", [CATALOG, TINY], ids=["full", "tiny"])
@pytest.mark.parametrize("stage", ["receiver", "payer"])
def test_a_long_busy_stream_is_bit_identical_after_recovery(catalog: Catalog, stage: str) -> None:
    """Condensed logs, counters and Bloom memory come back exactly: features and rows go on bit by bit."""
    rng = np.random.default_rng(11)
    n = 4000
    times = START_MS + np.cumsum(np.exp(rng.uniform(0, 13, n)).astype(np.int64)) - rng.integers(0, HOUR_MS, n)
    events = make_events(times, rng.integers(1, 10**13, n), hashes(2000)[rng.integers(0, 2000, n)])
    events["key"], events["device"] = rng.integers(1, 4, n), hashes(300)[rng.integers(0, 300, n)]
    events["flags"] = rng.integers(0, 2 ** len(FLAGS), n)
    events["log"] = rng.integers(0, 2, n) if stage == "payer" else 0
    whole, parts = Profiles(stage, catalog), []
    expected = whole.update(events)
    profiles = Profiles(stage, catalog)
    for part in np.array_split(events, 9):
        parts.append(profiles.update(part))
        keys, values = take_out(profiles)
        profiles = Profiles(stage, catalog)
        profiles.restore(keys, values)
    assert np.concatenate(parts).tobytes() == expected.tobytes()
    assert dict(zip(*take_out(profiles), strict=True)) == dict(zip(*take_out(whole), strict=True))


def test_periods_are_what_the_law_means() -> None:
    """The plan knows nights, days and the daytime."""
    assert {int(period["kind"]) for period in CATALOG.plan("payer").periods} == set(map(int, Period))
