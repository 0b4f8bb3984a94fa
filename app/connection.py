"""A first connection to the cluster, so that a login that it refuses is told in words: what, where, how to mend.

aiokafka's clients give the reason to their log only, and raise the same error whatever it was.
"""

from __future__ import annotations

import ssl
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from app.kafka_options import client_options
from app.settings import Settings

__all__ = ["ClusterConnectionError", "check_connection"]

_TIMEOUT_MS = 10_000


class ClusterConnectionError(RuntimeError):
    """No bootstrap server lets this installation in; the message names each one's reason and the setting to mend."""


async def check_connection(settings: Settings) -> None:
    """Connect, and log in, to one of the bootstrap servers; the first that lets us in is enough.

    Raises
    ------
    SettingsError
        When the settings are incomplete, see `client_options`.
    ClusterConnectionError
        When none does. Never holds a secret's value.
    """
    options = client_options(settings)
    del options["bootstrap_servers"]
    reasons = []
    for server in settings.broker.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            connection = await create_conn(host.strip("[]"), int(port), request_timeout_ms=_TIMEOUT_MS, **options)
        except (KafkaError, OSError) as error:
            reasons.append(f"{server.strip()}: {_reason(settings, error)}")
        else:
            connection.close()
            return
    raise ClusterConnectionError("no bootstrap server lets pixguard in:\n  " + "\n  ".join(reasons))


def _reason(settings: Settings, error: Any) -> str:  # noqa: ANN401 - aiokafka's errors are untyped
    """Say what was refused, and by which setting that is mended."""
    protocol, mechanism = settings.security_protocol, settings.sasl_mechanism
    match error:
        case SaslAuthenticationFailed():
            return (
                f"it refuses user {settings.sasl_username!r} with this password by {mechanism} ({error}); set "
                "sasl_username and sasl_password to what it knows, or sasl_mechanism to the one that it knows them by"
            )
        case UnsupportedSaslMechanismError():
            return f"it does not offer sasl_mechanism {mechanism}; set the one that it does"
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted ({error.verify_message}); set ssl_cafile to the authority that signed "
                "it, and broker to the name that it was made for"
            )
        case ssl.SSLError() | KafkaConnectionError() | IllegalSaslStateError():
            return (
                f"it does not speak {protocol} on this port ({error}); set security_protocol to what it speaks, or "
                "broker to the port that speaks this"
            )
        case TimeoutError():
            return f"no answer within {_TIMEOUT_MS // 1000} s; is it up, and broker its address?"
        case _:
            return f"cannot be reached ({error}); is it up, and broker its address?"
