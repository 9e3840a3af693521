"""The files that are changed, and the tests of them.

A test file that runs processes is left out: what happens in another process is not traced, and it is slow.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["LIBRARIES", "SOURCES", "TESTS", "distance", "expand"]

# Pure modules and the Lua. A folder's name stands for its sources.
SOURCES = (
    "eventbus/protocol",
    "eventbus/flow",
    "eventbus/operations",
    "eventbus/outbox/batch_policy.py",
    "eventbus/outbox/buffer.py",
    "eventbus/outbox/confirmation.py",
    "eventbus/outbox/entries.py",
    "eventbus/outbox/in_flight.py",
    "eventbus/outbox/spool_format.py",
    "eventbus/outbox/tracker.py",
    "eventbus/backends/memory",
    "eventbus/backends/redis/lua",
    "webui_adapter/protocol",
    "webui_adapter/session",
    "webui_adapter/channels",
    "worker_adapter/tracking",
    "worker_adapter/context",
)

TESTS = (
    "tests/eventbus/protocol",
    "tests/eventbus/flow",
    "tests/eventbus/operations",
    "tests/eventbus/outbox",
    "tests/eventbus/backends",
    "tests/eventbus/test_emit.py",
    "tests/webui_adapter/protocol",
    "tests/webui_adapter/session",
    "tests/webui_adapter/channels",
    "tests/worker_adapter/tracking",
    "tests/worker_adapter/context",
    "tests/worker_adapter/test_eager.py",
    "tests/worker_adapter/test_on_success.py",
)


# The tests import these. They are loaded once, not for each mutant.
LIBRARIES = (
    *("hypothesis.stateful", "pytest_timeout", "pydantic", "pydantic_settings", "redis", "redis.asyncio", "celery"),
    *("celery.canvas", "kombu", "fastapi", "uvicorn", "websockets", "prometheus_client", "structlog", "jwt", "typer"),
)


def expand(root: Path, names: tuple[str, ...] | list[str], pattern: str) -> list[Path]:
    """Return the files of names, relative to the root, in order."""
    found: dict[Path, None] = {}
    for name in names:
        path = root / name
        files = sorted(file for file in (path, *path.rglob("*")) if file.is_file() and file.match(pattern))
        found |= dict.fromkeys(file.relative_to(root) for file in files if file.name != "__init__.py")
    return [*found]


# A test file that is about a folder of the Lua has one of these names in its own; else the folder's, without its s.
_LUA_TESTS = {
    "channel": ("contract", "lifetimes", "rollback", "timeline"),
    "timeline": ("rollback", "timeline"),
    "lists": ("pending_lists", "pending_model"),
    "pending": ("pending", "dead_letters"),
    "operations": ("operation",),
}


def distance(source: str, test: str) -> int:
    """How far a test is from a source: 0 in its test file, 1 in the folder that mirrors its folder, 2 elsewhere."""
    path = Path(source)
    if path.suffix == ".lua":
        names = _LUA_TESTS.get(path.parent.name, (path.parent.name.removesuffix("s"),))
        return 2 - any(name in test.partition("::")[0] for name in names)
    if not test.startswith(f"tests/{path.parent.as_posix()}/"):
        return 2
    return int(Path(test.partition("::")[0]).stem != f"test_{path.stem}")
