"""Events without a server, and a bus on a throw-away one. Loaded by pytest (``pytest11``)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eventbus import Bus, BusSettings
    from eventbus.testing import Events, RedisServer


@pytest.fixture
def eventbus_events() -> Iterator[Events]:
    """The events that the test emits. They are sent nowhere else."""
    from eventbus.testing import capture  # noqa: PLC0415 - see the package

    with capture() as events:
        yield events


@pytest.fixture(scope="session")
def eventbus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis or Valkey of this run, on a separate port; the server of ``EVENTBUS_REDIS_URL`` is never used."""
    from eventbus.testing import NoServer, RedisServer  # noqa: PLC0415 - see the package

    server = RedisServer(tmp_path_factory.mktemp("eventbus-server"))
    try:
        server.start()
    except NoServer as error:
        pytest.fail(str(error), pytrace=False)
    yield server
    server.kill()


def _new_prefix() -> str:
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def eventbus_shared_prefix() -> str:
    """The key prefix of the session's gateway."""
    return _new_prefix()


@pytest.fixture
def eventbus_prefix(request: pytest.FixtureRequest, eventbus_shared_prefix: str) -> str:
    """The test's own key prefix, so that it finds nothing of others; with ``eventbus_gateway``, the gateway's."""
    return eventbus_shared_prefix if "eventbus_gateway" in request.fixturenames else _new_prefix()


@pytest.fixture
def eventbus_settings(eventbus_server: RedisServer, eventbus_prefix: str, tmp_path: Path) -> BusSettings:
    """Settings of a bus on the throw-away server."""
    from eventbus import BusSettings  # noqa: PLC0415 - see the package

    return BusSettings(redis_url=eventbus_server.url, key_prefix=eventbus_prefix, spool_dir=tmp_path / "spool")


@pytest.fixture
def eventbus_environment(eventbus_settings: BusSettings) -> dict[str, str]:
    """The same settings as variables: for a worker or a site that the test starts."""
    return {
        "EVENTBUS_REDIS_URL": eventbus_settings.redis_url,
        "EVENTBUS_KEY_PREFIX": eventbus_settings.key_prefix,
        "EVENTBUS_SPOOL_DIR": str(eventbus_settings.spool_dir),
    }


@pytest.fixture
def eventbus_bus(eventbus_settings: BusSettings) -> Iterator[Bus]:
    """A bus on the throw-away server, which is this process's bus during the test."""
    from eventbus.bus import Bus  # noqa: PLC0415 - see the package
    from eventbus.process_bus import override_bus  # noqa: PLC0415

    bus = Bus(eventbus_settings)
    with override_bus(bus):
        yield bus
    bus.close()
