"""Messages of `pix-transactions` for the decoders' tests."""

from __future__ import annotations

import json

KAFKA_MS = 1_790_000_000_000
ABSENT = object()

REQUIRED = {
    "end_to_end_id": "E12345678202609211333abcDEF12345",
    "timestamp": KAFKA_MS - 250,
    "amount_centavos": 12_345,
    "payer_account": "0001-99887766",
    "payer_ispb": "12345678",
    "receiver_account": "0002-11223344",
    "receiver_ispb": "00000000",
    "initiation": "DICT",
}

TYPICAL = REQUIRED | {
    "pix_key": "maria.souza@example.com",
    "pix_key_type": "EMAIL",
    "payer_tax_id": "52998224725",
    "receiver_tax_id": "12ABC34501DE35",
    "payer_person": "NATURAL",
    "receiver_person": "LEGAL",
    "purpose": "IPAY",
    "channel": "MOBILE",
    "device_id": "a3f5c2e1-7b64",
    "device_registered": True,
    "ip": "2001:db8::17",
    "latitude": -23.55052,
    "longitude": -46.633308,
    "session_flags": ["ON_CALL", "REMOTE_ACCESS", "SOMETHING_NEW"],
    "remittance_text": "aluguel março",
    "payer_limit_centavos": 500_000,
    "dict_account_opened_at": -86_400_000,
    "dict_key_settlements_m12": 1_234_567,
}

KEYS = {
    "CPF": "52998224725",
    "CNPJ": "12ABC34501DE35",
    "PHONE": "+5511987654321",
    "EMAIL": "maria.souza@example.com",
    "EVP": "123e4567-e89b-12d3-a456-426655440000",
}


def transaction(base: dict[str, object] = REQUIRED, **changes: object) -> dict[str, object]:
    """Return a transaction with some fields changed, or left out as ABSENT."""
    return {name: value for name, value in (base | changes).items() if value is not ABSENT}


def kafka_key(fields: dict[str, object]) -> bytes:
    """Return the right Kafka key of a transaction."""
    return str(fields.get("pix_key") or fields["receiver_account"]).encode()


def compact(fields: dict[str, object]) -> bytes:
    """Return the JSON as most programs write it: no spaces, UTF-8 in clear."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
