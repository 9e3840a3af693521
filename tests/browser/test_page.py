"""The page in Chromium: whatever happens on the way, its list is the documents, each once, in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest
from playwright.async_api import BrowserContext, Route, expect

from demo.stack import Stack
from tests.browser.conftest import DOCUMENTS, PACE
from tests.browser.line import Line
from tests.browser.visit import SECONDS, Visit, children_of, installed, until, work_held

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIDDLE = DOCUMENTS // 4


def said_what_it_did(figures: list[str], running: list[str]) -> None:
    """The stages of writing the index, in order. The first and the last may be shorter than a frame."""
    stages = [text.partition(" documents read, ")[2] for text in figures if " documents read, " in text]
    known = ["writing the index", "collecting the passages", "writing the passages", "counting the terms"]
    assert stages == [stage for stage in known if stage in stages]
    assert "writing the passages" in stages
    assert any(rows.startswith("Index\nwriting the passages") for rows in running), running[-3:]


def said_how_fast_it_was(words: list[str]) -> None:
    """In documents, then in passages if it takes long enough; in the end how much it was."""
    *rates, end = [text for text in words if text]
    matches = [re.fullmatch(r"([\d,.]+)( passages)? per second", text) for text in rates]
    assert all(matches), rates
    documents = [float(match[1].replace(",", "")) for match in matches if match and not match[2]]
    # Two workers take at least their pace for each; the first moment counts one more.
    assert documents, "no rate was shown"
    assert 0 < max(documents) < 3 / PACE
    assert re.fullmatch(r"[\d,]+ words", end)


async def test_indexes_the_text_on_this_machine_and_finds_a_word(visit: Visit) -> None:
    await visit.keep_words("count", "rate", "batches")
    await visit.index_installed()
    await visit.is_ready()
    said_what_it_did(await visit.stood("count"), await visit.stood("batches"))
    said_how_fast_it_was(await visit.stood("rate"))
    await visit.is_whole(installed(DOCUMENTS))
    await expect(visit.page.locator("#percent")).to_have_text("100 %")
    await expect(visit.page.locator("#progress")).to_have_js_property("value", 1)
    await expect(visit.page.locator("#count")).to_contain_text(f"{DOCUMENTS} documents indexed")
    await visit.page.fill("#search", "celery mess")
    found = visit.page.locator("#results mark", has_text="celery")
    await expect(found.first).to_be_visible()
    await visit.page.fill("#search", "nosuchwordanywhere")
    await expect(visit.page.locator("#found")).to_have_text("Nothing found.")


async def test_reload_in_the_middle_is_where_it_was_at_once(visit: Visit) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    with work_held(visit.stack):
        before = await visit.documents()
        await visit.page.reload()
        # All of it comes in one burst, so the first frame that shows a document shows them all.
        await visit.sees(1)
        after = await visit.documents()
        assert after[: len(before)] == before
        assert len(after) < DOCUMENTS, "the reload was to be in the middle"
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
        await visit.is_away()
        seen = len(await visit.documents())
    await until(lambda: len(visit.in_database(started)) > seen + 4, "the work to go on")
    assert len(await visit.documents()) == seen
    await asyncio.to_thread(stack.start_gateway)
    await visit.is_live()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_reload_while_the_gateway_is_away(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    with work_held(stack):
        await asyncio.to_thread(stack.stop_gateway, signal.SIGKILL)
        before = await visit.documents()
        await visit.page.reload()
        await visit.sees(len(before))
        assert set(before) <= set(await visit.documents())
        await visit.is_away()
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


async def test_wifi_off_and_on(visit: Visit, stack: Stack, line: Line) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    started = await visit.started()
    context: BrowserContext = visit.page.context
    with work_held(stack):
        line.cut()
        await context.set_offline(True)
        await expect(visit.page.locator("#status-text")).to_have_text("Offline")
        seen = len(await visit.documents())
    await until(lambda: len(visit.in_database(started)) > seen + 4, "the work to go on")
    line.mend()
    await context.set_offline(False)
    await visit.is_live()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))


async def test_line_that_falls_silent_without_a_word(visit: Visit, line: Line) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    line.cut()
    await visit.is_away()
    seen = len(await visit.documents())
    line.mend()
    await visit.is_live()
    await visit.is_ready()
    assert seen < DOCUMENTS
    await visit.is_whole(installed(DOCUMENTS))


async def test_server_sent_events_where_websockets_do_not_get_through(visit: Visit, line: Line) -> None:
    line.websockets = False
    await visit.page.reload()
    await expect(visit.page.locator("#status-text")).to_have_text("Live, by server-sent events", timeout=SECONDS * 1000)
    assert line.refused
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
    # As after a Redis that has lost its data: the cursor is of another life of the channel.
    away = f"user:{started['user']}=dead.5"
    await visit.page.evaluate(
        "cursor => localStorage.setItem('semantik.operation', "
        "JSON.stringify({...JSON.parse(localStorage.getItem('semantik.operation')), cursor}))",
        away,
    )
    await visit.page.reload()
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS), in_order=False)


async def test_too_many_files_are_refused_by_name_of_the_limit(visit: Visit) -> None:
    await visit.page.set_input_files(
        "#file-input", [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(7)]
    )
    await expect(visit.page.locator("#problem")).to_have_text("Cannot index 7 files: the limit is 6.")
    await expect(visit.page.locator("#index-files")).to_be_disabled()


async def test_who_is_quicker_than_the_login_hears_of_the_limit_too(visit: Visit) -> None:
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
