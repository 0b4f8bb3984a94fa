"""Connection settings to client arguments: complete, or an error that names the setting."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from app.kafka_options import client_options
from app.settings import SettingsError, load_settings


def test_sasl_over_tls_is_complete() -> None:
    """User, password and a context that checks the broker's name."""
    options = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "pix"}
    settings = load_settings(**options, sasl_password="secret")  # noqa: S106 (of no system)
    options = client_options(settings)
    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert options == {
        "bootstrap_servers": settings.broker,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "pix",
        "sasl_plain_password": "secret",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"security_protocol": "SASL_PLAINTEXT"}, "sasl_username: missing"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "pix"}, "sasl_password: missing"),
        ({"security_protocol": "SSL", "ssl_cafile": Path("absent.pem")}, r"ssl_cafile: no file at absent\.pem"),
        ({"security_protocol": "SSL", "ssl_keyfile": Path(__file__)}, "ssl_certfile: missing"),
        ({"security_protocol": "SSL", "ssl_cafile": Path(__file__)}, "ssl_cafile: .*no PEM certificates"),
        ({"security_protocol": "SSL", "ssl_certfile": Path(__file__)}, "ssl_certfile: .*not a PEM certificate"),
    ],
)
def test_what_is_missing_or_unusable_is_named(options: dict[str, object], message: str) -> None:
    """Before a client tries, which would time out with less to say."""
    with pytest.raises(SettingsError, match=message):
        client_options(load_settings(**options))
