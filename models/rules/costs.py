"""What a decision costs: the action with the least expected cost, given the chance of fraud and the amount at risk.

For a payment of amount ``A`` that is a fraud with probability ``p``, in centavos:

- APPROVE costs ``p A loss_share``: of what is lost little comes back (MED returned 8.7 % of accepted value since 2022).
- HOLD costs ``hold_friction + (1 - hold_catches) p A loss_share``: a client who waits, and the frauds that a hold of
  half an hour does not stop.
- DENY costs ``(1 - p) deny_friction``: an honest client who cannot pay.

The bank sets the prices in its rule pack, and with `hold_from` and `deny_from` the chances below which no amount makes
a model hold or deny.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import ACTIONS
from app.domain.memory import compiled

__all__ = ["Costs", "cheapest_actions"]

_APPROVE, _HOLD, _DENY = (ACTIONS.index(action) for action in ("APPROVE", "HOLD", "DENY"))


@dataclass(frozen=True, slots=True)
class Costs:
    """Prices, part of a rule pack.

    Parameters
    ----------
    loss_share
        Of a fraud's amount, what is lost for good.
    hold_catches
        Share of the frauds that a hold stops.
    hold_friction_centavos
        Price of a hold.
    deny_friction_centavos
        Price of a denied honest payment.
    hold_from, deny_from
        Probabilities below which a model does not hold, and does not deny.
    """

    loss_share: float = 0.9
    hold_catches: float = 0.8
    hold_friction_centavos: float = 2_000
    deny_friction_centavos: float = 30_000
    hold_from: float = 0.01
    deny_from: float = 0.5

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the prices, in order."""
        return tuple(field.name for field in fields(cls))


def cheapest_actions(
    probabilities: NDArray[np.float64], amounts_centavos: NDArray[np.int64], costs: Costs
) -> NDArray[np.uint8]:
    """Return the action of least expected cost; of two that cost the same, the milder.

    Parameters
    ----------
    probabilities
        Of fraud, shape (n,); NaN where no model has spoken: APPROVE.
    amounts_centavos
        Shape (n,).
    costs
        Prices.

    Returns
    -------
    Positions in `ACTIONS`, shape (n,).
    """
    actions = np.empty(len(probabilities), np.uint8)
    _choose(
        probabilities,
        # A column of a message's rows is strided, and may be read-only: Numba would compile for each.
        amounts_centavos.astype(np.int64),
        costs.loss_share,
        costs.hold_catches,
        costs.hold_friction_centavos,
        costs.deny_friction_centavos,
        costs.hold_from,
        costs.deny_from,
        actions,
    )
    return actions


@compiled
def _choose(
    probabilities: NDArray[np.float64],
    amounts: NDArray[np.int64],
    loss_share: float,
    hold_catches: float,
    hold_friction: float,
    deny_friction: float,
    hold_from: float,
    deny_from: float,
    actions: NDArray[np.uint8],
) -> None:
    for place in range(len(probabilities)):
        probability = probabilities[place]
        action, least = _APPROVE, probability * amounts[place] * loss_share
        hold = hold_friction + (1.0 - hold_catches) * least
        deny = (1.0 - probability) * deny_friction
        # Every comparison with NaN is false: it approves.
        if probability >= hold_from and hold < least:
            action, least = _HOLD, hold
        if probability >= deny_from and deny < least:
            action = _DENY
        actions[place] = action
