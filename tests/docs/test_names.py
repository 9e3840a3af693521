"""The documentation names what there is: each import in a code block and each dotted name can be imported."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import code_blocks, markdown_files
from tests.docs.sources import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = ("eventbus", "worker_adapter", "webui_adapter", "pytest_eventbus")
# Each name that one of these exports has an entry in the API reference.
PUBLIC = (
    "eventbus",
    "eventbus.integrations.django",
    "eventbus.integrations.sqlalchemy",
    "eventbus.testing",
    "webui_adapter",
    "webui_adapter.testing",
    "webui_adapter.uvicorn",
    "worker_adapter",
    "worker_adapter.testing",
)

SUBPROTOCOL = "eventbus.v1"
AUDIT_LOGGER = "eventbus.audit"

_NO_MODULES = {SUBPROTOCOL, AUDIT_LOGGER}
_DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?::\w+)?(?![\w/-])")
_FILE = re.compile(r"\.(?:py|ts|js|md|lua|toml|json|css|typed|yml|yaml)$")
_API = ROOT / "docs" / "reference" / "api"


def resolve(name: str) -> object:
    """Import what a dotted name means; raises ImportError or AttributeError."""
    module, *attributes = re.split(r"[.:]", name)
    found: object = import_module(module)
    for attribute in attributes:
        module = f"{module}.{attribute}"
        if not hasattr(found, attribute):
            import_module(module)
        found = getattr(found, attribute)
    return found


def documented(path: Path) -> Iterator[tuple[int, str]]:
    """Names of this project in a file with their lines."""
    for first, block in code_blocks(path, "python"):
        try:
            tree = ast.parse(block)
        except SyntaxError:
            continue  # an excerpt; its dotted names are checked below
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                yield from ((first + node.lineno - 1, f"{node.module}.{alias.name}") for alias in node.names)
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        yield from (
            (number, name) for name in _DOTTED.findall(line) if not _FILE.search(name) and name not in _NO_MODULES
        )


@pytest.mark.parametrize("path", [path for path in markdown_files() if path.name != "CHANGELOG.md"], ids=str)
def test_documented_names_exist(path):
    unknown = []
    for line, name in documented(path):
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            unknown.append(f"{path}:{line}: {name}: {error}")
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_api_reference(package):
    entries = {
        name for page in _API.glob("*.md") for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
    }
    exported = import_module(package).__all__
    if package not in entries:
        assert not sorted(f"{package}.{name}" for name in exported if f"{package}.{name}" not in entries)
