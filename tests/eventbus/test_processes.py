"""State of a process: what a forked child and a test run must not share with others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eventbus import BusSettings
from eventbus.outbox.spool import spool_folder


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTBUS_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Python's hooks do not run: uWSGI forks like this by default.
FORKS = """
    import ctypes, os, sys
    from eventbus import Bus, BusSettings, Event

    class Item(Event, name="fork.item"):
        n: int

    bus = Bus(BusSettings(redis_url=sys.argv[1], spool=False, linger=0.0))
    first = bus.emit("ann", "1", Item(n=0))
    assert bus.flush(5)
    child = ctypes.PyDLL(None).fork()
    if not child:
        receipts = [bus.emit("ann", "1", Item(n=n)) for n in range(1, 4)]
        settled = bus.flush(5)
        print("child", settled, *(receipt.status for receipt in receipts), *(receipt.id for receipt in receipts))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    receipts = [bus.emit("ann", "1", Item(n=n)) for n in range(1, 4)]
    print("parent", bus.flush(5), *(receipt.status for receipt in receipts), *(receipt.id for receipt in receipts))
"""


def test_a_child_that_was_forked_without_hooks_sends_its_events(redis_server) -> None:
    done = run(FORKS, redis_server.url)
    assert done.returncode == 0, done.stderr
    child, parent = (line.split() for line in done.stdout.splitlines())
    assert child[:5] == ["child", "True", "published", "published", "published"]
    assert parent[:5] == ["parent", "True", "published", "published", "published"]
    own = [{id_.rpartition("-")[2] for id_ in line[5:]} for line in (child, parent)]
    assert own[0].isdisjoint(own[1]), "each process has its own random bits"


LEAVES = """
    import sys
    from eventbus import Event, configure, emit

    class Item(Event, name="leaves.item"):
        n: int

    configure()
    emit("ann", "1", Item(n=0))
"""


@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"PYTEST_VERSION": "8"}, False)])
def test_a_test_run_leaves_no_events_that_a_worker_would_send(
    tmp_path: Path, environment: dict[str, str], kept: bool
) -> None:
    url = "redis://127.0.0.1:1/0"
    done = run(LEAVES, EVENTBUS_REDIS_URL=url, TMPDIR=str(tmp_path), EVENTBUS_FLUSH_BUDGET="0.1", **environment)
    assert done.returncode == 0, done.stderr
    assert bool(list(tmp_path.rglob("*.spool"))) == kept


def test_a_test_run_that_names_a_folder_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BusSettings(spool_dir=tmp_path).spool
    monkeypatch.delenv("EVENTBUS_SPOOL_DIR", raising=False)
    monkeypatch.setenv("PYTEST_VERSION", "8")
    assert not BusSettings().spool
    assert BusSettings(spool=True).spool


def test_applications_do_not_share_a_spool(tmp_path: Path) -> None:
    shop, forum = (BusSettings(spool_dir=tmp_path, application=name) for name in ("shop", "forum"))
    assert spool_folder(shop) != spool_folder(forum)
    assert "shop" in spool_folder(shop).name
