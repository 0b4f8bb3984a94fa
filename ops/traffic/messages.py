"""From planned payments to the JSON messages of `pix-transactions`: one form for honest and fraudulent ones.

Every message goes through the same code and the same noise (session flags that are wrong, places that are missing,
snapshots that failed), so that no form betrays a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from app.domain.fields import SESSION_FLAGS
from ops.traffic import documents
from ops.traffic.population import Population
from ops.traffic.seasons import BRASILIA_OFFSET_MS, DAY_MS, HOUR_MS, MINUTE_MS
from ops.traffic.snapshot import SNAPSHOT_LIFE_MS, SnapshotWriter
from ops.traffic.stories import Label, Step

__all__ = ["CASH", "KEYLESS", "REFUNDS", "MessageWriter", "Payment", "Row"]

Row = tuple[Step, Label | None]
_Fields = dict[str, object]

_CACHED_ENTITIES = 100_000
_BASE62 = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)

# How often the app raises each flag in an honest session: false alarms, and true ones without a crime.
_FALSE_ALARMS: dict[str, float] = {
    "REMOTE_ACCESS": 0.004, "ON_CALL": 0.035, "PASSWORD_RESET": 0.006, "LIMIT_RAISED": 0.008, "NEW_DEVICE": 0.006,
    "SIM_CHANGED": 0.004, "EMULATOR": 0.001, "ROOTED": 0.012, "ACCESSIBILITY": 0.045, "LOAN_DRAWN": 0.005,
    "SAVINGS_REDEEMED": 0.012, "COPY_PASTE": 0.16,
}  # fmt: skip
# IN BCB 491/2024: R$ 200 per transaction and R$ 1,000 per day from a device that is not registered.
_UNREGISTERED_LIMIT_CENTAVOS, _UNREGISTERED_DAY_CENTAVOS = 20_000, 100_000
# Regulamento do Pix: Saque and Troco by day (from 6 h) and by night (from 20 h).
_CASH_DAY_CENTAVOS, _CASH_NIGHT_CENTAVOS = 300_000, 100_000
_SETTLED_DEVICE_MS = 3 * DAY_MS
_NEW_DEVICE = 1 << SESSION_FLAGS.index("NEW_DEVICE")

REFUNDS = frozenset({"REFU", "IPRT"})
"""Purposes of refunds: they name no key and come from no session."""

CASH = frozenset({"GSCB", "OTHR"})
"""Purposes by which cash is handed out."""

KEYLESS = frozenset({"MANU", "AUTO"})
"""Initiations that look up no key."""

_TEXTS = (
    "", "obrigado!", "aluguel", "almoço", "parcela 3/10", "presente", "conta de luz", "vaquinha", "frete", "nf 1023",
    "pagamento referente ao pedido", "mensalidade escolar", "uber", "feira", "sinal do serviço combinado",
)  # fmt: skip
_MANUAL_CHANNELS = (*("MOBILE",) * 14, *("WEB",) * 4, "BRANCH", "ATM")
_PERSON_CHANNELS = (*("MOBILE",) * 30, "WEB", "WEB")
_COMPANY_CHANNELS = (*("API",) * 10, *("WEB",) * 6, *("MOBILE",) * 4)


class Payment(NamedTuple):
    """What feedback needs to know about a payment that was sent."""

    end_to_end_id: str
    at_ms: int
    amount_centavos: int
    purpose: str
    payer: int
    receiver: int
    pix_key: str | None
    receiver_account: str
    receiver_ispb: str
    payer_account: str
    payer_ispb: str


class _Noise:
    """The random part of a block's messages, drawn at once; each attribute is a list with one value per row."""

    def __init__(self, rng: np.random.Generator, number: int, first_serial: int) -> None:
        self.suffix: list[bytes] = _suffixes(rng, number, first_serial)
        self.lookup_ms: list[int] = np.minimum(rng.exponential(15_000.0, number), 600_000.0).astype(int).tolist()
        likelihoods = np.array([_FALSE_ALARMS[flag] for flag in SESSION_FLAGS])
        raised = rng.random((number, len(likelihoods))) < likelihoods
        self.flags: list[int] = (raised @ (1 << np.arange(len(likelihoods)))).tolist()
        self.jitter: list[list[float]] = np.round(rng.normal(0.0, 0.03, (number, 2)), 6).tolist()
        self.headroom: list[float] = np.where(rng.random(number) < 0.12, 0.0, rng.exponential(3.0, number)).tolist()
        self.gap: list[float] = rng.random(number).tolist()
        self.pick: list[int] = rng.integers(0, 2**31, number).tolist()


