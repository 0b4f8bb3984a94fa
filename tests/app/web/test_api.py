"""The HTTP interface, over a real socket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from app.web.security import SECURITY_HEADERS, Guard, mask

if TYPE_CHECKING:
    from tests.app.web.conftest import SampleWorker

PATHS = ["/", "/features", "/rules", "/health", "/ready", "/metrics", "/asyncapi.json", "/static/dashboard.js"]
PATHS += ["/api/status", "/api/partitions", "/api/decisions", "/api/features", "/api/rules"]


@pytest.mark.parametrize("path", PATHS)
async def test_every_address_answers_with_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    """Nothing is served without them."""
    response = await client.get(path)
    assert response.status_code == 200
    assert SECURITY_HEADERS.items() - {("Cache-Control", "no-store")} <= {
        (name, response.headers.get(name)) for name in SECURITY_HEADERS
    }


@pytest.mark.parametrize("path", ["/nothing", "/static/../api.py", "/static/%2e%2e/api.py", "/docs", "/static/"])
async def test_an_unknown_address_is_a_clear_404(client: httpx.AsyncClient, path: str) -> None:
    """Files outside the pages cannot be reached, and refusals carry the headers too."""
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["got"] == "Not Found"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/ready"])
async def test_nothing_can_be_changed(client: httpx.AsyncClient, path: str) -> None:
    """Everything but the look-up is GET only."""
    assert (await client.post(path, json={})).status_code == 405
    assert (await client.delete(path)).status_code == 405


@pytest.mark.parametrize("phase", ["warming up", "joining", "recovering", "stopping"])
async def test_a_worker_that_is_not_ready_is_alive(client: httpx.AsyncClient, worker: SampleWorker, phase: str) -> None:
    """Health answers in each phase; ready is 503 in all but one."""
    worker.current = msgspec.structs.replace(worker.current, phase=phase)
    health, ready = await client.get("/health"), await client.get("/ready")
    assert (health.status_code, health.json()) == (200, {"status": "alive", "phase": phase})
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "phase": phase, "recovery": None})


async def test_a_ready_worker_is_ready(client: httpx.AsyncClient) -> None:
    """200 says that the worker decides."""
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "phase": "ready", "recovery": None})


async def test_a_recovering_worker_tells_how_far_it_is(client: httpx.AsyncClient, worker: SampleWorker) -> None:
    """Probe and status say it, per table and in all."""
    worker.current = msgspec.structs.replace(worker.current, phase="recovering", recovery=worker.recovery)
    ready, status = await client.get("/ready"), await client.get("/api/status")
    assert ready.status_code == 503
    told = ready.json()["recovery"]
    assert told == status.json()["recovery"] == msgspec.to_builtins(worker.recovery)
    assert (told["rows_read"], told["rows"], told["percent"]) == (250_000, 1_000_000, 25.0)


async def test_metrics_are_those_of_prometheus(client: httpx.AsyncClient) -> None:
    """The registry's metrics, in the text format."""
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert "pixguard_sample_total 1.0" in response.text


async def test_status_and_partitions_are_the_workers(client: httpx.AsyncClient, worker: SampleWorker) -> None:
    """What the worker says goes out as it is."""
    assert (await client.get("/api/status")).json() == msgspec.to_builtins(worker.status())
    assert (await client.get("/api/partitions")).json() == msgspec.to_builtins(worker.partitions())


async def test_decisions_are_the_newest_first_and_as_many_as_asked(
    client: httpx.AsyncClient, worker: SampleWorker
) -> None:
    """`limit` cuts, and the order is the worker's."""
    shown = (await client.get("/api/decisions?limit=7")).json()
    assert shown == json.loads(msgspec.json.encode(worker.decisions[:7]))


async def test_decisions_can_be_filtered_by_action(client: httpx.AsyncClient) -> None:
    """Only decisions with that action are shown."""
    shown = (await client.get("/api/decisions?action=DENY")).json()
    assert {each["decision"]["decision"] for each in shown} == {"DENY"}


