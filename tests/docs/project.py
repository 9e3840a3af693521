"""A reader's project: the files of a page's code blocks, and the processes that serve it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import free_port, wait_until
from tests.docs.sources import ROOT

__all__ = ["SECRET", "answers", "environment", "events_until_the_end", "files_of", "processes", "run_pytest", "serve"]

SECRET = "a secret of at least 32 characters"
_BROKER = "redis://127.0.0.1:6379/1"
_COMMENT = re.compile(r"^(?:# |<!-- )([\w./]+\.(?:py|html)).*$\n", re.MULTILINE)


def files_of(page: Path, redis_url: str) -> dict[str, str]:
    """The files that a page's blocks name in their first comment; the broker's address is replaced."""
    files: dict[str, str] = {}
    for block in re.findall(r"^```(?:python|html)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        before, *parts = _COMMENT.split(block)
        assert not before, f"a block that names no file: {before}"
        files |= dict(zip(parts[::2], parts[1::2], strict=True))
    return {name: text.replace(_BROKER, redis_url.replace("/0", "/1")) for name, text in files.items()}


def run_pytest(folder: Path, name: str) -> str:
    """The output of pytest for one file of the project, without a server."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name]
    result = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    return result.stdout + result.stderr


@contextmanager
def serve(folder: Path, redis_url: str) -> Iterator[str]:
    """Start a worker and the site, as the pages say; yields the site's address once it is ready."""
    port = free_port()
    protocols = [
        *("--ws", "webui_adapter.uvicorn:WebSocketProtocol"),
        *("--http", "webui_adapter.uvicorn:HttpProtocol"),
    ]
    commands = [
        ["celery", "-A", "tasks", "worker", "-c", "2", "--loglevel", "warning"],
        ["uvicorn", "--port", str(port), *protocols, "web:web"],
    ]
    address = f"http://127.0.0.1:{port}"
    with processes(folder, environment(folder, redis_url), commands):
        wait_until(lambda: answers(f"{address}/readyz"), "the site to be ready", 60)
        yield address


def environment(folder: Path, redis_url: str) -> dict[str, str]:
    """The variables of a project's processes."""
    return {
        **os.environ,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "EVENTBUS_REDIS_URL": redis_url,
        "WEBUI_JWT_SECRET": SECRET,
    }


@contextmanager
def processes(folder: Path, variables: dict[str, str], commands: list[list[str]]) -> Iterator[None]:
    """Run modules of Python in a project's folder until the block ends."""
    running = [subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=variables) for command in commands]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


def answers(url: str) -> bool:
    """Whether a URL answers 200, perhaps after a redirect."""
    try:
        return httpx.get(url, follow_redirects=True).status_code == 200
    except httpx.TransportError:
        return False


def events_until_the_end(address: str, token: str, started: dict[str, str], user: str) -> list[dict[str, Any]]:
    """The events of an operation, read with curl from its cursor until it has succeeded or failed."""
    stream = f"{address}/eventbus/sse?cursor={started['cursor']}"
    curl = subprocess.Popen(
        ["curl", "-sN", "-H", f"Authorization: Bearer {token}", stream], stdout=subprocess.PIPE, text=True
    )
    assert curl.stdout is not None
    events = []
    try:
        for line in curl.stdout:
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                if events[-1]["type"] in ("operation.succeeded", "operation.failed"):
                    break
    finally:
        curl.kill()
        curl.wait()
    topic = f"user:{user}:operation:{started['operation']}"
    return [event for event in events if event.get("topic") == topic]
