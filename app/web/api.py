"""The worker's HTTP interface: probes, metrics, a JSON API, and the pages that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import structlog
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.web.lookup import MAX_LOOKUP_BYTES, Fault, read_lookup
from app.web.security import Guard, mask
from app.web.view import WorkerView
from models.rules.pack import Rule, RulePack

__all__ = ["create_app"]

log = structlog.get_logger(__name__)

Row = Mapping[str, object]

MAX_DECISIONS = 500

_BRASILIA = timezone(timedelta(hours=-3))
"""Rule packs give dates there; no daylight saving time since 2019."""

_PAGES = Path(__file__).parent / "pages"
_MEDIA_TYPE = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE_OF_PATH = {"/": "index.html", "/features": "features.html", "/rules": "rules.html"}


class _Json(Response):
    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return msgspec.json.encode(content)


def _fault(status: int, path: str, expected: str, got: str) -> _Json:
    return _Json({"error": Fault(path, expected, got)}, status)


def create_app(
    view: WorkerView,
    *,
    features: Sequence[object],
    rules: Callable[[], RulePack],
    asyncapi: Mapping[str, object],
    web_host: str = "127.0.0.1",
    registry: CollectorRegistry = REGISTRY,
) -> Guard:
    """Build the application.

    Parameters
    ----------
    view
        The worker.
    features
        The feature catalog, such as `CATALOG.entries`: mappings or dataclasses. The page makes its columns of the
        names.
    rules
        Returns the rules in force; called per request, since they are reloaded while the worker runs.
    asyncapi
        The AsyncAPI document.
    web_host
        The address that will be listened on; on a loopback address only requests for this machine's names are answered.
    registry
        Metrics to expose.
    """
    app = FastAPI(
        title="pixguard worker",
        description="State and decisions of one worker. Identifiers are pseudonyms.",
        # FastAPI's own documentation pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={
            RequestValidationError: _answer_bad_parameter,
            HTTPException: _answer_http_error,
            Exception: _answer_failure,
        },
    )
    app.include_router(_probes(view, registry))
    app.include_router(_data(view))
    app.include_router(_catalogs(features, rules, asyncapi))
    app.include_router(_pages())
    # Around everything, the answers to failures included: FastAPI's own middleware would leave these out.
    return Guard(app, web_host)


def _probes(view: WorkerView, registry: CollectorRegistry) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health")
    async def health() -> _Json:
        """Answers while the process lives, also during recovery: restart the worker when it does not."""
        return _Json({"status": "alive", "phase": view.status().phase})

    @routes.get("/ready")
    async def ready() -> _Json:
        """200 once the worker decides on payments, 503 before and after, with how far a recovery is."""
        status = view.status()
        is_ready = status.phase == "ready"
        told = {"ready": is_ready, "phase": status.phase, "recovery": status.recovery}
        return _Json(told, 200 if is_ready else 503)

    @routes.get("/metrics")
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _data(view: WorkerView) -> APIRouter:
    routes = APIRouter(prefix="/api")

    @routes.get("/status")
    async def status() -> _Json:
        """State and counters of the worker."""
        return _Json(view.status())

    @routes.get("/partitions")
    async def partitions() -> _Json:
        """Every partition's state."""
        return _Json(view.partitions())

    @routes.get("/decisions")
    async def decisions(
        limit: Annotated[int, Query(ge=1, le=MAX_DECISIONS)] = 50,
        action: Literal["APPROVE", "HOLD", "DENY"] | None = None,
    ) -> _Json:
        """Recent decisions, newest first."""
        return _Json(view.recent_decisions(limit, action))

    @routes.post("/profile")
    async def profile(request: Request) -> _Json:
        """One profile. The identifier comes in the body: addresses end up in logs and histories."""
        # Another site's page cannot send this type without asking first (CORS), and is not allowed to.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _fault(415, "header.content-type", "application/json", "another type, or none")
        body = await _read_body(request)
        if body is None:
            return _fault(413, "$", f"at most {MAX_LOOKUP_BYTES} bytes", "more")
        lookup = read_lookup(body)
        if isinstance(lookup, Fault):
            return _Json({"error": lookup}, 400)
        shown = mask(lookup.value)
        try:
            found = view.profile(lookup.kind, lookup.value)
        except Exception as error:  # noqa: BLE001 - whatever it is, its message may hold the identifier
            log.error("profile look-up failed", kind=lookup.kind, error=type(error).__name__)  # noqa: TRY400 - as above
            return _fault(500, "$", "a profile", "the look-up failed; see the worker's log")
        if found is None:
            return _fault(404, "$.value", f"{lookup.kind} with a profile on this worker", shown)
        return _Json({"kind": lookup.kind, "value": shown, "profile": found})

    return routes