def _suffixes(rng: np.random.Generator, number: int, first_serial: int) -> list[bytes]:
    """Eleven alphanumerics each: six at random, five of a counter, so that no identifier repeats in a run."""
    serials = first_serial + np.arange(number, dtype=np.int64)
    digits = np.empty((number, 11), np.int64)
    digits[:, :6] = rng.integers(0, 62, (number, 6))
    for position in range(10, 5, -1):
        serials, digits[:, position] = np.divmod(serials, 62)
    return np.ascontiguousarray(_BASE62[digits]).view("S11")[:, 0].tolist()  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def _minute_text(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y%m%d%H%M")


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
        self._receivers: dict[int, tuple[int, _Fields, _Fields, _Fields, _Fields]] = {}
        self._encode = msgspec.json.Encoder().encode
        self._written = 0
        self._flag_lists: dict[int, list[str]] = {}

    def write(self, rng: np.random.Generator, rows: Sequence[Row]) -> Iterator[tuple[bytes, Payment, Label | None]]:
        """Yield the message of each row, what feedback needs of it, and its label; rows beyond a limit have none.

        Parameters
        ----------
        rng
            Source of the noise of these rows.
        rows
            Sorted by time.
        """
        noise = _Noise(rng, len(rows), self._written)
        self._written += len(rows)
        population = self._population
        for position, (step, label) in enumerate(rows):
            amount = self._settle(step, noise.headroom[position])
            if amount == 0:
                continue
            minute = (step.at_ms - noise.lookup_ms[position]) // MINUTE_MS
            suffix = noise.suffix[position].decode()
            identifier = f"E{population.institution(step.payer)}{_minute_text(minute)}{suffix}"
            message: dict[str, object] = {
                "end_to_end_id": identifier,
                "timestamp": step.at_ms,
                "amount_centavos": amount,
                "initiation": step.initiation,
                "purpose": step.purpose,
                **self._payer(step.payer),
            }
            pix_key = self._add_receiver(message, step, noise, position)
            if step.purpose not in REFUNDS:
                self._add_session(message, step, noise, position)
            if step.facts:
                message.update(step.facts)
            payment = Payment(
                identifier,
                step.at_ms,
                amount,
                step.purpose,
                step.payer,
                step.receiver,
                pix_key,
                receiver_account=population.account(step.receiver),
                receiver_ispb=population.institution(step.receiver),
                payer_account=population.account(step.payer),
                payer_ispb=population.institution(step.payer),
            )
            yield self._encode(message), payment, label

    def _settle(self, step: Step, headroom: float) -> int:
        """Carry the step out on devices, limits and balances; return the amount that went through, 0 for none."""
        population, payer, at_ms = self._population, step.payer, step.at_ms
        if step.new_device:
            population.device_generation[payer] += 1
            population.device_since[payer] = at_ms
            population.device_registered_from[payer] = at_ms + 8 * HOUR_MS
        if step.new_limit_centavos > population.limit_day[payer]:
            population.limit_day[payer] = step.new_limit_centavos
            population.limit_raised_at[payer] = at_ms
            self._payers.pop(payer, None)
        amount = min(step.amount_centavos, self._allowance(step))
        if amount < max(step.amount_centavos // 5, 1):
            return 0
        if population.balance[payer] < amount:  # savings, a salary or an overdraft came in by another way
            population.balance[payer] = amount + int(amount * headroom)
        population.balance[payer] -= amount
        population.balance[step.receiver] += amount
        if self._is_limited_by_night(step):
            population.night_spent[payer] += amount
        if at_ms < population.device_registered_from[payer]:
            population.unregistered_spent[payer] += amount
        if step.purpose in CASH:
            population.cash_spent[payer] += amount
        return amount

    def _is_limited_by_night(self, step: Step) -> bool:
        """Whether the night's limit holds: from 20 to 6 h, between natural persons (Res. BCB 142)."""
        population = self._population
        by_day = 6 <= (step.at_ms + BRASILIA_OFFSET_MS) // HOUR_MS % 24 < 20
        return not by_day and population.is_person(step.payer) and population.is_person(step.receiver)

    def _limit(self, step: Step) -> int:
        """The limit that the payer has for this payment."""
        population = self._population
        limits = population.limit_night if self._is_limited_by_night(step) else population.limit_day
        return int(limits[step.payer])

    def _allowance(self, step: Step) -> int:
        """What the app lets through: the limit, less what this night or this device has used up of its total."""
        population, payer, at_ms = self._population, step.payer, step.at_ms
        allowance = self._limit(step)
        if self._is_limited_by_night(step):
            night = (at_ms + BRASILIA_OFFSET_MS - 20 * HOUR_MS) // DAY_MS
            if population.night[payer] != night:
                population.night[payer], population.night_spent[payer] = night, 0
            allowance -= int(population.night_spent[payer])
        if at_ms < population.device_registered_from[payer]:
            day = (at_ms + BRASILIA_OFFSET_MS) // DAY_MS
            if population.unregistered_day[payer] != day:
                population.unregistered_day[payer], population.unregistered_spent[payer] = day, 0
            left = _UNREGISTERED_DAY_CENTAVOS - int(population.unregistered_spent[payer])
            allowance = min(allowance, _UNREGISTERED_LIMIT_CENTAVOS, left)
        if step.purpose in CASH:
            allowance = min(allowance, self._cash_left(step))
        return max(allowance, 0)

    def _cash_left(self, step: Step) -> int:
        """What may still be drawn of this day's, or this night's, total."""
        population, payer = self._population, step.payer
        # Periods of 14 and 10 hours in turn: a day and its night have an even and an odd number.
        day, hour_ms = divmod(step.at_ms + BRASILIA_OFFSET_MS - 6 * HOUR_MS, DAY_MS)
        by_night = hour_ms >= 14 * HOUR_MS
        period = 2 * day + by_night
        if population.cash_period[payer] != period:
            population.cash_period[payer], population.cash_spent[payer] = period, 0
        return (_CASH_NIGHT_CENTAVOS if by_night else _CASH_DAY_CENTAVOS) - int(population.cash_spent[payer])

    def _payer(self, entity: int) -> dict[str, object]:
        fields = self._payers.get(entity)
        if fields is None:
            population = self._population
            fields = {
                "payer_account": population.account(entity),
                "payer_ispb": population.institution(entity),
                "payer_tax_id": population.tax_id(entity),
                "payer_person": "NATURAL" if population.is_person(entity) else "LEGAL",
                "payer_account_opened_at": int(population.account_opened_at[entity]),
            }
            if population.limit_raised_at[entity]:
                fields["payer_limit_raised_at"] = int(population.limit_raised_at[entity])
            if len(self._payers) >= _CACHED_ENTITIES:
                self._payers.clear()
            self._payers[entity] = fields
        return fields

    def _add_receiver(self, message: dict[str, object], step: Step, noise: _Noise, position: int) -> str | None:
        """Add the receiver, its key where one was used, and DICT's snapshot; return the key."""
        population, entity = self._population, step.receiver
        cached = self._receivers.get(entity)
        if cached is None or cached[0] <= step.at_ms:
            identity: dict[str, object] = {
                "receiver_account": population.account(entity),
                "receiver_ispb": population.institution(entity),
                "receiver_tax_id": population.tax_id(entity),
                "receiver_person": "NATURAL" if population.is_person(entity) else "LEGAL",
            }
            key: dict[str, object] = {
                "pix_key": population.key_of(entity), "pix_key_type": population.key_type_of(entity),
            }  # fmt: skip
            watermark_ms = self._snapshots.watermark(entity, step.at_ms)
            person = self._snapshots.person(entity, watermark_ms)
            cached = (watermark_ms + SNAPSHOT_LIFE_MS, identity, key, person, self._snapshots.key(entity))
            if len(self._receivers) >= _CACHED_ENTITIES:
                self._receivers.clear()
            self._receivers[entity] = cached
        _, identity, key, person_data, key_data = cached
        message.update(identity)
        has_snapshot = noise.gap[position] > 0.02 and step.purpose not in REFUNDS  # a lookup fails now and then
        if has_snapshot:
            message.update(person_data)
        if step.initiation in KEYLESS or step.purpose in REFUNDS:
            return None
        message.update(key)
        if has_snapshot:
            message.update(key_data)
        return str(step.facts.get("pix_key", key["pix_key"]))

    def _add_session(self, message: dict[str, object], step: Step, noise: _Noise, position: int) -> None:
        """Add channel, device, place, session flags, limit, balance and text, as far as the bank knows them."""
        population, payer = self._population, step.payer
        pick, gap = noise.pick[position], noise.gap[position]
        person = population.is_person(payer)
        choices = (_MANUAL_CHANNELS if step.initiation == "MANU" else _PERSON_CHANNELS) if person else _COMPANY_CHANNELS
        channel = "MOBILE" if step.device or step.place else choices[pick % len(choices)]
        message["channel"] = channel
        message["payer_limit_centavos"] = self._limit(step)
        if gap < 0.95:
            message["payer_balance_centavos"] = int(population.balance[payer]) + int(str(message["amount_centavos"]))
        if channel in {"MOBILE", "WEB"}:
            message["device_id"] = step.device or population.device_of(payer)
            message["device_registered"] = bool(step.at_ms >= population.device_registered_from[payer])
            message["ip"] = documents.ip_address(payer * 2_654_435_761 + pick % 4 * 40_503)
            flags = noise.flags[position]
            if step.at_ms - population.device_since[payer] < _SETTLED_DEVICE_MS:
                flags |= _NEW_DEVICE
            message["session_flags"] = self._flags(flags, step.flags)
        if channel == "MOBILE" and population.shares_location[payer]:
            latitude, longitude = step.place or self._place(payer, step.at_ms)
            jitter = noise.jitter[position]
            message["latitude"] = round(latitude + jitter[0], 6)
            message["longitude"] = round(longitude + jitter[1], 6)
        if pick % 97 < 12:
            message["remittance_text"] = _TEXTS[pick % len(_TEXTS)]

    def _place(self, person: int, at_ms: int) -> tuple[float, float]:
        """Home, or the city of a trip: about one person in twenty is away in a given week."""
        population = self._population
        trip = (person * 2_654_435_761 + at_ms // (7 * DAY_MS) * 97_003) >> 7
        if trip % 100 < 5:
            latitude, longitude = population.city_centres[trip // 100 % len(population.city_centres)]
        else:
            latitude, longitude = population.home[person]
        return float(latitude), float(longitude)

    def _flags(self, raised: int, seen: tuple[str, ...]) -> list[str]:
        for flag in seen:
            raised |= 1 << SESSION_FLAGS.index(flag)
        flags = self._flag_lists.get(raised)
        if flags is None:
            flags = [flag for bit, flag in enumerate(SESSION_FLAGS) if raised >> bit & 1]
            self._flag_lists[raised] = flags
        return flags
