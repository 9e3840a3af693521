"""A gateway in a separate process, and pages. Loaded by pytest (``pytest11``)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from eventbus.testing import RedisServer
    from webui_adapter.testing import Client, GatewayProcess

__all__ = ["Connect"]


class Connect(Protocol):
    """Type of the fixture ``eventbus_connect``."""

    def __call__(
        self, user: str, *, cursor: str = "", topics: tuple[str, ...] = (), **claims: object
    ) -> AbstractAsyncContextManager[Client]:
        """A page of a user; ``claims`` go into its token."""


@pytest.fixture(scope="session")
def eventbus_gateway_settings() -> dict[str, object]:
    """Settings of the gateway, as ``GatewaySettings`` names them: to be overridden in a project's conftest.py."""
    return {}


@pytest.fixture(scope="session")
def eventbus_gateway(
    eventbus_server: RedisServer,
    eventbus_shared_prefix: str,
    eventbus_gateway_settings: dict[str, object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    """``python -m webui_adapter`` on a free port and the throw-away server, for the whole run."""
    try:
        from webui_adapter.testing import GatewayProcess, NotReady  # noqa: PLC0415 - see the package
    except ImportError as error:
        pytest.fail(f"the gateway's packages are missing: pip install 'celery-eventbus[gateway]' ({error})", False)
    folder = tmp_path_factory.mktemp("eventbus-gateway")
    gateway = GatewayProcess(folder, eventbus_server.url, eventbus_shared_prefix, **eventbus_gateway_settings)
    try:
        gateway.start().wait_ready()
    except NotReady as error:
        gateway.stop()
        pytest.fail(str(error), pytrace=False)
    yield gateway
    gateway.stop()


@pytest.fixture
def eventbus_user() -> str:
    """A user that no other test has: all tests share the gateway."""
    return f"user-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def eventbus_token(eventbus_gateway: GatewayProcess) -> Callable[..., str]:
    """Makes tokens that the gateway accepts: ``eventbus_token("ann", collections=["7"])``."""
    from webui_adapter.testing import make_token  # noqa: PLC0415 - see the package

    def make(user: str, **claims: object) -> str:
        return make_token(user, eventbus_gateway.secret, claims=claims)

    return make


@pytest.fixture
def eventbus_connect(eventbus_gateway: GatewayProcess, eventbus_token: Callable[..., str]) -> Connect:
    """Opens a page of a user: an asynchronous context manager, ``Client`` as its value."""
    from webui_adapter.testing import open_page  # noqa: PLC0415 - see the package

    def connect(
        user: str, *, cursor: str = "", topics: tuple[str, ...] = (), **claims: object
    ) -> AbstractAsyncContextManager[Client]:
        return open_page(eventbus_gateway.ws, eventbus_token(user, **claims), user=user, cursor=cursor, topics=topics)

    return connect
