"""A connected page in Chromium starts quick operations. Their events arrive before the answer to its request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route

from eventbus import Bus, BusSettings
from eventbus.operations.events import OperationRef
from eventbus.operations.state import TaskTransition
from webui_adapter.testing.gateway_process import GatewayProcess
from webui_adapter.testing.token import make_token

pytestmark = pytest.mark.asyncio(loop_scope="session")

USER = "ann"
OPERATIONS = 200
# The page receives all events of an operation in this time.
ANSWER_DELAY = 0.1

PAGE = """<!doctype html><title>Quick operations</title><script type="module">
import { connect } from "/eventbus/client.js";
const { token, options } = await (await fetch("/settings")).json();
const bus = connect({ url: "/eventbus", token: () => token, ...options });
const report = (window.report = { ended: [], begun: [], gaps: 0, errors: [] });
bus.on("gap", () => report.gaps++);
bus.on("error", (error) => report.errors.push(String(error)));
await new Promise((resolve) => bus.on("status", ({ status }) => status === "open" && resolve()));
window.startOne = async () => {
  const id = await (await fetch("/start", { method: "POST" })).text();
  const operation = bus.op(id);
  operation.on("operation.succeeded", () => report.ended.push(id));
  operation.on("operation.started", () => report.begun.push(id));
};
window.connected = true;
</script>"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), redis_url, "late") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def bus(redis_url: str) -> Iterator[Bus]:
    bus = Bus(BusSettings(redis_url=redis_url, key_prefix="late"))
    yield bus
    bus.close()


def run_operation(bus: Bus, operation: str) -> None:
    """Record an operation of one task, from its start to its end."""
    ref = OperationRef(USER, operation)
    bus.record_transition(ref, TaskTransition("plan", planned=1), label="Quick")
    for change in ("published", "started", "done"):
        bus.record_transition(ref, TaskTransition(change, "a", 1), label="Quick")
    assert bus.flush(10)


@pytest.fixture
def options() -> dict[str, object]:
    """Options of `connect`, which a test may add to before it opens the page."""
    return {}


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, gateway: GatewayProcess, bus: Bus, options: dict[str, object]) -> AsyncIterator[Page]:
    """A page of the gateway's origin. The test answers the requests of its site."""
    page = await (await browser.new_context()).new_page()
    numbers = count(1)

    async def answer(route: Route) -> None:
        path = route.request.url.removeprefix(gateway.http).partition("?")[0]
        if path == "/page":
            await route.fulfill(body=PAGE, content_type="text/html")
        elif path == "/settings":
            settings = {"token": make_token(USER, gateway.secret), "options": options}
            await route.fulfill(body=json.dumps(settings), content_type="application/json")
        else:
            operation = f"{id(page)}-{next(numbers)}"
            await asyncio.to_thread(run_operation, bus, operation)
            await asyncio.sleep(ANSWER_DELAY)
            await route.fulfill(body=operation, content_type="text/plain")

    for path in ("page", "settings", "start"):
        await page.route(f"{gateway.http}/{path}", answer)
    yield page
    await page.context.close()


async def start_all(page: Page, gateway: GatewayProcess, operations: int) -> dict[str, list[str]]:
    """Start operations from the connected page, ten at a time. Return what its listeners received."""
    await page.goto(f"{gateway.http}/page")
    await page.wait_for_function("window.connected")
    await page.evaluate(
        """async (operations) => {
            for (let done = 0; done < operations; done += 10) await Promise.all(Array.from({ length: 10 }, startOne));
        }""",
        operations,
    )
    await page.wait_for_function("operations => report.ended.length >= operations", arg=operations, timeout=15_000)
    report: dict[str, list[str]] = await page.evaluate("report")
    return report


async def test_each_quick_operation_is_seen_to_begin_and_to_end(page: Page, gateway: GatewayProcess) -> None:
    report = await start_all(page, gateway, OPERATIONS)
    assert len(set(report["ended"])) == len(report["ended"]) == OPERATIONS
    assert sorted(report["begun"]) == sorted(report["ended"])
    assert report["gaps"] == 0
    assert report["errors"] == []


async def test_a_client_that_keeps_nothing_fetches_each_end(
    page: Page, gateway: GatewayProcess, options: dict[str, object]
) -> None:
    options["lateListeners"] = {"operations": 0}
    report = await start_all(page, gateway, 20)
    assert len(set(report["ended"])) == len(report["ended"]) == 20
    assert report["gaps"] == 20