async def _read_body(request: Request) -> bytes | None:
    """The body, or None where it is too long; what is beyond the bound is not kept."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_LOOKUP_BYTES:
            return None
    return body


def _catalogs(features: Sequence[object], rules: Callable[[], RulePack], asyncapi: Mapping[str, object]) -> APIRouter:
    routes = APIRouter()
    # These two do not change while the worker lives.
    encoded_features = msgspec.json.encode({"rows": features})
    encoded_asyncapi = msgspec.json.encode(asyncapi)

    @routes.get("/api/features")
    async def feature_rows() -> Response:
        """The feature catalog."""
        return Response(encoded_features, media_type="application/json")

    @routes.get("/api/rules")
    async def rule_rows() -> _Json:
        """The rules in force, in the pack's order, and the scores from which a payment is held or denied."""
        pack = rules()
        version = f"{pack.version}+{pack.fingerprint}"
        rows = [_rule_row(rule) for rule in pack.rules]
        return _Json({"version": version, "hold_from": pack.hold, "deny_from": pack.deny, "rows": rows})

    @routes.get("/asyncapi.json")
    async def asyncapi_document() -> Response:
        """Topics and messages."""
        return Response(encoded_asyncapi, media_type="application/json")

    return routes


def _rule_row(rule: Rule) -> Row:
    return {
        "id": rule.id,
        "action": rule.action,
        "weight": rule.weight,
        "reason": rule.reason,
        "text": rule.text,
        "when": rule.when.text,
        "from": _date(rule.from_ms),
        "until": _date(rule.until_ms),
        "regulation": rule.regulation,
        "typology": rule.typology,
    }


def _date(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, _BRASILIA).date().isoformat()


def _pages() -> APIRouter:
    """Routes of the pages and what they load, all read once: nothing of a request ever becomes a path."""
    routes = APIRouter()
    files = {path.name: path.read_bytes() for path in sorted(_PAGES.iterdir()) if path.is_file()}

    def serve(path: str, name: str) -> None:
        media_type = _MEDIA_TYPE[Path(name).suffix]

        @routes.get(path, include_in_schema=False)
        async def page() -> Response:
            # Kept by the browser, but asked for again: after an upgrade no page runs with yesterday's script.
            return Response(files[name], media_type=media_type, headers={"Cache-Control": "no-cache"})

    for path, name in _PAGE_OF_PATH.items():
        serve(path, name)
    for name in files.keys() - set(_PAGE_OF_PATH.values()):
        serve(f"/static/{name}", name)
    return routes


async def _answer_bad_parameter(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):  # Starlette's signature is wider than what it calls this with
        raise error
    # Not FastAPI's own answer: that one repeats what was sent.
    first = error.errors()[0]
    return _fault(422, ".".join(map(str, first["loc"])), str(first["msg"]), "something else")


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _fault(error.status_code, "request", "an address and a method of this interface", str(error.detail))


async def _answer_failure(_request: Request, _error: Exception) -> Response:
    return _fault(500, "request", "an answer", "a failure; see the worker's log")