async def test_a_missing_or_infinite_feature_value_is_null(client: httpx.AsyncClient, worker: SampleWorker) -> None:
    """JSON has neither NaN nor infinity."""
    values = {"a": float("nan"), "b": None, "c": 1.5, "d": float("inf")}
    worker.decisions = [msgspec.structs.replace(worker.decisions[0], values=values)]
    shown = (await client.get("/api/decisions")).json()
    assert shown[0]["values"] == {"a": None, "b": None, "c": 1.5, "d": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=52998224725x", "action=approve", "action="])
async def test_a_bad_parameter_is_named_and_not_repeated(client: httpx.AsyncClient, query: str) -> None:
    """The answer says which parameter and what is right."""
    response = await client.get(f"/api/decisions?{query}")
    name, _, value = query.partition("=")
    assert response.status_code == 422
    assert response.json()["error"]["path"] == f"query.{name}"
    assert len(value) < 4 or value not in response.text


async def test_rules_are_the_pack_in_force(client: httpx.AsyncClient) -> None:
    """Each rule with its condition as written, its period and the norm behind it."""
    body = (await client.get("/api/rules")).json()
    assert re.fullmatch(r"2026\.11\+[0-9a-f]+", body["version"])
    assert (body["hold_from"], body["deny_from"]) == (0.5, 0.9)
    first = body["rows"][0]
    assert (first["id"], first["when"]) == ("night-limit", "amount_centavos > 100000")
    assert (first["from"], first["until"]) == ("2026-10-01", None)
    assert first["regulation"] == "Res. BCB 142/2021"


async def test_features_are_the_catalogs_rows(client: httpx.AsyncClient) -> None:
    """In the catalog's order."""
    rows = (await client.get("/api/features")).json()["rows"]
    assert [row["name"] for row in rows] == ["payer_amount_centavos_sum_1h", "receiver_payers_24h"]


async def test_a_profile_is_found_and_its_identifier_masked(client: httpx.AsyncClient, worker: SampleWorker) -> None:
    """The worker gets the clear value, the answer only the mask."""
    response = await client.post("/api/profile", json={"kind": "account", "value": worker.account})
    assert response.status_code == 200
    assert worker.looked_up == [("account", worker.account)]
    assert response.json()["value"] == "***7766"
    assert response.json()["profile"]["payer_amount_centavos_sum_1h"] == 125_000
    assert "99887766" not in response.text


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        ("key", "52998224724", "$.value"),
        ("key", "maria silva@example.com", "$.value"),
        ("account", "1234567/0001-99887766", "$.value"),
        ("account", "12345678/", "$.value"),
        ("account", "12345678/" + "9" * 65, "$.value"),
        ("12345678/0001-99887766", "52998224725", "$.kind"),
        ("key", 52998224725, "$"),
        (["52998224725"], "52998224725", "$"),
    ],
)
async def test_a_bad_look_up_is_refused_and_not_repeated(
    client: httpx.AsyncClient, worker: SampleWorker, kind: object, value: object, path: str
) -> None:
    """Path, expected and got, where got is a type or a length; the worker is not asked."""
    response = await client.post("/api/profile", json={"kind": kind, "value": value})
    assert response.status_code == 400
    assert response.json()["error"]["path"] == path
    assert str(value) not in response.text
    assert str(kind) not in response.text or kind in {"key", "account"}
    assert worker.looked_up == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"kind": "key"}', b"[1]", b"null", b'{"kind":"\xff"}'])
