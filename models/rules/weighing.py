"""From the rules that fired to a score and an action, compiled: one pass over the rules for each payment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import ACTIONS
from app.domain.memory import compiled

__all__ = ["weigh"]

_APPROVE, _HOLD, _DENY = (ACTIONS.index(action) for action in ("APPROVE", "HOLD", "DENY"))


@compiled
def weigh(
    fired: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    doubts: NDArray[np.float64],
    effects: NDArray[np.uint8],
    hold: float,
    deny: float,
    advised: NDArray[np.uint8],
    scores: NDArray[np.float64],
    actions: NDArray[np.uint8],
) -> None:
    """Weigh a batch of n payments.

    Parameters
    ----------
    fired
        Which rule fired on which payment, shape (rules, n); cleared where the payment is not counted.
    counted
        False for payments that are not scored, shape (n,).
    doubts
        1 - weight of each rule, shape (rules,).
    effects
        Of each rule: whether it allows, the action below which nothing lifts the payment, and the action that it asks
        for; shape (rules, 3).
    hold, deny
        Scores from which a payment is held, and denied.
    advised
        The action that the models ask for, positions in `ACTIONS`, shape (n,): like a rule's that nothing demands.
    scores
        Takes 1 - prod(1 - weight) over the rules that fired, shape (n,): in the pack's order, since products of
        floating-point numbers depend on it.
    actions
        Takes positions in `ACTIONS`, shape (n,).
    """
    for place in range(len(scores)):
        doubt = 1.0
        binding, asked, allowed = _APPROVE, int(advised[place]), False
        for rule in range(len(doubts)):
            if not counted[place]:
                asked = _APPROVE
                fired[rule, place] = False
            elif fired[rule, place]:
                doubt *= doubts[rule]
                allowed |= effects[rule, 0] != 0
                binding = max(binding, int(effects[rule, 1]))
                asked = max(asked, int(effects[rule, 2]))
        score = 1.0 - doubt
        if score >= deny:
            asked = _DENY
        elif score >= hold:
            asked = max(asked, _HOLD)
        scores[place] = score
        actions[place] = binding if allowed else max(binding, asked)
