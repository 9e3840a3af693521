"""The demo's processes, shared by all tests here, a real browser, and a TCP proxy between them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from demo.processes import free_port
from demo.stack import Ports, Stack
from tests.browser.tcp_proxy import TcpProxy
from tests.browser.visit import Visit

# Slow enough to act in the middle: each of two workers takes 0.06 s per document.
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
async def proxy() -> AsyncIterator[TcpProxy]:
    """The proxy between the browser and the gateway."""
    proxy = TcpProxy(free_port())
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_stack(redis_url: str, proxy: TcpProxy) -> AsyncIterator[Stack]:
    environment = {
        "DEMO_LIMIT": str(DOCUMENTS),
        "DEMO_PACE": str(PACE),
        "DEMO_BATCH": "4",
        "DEMO_MAX_FILES": "6",
        "DEMO_MAX_FILE_BYTES": "200000",
        "DEMO_GATEWAY": f"http://127.0.0.1:{proxy.port}/eventbus",
        # The page sends a ping after twice this time of silence.
        "WEBUI_HEARTBEAT_INTERVAL": "0.5",
        "EVENTBUS_WORKER_LEASE": "5",
        # The worker must not kill the processes that a test has stopped while it cancels.
        "EVENTBUS_WORKER_CANCEL_GRACE": "60",
        "WEBUI_LEASE_GRACE": "5",
        # No Flower listens there: the tests read the links and do not follow them.
        "DEMO_FLOWER_PORT": str(FLOWER),
    }
    ports = Ports(site=free_port(), gateway=free_port(), flower=None)
    proxy.towards = ports.gateway
    with Stack(ports, redis_url=redis_url, environment=environment) as stack:
        await asyncio.to_thread(stack.start)
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def stack(shared_stack: Stack, proxy: TcpProxy) -> AsyncIterator[Stack]:
    """The stack. Afterwards the gateway, the worker and the proxy run again."""
    yield shared_stack
    proxy.restore()
    if shared_stack.children["gateway"].ended:
        await asyncio.to_thread(shared_stack.start_gateway)
    if shared_stack.children["Celery worker"].ended:
        await asyncio.to_thread(shared_stack.start_worker)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    # Take the system's browser, or the one that Playwright brings.
    system = os.environ.get("CHROMIUM") or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=system, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, stack: Stack) -> AsyncIterator[Visit]:
    """A new visitor with the page open."""
    context = await browser.new_context()
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(stack.url)
    yield Visit(stack, page)
    await context.close()
    assert not errors, errors
