"""What every response carries and every request must show, so that the view stays with the people it is meant for."""

from __future__ import annotations

import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SECURITY_HEADERS", "Guard", "mask"]

SECURITY_HEADERS = {
    # All that the pages load is served here: no other origin, no inline script or style, no frame around them.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_SHOWN_CHARACTERS = 4


def mask(value: str) -> str:
    """Return an identifier so that its owner recognises it and no one else does.

    Examples
    --------
    >>> mask("52998224725"), mask("+5511987654321"), mask("12345678/0001-99887766"), mask("1234567")
    ('***4725', '***4321', '***7766', '***')
    >>> mask("maria@example.com")
    'm***@e***'
    """
    name, at, domain = value.rpartition("@")
    if at:
        return f"{name[:1]}***@{domain[:1]}***"
    # Of a short value four characters would be most of it.
    return f"***{value[-_SHOWN_CHARACTERS:]}" if len(value) > 2 * _SHOWN_CHARACTERS - 1 else "***"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: security headers on each response; on a loopback address, requests for that address only.

    A page of any site can let its own name resolve to 127.0.0.1 and then read what is served there (DNS rebinding).
    Its requests carry that name in `Host`, so a view meant for this machine alone answers to its names alone.

    Parameters
    ----------
    app
        The application behind it.
    web_host
        The address that is listened on.
    """

    def __init__(self, app: ASGIApp, web_host: str) -> None:
        self._app = app
        self._local_only = _is_loopback(web_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if self._local_only and not _is_loopback(_host_name(Headers(scope=scope).get("host", ""))):
            fault = {"path": "header.host", "expected": "a name of this machine", "got": "another host"}
            await JSONResponse({"error": fault}, status_code=421)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
