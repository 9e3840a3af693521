"""The README's code, run as it stands: put into a project of its own, worker and site started, watched with curl."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import jwt
import pytest

from tests.conftest import free_port, wait_until

ROOT = Path(__file__).parents[2]
SECRET = "a secret of at least 32 characters"

# What the README leaves to the reader's project.
BEFORE = {
    "events": "",
    "tasks": "",
    "web": "def current_user() -> str: return 'ann'\n",
}


def modules(redis_url: str) -> dict[str, str]:
    (block,) = [
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "# tasks.py" in b
    ]
    _, *parts = re.split(r"^# (\w+)\.py.*$", block, flags=re.MULTILINE)
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    text = {name: BEFORE[name] + body for name, body in named.items()}
    return {
        name: body.replace("redis://127.0.0.1:6379/1", redis_url.replace("/0", "/1")) for name, body in text.items()
    }


def test_the_readmes_test_passes_as_it_stands(tmp_path):
    (block,) = re.findall(r"```python\n# (test_index\.py)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for name, text in modules("redis://127.0.0.1:1/0").items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / block[0]).write_text(block[1])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", block[0]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EVENTBUS_REDIS_URL": "redis://127.0.0.1:1/0"}
    result = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert " 1 passed" in result.stdout, result.stdout + result.stderr


@pytest.fixture
def project(tmp_path_factory, own_redis):
    tmp_path = tmp_path_factory.mktemp("project")
    for name, text in modules(own_redis.url).items():
        (tmp_path / f"{name}.py").write_text(text)
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "EVENTBUS_REDIS_URL": own_redis.url,
        "WEBUI_JWT_SECRET": SECRET,
    }
    commands = [
        ["celery", "-A", "tasks", "worker", "-c", "2", "--loglevel", "warning"],
        [
            "uvicorn",
            "--port",
            str(port),
            "--ws",
            "webui_adapter.uvicorn:WebSocketProtocol",
            "web:web",
        ],
    ]
    running = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, env=environment) for command in commands
    ]
    yield f"http://127.0.0.1:{port}", tmp_path
    for process in running:
        process.terminate()
    for process in running:
        process.wait(20)


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_readmes_project_tells_a_page_about_its_documents(project):
    address, folder = project
    paths = []
    for name, text in {"one.txt": "a b", "two.txt": "c d e"}.items():
        (folder / name).write_text(text)
        paths.append(str(folder / name))
    wait_until(lambda: ready(address), "the site to be ready", 30)
    started = httpx.post(f"{address}/index", json=paths).raise_for_status().json()

    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, SECRET, "HS256")
    curl = subprocess.Popen(
        ["curl", "-sN", "-H", f"Authorization: Bearer {token}", f"{address}/eventbus/sse?cursor={started['cursor']}"],
        stdout=subprocess.PIPE,
        text=True,
    )
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
    topic = f"user:ann:operation:{started['operation']}"
    about = [event for event in events if event.get("topic") == topic]
    indexed = {
        event["data"]["document"]: event["data"]["words"] for event in about if event["type"] == "document.indexed"
    }
    assert indexed == dict(zip(paths, (2, 3), strict=True))
    assert about[0]["type"] == "operation.queued"
    assert about[-1]["type"] == "operation.succeeded"
    assert about[-1]["data"]["done"] == about[-1]["data"]["total"] == 2
