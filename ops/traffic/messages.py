"""From planned payments to the JSON messages of `pix-transactions`: one form for honest and fraudulent ones.

Every message goes through the same code and the same noise (session flags that are wrong, places that are missing,
snapshots that failed), so that no form betrays a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.domain.fields import SESSION_FLAGS
from ops.traffic import documents
from ops.traffic.population import Population
from ops.traffic.seasons import BRASILIA_OFFSET_MS, DAY_MS, HOUR_MS, MINUTE_MS
from ops.traffic.snapshot import SNAPSHOT_LIFE_MS, SnapshotWriter
from ops.traffic.stories import Label, Step

__all__ = ["MessageWriter", "Payment", "Row"]

Row = tuple[Step, Label | None]

_CACHED_ENTITIES = 100_000
_BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)

# How often the app raises each flag in an honest session: false alarms, and true ones without a crime.
_FALSE_ALARMS: dict[str, float] = {
    "REMOTE_ACCESS": 0.004, "ON_CALL": 0.035, "PASSWORD_RESET": 0.006, "LIMIT_RAISED": 0.008, "NEW_DEVICE": 0.006,
    "SIM_CHANGED": 0.004, "EMULATOR": 0.001, "ROOTED": 0.012, "ACCESSIBILITY": 0.045, "LOAN_DRAWN": 0.005,
    "SAVINGS_REDEEMED": 0.012, "COPY_PASTE": 0.16,
}  # fmt: skip
_UNREGISTERED_LIMIT_CENTAVOS = 20_000  # IN BCB 491/2024: R$ 200 per transaction from a device not registered
_SETTLED_DEVICE_MS = 3 * DAY_MS

_TEXTS = ("", "obrigado!", "aluguel", "almoço", "parcela 3/10", "presente", "conta de luz", "vaquinha", "frete", "nf 1023",
          "pagamento referente ao pedido", "mensalidade escolar", "uber", "feira", "sinal do serviço combinado")  # fmt: skip
_MANUAL_CHANNELS = ("MOBILE", "MOBILE", "MOBILE", "MOBILE", "MOBILE", "MOBILE", "MOBILE", "WEB", "WEB", "BRANCH", "ATM")
_PERSON_CHANNELS = (*("MOBILE",) * 30, "WEB", "WEB")
_COMPANY_CHANNELS = (*("API",) * 10, *("WEB",) * 6, *("MOBILE",) * 4)


@dataclass(frozen=True, slots=True)
class Payment:
    """What feedback needs to know about a payment that was sent."""

    end_to_end_id: str
    at_ms: int
    amount_centavos: int
    payer: int
    receiver: int
    pix_key: str | None
    receiver_account: str
    receiver_ispb: str


class MessageWriter:
    """Turns rows, in order of time, into messages, and carries out what they change.

    Parameters
    ----------
    population
        Its balances, limits and devices are updated as payments are written.
    full_snapshot
        Whether every DICT counter is written.
    """

    def __init__(self, population: Population, *, full_snapshot: bool = False) -> None:
        self._population = population
        self._snapshots = SnapshotWriter(population, full=full_snapshot)
        self._payers: dict[int, dict[str, object]] = {}
        self._receivers: dict[int, tuple[int, dict[str, object], dict[str, object]]] = {}
        self._encode = msgspec.json.Encoder().encode
        self._written = 0
        self._flag_lists: dict[int, list[str]] = {}

    def write(self, rng: np.random.Generator, rows: Sequence[Row]) -> Iterator[tuple[bytes, Payment, Label | None]]:
        """Yield the message of each row.

        Parameters
        ----------
        rng
            Source of the noise of these rows.
        rows
            Sorted by time.
        """
        noise = _Noise(rng, len(rows), self._written)
        self._written += len(rows)
        for position, (step, label) in enumerate(rows):
            message = self._message(step, noise, position)
            pix_key = message.get("pix_key")
            yield (
                self._encode(message),
                Payment(
                    message["end_to_end_id"], step.at_ms, message["amount_centavos"], step.payer, step.receiver,
                    pix_key, message["receiver_account"], message["receiver_ispb"],
                ),
                label,
            )
