"""The catalog: names, positions, coverage, fingerprints, and declarations that cannot be."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from app.domain.expression import ExpressionError
from app.domain.fields import TRANSACTION_DTYPE
from tables.aggregates import AGGREGATES, Count, Distinct, Family, FlagCount, FlagRun, NewDevice, PeriodSum, Share, Sum
from tables.catalog import CATALOG, Catalog, Levels
from tables.derived import DERIVED, Derived
from tables.features import FEATURES, Feature, days, hours, minutes
from tables.layout import LOGS
from tables.plan import Opcode, Period
from tables.typologies import TYPOLOGIES

WHY = "For the test."


def test_the_four_families_are_wide() -> None:
    """At least 60 features, and each family has more than ten."""
    families = Counter(entry.family for entry in CATALOG.entries)
    assert len(CATALOG) >= 60
    assert all(families[family] > 10 for family in Family)


def test_both_sides_have_every_measure_over_every_window() -> None:
    """Counts, sums, means, maxima and standard deviations over 1 min, 5 min, 1 h, 24 h, 7 d and 30 d."""
    for side in ("payer_sent", "receiver_received"):
        for measure in ("count", "sum", "mean", "max", "std"):
            for window in ("1min", "5min", "1h", "24h", "7d", "30d"):
                assert f"{side}_{measure}_{window}" in CATALOG.names


def test_positions_follow_the_vector() -> None:
    """Receiver slice, payer slice, derived slice: each name has the place where its value is."""
    order = [name for stage in (*LOGS, "derived") for name in CATALOG.positions(stage)]
    assert tuple(order) == CATALOG.names
    assert [entry.position for entry in CATALOG.entries] == list(range(len(CATALOG)))


def test_names_are_columns() -> None:
    """They are valid in Delta, in rules and in MLflow, and none hides a field of the transaction."""
    for name in CATALOG.names:
        assert re.fullmatch(r"[a-z][a-z0-9_]{2,60}", name)
    assert not set(CATALOG.names) & set(TRANSACTION_DTYPE.names or ())
    assert set(CATALOG.names) < set(CATALOG.column_types())


def test_every_typology_that_a_stream_can_see_is_covered() -> None:
    """By three features at least; of what it cannot see, the reason is given."""
    for name, features in CATALOG.coverage().items():
        if TYPOLOGIES[name].in_stream:
            assert len(features) >= 3, name
        else:
            assert not features
            assert TYPOLOGIES[name].unseen


def test_every_feature_explains_itself() -> None:
    """A sentence for the README, a unit, and a meaning."""
    for row in CATALOG.rows():
        assert row["unit"], row["name"]
        assert row["why"].endswith("."), row["name"]
    assert all(entry.meaning for entry in CATALOG.entries)


def test_each_aggregate_has_an_opcode_of_its_own_except_where_only_the_set_differs() -> None:
    """Devices are read by the opcodes of counterparties, from another tag set."""
    shared = Counter(aggregate.opcode for aggregate in AGGREGATES)
    assert set(shared) == set(Opcode)
    assert {opcode for opcode, count in shared.items() if count > 1} == {Opcode.FIRST_TIME, Opcode.DISTINCT}


def test_columns_answer_for_features_and_transaction_alike() -> None:
    """What rules are evaluated on is exactly the vector, and the transaction's own columns."""
    transactions = np.zeros(2, TRANSACTION_DTYPE)
    transactions["amount_centavos"] = (5, 7)
    vectors = np.arange(2 * len(CATALOG), dtype=np.float32).reshape(2, -1)
    columns = CATALOG.columns(vectors, transactions)
    assert columns["amount_centavos"].tolist() == [5, 7]
    for position in (0, 60, len(CATALOG) - 1):
        assert columns[CATALOG.names[position]].tolist() == vectors[:, position].tolist()


