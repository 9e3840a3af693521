"""Runs the README's code in a project made of its files: a worker, the site, and curl as the page."""

from __future__ import annotations

import time

import httpx
import jwt

from tests.docs.project import SECRET, events_until_the_end, files_of, serve
from tests.docs.sources import ROOT

# The part of web.py that the README leaves to the reader's project.
USER = "def current_user() -> str: return 'ann'\n"


def test_the_readmes_project_reports_its_documents_to_a_page(tmp_path, own_redis):
    files = files_of(ROOT / "README.md", own_redis.url)
    assert set(files) == {"events.py", "tasks.py", "web.py"}
    files["web.py"] = USER + files["web.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = []
    for name, text in {"one.txt": "a b", "two.txt": "c d e"}.items():
        (tmp_path / name).write_text(text)
        paths.append(str(tmp_path / name))
    with serve(tmp_path, own_redis.url) as address:
        started = httpx.post(f"{address}/index", json=paths).raise_for_status().json()
        token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, SECRET, "HS256")
        about = events_until_the_end(address, token, started, "ann")
    indexed = {
        event["data"]["document"]: event["data"]["words"] for event in about if event["type"] == "document.indexed"
    }
    assert indexed == dict(zip(paths, (2, 3), strict=True))
    assert about[0]["type"] == "operation.queued"
    assert about[-1]["type"] == "operation.succeeded"
    assert about[-1]["data"]["done"] == about[-1]["data"]["total"] == 2
