"""Allow, deny and watch lists of accounts, keys and devices, fed from the compacted topic `pix-lists`.

A snapshot is immutable: applying updates gives a new one, so a batch is decided on under one version from its first
row to its last. Entries are keyed hashes; the identifiers themselves never leave the decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.domain.compiler import LISTABLE, LISTS
from app.domain.json_object import describe, parse_object
from app.domain.pix_keys import deduce_key_type
from app.domain.rejection import Reason, Rejection
from app.domain.siphash import HashKey, hash_account, hash_device, hash_pix_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.domain.columns import Array

__all__ = ["FOR_EVER_MS", "ListUpdate", "Lists", "ListsError", "decode_list_update"]

FOR_EVER_MS = 2**63 - 1
"""The end of an entry that does not expire."""

MAX_IDENTIFIER_CHARACTERS = 77
"""The longest Pix key; accounts and devices have 64."""

MAX_REASON_CHARACTERS = 200

_Table = NDArray[np.void]
_TABLE_DTYPE = np.dtype([("hash", "<u8"), ("until_ms", "<i8")])
_NAMES = tuple((name, sort) for name in LISTS for sort in LISTABLE)
_EMPTY = np.zeros(0, _TABLE_DTYPE)

_MAGIC = b"PXLS\x01"
_HEADER = struct.Struct(f"<5sq{len(_NAMES)}I")


class ListsError(ValueError):
    """Bytes that are no snapshot of the lists, or one that this version cannot read."""


@dataclass(frozen=True, slots=True)
class ListUpdate:
    """One change.

    Parameters
    ----------
    name
        allow, deny or watch.
    sort
        account, key or device.
    identifier
        Keyed hash.
    until_ms
        The entry counts for payments whose time lies before it; None removes the entry.
    """

    name: str
    sort: str
    identifier: int
    until_ms: int | None


def decode_list_update(key: bytes | None, value: bytes | None, hash_key: HashKey) -> ListUpdate | Rejection:
    """Read one message of `pix-lists`.

    Parameters
    ----------
    key
        `deny/account/ISPB/ACCOUNT`, `deny/key/PIX KEY`, `watch/device/DEVICE`, and so on.
    value
        `{"reason": "...", "until": epoch milliseconds or null}`; a tombstone removes the entry. The reason is for
        those who read the topic: it is checked, and not kept.
    hash_key
        The key of the pseudonyms.

    Returns
    -------
    ListUpdate or Rejection
        The rejection repeats nothing of the identifier.
    """
    target = _target(key, hash_key)
    if isinstance(target, Rejection):
        return target
    if value is None:
        return ListUpdate(*target, None)
    entry = parse_object(value, ("reason", "until"))
    if isinstance(entry, Rejection):
        return entry
    until_ms = _until_ms(entry)
    return until_ms if isinstance(until_ms, Rejection) else ListUpdate(*target, until_ms)


def _target(key: bytes | None, hash_key: HashKey) -> tuple[str, str, int] | Rejection:
    expected = f"LIST/KIND/IDENTIFIER with a list of {', '.join(LISTS)} and a kind of {', '.join(LISTABLE)}"
    if key is None:
        return Rejection("kafka.key", expected, "no key", Reason.WRONG_KAFKA_KEY)
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return Rejection("kafka.key", "UTF-8", "other bytes", Reason.NOT_UTF8)
    name, _, rest = text.partition("/")
    sort, _, identifier = rest.partition("/")
    if name not in LISTS or sort not in LISTABLE:
        return Rejection(
            "kafka.key", expected, f"{text.count('/')} slashes, {len(text)} characters", Reason.WRONG_KAFKA_KEY
        )
    hashed = _hashed(sort, identifier, hash_key)
    return hashed if isinstance(hashed, Rejection) else (name, sort, hashed)


def _hashed(sort: str, identifier: str, hash_key: HashKey) -> int | Rejection:
    size = f"{len(identifier)} characters"
    if sort == "key":
        if deduce_key_type(identifier) is None:
            return Rejection("kafka.key", "a Pix key: CPF, CNPJ, phone, e-mail or EVP", size, Reason.WRONG_KAFKA_KEY)
        return hash_pix_key(identifier, hash_key)
    if sort == "account":
        ispb, _, account = identifier.partition("/")
        if not (len(ispb) == 8 and ispb.isascii() and ispb.isdigit() and 1 <= len(account) <= 64):
            return Rejection("kafka.key", "ISPB/ACCOUNT: 8 digits, 1 to 64 characters", size, Reason.WRONG_KAFKA_KEY)
        return hash_account(ispb, account, hash_key)
    if not 1 <= len(identifier) <= 64:
        return Rejection("kafka.key", "a device of 1 to 64 characters", size, Reason.WRONG_KAFKA_KEY)
    return hash_device(identifier, hash_key)


def _fault_of_reason(entry: Mapping[str, object]) -> Rejection | None:
    reason = entry.get("reason")
    if "reason" not in entry:
        return Rejection("$.reason", "string", "nothing", Reason.MISSING)
    if not isinstance(reason, str):
        return Rejection("$.reason", "string", describe(reason), Reason.WRONG_TYPE)
    if not 1 <= len(reason) <= MAX_REASON_CHARACTERS:
        expected = f"1 to {MAX_REASON_CHARACTERS} characters"
        return Rejection("$.reason", expected, f"{len(reason)} characters", Reason.OUT_OF_RANGE)
    return None


def _until_ms(entry: Mapping[str, object]) -> int | Rejection:
    if not set(entry) <= {"reason", "until"}:
        return Rejection("$", "reason and until", "another field", Reason.WRONG_FORM)
    fault = _fault_of_reason(entry)
    if fault is not None:
        return fault
    until_ms = entry.get("until")
    if until_ms is None:
        return FOR_EVER_MS
    if not isinstance(until_ms, int) or isinstance(until_ms, bool):
        return Rejection("$.until", "epoch milliseconds or null", describe(until_ms), Reason.WRONG_TYPE)
    if not 0 < until_ms < FOR_EVER_MS:
        return Rejection("$.until", "epoch milliseconds after 0", str(until_ms), Reason.OUT_OF_RANGE)
    return until_ms


@dataclass(frozen=True, slots=True)
class Lists:
    """All lists at one version.

    Parameters
    ----------
    version
        Offset of `pix-lists` up to which every update is in here; 0 before the first.
    """

    version: int = 0
    _tables: Mapping[tuple[str, str], _Table] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def listed(self, name: str, sort: str, identifiers: Array, event_ms: Array) -> Array:
        """Return whether each identifier is on a list at the time of its payment.

        Parameters
        ----------
        name
            allow, deny or watch.
        sort
            account, key or device.
        identifiers
            Keyed hashes, uint64, shape (n,).
        event_ms
            Time of each payment, shape (n,).
        """
        table = self._tables.get((name, sort), _EMPTY)
        if not len(table):
            return np.zeros(identifiers.shape, np.bool_)
        place = np.minimum(np.searchsorted(table["hash"], identifiers), len(table) - 1)
        found = table[place]
        on_it: Array = np.logical_and(found["hash"] == identifiers, event_ms < found["until_ms"])
        return on_it

    def apply(self, updates: Iterable[ListUpdate], version: int) -> Lists:
        """Return the lists after updates, of which the last one on an identifier counts.

        Parameters
        ----------
        updates
            In the order of the topic.
        version
            Offset after the last message that was read, rejected ones included.

        Raises
        ------
        ListsError
            Where the version lies before this one's: the topic was read backwards.
        """
        if version < self.version:
            raise ListsError(f"pix-lists: expected a version from {self.version} on, got {version}")
        latest: dict[tuple[str, str], dict[int, int | None]] = {}
        for update in updates:
            latest.setdefault((update.name, update.sort), {})[update.identifier] = update.until_ms
        tables = dict(self._tables)
        for which, changes in latest.items():
            tables[which] = _changed(tables.get(which, _EMPTY), changes)
        return Lists(version, MappingProxyType({which: table for which, table in tables.items() if len(table)}))

    def to_bytes(self) -> bytes:
        """Return the snapshot for a checkpoint: version, sizes, then the entries of each list."""
        tables = [self._tables.get(which, _EMPTY) for which in _NAMES]
        header = _HEADER.pack(_MAGIC, self.version, *map(len, tables))
        return header + b"".join(table.tobytes() for table in tables)

    @classmethod
    def from_bytes(cls, content: bytes) -> Lists:
        """Return the snapshot that the bytes hold.

        Raises
        ------
        ListsError
            Where they are none, or are cut.

        Examples
        --------
        >>> lists = Lists().apply([ListUpdate("deny", "device", 7, FOR_EVER_MS)], version=1)
        >>> Lists.from_bytes(lists.to_bytes()).listed("deny", "device", np.array([7, 8], np.uint64), np.array([0, 0]))
        array([ True, False])
        """
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            raise ListsError(f"lists: expected a snapshot that starts with {_MAGIC!r}")
        _, version, *sizes = _HEADER.unpack_from(content)
        if len(content) != _HEADER.size + sum(sizes) * _TABLE_DTYPE.itemsize:
            raise ListsError(f"lists: expected {sum(sizes)} entries, got {len(content)} bytes in all")
        tables, start = {}, _HEADER.size
        for which, size in zip(_NAMES, sizes, strict=True):
            if size:
                tables[which] = np.frombuffer(content, _TABLE_DTYPE, size, start)
            start += size * _TABLE_DTYPE.itemsize
        return cls(version, MappingProxyType(tables))


def _changed(table: _Table, changes: Mapping[int, int | None]) -> _Table:
    touched = np.fromiter(changes, np.uint64, len(changes))
    kept = table[~np.isin(table["hash"], touched)]
    added = [(identifier, until_ms) for identifier, until_ms in changes.items() if until_ms is not None]
    merged = np.concatenate([kept, np.array(added, _TABLE_DTYPE)])
    merged = merged[np.argsort(merged["hash"])]
    merged.flags.writeable = False
    return merged
