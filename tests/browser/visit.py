"""One visitor's page, and the database, bus and channel that it must agree with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from playwright.async_api import Page, expect

from demo.sources import installed_text
from demo.stack import Stack
from demo.store import Document, Store
from eventbus import BusSettings
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.reader import RedisReader
from eventbus.operations.store import OperationInfo
from eventbus.protocol.topics import operation_topic, user_channel

SECONDS = 20


async def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait for something that the browser cannot show."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s for: {what}")
        await asyncio.sleep(0.02)


def children_of(process: int) -> list[int]:
    """Return the living processes that a process has started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process]


@contextmanager
def work_held(stack: Stack) -> Iterator[None]:
    """Stop the processes that run tasks, so that a test can act in the middle of an operation.

    The main process goes on: it renews the leases. Without it a slow machine would report the worker as lost.
    """
    pool = children_of(stack.children["Celery worker"].pid)
    for process in pool:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in pool:
            os.kill(process, signal.SIGCONT)


@dataclass
class Visit:
    stack: Stack
    page: Page

    async def index_installed(self) -> None:
        await self.page.click("#index-installed")

    async def index_files(self, files: dict[str, bytes]) -> None:
        if not await self.page.locator("#index-files").is_visible():
            await self.page.click("#choose summary")
        await self.page.set_input_files(
            "#file-input",
            [{"name": name, "mimeType": "text/plain", "buffer": content} for name, content in files.items()],
        )
        await self.page.click("#index-files")

    async def record_texts(self, *places: str) -> None:
        """Record every text that these elements show from now on, however briefly. See ``recorded``."""
        await self.page.evaluate(
            """places => {
                window.recorded = Object.fromEntries(places.map(place => [place, []]));
                for (const place of places) {
                    const where = document.getElementById(place);
                    new MutationObserver(() => window.recorded[place].push(where.innerText)).observe(
                        where, { childList: true, characterData: true, subtree: true }
                    );
                }
            }""",
            places,
        )

    async def recorded(self, place: str) -> list[str]:
        """Return the texts that an element has shown since ``record_texts``, in order."""
        found: list[str] = await self.page.evaluate("place => window.recorded[place]", place)
        return found

    async def sees(self, documents: int) -> None:
        """Wait until the list has at least this many documents."""
        await self.page.locator("#documents li").nth(documents - 1).wait_for(state="attached", timeout=SECONDS * 1000)

    async def is_ready(self) -> None:
        await expect(self.page.locator("#search")).to_be_enabled(timeout=SECONDS * 1000)

    async def is_in(self, state: str) -> None:
        """Wait until the operation on the page is in this state."""
        await expect(self.page.locator("#operation")).to_have_attribute("data-state", state, timeout=SECONDS * 1000)

    async def lists(self, operation: str, state: str) -> None:
        """Wait until the list of operations shows this one in this state."""
        item = self.page.locator(f'#operations li[data-operation="{operation}"]')
        await expect(item).to_have_attribute("data-state", state, timeout=SECONDS * 1000)

    async def happened(self) -> list[str]:
        """Return the incidents that the page shows, in order."""
        found: list[str] = await self.page.eval_on_selector_all(
            "#incidents li", "elements => elements.map(element => element.dataset.kind)"
        )
        return found

    async def second_tab(self) -> Visit:
        async with self.page.context.expect_page() as opened:
            await self.page.click("#second-tab")
        return Visit(self.stack, await opened.value)

    async def is_live(self) -> None:
        await expect(self.page.locator("#status")).to_have_attribute("data-status", "open", timeout=SECONDS * 1000)

    async def is_unreachable(self) -> None:
        await expect(self.page.locator("#status")).to_have_attribute(
            "data-status", "unreachable", timeout=SECONDS * 1000
        )
        await expect(self.page.locator("#connection-notice")).to_be_visible()

    async def started(self) -> dict[str, str]:
        """Return the operation that the page has stored."""
        await self.page.locator("#operation").wait_for()
        kept: dict[str, str] = json.loads(await self.page.evaluate("localStorage.getItem('semantik.operation')"))
        return kept

    async def documents(self) -> list[str]:
        """Return the documents on the page, as listed."""
        return await self._listed("element.dataset.document")

    async def documents_in(self, state: str) -> list[str]:
        """Return the documents in a state, by name."""
        found = self.page.locator(f'#documents li[data-state="{state}"]')
        names = [str(await item.get_attribute("data-document")) for item in await found.all()]
        return sorted(names, key=str.casefold)

    async def is_whole(self, documents: set[str], *, in_order: bool = True) -> None:
        """Assert that the list has each document once, in the order of the channel, without a repetition."""
        listed = await self.documents()
        assert sorted(listed) == sorted(documents)
        assert await self.page.get_attribute("#documents", "data-repeats") == "0"
        assert sorted(listed) == sorted(document.document for document in self.in_database(await self.started()))
        if in_order:
            assert listed == await self.in_channel()
            offsets = [int(offset) for offset in await self._listed("element.dataset.offset")]
            assert offsets == sorted(set(offsets))

    def in_bus(self, started: dict[str, str]) -> OperationInfo:
        settings = BusSettings(redis_url=self.stack.redis_url, key_prefix=self.stack.prefix)
        with Operations(settings) as operations:
            found = operations.get(started["user"], started["operation"])
        assert found is not None
        return found

    async def in_site(self) -> str:
        """Return the state that the site answers."""
        path = f"/operations/{(await self.started())['operation']}"
        answer = await self.page.request.get(f"{self.stack.url.rstrip('/')}{path}")
        return str((await answer.json())["state"])

    def in_database(self, started: dict[str, str]) -> list[Document]:
        return Store(self.stack.directory / "data" / "site.sqlite").documents(started["operation"])

    async def in_channel(self) -> list[str]:
        """Return the documents in the order of the log of the visitor's channel."""
        started = await self.started()
        settings = BusSettings(redis_url=self.stack.redis_url, key_prefix=self.stack.prefix)
        reader = RedisReader(settings)
        try:
            history = await reader.read(user_channel(started["user"]), 0)
        finally:
            await reader.aclose()
        topic = operation_topic(started["user"], started["operation"])
        events = [json.loads(entry.record.event) for entry in history.log]
        return [
            event["data"]["document"]
            for event in events
            if event["topic"] == topic and event["type"] in ("document.indexed", "document.failed")
        ]

    async def _listed(self, what: str) -> list[str]:
        found: list[str] = await self.page.eval_on_selector_all(
            "#documents li", f"elements => elements.map(element => {what})"
        )
        return found


def installed(limit: int) -> set[str]:
    return {source.name for source in installed_text(limit)}
