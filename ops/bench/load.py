"""Payments of a bank with a million customers, cheap to make: the simulator's messages with other people in them.

A template is a simulated message whose ids, times, accounts, Pix key and device are left open. Filling one in costs
about 2 us, where simulating a message costs 100, so that the load is never what a benchmark measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from app.domain.byte_column import ByteColumn
from app.domain.partitioner import partition_of
from ops.traffic.generator import TrafficConfig, generate
from ops.traffic.population import ISPBS

__all__ = ["Load", "Payments", "payment_numbers"]

_TEMPLATES = 2000
_START_MS = 1_790_000_000_000
_BASE36 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Payments:
    """Messages of one partition, in order, as columns."""

    keys: list[bytes]
    values: list[bytes]
    times_ms: list[int]

    def add(self, key: bytes, value: bytes, at_ms: int) -> None:
        """Append one message."""
        self.keys.append(key)
        self.values.append(value)
        self.times_ms.append(at_ms)

    def __len__(self) -> int:
        return len(self.values)


class Load:
    """Makes payments between `customers` accounts, each of which pays and is paid.

    Parameters
    ----------
    customers
        Accounts; each has one Pix key.
    partitions
        Of `pix-transactions`.
    seed
        Same seed, same payments.
    """

    def __init__(self, customers: int, partitions: int, seed: int = 1) -> None:
        self.customers = customers
        self._partitions = partitions
        self._rng = np.random.default_rng(seed)
        self._templates = list(_templates(seed))
        self.made = 0
        """Payments so far: the number of the next one."""

    def everyone(self, start_ms: int, end_ms: int) -> Iterator[dict[int, Payments]]:
        """Yield batches, by partition, in which each customer pays once and is paid once, evenly over the time."""
        payers = self._rng.permutation(self.customers)
        receivers = np.roll(payers, 1)
        times_ms = np.linspace(start_ms, end_ms, self.customers, endpoint=False).astype(np.int64)
        yield from self._batches(payers, receivers, times_ms)

    def traffic(self, count: int, start_ms: int, end_ms: int) -> Iterator[dict[int, Payments]]:
        """Yield batches, by partition, of payments between customers, some of whom are busier than others."""
        times_ms = np.linspace(start_ms, end_ms, count, endpoint=False).astype(np.int64)
        yield from self._batches(self._draw(count), self._draw(count), times_ms)

    def in_order(self, times_ms: NDArray[np.int64]) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield partition, key and value of payments at these times, one by one."""
        yield from self._each(self._draw(len(times_ms)), self._draw(len(times_ms)), times_ms)

    def _draw(self, count: int) -> NDArray[np.int64]:
        # Density falls with the root of the rank: the busiest thousandth makes 3 % of the payments.
        return (self.customers * self._rng.random(count) ** 2).astype(np.int64)

    def _batches(
        self, payers: NDArray[np.int64], receivers: NDArray[np.int64], times_ms: NDArray[np.int64], size: int = 20_000
    ) -> Iterator[dict[int, Payments]]:
        for first in range(0, len(payers), size):
            part = slice(first, first + size)
            yield self._fill(payers[part], receivers[part], times_ms[part])

    def _fill(
        self, payers: NDArray[np.int64], receivers: NDArray[np.int64], times_ms: NDArray[np.int64]
    ) -> dict[int, Payments]:
        batch = {partition: Payments([], [], []) for partition in range(self._partitions)}
        each = self._each(payers, receivers, times_ms)
        for (partition, key, value), at_ms in zip(each, times_ms.tolist(), strict=True):
            batch[partition].add(key, value, at_ms)
        return batch

    def _each(
        self, payers: NDArray[np.int64], receivers: NDArray[np.int64], times_ms: NDArray[np.int64]
    ) -> Iterator[tuple[int, bytes, bytes]]:
        minute_of, minute = -1, b""
        chosen = self._rng.integers(0, len(self._templates), len(payers)).tolist()
        for payer, receiver, at_ms, choice in zip(
            payers.tolist(), receivers.tolist(), times_ms.tolist(), chosen, strict=True
        ):
            if at_ms // 60_000 != minute_of:
                minute_of = at_ms // 60_000
                minute = datetime.fromtimestamp(minute_of * 60, UTC).strftime("%Y%m%d%H%M").encode()
            template, has_key, has_device = self._templates[choice]
            ispb = _ISPBS[payer % len(_ISPBS)]
            account, key = b"0001-%09d" % receiver, _key(receiver)
            values: tuple[bytes | int, ...] = (
                ispb, minute, _suffix(self.made), at_ms, b"0001-%09d" % payer, ispb, account,
                _ISPBS[receiver % len(_ISPBS)],
            )  # fmt: skip
            self.made += 1
            if has_key:
                values = (*values, key)
            if has_device:
                values = (*values, payer)
            kafka_key = key if has_key else account
            yield partition_of(kafka_key, self._partitions), kafka_key, template % values


_ISPBS = [ispb.encode() for ispb in ISPBS]


def _key(customer: int) -> bytes:
    return b"%08x-0000-4000-8000-%012x" % (customer * 2_654_435_761 % 2**32, customer)


_ID_BYTES = 32
_SUFFIX_BYTES = 11


def _suffix(number: int) -> bytes:
    """The last 11 characters of an EndToEndId: the payment's number, in hexadecimal."""
    return b"%011x" % number


def payment_numbers(ids: ByteColumn) -> NDArray[np.int64]:
    """Which of the load's payments, counted from 0, have these EndToEndIds; shape (n,)."""
    text = ids.packed().reshape(len(ids), _ID_BYTES)[:, -_SUFFIX_BYTES:].astype(np.int64)
    digits = np.where(text >= ord("a"), text - ord("a") + 10, text - ord("0"))
    return digits @ 16 ** np.arange(_SUFFIX_BYTES - 1, -1, -1)


def _templates(seed: int) -> Iterator[tuple[bytes, bool, bool]]:
    """Yield simulated payments with what identifies them left open; whether a Pix key, and a device, is open too."""
    config = TrafficConfig(
        start_ms=_START_MS, seed=seed, count=2 * _TEMPLATES, rate_per_s=50, malformed_share=0, retry_share=0
    )
    made = 0
    for message in generate(config):
        fields = json.loads(message.value)
        if fields.get("purpose") in {"REFU", "IPRT"} or made == _TEMPLATES:
            continue
        made += 1
        has_key, has_device = "pix_key" in fields, "device_id" in fields
        open_fields: dict[str, str] = {
            "end_to_end_id": '"E%b%b%b"',
            "timestamp": "%d",
            "payer_account": '"%b"',
            "payer_ispb": '"%b"',
            "receiver_account": '"%b"',
            "receiver_ispb": '"%b"',
        }
        if has_key:
            fields["pix_key_type"] = "EVP"
            open_fields["pix_key"] = '"%b"'
        if has_device:
            open_fields["device_id"] = '"device-%d"'
        rest = {name: value for name, value in fields.items() if name not in open_fields}
        opened = ",".join(f'"{name}":{form}' for name, form in open_fields.items())
        closed = json.dumps(rest, separators=(",", ":"))[1:].replace("%", "%%")
        yield f"{{{opened},{closed}".encode(), has_key, has_device
