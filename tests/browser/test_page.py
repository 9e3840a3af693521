"""The page in Chromium: under every fault its list has each document once, in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest
from playwright.async_api import BrowserContext, Route, expect

from demo.stack import Stack
from tests.browser.conftest import DOCUMENTS, PACE
from tests.browser.tcp_proxy import TcpProxy
from tests.browser.visit import SECONDS, Visit, children_of, installed, until, work_held

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIDDLE = DOCUMENTS // 4


def assert_stages(figures: list[str], running: list[str]) -> None:
    """Assert the stages of writing the index. The first and the last may be shorter than a frame.

    Two tasks may be at different stages, and the page shows the stage of the last event.
    """
    stages = [text.partition(" documents read, ")[2] for text in figures if " documents read, " in text]
    assert set(stages) <= {"writing the index", "collecting the passages", "writing the passages", "counting the terms"}
    assert "writing the passages" in stages
    assert any(rows.startswith("Index\nwriting the passages") for rows in running), running[-3:]


def assert_rates(texts: list[str]) -> None:
    """Assert a rate in documents, then in passages if it takes long enough, and a total at the end."""
    *rates, end = [text for text in texts if text]
    matches = [re.fullmatch(r"([\d,.]+)( passages)? per second", text) for text in rates]
    assert all(matches), rates
    documents = [float(match[1].replace(",", "")) for match in matches if match and not match[2]]
    # Two workers need at least their pace for each document. The first moment counts one more.
    assert documents, "no rate was shown"
    assert 0 < max(documents) < 3 / PACE
    assert re.fullmatch(r"[\d,]+ words", end)


async def test_indexes_the_text_on_this_machine_and_finds_a_term(visit: Visit) -> None:
    await visit.record_texts("count", "rate", "batches")
    await visit.index_installed()
    await visit.is_ready()
    assert_stages(await visit.recorded("count"), await visit.recorded("batches"))
    assert_rates(await visit.recorded("rate"))
    await visit.is_whole(installed(DOCUMENTS))
    await expect(visit.page.locator("#percent")).to_have_text("100 %")
    await expect(visit.page.locator("#progress")).to_have_js_property("value", 1)
    await expect(visit.page.locator("#count")).to_contain_text(f"{DOCUMENTS} documents indexed")
    await visit.page.fill("#search", "celery mess")
    found = visit.page.locator("#results mark", has_text="celery")
    await expect(found.first).to_be_visible()
    await visit.page.fill("#search", "nosuchwordanywhere")
    await expect(visit.page.locator("#found")).to_have_text("Nothing found.")


async def test_reload_in_the_middle_shows_the_same_list_immediately(visit: Visit) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    with work_held(visit.stack):
        before = await visit.documents()
        await visit.page.reload()
        # The gateway sends all of it in one burst, so the first frame with a document has all of them.
        await visit.sees(1)
        after = await visit.documents()
        assert after[: len(before)] == before
        assert len(after) < DOCUMENTS, "the reload came after the end"
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_reload_after_the_end_shows_the_end(visit: Visit) -> None:
    await visit.index_files({"a.txt": b"apple", "b.txt": b"pear"})
    await visit.is_ready()
    await visit.page.reload()
    await visit.is_ready()
    await visit.is_whole({"a.txt", "b.txt"})


async def test_a_second_tab_shows_the_same(visit: Visit) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    async with visit.page.context.expect_page() as opened:
        await visit.page.click("#second-tab")
    other = Visit(visit.stack, await opened.value)
    await other.sees(MIDDLE)
    for tab in (visit, other):
        await tab.is_ready()
        await tab.is_whole(installed(DOCUMENTS))
    assert await other.documents() == await visit.documents()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
async def test_gateway_stopped_and_started_again(visit: Visit, stack: Stack, by: signal.Signals) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    started = await visit.started()
    with work_held(stack):
        await asyncio.to_thread(stack.stop_gateway, by)
        await visit.is_unreachable()
        seen = len(await visit.documents())
    await until(lambda: len(visit.in_database(started)) > seen + 4, "the work to go on")
    assert len(await visit.documents()) == seen
    await asyncio.to_thread(stack.start_gateway)
    await visit.is_live()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_reload_while_the_gateway_is_unreachable(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    with work_held(stack):
        await asyncio.to_thread(stack.stop_gateway, signal.SIGKILL)
        before = await visit.documents()
        await visit.page.reload()
        await visit.sees(len(before))
        assert set(before) <= set(await visit.documents())
        await visit.is_unreachable()
    await asyncio.to_thread(stack.start_gateway)
    await visit.is_live()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_a_worker_process_killed_in_the_middle(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    os.kill(children_of(stack.children["Celery worker"].pid)[0], signal.SIGKILL)
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_wifi_off_and_on(visit: Visit, stack: Stack, proxy: TcpProxy) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    started = await visit.started()
    context: BrowserContext = visit.page.context
    with work_held(stack):
        proxy.cut()
        await context.set_offline(True)
        await expect(visit.page.locator("#status-text")).to_have_text("Offline")
        seen = len(await visit.documents())
    await until(lambda: len(visit.in_database(started)) > seen + 4, "the work to go on")
    proxy.restore()
    await context.set_offline(False)
    await visit.is_live()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_a_connection_that_falls_silent(visit: Visit, proxy: TcpProxy) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    proxy.cut()
    await visit.is_unreachable()
    seen = len(await visit.documents())
    proxy.restore()
    await visit.is_live()
    await visit.is_ready()
    assert seen < DOCUMENTS
    await visit.is_whole(installed(DOCUMENTS))


async def test_server_sent_events_where_websockets_do_not_get_through(visit: Visit, proxy: TcpProxy) -> None:
    proxy.websockets = False
    await visit.page.reload()
    await expect(visit.page.locator("#status-text")).to_have_text("Live, by server-sent events", timeout=SECONDS * 1000)
    assert proxy.refused
    await visit.index_installed()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_a_binary_file_fails_visibly_and_the_rest_goes_on(visit: Visit) -> None:
    files = {"one.txt": b"the first text", "picture.png": b"\x89PNG\r\n\x1a\n\x00\x00", "two.md": b"# zebrafish"}
    await visit.index_files(files)
    await visit.is_ready()
    await visit.is_whole(set(files))
    await expect(visit.page.locator("#failures")).to_be_visible()
    await expect(visit.page.locator("#failures li")).to_have_count(1)
    await expect(visit.page.locator("#failures li")).to_contain_text("picture.png is not text")
    await expect(visit.page.locator('#documents li[data-state="failed"]')).to_have_attribute(
        "data-document", "picture.png"
    )
    await visit.page.fill("#search", "zebra")
    await expect(visit.page.locator("#results li mark")).to_have_text("zebrafish")


async def test_a_gap_is_filled_from_the_site(visit: Visit) -> None:
    await visit.index_installed()
    await visit.is_ready()
    started = await visit.started()
    # As after a Redis that has lost its data: the cursor is of another epoch of the channel.
    lost = f"user:{started['user']}=dead.5"
    await visit.page.evaluate(
        "cursor => localStorage.setItem('semantik.operation', "
        "JSON.stringify({...JSON.parse(localStorage.getItem('semantik.operation')), cursor}))",
        lost,
    )
    await visit.page.reload()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS), in_order=False)


async def test_too_many_files_are_refused_with_the_limit(visit: Visit) -> None:
    await visit.page.set_input_files(
        "#file-input", [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(7)]
    )
    await expect(visit.page.locator("#problem")).to_have_text("Cannot index 7 files: the limit is 6.")
    await expect(visit.page.locator("#index-files")).to_be_disabled()


async def test_files_chosen_before_the_login_meet_the_limit_too(visit: Visit) -> None:
    go_on = asyncio.Event()

    async def hold(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    await visit.page.route("**/login", hold)
    await visit.page.reload()
    await visit.page.set_input_files(
        "#file-input", [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(7)]
    )
    await expect(visit.page.locator("#chosen")).to_have_text("7 files")
    go_on.set()
    await expect(visit.page.locator("#problem")).to_have_text("Cannot index 7 files: the limit is 6.")


async def test_everything_by_keyboard(visit: Visit) -> None:
    page = visit.page
    await visit.is_live()
    reached = set()
    for _ in range(12):
        await page.keyboard.press("Tab")
        focused = await page.evaluate("document.activeElement.id || document.activeElement.className")
        reached.add(focused)
        if focused == "index-installed":
            await page.keyboard.press("Enter")
            break
    assert {"skip", "file-input", "index-installed"} <= reached
    await visit.is_ready()
    await page.focus("#search")
    await page.keyboard.type("python")
    await expect(page.locator("#results li").first).to_be_visible()
