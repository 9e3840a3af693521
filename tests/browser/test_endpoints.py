"""The site behind the page: its limits, and the owner of each operation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from demo.stack import Stack
from tests.browser.visit import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def visitor(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=10) as client:
        (await client.post("/login")).raise_for_status()
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with visitor(stack) as client:
        yield client


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.txt", content)) for number, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("sent", "status", "limit"),
    [
        (files(*[b"x"] * 7), 400, "at most 6 files"),
        (files(b"x" * 200_001), 413, "200,000"),
        (files(b"x" * 60_000_000), 413, "52,428,800"),
        ([("other", ("a.txt", b"x"))], 422, "no file was chosen"),
    ],
    ids=["number", "one file", "all files", "none"],
)
async def test_an_upload_over_a_limit_is_refused_with_its_name(
    client: httpx.AsyncClient, sent: list[tuple[str, tuple[str, bytes]]], status: int, limit: str
) -> None:
    answer = await client.post("/index", files=sent)
    assert answer.status_code == status
    assert limit in answer.json()["detail"]


async def test_a_name_is_shown_but_never_a_path(client: httpx.AsyncClient, stack: Stack) -> None:
    started = (await client.post("/index", files=[("files", ("../../etc/x\x1b.txt", b"x"))] * 2)).json()
    await until((stack.directory / "data" / "indexes" / f"{started['operation']}.sqlite").exists, "the index")
    state = (await client.get(f"/operations/{started['operation']}")).json()
    assert sorted(document["document"] for document in state["documents"]) == ["etc/x.txt", "etc/x.txt (2)"]
    kept = {path.name for path in (stack.directory / "data" / "uploads" / started["operation"]).iterdir()}
    assert kept == {"0", "1"}


async def test_an_operation_is_its_owners_only(client: httpx.AsyncClient, stack: Stack) -> None:
    started = (await client.post("/index", files=files(b"secret text"))).json()
    async with visitor(stack) as other:
        assert (await other.get(f"/operations/{started['operation']}")).status_code == 404
        assert (
            await other.get("/search", params={"operation": started["operation"], "q": "secret"})
        ).status_code == 404
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as anonymous:
        assert (await anonymous.get(f"/operations/{started['operation']}")).status_code == 401
        assert (await anonymous.post("/index", params={"source": "installed"})).status_code == 401
    index = stack.directory / "data" / "indexes" / f"{started['operation']}.sqlite"
    await until(index.exists, "the index")


@pytest.mark.parametrize("path", ["/worker/kill", "/index?source=poisoned"])
async def test_only_a_page_on_this_machine_kills_something(client: httpx.AsyncClient, stack: Stack, path: str) -> None:
    # Another site whose name resolves to this machine.
    elsewhere = {"Host": f"evil.example:{stack.ports.site}"}
    assert (await client.post(path, headers=elsewhere)).status_code == 403
    assert not (await client.post("/login", headers=elsewhere)).json()["trouble"]
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as anonymous:
        assert (await anonymous.post(path)).status_code == 401
    assert not stack.children["Celery worker"].ended


@pytest.mark.parametrize(
    "query", ['"', "a AND (", "text:x*", "NEAR(", "* ^ -", "'; DROP TABLE passages", "\x00", "ü" * 200]
)
async def test_no_query_breaks_the_search(client: httpx.AsyncClient, stack: Stack, query: str) -> None:
    started = (await client.post("/index", files=files(b"a text"))).json()
    index = stack.directory / "data" / "indexes" / f"{started['operation']}.sqlite"
    await until(index.exists, "the index")
    answer = await client.get("/search", params={"operation": started["operation"], "q": query})
    assert answer.status_code == 200
    assert set(answer.json()) == {"total", "hits"}
