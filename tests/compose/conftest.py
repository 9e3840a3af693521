"""Two gateways behind HAProxy with the configuration of ``compose/``, and a recorder in place of the site."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from eventbus import Bus, BusSettings
from tests.compose.page import Page
from tests.compose.parts import CONFIG, Balancer, Gateway, Recorder, token
from tests.conftest import RedisServer, wait_until


@dataclass
class Set:
    """The running parts."""

    balancer: Balancer
    gateways: dict[str, Gateway]
    site: Recorder
    bus: Bus

    def page(self, user: str, cookie: str | None = None) -> Page:
        return Page(self.balancer.websocket, token(user), cookie)

    def other(self, name: str) -> str:
        return next(other for other in self.gateways if other != name)


@pytest.fixture(scope="session")
def whole(redis_url: str) -> Iterator[Set]:
    """For tests that leave the parts as they were. Each test has a separate user."""
    settings = BusSettings(redis_url=redis_url, key_prefix=f"t{uuid.uuid4().hex[:10]}")
    environment = {
        "EVENTBUS_REDIS_URL": redis_url,
        "EVENTBUS_KEY_PREFIX": settings.key_prefix,
        "WEBUI_DRAIN_SPREAD": "0.2",
        "WEBUI_SHUTDOWN_GRACE": "2",
    }
    gateways = {name: Gateway(name, environment) for name in ("gateway-1", "gateway-2")}
    site = Recorder()
    bus = Bus(settings)
    try:
        for gateway in gateways.values():
            gateway.start()
        for gateway in gateways.values():
            wait_until(gateway.ready, f"{gateway.name} to be ready", seconds=30)
        addresses = [gateway.address for gateway in gateways.values()]
        with Balancer(CONFIG, addresses, site.address).running() as balancer:
            yield Set(balancer, gateways, site, bus)
    finally:
        bus.close()
        for gateway in gateways.values():
            gateway.kill()
        site.close()


@pytest.fixture
def uneven(whole: Set, own_redis: RedisServer) -> Iterator[Set]:
    """Gateway 1 has a separate Redis, which a test may kill, and accepts one connection."""
    poor = Gateway("gateway-1", {"EVENTBUS_REDIS_URL": own_redis.url, "WEBUI_MAX_TOTAL_CONNECTIONS": "1"})
    rich = whole.gateways["gateway-2"]
    try:
        poor.start()
        wait_until(poor.ready, f"{poor.name} to be ready", seconds=30)
        with Balancer(CONFIG, [poor.address, rich.address], whole.site.address).running() as balancer:
            yield Set(balancer, {gateway.name: gateway for gateway in (poor, rich)}, whole.site, whole.bus)
    finally:
        poor.kill()


@pytest.fixture
def user() -> str:
    return f"u{uuid.uuid4().hex[:8]}"


@pytest.fixture
def site() -> Iterator[Recorder]:
    site = Recorder()
    yield site
    site.close()


@pytest.fixture
def balancer(site: Recorder) -> Iterator[Callable[..., Balancer]]:
    """A separate balancer in front of a recorder, with a separate environment."""
    with contextlib.ExitStack() as stack:

        def start(environment: Mapping[str, str] | None = None) -> Balancer:
            return stack.enter_context(Balancer(CONFIG, [site.address] * 2, site.address, environment).running())

        yield start
