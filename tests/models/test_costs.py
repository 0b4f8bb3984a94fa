"""The action of least expected cost, against every price written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.decision import ACTIONS
from models.rules.costs import Costs, cheapest_actions

SHARES = st.floats(0, 1)
PRICES = st.floats(0, 1e7)
COSTS = st.builds(Costs, SHARES, SHARES, PRICES, PRICES, SHARES, SHARES)
PAYMENTS = st.lists(st.tuples(st.floats(0, 1) | st.just(float("nan")), st.integers(1, 10**10)), max_size=20)


def expected(probability: float, amount: int, costs: Costs) -> str:
    """Return the cheapest action: every price written out, the milder first."""
    if np.isnan(probability):
        return "APPROVE"
    loss = probability * amount * costs.loss_share
    prices = {"APPROVE": loss}
    if probability >= costs.hold_from:
        prices["HOLD"] = costs.hold_friction_centavos + (1.0 - costs.hold_catches) * loss
    if probability >= costs.deny_from:
        prices["DENY"] = (1.0 - probability) * costs.deny_friction_centavos
    return min(prices, key=lambda action: prices[action])


@settings(max_examples=300, deadline=None)  # the first one compiles
@given(PAYMENTS, COSTS)
def test_the_cheapest_action_is_taken(payments: list[tuple[float, int]], costs: Costs) -> None:
    """Of two that cost the same, the milder."""
    probabilities = np.array([probability for probability, _ in payments], np.float64)
    amounts = np.array([amount for _, amount in payments], np.int64)
    found = [ACTIONS[code] for code in cheapest_actions(probabilities, amounts, costs).tolist()]
    assert found == [expected(probability, amount, costs) for probability, amount in payments]


def test_what_is_at_stake_decides() -> None:
    """At one chance of fraud in ten: R$ 20 pass, R$ 2,000 wait; at nine in ten they are denied."""
    chances, amounts = np.array([0.1, 0.1, 0.9]), np.array([2_000, 200_000, 200_000])
    assert [ACTIONS[code] for code in cheapest_actions(chances, amounts, Costs()).tolist()] == [
        "APPROVE",
        "HOLD",
        "DENY",
    ]
