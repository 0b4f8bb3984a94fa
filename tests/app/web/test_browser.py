"""The pages in a real browser: Chromium with Playwright, where both are installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
import pytest
import pytest_asyncio

from app.domain.decision import Reason
from app.web.service import WebService

if TYPE_CHECKING:
    from playwright.async_api import Page

    from tests.app.web.conftest import SampleWorker

playwright = pytest.importorskip("playwright.async_api", reason="needs the package playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium, installed as `chromium`"),
]


@pytest_asyncio.fixture
async def page(service: WebService) -> AsyncIterator[Page]:
    """A fresh browser on the live page; at the end, nothing may have been asked of another server, nor have failed."""
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = await browser.new_page(viewport={"width": 1440, "height": 900})
        foreign: list[str] = []
        failures: list[str] = []
        opened.on("request", lambda request: foreign.append(request.url) if service.url not in request.url else None)
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.on("console", lambda line: failures.append(line.text) if "Content Security" in line.text else None)
        await opened.goto(service.url)
        await opened.wait_for_selector("#decision-rows tr")
        yield opened
        await browser.close()
    assert foreign == []
    assert failures == []


async def test_the_newest_decision_is_in_the_first_row(page: Page, worker: SampleWorker) -> None:
    """Amount as Brazilians write it, the decision as a word, reasons in words."""
    reason = Reason("NIGHT_LIMIT_EXCEEDED", 0.6, "night-limit")
    newest = worker.decisions[0]
    decision = msgspec.structs.replace(
        newest.decision,
        decision="HOLD",
        score=0.6,
        reasons=(reason,),
        source=msgspec.structs.replace(newest.decision.source, offset=9_999),
    )
    worker.decisions.insert(0, msgspec.structs.replace(newest, decision=decision, amount_centavos=123_456_789))
    row = page.locator("#decision-rows tr").first
    await playwright.expect(row).to_contain_text("R$ 1.234.567,89")
    await playwright.expect(row).to_contain_text("Hold")
    await playwright.expect(row).to_contain_text("0.600")
    await playwright.expect(row).to_contain_text("Night limit exceeded")
    assert await page.locator("#decision-rows tr").count() == 40


async def test_hostile_text_is_shown_and_not_run(page: Page, worker: SampleWorker) -> None:
    """Whatever comes from outside stays text: in the rows, the panel, the profile and the catalog pages."""
    worker.current = msgspec.structs.replace(worker.current, name=worker.hostile)
    worker.decisions = [
        msgspec.structs.replace(view, initiation=worker.hostile, values={worker.hostile: 1.0})
        for view in worker.decisions
    ]
    await page.reload()
    await page.click("#decision-rows tr:nth-child(4)")
    await playwright.expect(page.locator("#detail .values")).to_contain_text(worker.hostile)
    await playwright.expect(page.locator("#worker-name")).to_have_text(worker.hostile)
    await page.fill("#profile-value", worker.account)
    await page.press("#profile-value", "Enter")
    await playwright.expect(page.locator("#profile-result")).to_contain_text(worker.hostile)
    assert await page.locator("main img, main script").count() == 0
    base = page.url
    for path in ("rules", "features"):
        await page.goto(base + path)
        await playwright.expect(page.locator("#catalog-rows")).to_contain_text(worker.hostile)
        assert await page.locator("main img, main script").count() == 0
    assert "hacked" not in (await page.title()).split("<")[0]


async def test_the_panel_opens_and_closes_by_keyboard(page: Page) -> None:
    """Enter opens it and moves the focus in; Escape closes it and brings the focus back, polls notwithstanding."""
    opener = page.locator("#decision-rows tr:nth-child(4) .opener")
    await opener.focus()
    await page.keyboard.press("Enter")
    panel = page.locator("#detail")
    await playwright.expect(panel).to_be_focused()
    await playwright.expect(panel).to_contain_text("The night limit of the account is exceeded.")
    await playwright.expect(panel).to_contain_text("partition 1, offset 1,057")
    await playwright.expect(opener).to_have_attribute("aria-expanded", "true")
    await page.wait_for_timeout(1_300)
    await playwright.expect(panel).to_be_focused()
    await page.keyboard.press("Escape")
    await playwright.expect(panel).to_be_hidden()
    await playwright.expect(opener).to_be_focused()


async def test_the_filter_keeps_one_action(page: Page) -> None:
    """All rows that are shown have it."""
    await page.check("#filter input[value=DENY]")
    badges = page.locator("#decision-rows .badge")
    await playwright.expect(page.locator("#decision-rows .badge.approve")).to_have_count(0)
    assert set(await badges.all_inner_texts()) == {"Deny"}


async def test_pause_keeps_the_rows(page: Page, worker: SampleWorker) -> None:
    """New decisions wait until the reader resumes."""
    await page.click("#pause")
    first = await page.locator("#decision-rows tr").first.inner_text()
    worker.decisions = worker.decisions[10:]
    await page.wait_for_timeout(1_500)
    assert await page.locator("#decision-rows tr").first.inner_text() == first
    await page.click("#pause")
    await playwright.expect(page.locator("#decision-rows tr").first).not_to_have_text(first)


async def test_a_look_up_leaves_no_identifier_on_the_page(page: Page, worker: SampleWorker) -> None:
    """The field is emptied, the result names the mask, and a refusal says what is right."""
    await page.fill("#profile-value", worker.account)
    await page.click("#profile-form button")
    await playwright.expect(page.locator("#profile-result h3")).to_have_text("Account ***7766")
    assert await page.input_value("#profile-value") == ""
    assert "99887766" not in await page.inner_text("main")
    # A refusal says path, expected and got.
    await page.select_option("#profile-kind", "key")
    await page.fill("#profile-value", "52998224724")
    await page.click("#profile-form button")
    await playwright.expect(page.locator("#profile-result")).to_contain_text("check digits")


async def test_an_unreachable_worker_is_seen_and_so_is_its_return(page: Page, service: WebService) -> None:
    """The page says so within a few polls, and mends itself."""
    port = int(service.url.rpartition(":")[2])
    await service.stop()
    await playwright.expect(page.locator("#outage")).to_contain_text("has not answered since")
    await playwright.expect(page.locator("#phase")).to_have_text("unreachable")
    again = WebService(service._app, "127.0.0.1", port)
    await again.start()
    try:
        await playwright.expect(page.locator("#phase")).to_have_text("ready")
        await playwright.expect(page.locator("#outage")).to_be_hidden()
    finally:
        await again.stop()


async def test_a_recovery_is_shown_while_it_lasts(page: Page, worker: SampleWorker) -> None:
    """A bar per table stands as far as the table is; afterwards it is gone."""
    recovery = page.locator("#recovery")
    await playwright.expect(recovery).to_be_hidden()
    worker.current = msgspec.structs.replace(worker.current, phase="recovering", recovery=worker.recovery)
    await playwright.expect(page.locator("#phase")).to_have_text("recovering")
    await playwright.expect(page.locator("#recovery-note")).to_have_text(
        "25 %: 250,000 of 1,000,000 rows, 125,000 rows/s"
    )
    bars = page.locator("#recovery-tables progress")
    assert await bars.evaluate_all("bars => bars.map((bar) => bar.position)") == [0.25, 0.25]
    await page.set_viewport_size({"width": 360, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    worker.current = msgspec.structs.replace(worker.current, phase="ready", recovery=None)
    await playwright.expect(recovery).to_be_hidden()


async def test_standbys_are_told_from_actives(page: Page) -> None:
    """A partition that the worker only follows is not taken for one that it decides on."""
    rows = page.locator("#partition-rows tr")
    await playwright.expect(rows.nth(0)).to_contain_text("active")
    await playwright.expect(rows.nth(1)).to_contain_text("standby")


async def test_no_width_needs_sideways_scrolling(page: Page) -> None:
    """From a phone to a wide screen, with the panel closed and open."""
    for width in (360, 768, 1024, 1920):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.locator("#decision-rows .opener").first.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.keyboard.press("Escape")