async def test_a_body_that_is_no_look_up_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """Whatever the bytes are, the answer is 400."""
    response = await client.post("/api/profile", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["path"] == "$"


async def test_a_large_body_is_refused(client: httpx.AsyncClient) -> None:
    """It is cut off, not collected."""
    response = await client.post("/api/profile", content=b"x" * 10_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 413


async def test_a_form_of_another_site_is_refused(client: httpx.AsyncClient, worker: SampleWorker) -> None:
    """Types that a page may send across sites unasked are not read."""
    content = json.dumps({"kind": "account", "value": worker.account}).encode()
    response = await client.post("/api/profile", content=content, headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert worker.looked_up == []


async def test_an_unknown_profile_is_a_404_with_the_mask(client: httpx.AsyncClient) -> None:
    """Enough to see which look-up failed, too little to learn the identifier."""
    response = await client.post("/api/profile", json={"kind": "key", "value": "maria@example.com"})
    assert response.status_code == 404
    assert response.json()["error"]["got"] == "m***@e***"
    assert "maria" not in response.text


async def test_a_failing_look_up_hides_the_identifier(
    client: httpx.AsyncClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An exception's text may hold it, so neither the answer nor the log has that text."""
    response = await client.post("/api/profile", json={"kind": "account", "value": "00000000/broken"})
    logged = "".join(capfd.readouterr()) + caplog.text
    assert response.status_code == 500
    assert "ValueError" in logged
    assert "broken" not in response.text + logged


async def test_look_ups_leave_no_trace_in_the_log(
    client: httpx.AsyncClient,
    worker: SampleWorker,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even in an access log, whatever the level."""
    caplog.set_level("DEBUG", logger="uvicorn")
    caplog.set_level("WARNING", logger="httpx")  # the client's own log says what it asks for
    await client.post("/api/profile", json={"kind": "account", "value": worker.account})
    await client.get("/api/decisions?limit=1&value=52998224725")
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "99887766" not in logged
    assert "52998224725" not in logged


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "localhost:8080", "[::1]:8080"])
async def test_a_local_view_answers_to_local_names(client: httpx.AsyncClient, host: str) -> None:
    """With and without port."""
    assert (await client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.example", "10.0.0.5:8080", ""])
async def test_a_local_view_answers_to_no_other_name(client: httpx.AsyncClient, host: str) -> None:
    """A site that lets its name point here gets nothing."""
    response = await client.get("/api/decisions", headers={"Host": host})
    assert response.status_code == 421
    assert "end_to_end_id" not in response.text


async def test_a_view_for_the_network_answers_to_any_name(view_for: Callable[[str], Guard]) -> None:
    """Its names are the network's matter."""
    transport = httpx.ASGITransport(view_for("0.0.0.0"))  # noqa: S104 - nothing listens: the transport is in memory
    async with httpx.AsyncClient(transport=transport, base_url="http://pixguard-3.svc") as network:
        assert (await network.get("/health")).status_code == 200


@pytest.mark.parametrize("page", ["/", "/features", "/rules"])
async def test_pages_load_only_what_is_served_here(client: httpx.AsyncClient, page: str) -> None:
    """No other host, no inline script, handler or style, and every file named exists."""
    text = (await client.get(page)).text
    addresses = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert addresses
    for address in addresses:
        assert address.startswith("/")
        assert not address.startswith("//")
        assert (await client.get(address)).status_code == 200
    assert re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text) is None


async def test_scripts_never_read_text_as_html(client: httpx.AsyncClient) -> None:
    """What the network says becomes text nodes."""
    pending, seen = ["dashboard.js", "catalog.js"], set()
    while pending:
        name = pending.pop()
        seen.add(name)
        script = (await client.get(f"/static/{name}")).text
        assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", script) is None
        pending += set(re.findall(r'from "\./([a-z]+\.js)"', script)) - seen
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("value", "masked"),
    [("", "***"), ("1234567", "***"), ("12345678", "***5678"), ("a@b", "a***@b***"), ("@", "***@***")],
)
def test_a_mask_never_shows_most_of_a_value(value: str, masked: str) -> None:
    """Four characters of eight at most."""
    assert mask(value) == masked
