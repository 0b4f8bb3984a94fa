"""How far a recovery is, in rows by offset."""

from __future__ import annotations

from tables.recovery import RecoveryMeter

_PAYERS_0, _PAYERS_1, _RECEIVERS_0 = ("payers", 0), ("payers", 1), ("receivers", 0)


def test_it_tells_each_table_and_the_whole() -> None:
    """Rows that were held before it began are no part of it."""
    meter = RecoveryMeter(
        {_PAYERS_0: -1, _PAYERS_1: 99, _RECEIVERS_0: -1},
        dict.fromkeys((_PAYERS_0, _PAYERS_1, _RECEIVERS_0), 299),
        now_s=10.0,
    )
    progress = meter.progress({_PAYERS_0: 149, _PAYERS_1: 199, _RECEIVERS_0: -1}, now_s=12.0)
    assert [(each.table, each.partitions, each.rows_read, each.rows) for each in progress.tables] == [
        ("payers", [0, 1], 250, 500),
        ("receivers", [0], 0, 300),
    ]
    assert (progress.rows_read, progress.rows, progress.percent) == (250, 800, 31.2)
    assert (progress.rows_per_s, progress.seconds) == (125.0, 2.0)


def test_it_begins_at_nothing_and_ends_with_all() -> None:
    """Of a place that is not named nothing is read; rows beyond the end do not count."""
    meter = RecoveryMeter({_PAYERS_0: -1, _PAYERS_1: -1}, {_PAYERS_0: 9, _PAYERS_1: 29}, now_s=0.0)
    assert meter.progress({}, now_s=0.0).percent == 0.0
    assert meter.progress({_PAYERS_0: 9, _PAYERS_1: 40}, now_s=1.0).percent == 100.0


def test_nothing_to_read_is_all_read() -> None:
    """An empty changelog, and a copy that stands beyond the end that was asked for."""
    progress = RecoveryMeter({_PAYERS_0: -1, _PAYERS_1: 20}, {_PAYERS_0: -1, _PAYERS_1: 19}, 0.0).progress({}, 0.0)
    assert (progress.rows, progress.percent, progress.rows_per_s) == (0, 100.0, 0.0)