def test_the_fingerprint_follows_the_meaning() -> None:
    """A changed window, expression or capacity changes it; a changed explanation does not."""
    base = (Feature("payer", Sum, WHY, "sent", hours(1)),)
    ratio = (Derived("ratio", "amount_centavos / payer_sent_sum_1h", "ratio", Family.TRANSACTION, WHY),)
    same = Catalog((Feature("payer", Sum, "Another why.", "sent", hours(1), ("mule",)),), ratio)
    other_window = Catalog((Feature("payer", Sum, WHY, "sent", days(7)),), ())
    inverse = (Derived("ratio", "payer_sent_sum_1h / amount_centavos", "ratio", Family.TRANSACTION, WHY),)
    fingerprint = Catalog(base, ratio).fingerprint
    assert same.fingerprint == fingerprint
    assert fingerprint not in (other_window.fingerprint, Catalog(base, inverse).fingerprint)
    assert Catalog(base, ratio, Levels(log=3)).fingerprint != fingerprint
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)


def test_state_outlives_features_that_only_read_it() -> None:
    """A feature added costs no history; another capacity, stage or calendar sum does."""
    fewer = Catalog(tuple(f for f in FEATURES if f.aggregate is not Sum), ())
    assert fewer.state_fingerprint("payer") == CATALOG.state_fingerprint("payer")
    assert Catalog(levels=Levels(tags=1)).state_fingerprint("payer") != CATALOG.state_fingerprint("payer")
    assert CATALOG.state_fingerprint("receiver") != CATALOG.state_fingerprint("payer")
    no_sums = Catalog(tuple(f for f in FEATURES if not isinstance(f.aggregate, PeriodSum)), ())
    assert no_sums.state_fingerprint("payer") != CATALOG.state_fingerprint("payer")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature("card", Sum, WHY, "sent", hours(1)), "expected one of receiver, payer"),
        (Feature("payer", Sum, WHY, "received", hours(1)), "expected log sent or credited"),
        (Feature("payer", Sum, WHY, "sent", hours(2)), "expected a window of"),
        (Feature("payer", Sum, WHY, "sent"), "expected a window of"),
        (Feature("payer", Distinct, WHY, "sent", minutes(1)), "expected a window of"),
        (Feature("payer", FlagRun("NEAR_LIMIT"), WHY, "sent", days(31)), "expected a window up to"),
        (Feature("payer", NewDevice, WHY, "sent"), "expected no log"),
        (Feature("payer", Share("CASH"), WHY, "sent", hours(1)), "counted flags"),
        (Feature("payer", FlagCount("PURPLE"), WHY, "sent", hours(1)), "counted flags"),
        (Feature("payer", Count, WHY, "sent", hours(1), ("witchcraft",)), "expected typologies"),
    ],
)
def test_a_declaration_that_cannot_be_says_why(feature: Feature, message: str) -> None:
    """At import, in words."""
    with pytest.raises(ValueError, match=message):
        Catalog((feature,), ())


def test_a_name_exists_once() -> None:
    """Two declarations of one name are refused, among base features and derived ones."""
    twice = Feature("payer", Sum, WHY, "sent", hours(1))
    with pytest.raises(ValueError, match="payer_sent_sum_1h"):
        Catalog((twice, twice), ())
    with pytest.raises(ValueError, match="amount_log"):
        Catalog(FEATURES, (*DERIVED, *(item for item in DERIVED if item.name == "amount_log")))


def test_an_expression_is_checked_when_the_catalog_is_made() -> None:
    """It may name base features, the transaction's columns and the calendar, and nothing else."""
    wrong = Derived("wrong", "amount_centavos / payer_sent_sum_2h", "ratio", Family.TRANSACTION, WHY)
    with pytest.raises(ExpressionError, match="payer_sent_sum_2h"):
        Catalog(FEATURES, (wrong,))


def test_the_kernel_separates_four_calendar_sums_at_most() -> None:
    """A fifth would have no room in condensed history."""
    sums = tuple(
        Feature("payer", PeriodSum((flag,), Period.DAY, flag.lower()), WHY, "sent")
        for flag in ("NIGHT", "ROUND", "CASH", "STATIC_QR", "NEAR_LIMIT")
    )
    with pytest.raises(ValueError, match="at most 4 calendar sums"):
        Catalog(sums, ()).plan("payer")
