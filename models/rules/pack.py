"""Rules: conditions on a payment that add weight to its score, hold it, deny it, or let it pass.

How a decision comes about, for each payment on its own:

1. Each enabled rule whose `from` and `until` enclose the payment's time is evaluated; a rule whose condition is
   unknown, because a value is missing, does not fire.
2. The score is a noisy-or of the weights of the rules that fired: ``1 - prod(1 - weight)``. It reaches a threshold
   (HOLD, DENY) or none.
3. A fired rule's own action is a floor: DENY or HOLD whatever the score. WATCH only adds its weight.
4. Where a model is in force, what it asks for (`models.rules.costs`) counts like a HOLD or DENY by the score: a
   model adds to the rules, and takes nothing away from them.
5. A fired ALLOW rule lifts what the score, the models and the HOLD rules ask for, but never a DENY rule, and never a
   rule that cites a regulation: a bank may trust a client, yet not above the law. Score and reasons stay as they are.

MED refunds are not scored: nothing fires on them, and they pass.

All of it works row by row in a fixed order, so that a decision does not depend on the batch a payment came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.domain.columns import Array, Batch, ColumnKind, Columns, ColumnType, Membership, nobody_listed
from app.domain.decision import ACTIONS, Reason
from app.domain.plain_values import Plain, plain_value
from app.domain.program import Program, trace
from models.rules.costs import Costs
from models.rules.weighing import weigh

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.domain.expression import Expression

__all__ = ["RULE_ACTIONS", "Finding", "Rule", "RulePack", "Verdicts"]

RULE_ACTIONS = ("DENY", "HOLD", "WATCH", "ALLOW")

_TIMESTAMP = ColumnType(ColumnKind.TIMESTAMP, missing=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Parameters
    ----------
    id
        Its name in decisions; never reused for another meaning.
    when
        The condition.
    action
        DENY, HOLD, WATCH or ALLOW.
    weight
        What it adds to the score, in [0, 1].
    reason
        Code for machines.
    text
        Sentence for analysts.
    from_ms, until_ms
        It counts for payments from the first instant on, and before the second; None is no bound.
    regulation
        The norm that demands it, where one does.
    typology
        The kind of fraud that it looks for.
    example
        Values on which it fires; columns that are not named are missing.
    """

    id: str
    when: Expression
    action: str
    weight: float
    reason: str
    text: str
    from_ms: int | None = None
    until_ms: int | None = None
    regulation: str = ""
    typology: str = ""
    example: Mapping[str, object]

    @property
    def as_reason(self) -> Reason:
        """What a decision quotes when the rule has fired."""
        return Reason(self.reason, self.weight, self.id)

    def fires(self, batch: Batch) -> Array:
        """Array code: whether the rule fires on each row of a batch; bool, shape (n,)."""
        fired = self.when.array_code(batch)
        if self.from_ms is None and self.until_ms is None:
            return fired
        timestamp = batch.load("timestamp", _TIMESTAMP)
        since = -np.inf if self.from_ms is None else self.from_ms
        until = np.inf if self.until_ms is None else self.until_ms
        return fired & (timestamp >= since) & (timestamp < until)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the rules say of a batch of n payments.

    Parameters
    ----------
    actions
        Position in `ACTIONS`; uint8, shape (n,).
    scores
        In [0, 1]; float64, shape (n,).
    fired
        Which rule fired on which payment, in the pack's order; bool, shape (n, rules).
    scored
        False for refunds; bool, shape (n,).
    """

    actions: NDArray[np.uint8]
    scores: NDArray[np.float64]
    fired: NDArray[np.bool_]
    scored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why one rule fired on one payment, for an analyst.

    Parameters
    ----------
    reason
        Code, weight and rule, as the decision has them.
    text
        The rule's sentence.
    values
        What the rule read, by column.
    """

    reason: Reason
    text: str
    values: Mapping[str, Plain]


