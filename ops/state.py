"""`pixguard state KEY`: what is known of one Pix key or account, read from the changelog.

The changelog is the truth as of the last checkpoint (about a second ago), whichever worker holds the key; no worker is
asked. One partition is read from its beginning, so the cost grows with its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.domain.partitioner import account_partitions, partition_of
from app.domain.pix_keys import deduce_key_type
from app.domain.siphash import HashKey, hash_account, hash_pix_key
from app.kafka_options import client_options
from app.settings import Settings
from app.topic_reading import extent, open_reader, stretches
from app.topics import PAYERS_TABLE, RECEIVERS_TABLE, changelog
from tables.profiles import Profiles

__all__ = ["KeyFormError", "ProfileView", "read_profiles"]


class KeyFormError(ValueError):
    """Neither a Pix key nor ISPB/ACCOUNT; the message does not repeat it."""


@dataclass(frozen=True, slots=True)
class ProfileView:
    """One side of a key.

    Parameters
    ----------
    stage
        `receiver` or `payer`.
    pseudonym
        The key's hash, as logs and the web view show it.
    partition
        Where it lives.
    values
        Features by name as of the time that was asked for; None where nothing is known of the key.
    """

    stage: str
    pseudonym: str
    partition: int
    values: dict[str, float | None] | None


async def read_profiles(settings: Settings, key: str, at_ms: int) -> list[ProfileView]:
    """Read a key's profiles.

    Parameters
    ----------
    settings
        Of the installation; its hash key finds the key.
    key
        A Pix key, or ISPB/ACCOUNT.
    at_ms
        The windows end here, epoch milliseconds.

    Raises
    ------
    KeyFormError
        When `key` is neither.
    aiokafka.errors.KafkaError
        When the cluster cannot be reached.
    """
    hash_key = HashKey.from_bytes(settings.read_hash_key())
    ispb, slash, account = key.partition("/")
    if slash and len(ispb) == 8 and ispb.isdigit() and account:
        hashed = hash_account(ispb, account, hash_key)
        payer_partition = int(account_partitions(np.array([hashed], np.uint64), settings.partitions)[0])
        places = [
            ("payer", PAYERS_TABLE, payer_partition),
            # Payments without a Pix key reach the receiver by account.
            ("receiver", RECEIVERS_TABLE, partition_of(account.encode(), settings.partitions)),
        ]
    elif deduce_key_type(key) is not None:
        hashed = hash_pix_key(key, hash_key)
        places = [("receiver", RECEIVERS_TABLE, partition_of(key.encode(), settings.partitions))]
    else:
        raise KeyFormError(
            f"expected a Pix key (CPF, CNPJ, +phone, e-mail, EVP) or ISPB/ACCOUNT, got {len(key)} characters"
        )
    async with open_reader(client_options(settings)) as consumer:
        views = []
        for stage, table, partition in places:
            place = TopicPartition(changelog(settings.app_id, table).name, partition)
            blob = await _last_value(consumer, place, hashed.to_bytes(8, "little"))
            views.append(ProfileView(stage, f"{hashed:016x}", partition, _values(stage, hashed, blob, at_ms)))
        return views


async def _last_value(consumer: AIOKafkaConsumer, place: TopicPartition, key: bytes) -> bytes | None:
    last: bytes | None = None
    async for stretch in stretches(consumer, place, *await extent(consumer, place)):
        for found, value in zip(stretch.keys, stretch.values, strict=True):
            if found == key:
                last = value
    return last


def _values(stage: str, hashed: int, blob: bytes | None, at_ms: int) -> dict[str, Any] | None:
    if blob is None:
        return None
    profiles = Profiles(stage)
    profiles.restore([hashed.to_bytes(8, "little")], [blob])
    return profiles.query(hashed, at_ms)
