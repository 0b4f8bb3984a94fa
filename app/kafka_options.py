"""How this installation connects to its cluster: the settings as arguments of aiokafka's clients."""

from __future__ import annotations

import ssl
from typing import Any

from app.settings import Settings, SettingsError

__all__ = ["client_options"]


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the connection arguments that all aiokafka clients share.

    Raises
    ------
    SettingsError
        Naming the setting that is missing, or whose file cannot be used; never a secret's value.

    Examples
    --------
    >>> client_options(Settings(broker="127.0.0.1:9092"))
    {'bootstrap_servers': '127.0.0.1:9092', 'security_protocol': 'PLAINTEXT'}
    """
    protocol = settings.security_protocol
    options: dict[str, Any] = {"bootstrap_servers": settings.broker, "security_protocol": protocol}
    if protocol.startswith("SASL_"):
        for name in ("sasl_username", "sasl_password"):
            if getattr(settings, name) is None:
                raise SettingsError(f"{name}: missing, which security_protocol {protocol} needs")
        assert settings.sasl_password is not None  # noqa: S101 (told to mypy; checked above)
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    if protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    return options


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise SettingsError(f"{name}: no file at {path}")
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        raise SettingsError("ssl_certfile: missing, which ssl_keyfile needs")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"ssl_cafile: {settings.ssl_cafile}: no PEM certificates in it ({error})") from error
    if settings.ssl_certfile is not None:
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password="")
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(
                f"ssl_certfile: {settings.ssl_certfile}: not a PEM certificate with its unencrypted private key "
                f"(in it, or in ssl_keyfile) ({error})"
            ) from error
    return context
