"""Which of the messages sent were answered, and how. Pure: it is told what happened, in whatever order."""

from __future__ import annotations

import bisect
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.decision import ACTIONS
from ops.files import Fault

__all__ = ["FIRST_ROWS", "Answers", "RejectionGroup"]

FIRST_ROWS = 5
"""Rows that are named of each kind of rejection."""

_WAITING = -1
_REJECTED = len(ACTIONS)


@dataclass(slots=True)
class RejectionGroup:
    """Rows that were rejected alike.

    Parameters
    ----------
    path, expected
        Where the fault is, and what is right there.
    count
        How many rows have it.
    rows
        The first of them, as far as they are known, in the order in which they became known.
    """

    path: str
    expected: str
    count: int = 0
    rows: list[int] = field(default_factory=list)


class Answers:
    """Matches answers to messages, which are numbered from 0 as they are sent.

    A decision names the payment: it answers every message that bears the payment's `end_to_end_id`, since a repeat is
    answered with the first decision. A dead letter names partition and offset, which the acknowledgement ties to the
    message; it may be read before the acknowledgement is. A message that got both, because a damaged one bears the id
    of a good one, counts as rejected. Takes about 20 bytes per
    message, and 300 more while it is unanswered.
    """

    def __init__(self) -> None:
        self._rows = array("q")
        self._outcomes = array("b")
        self._faults: dict[int, Fault] = {}
        self._unanswered_by_id: defaultdict[str, list[int]] = defaultdict(list)
        self._bases: defaultdict[int, list[int]] = defaultdict(list)
        self._batches: defaultdict[int, list[Sequence[int]]] = defaultdict(list)
        self._early: defaultdict[int, dict[int, Fault]] = defaultdict(dict)
        self._counts: Counter[int] = Counter()
        self._groups: dict[Fault, RejectionGroup] = {}

    def __len__(self) -> int:
        """Messages sent."""
        return len(self._outcomes)

    @property
    def decided(self) -> dict[str, int]:
        """Messages by the action that was decided on."""
        return {action: self._counts[code] for code, action in enumerate(ACTIONS)}

    @property
    def rejected(self) -> int:
        """Messages that were rejected."""
        return self._counts[_REJECTED]

    @property
    def unanswered(self) -> int:
        """Messages without an answer."""
        return len(self._outcomes) - sum(self._counts.values())

    def groups(self) -> list[RejectionGroup]:
        """Rejections by kind, the most frequent first."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def sent(self, row: int, end_to_end_id: str | None, fault: Fault | None = None) -> int:
        """Note a message before it is sent and return its number.

        Parameters
        ----------
        row
            Where it stands in the file.
        end_to_end_id
            Its id, if it has one.
        fault
            What is known to be wrong with it; told in place of what the stream says, which sees only the message.
        """
        number = len(self._outcomes)
        self._rows.append(row)
        self._outcomes.append(_WAITING)
        if fault is not None:
            self._faults[number] = fault
        if end_to_end_id is not None:
            self._unanswered_by_id[end_to_end_id].append(number)
        return number

    def acknowledged(self, partition: int, base_offset: int, numbers: Sequence[int]) -> None:
        """Note where a batch of messages was stored; batches of one partition come in the order of their offsets."""
        self._bases[partition].append(base_offset)
        self._batches[partition].append(numbers)
        early = self._early.get(partition)
        if early:
            end = base_offset + len(numbers)
            # Those below the batch are of other producers: ours are acknowledged in order.
            for offset in [offset for offset in early if offset < end]:
                fault = early.pop(offset)
                if offset >= base_offset:
                    self.rejected_message(numbers[offset - base_offset], fault)

    def decision(self, end_to_end_id: str, action: str) -> None:
        """Note a decision, of these messages or of others."""
        code = ACTIONS.index(action)
        for number in self._unanswered_by_id.pop(end_to_end_id, ()):
            if self._outcomes[number] == _WAITING:
                self._outcomes[number] = code
                self._counts[code] += 1

    def dead_letter(self, partition: int, offset: int, fault: Fault) -> None:
        """Note a dead letter, of these messages or of others."""
        bases = self._bases[partition]
        place = bisect.bisect_right(bases, offset) - 1
        if bases and offset < bases[-1] + len(self._batches[partition][-1]):
            if place >= 0 and offset - bases[place] < len(self._batches[partition][place]):
                self.rejected_message(self._batches[partition][place][offset - bases[place]], fault)
        else:
            self._early[partition][offset] = fault

    def rejected_message(self, number: int, fault: Fault) -> None:
        """Note that a message was rejected, by the stream or on the way to it."""
        outcome = self._outcomes[number]
        if outcome == _REJECTED:
            return  # a repeat of a dead letter
        if outcome != _WAITING:
            self._counts[outcome] -= 1
        self._outcomes[number] = _REJECTED
        self._counts[_REJECTED] += 1
        fault = self._faults.get(number, fault)
        group = self._groups.setdefault(fault, RejectionGroup(fault.path, fault.expected))
        group.count += 1
        if len(group.rows) < FIRST_ROWS:
            group.rows.append(self._rows[number])
