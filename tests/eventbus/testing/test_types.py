"""The kit's types: correct use has the event's own type, wrong use is a type error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

USE = """\
from typing import assert_type

from eventbus.testing import CapturedEvent, Events, capture
from eventbus.events.event import Event
from tests.eventbus.testing.events import Indexed, State
from webui_adapter.testing import Client

with capture() as events:
    assert_type(events, Events)
    assert_type(events.one(Indexed, document="a"), Indexed)
    assert_type(events.of(State), list[State])
    assert_type(events[0], CapturedEvent[Event])
    words: int = events.one(Indexed).words

async def page(client: Client) -> None:
    assert_type(await client.event(Indexed, 5, document="a"), Indexed)

events.one("testing.indexed")
events.one(Indexed).pages
events.to(usr="ann")
"""


def test_right_use_is_typed_and_wrong_use_is_not(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", "--hide-error-context"]
    command = [sys.executable, "-m", "mypy", *options, str(tmp_path / "use.py")]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    errors = [line.partition("use.py:")[2] for line in result.stdout.splitlines() if ": error:" in line]
    first = USE.splitlines().index('events.one("testing.indexed")') + 1
    assert [error.partition(":")[0] for error in errors] == [str(first), str(first + 1), str(first + 2)], result.stdout
    assert [error.rpartition("[")[2] for error in errors] == ["arg-type]", "attr-defined]", "call-arg]"]
