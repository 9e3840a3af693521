"""Runs docs/tutorial/index.md: its files in a project, a worker, the site, and curl as the page."""

from __future__ import annotations

import httpx
import pytest

from tests.docs.project import events_until_the_end, files_of, run_pytest, serve
from tests.docs.sources import ROOT

PAGE = ROOT / "docs" / "tutorial" / "index.md"


@pytest.fixture
def project(tmp_path, request):
    redis_url = "redis://127.0.0.1:1/0"
    if "own_redis" in request.fixturenames:
        redis_url = request.getfixturevalue("own_redis").url
    for name, text in files_of(PAGE, redis_url).items():
        (tmp_path / name).write_text(text.replace("time.sleep(1)", "time.sleep(0.1)"))
    return tmp_path


def test_the_tutorials_test_passes(project):
    output = run_pytest(project, "test_tasks.py")
    assert " 1 passed" in output, output


def test_the_tutorials_project_reports_to_its_page(project, own_redis):
    (project / "texts").mkdir()
    for number in (1, 2, 3):
        (project / "texts" / f"text-{number}.txt").write_text("line\n" * number * 100)
    with serve(project, own_redis.url) as address:
        assert "/eventbus/client.js" in httpx.get(address).text
        token = httpx.get(f"{address}/token").text
        started = httpx.post(f"{address}/count").raise_for_status().json()
        about = events_until_the_end(address, token, started, "ann")
    counted = {event["data"]["file"]: event["data"]["lines"] for event in about if event["type"] == "file.counted"}
    assert counted == {"text-1.txt": 100, "text-2.txt": 200, "text-3.txt": 300}
    assert any(event["type"] == "task.progress" and event["data"]["share"] == 1 for event in about)
    assert about[-1]["type"] == "operation.succeeded"
