"""Files, tests and settings that the documentation names in code spans exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventbus.settings import BusSettings
from tests.docs.sources import ROOT, files
from webui_adapter.settings import GatewaySettings
from worker_adapter.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGES = [path for path in files(["README.md", "docs"]) if path.suffix == ".md"]
_FOLDERS = (
    "bench",
    "compose",
    "demo",
    "docs",
    "eventbus",
    "pytest_eventbus",
    "tests",
    "webui_adapter",
    "worker_adapter",
)
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:{'|'.join(_FOLDERS)})/[\w./-]*(?:::(\w+)…?)?")
_FILE = re.compile(r"\w+\.(?:py|lua|ts)")
_SETTING = re.compile(r"\b(?:EVENTBUS_WORKER|EVENTBUS|WEBUI)_[A-Z_]+[A-Z]\b")
_SETTINGS = {
    f"{settings.model_config['env_prefix']}{name}".upper()
    for settings in (BusSettings, GatewaySettings, WorkerSettings)
    for name in settings.model_fields
}
# Cookie of the load balancer in compose/, and a variable of the fixtures.
_NO_SETTINGS = frozenset({"EVENTBUS_GATEWAY", "EVENTBUS_TEST_SERVER"})
# Checked in docs/explanation only: other pages name files of the reader.
_NAMES = {path.name for path in files([])}


def _wrong(page: Path) -> Iterator[str]:
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        for span in _SPAN.findall(line):
            if path := _PATH.fullmatch(span):
                file = ROOT / span.partition("::")[0]
                if not file.exists():
                    yield f"{page}:{number}: there is no {span}"
                elif path[1] and f"def {path[1]}" not in file.read_text():
                    yield f"{page}:{number}: there is no test {span}"
            elif _FILE.fullmatch(span) and span not in _NAMES and page.parts[1:2] == ("explanation",):
                yield f"{page}:{number}: no file has the name {span}"
        for name in _SETTING.findall(line):
            if name not in _SETTINGS | _NO_SETTINGS:
                yield f"{page}:{number}: there is no setting {name}"


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_a_page_names_existing_files_tests_and_settings(page):
    wrong = list(_wrong(page))
    assert not wrong, "\n".join(wrong)
