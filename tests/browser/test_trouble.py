"""Cancel, a file that kills its worker, a killed worker: the page agrees with the database and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from playwright.async_api import expect

from demo.sources import POISON
from demo.stack import Stack
from tests.browser.conftest import DOCUMENTS, FLOWER
from tests.browser.visit import SECONDS, Visit, installed, until, work_held

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIDDLE = DOCUMENTS // 4


async def is_as_stored(visit: Visit, state: str, *, in_order: bool = True) -> None:
    """Assert that page, list of operations, site, bus and database agree."""
    started = await visit.started()
    await visit.is_in(state)
    await visit.lists(started["operation"], state)
    tasks = visit.page.locator(f'#operations li[data-operation="{started["operation"]}"] .tasks')
    counted = visit.in_bus(started)
    await expect(tasks).to_have_text(f"{counted.done} of {counted.total} tasks")
    assert await visit.in_site() == state
    assert visit.in_bus(started).state == state
    stored = {document.document for document in visit.in_database(started)}
    await expect(visit.page.locator("#documents li")).to_have_count(len(stored))
    await visit.is_whole(stored, in_order=in_order)


@contextmanager
def held_at_work(visit: Visit, started: dict[str, str]) -> Iterator[None]:
    """Stop the worker in the middle of a task. Between two tasks a cancel would end the operation immediately."""
    for _ in range(50):
        with work_held(visit.stack):
            if visit.in_bus(started).tasks:
                yield
                return
    pytest.fail("the worker never worked")


async def test_cancel_says_stopping_then_cancelled_in_every_tab(visit: Visit) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    started = await visit.started()
    with held_at_work(visit, started):  # else the second tab of a slow machine opens after the end
        other = await visit.second_tab()
        await other.sees(MIDDLE)
        await visit.page.click("#cancel")
        for tab in (visit, other):
            await tab.is_in("stopping")
            await expect(tab.page.locator("#cancel")).to_have_text("Stopping …")
            await expect(tab.page.locator("#cancel")).to_be_disabled()
            await tab.lists(started["operation"], "cancelling")
        assert visit.in_bus(started).state == "cancelling"
        await visit.page.reload()
        await visit.is_in("stopping")
    for tab in (visit, other):
        await is_as_stored(tab, "cancelled")
        assert await tab.happened() == ["stopping", "cancelled"]
        await expect(tab.page.locator("#controls")).to_be_hidden()
    done = await visit.documents()
    assert MIDDLE <= len(done) < DOCUMENTS, "finished documents stay, waiting tasks never start"
    await visit.page.reload()
    await is_as_stored(visit, "cancelled")
    assert await visit.documents() == done
    await expect(visit.page.locator("#count")).to_have_text(f"Cancelled after {len(done)} of {DOCUMENTS} documents")
    # All tasks that waited before this one have had their turn when it ends.
    await other.index_files({"after.txt": b"the worker goes on"})
    await other.is_ready()
    assert sorted(document.document for document in visit.in_database(started)) == sorted(done)


async def test_a_file_that_kills_its_worker_is_named_and_the_others_go_on(visit: Visit, stack: Stack) -> None:
    await visit.page.click("#index-poisoned")
    await visit.is_in("failed")
    started = await visit.started()
    others = sorted(installed(DOCUMENTS), key=str.casefold)[:8]

    async def is_shown() -> None:
        failure = visit.page.locator("#failures li")
        await expect(failure).to_have_text(f"{POISON} killed the process that read it", timeout=SECONDS * 1000)
        await expect(visit.page.locator("#documents li")).to_have_count(len(others) + 1)
        await expect(visit.page.locator("#batches")).to_be_hidden()
        await expect(visit.page.locator("#batches li")).to_have_count(0)
        assert "%" not in await visit.page.title()
        await expect(visit.page.locator('#incidents [data-kind="task"]')).to_contain_text(f"{POISON}: WorkerLost")
        assert await visit.happened() == ["task", "failed"]
        await is_as_stored(visit, "failed")

    await is_shown()
    assert await visit.documents_in("indexed") == others
    assert [document.document for document in visit.in_database(started) if document.state == "failed"] == [POISON]
    assert not (stack.directory / "data" / "indexes" / f"{started['operation']}.sqlite").exists()
    await visit.page.reload()
    await is_shown()


async def is_lost(visit: Visit) -> None:
    """Assert that page, site and bus say "lost". The page lacks documents that were stored and never emitted."""
    started = await visit.started()
    await visit.is_in("lost")
    await visit.lists(started["operation"], "lost")
    assert await visit.in_site() == visit.in_bus(started).state == "lost"
    await until(lambda: all(task.lost for task in visit.in_bus(started).tasks), "the leases of both")
    await visit.sees(MIDDLE)
    assert set(await visit.documents()) <= {document.document for document in visit.in_database(started)}


async def test_a_worker_that_is_killed_is_lost_then_resumed_then_all_is_done(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    started = await visit.started()
    await visit.page.click("#kill-worker")
    await visit.is_in("lost")
    assert stack.children["Celery worker"].killed
    done = await visit.documents()
    await is_lost(visit)
    await visit.page.reload()
    await is_lost(visit)
    assert await visit.documents() == done
    await expect(visit.page.locator("#batches li")).to_have_count(0)
    await visit.page.click("#kill-worker")
    await expect(visit.page.locator("#problem")).to_contain_text("no worker is running now")
    await asyncio.to_thread(stack.start_worker)
    await expect(visit.page.locator('#incidents [data-kind="resumed"]')).to_be_visible(timeout=SECONDS * 1000)
    await visit.is_ready()
    await visit.is_whole(installed(DOCUMENTS))
    assert await visit.happened() == ["lost", "resumed"]
    assert (await visit.documents())[: len(done)] == done
    await visit.lists(started["operation"], "succeeded")
    assert visit.in_bus(started).state == "succeeded"


async def test_a_lost_operation_can_be_cancelled(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    await visit.sees(MIDDLE)
    await visit.page.click("#kill-worker")
    started = await visit.started()
    await is_lost(visit)
    await visit.page.click("#cancel")
    await is_as_stored(visit, "cancelled", in_order=False)
    done = await visit.documents()
    await asyncio.to_thread(stack.start_worker)
    await visit.index_files({"after.txt": b"the worker goes on"})
    await visit.is_ready()
    await visit.lists(started["operation"], "cancelled")
    assert visit.in_bus(started).state == "cancelled"
    assert sorted(document.document for document in visit.in_database(started)) == sorted(done)


async def test_a_later_page_shows_the_end_of_each_operation(visit: Visit) -> None:
    await visit.index_files({"one.txt": b"one"})
    await visit.is_ready()
    succeeded = await visit.started()
    await visit.page.click("#choose summary")
    await visit.page.click("#index-poisoned")
    await visit.is_in("failed")
    failed = await visit.started()
    await visit.page.click("#choose summary")
    await visit.index_installed()
    await visit.sees(1)
    await visit.page.click("#cancel")
    await visit.is_in("cancelled")
    cancelled = await visit.started()
    later = Visit(visit.stack, await visit.page.context.new_page())
    await later.page.goto(visit.stack.url)
    for started, state in ((succeeded, "succeeded"), (failed, "failed"), (cancelled, "cancelled")):
        await later.lists(started["operation"], state)
    assert await later.page.locator("#operations li").count() == 3
    await later.page.click(f'#operations li[data-operation="{failed["operation"]}"] a')
    await later.is_in("failed")
    await expect(later.page.locator("#failures li")).to_contain_text(POISON, timeout=SECONDS * 1000)


async def test_running_tasks_have_a_link_to_flower(visit: Visit, stack: Stack) -> None:
    await visit.index_installed()
    links = visit.page.locator("#batches a")
    there, _, task = str(await links.first.get_attribute("href", timeout=SECONDS * 1000)).rpartition("/")
    assert there == f"http://127.0.0.1:{FLOWER}/task"
    await visit.is_ready()
    await expect(links).to_have_count(0)
    with redis.Redis.from_url(stack.broker) as results:
        assert results.exists(f"{stack.prefix}:celery-task-meta-{task}"), "Celery knows no such task"