@dataclass(frozen=True, kw_only=True)  # no slots: it caches the order of its reasons
class RulePack:
    """A checked set of rules.

    Parameters
    ----------
    version
        As its author names it.
    fingerprint
        Of its content: two packs with one fingerprint decide alike.
    hold, deny
        Scores from which a payment is held, and denied.
    costs
        Prices of decisions, by which models are heeded.
    rules
        The enabled rules, in the order of the file.
    columns
        Types of the columns that the rules may read.
    text
        The file.
    """

    version: str
    fingerprint: str
    hold: float
    deny: float
    costs: Costs
    rules: tuple[Rule, ...]
    columns: Mapping[str, ColumnType]
    text: str

    @property
    def name(self) -> str:
        """Version and fingerprint: what a decision quotes as `versions.rules`."""
        return f"{self.version}+{self.fingerprint}"

    def evaluate(
        self,
        columns: Columns,
        n: int,
        *,
        listed: Membership = nobody_listed,
        scored: NDArray[np.bool_] | None = None,
        advised: NDArray[np.uint8] | None = None,
    ) -> Verdicts:
        """Judge a batch.

        Parameters
        ----------
        columns
            Transaction fields and features by name, each of shape (n,).
        n
            Number of payments.
        listed
            Membership in the lists: `Lists.listed`.
        scored
            False for payments that are not scored, MED refunds; bool, shape (n,). All are where it is None.
        advised
            What the models ask for, positions in `ACTIONS`; uint8, shape (n,). Nothing where it is None.

        Raises
        ------
        ValueError
            Where a column's shape is not (n,).
        """
        counted = np.ones(n, np.bool_) if scored is None else scored
        fired = np.zeros((len(self.rules), n), np.bool_)
        self._program.run(columns, n, listed=listed, masks=fired)
        scores, actions = np.empty(n), np.empty(n, np.uint8)
        advice = np.zeros(n, np.uint8) if advised is None else advised
        weigh(fired, counted, self._doubts, self._effects, self.hold, self.deny, advice, scores, actions)
        return Verdicts(actions, scores, fired.T, counted)

    @cached_property
    def _program(self) -> Program:
        return trace(conditions=[rule.fires for rule in self.rules])

    @cached_property
    def _doubts(self) -> NDArray[np.float64]:
        """Share of the doubt that each rule leaves, shape (rules,)."""
        return np.array([1.0 - rule.weight for rule in self.rules])

    @cached_property
    def _effects(self) -> NDArray[np.uint8]:
        """What each rule asks for, shape (rules, 3): whether it allows, the floor that nothing lifts, and the other."""
        effects = np.zeros((len(self.rules), 3), np.uint8)
        for effect, rule in zip(effects, self.rules, strict=True):
            if rule.action == "ALLOW":
                effect[0] = True
            elif rule.action != "WATCH":
                binds = rule.action == "DENY" or rule.regulation
                effect[1 if binds else 2] = ACTIONS.index(rule.action)
        return effects

    def reasons_of(self, fired: NDArray[np.bool_]) -> tuple[Reason, ...]:
        """Return why one payment looks as it does, heaviest first; rules of one weight in the pack's order.

        Parameters
        ----------
        fired
            Its row of `Verdicts.fired`; bool, shape (rules,).
        """
        rules = self._heaviest_first
        return tuple(rules[place].as_reason for place in np.flatnonzero(fired[self._by_weight]).tolist())

    def explain(self, verdicts: Verdicts, row: int, columns: Columns) -> tuple[Finding, ...]:
        """Return the reasons with each rule's sentence and the values that it read.

        Parameters
        ----------
        verdicts
            Of the batch.
        row
            The payment's place in it.
        columns
            What the batch was evaluated on.
        """
        fired = [self._heaviest_first[place] for place in np.flatnonzero(verdicts.fired[row][self._by_weight])]
        return tuple(
            Finding(
                rule.as_reason,
                rule.text,
                {name: plain_value(columns[name][row], self.columns[name]) for name in rule.when.names},
            )
            for rule in fired
        )

    @cached_property
    def _by_weight(self) -> NDArray[np.intp]:
        return np.argsort([-rule.weight for rule in self.rules], kind="stable")

    @cached_property
    def _heaviest_first(self) -> tuple[Rule, ...]:
        return tuple(self.rules[place] for place in self._by_weight)

    def columns_used(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that each rule reads, by rule id."""
        return {rule.id: rule.when.names for rule in self.rules}
