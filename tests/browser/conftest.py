"""The demo's processes, once for all tests here; a real browser; and a line between them that can be cut."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from demo.processes import free_port
from demo.stack import Ports, Stack
from tests.browser.line import Line
from tests.browser.visit import Visit

# Enough to be in the middle of, and slow enough: 0.06 s per document in each of two workers.
DOCUMENTS = 48
PACE = 0.06
FLOWER = 5999

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def line() -> AsyncIterator[Line]:
    """Between the browser and the gateway."""
    line = Line(free_port())
    await line.open()
    yield line
    await line.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_stack(redis_url: str, line: Line) -> AsyncIterator[Stack]:
    environment = {
        "DEMO_LIMIT": str(DOCUMENTS),
        "DEMO_PACE": str(PACE),
        "DEMO_BATCH": "4",
        "DEMO_MAX_FILES": "6",
        "DEMO_MAX_FILE_BYTES": "200000",
        "DEMO_GATEWAY": f"http://127.0.0.1:{line.port}/eventbus",
        # The page asks after twice this time of silence.
        "WEBUI_HEARTBEAT_INTERVAL": "0.5",
        "EVENTBUS_WORKER_LEASE": "5",
        # Processes that a test holds while it cancels are not to be ended meanwhile.
        "EVENTBUS_WORKER_CANCEL_GRACE": "60",
        "WEBUI_LEASE_GRACE": "5",
        # Nobody listens there: a link is looked at, not followed.
        "DEMO_FLOWER_PORT": str(FLOWER),
    }
    ports = Ports(site=free_port(), gateway=free_port(), flower=None)
    line.towards = ports.gateway
    with Stack(ports, redis_url=redis_url, environment=environment) as stack:
        await asyncio.to_thread(stack.start)
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def stack(shared_stack: Stack, line: Line) -> AsyncIterator[Stack]:
    """The stack; whatever a test has done to the gateway, the worker and the line is undone."""
    yield shared_stack
    line.mend()
    if shared_stack.children["gateway"].ended:
        await asyncio.to_thread(shared_stack.start_gateway)
    if shared_stack.children["Celery worker"].ended:
        await asyncio.to_thread(shared_stack.start_worker)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    # The system's browser where there is one; else the one that Playwright brings.
    system = os.environ.get("CHROMIUM") or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=system, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, stack: Stack) -> AsyncIterator[Visit]:
    """A visitor whom the site has not seen before, at the page."""
    context = await browser.new_context()
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(stack.url)
    yield Visit(stack, page)
    await context.close()
    assert not errors, errors
