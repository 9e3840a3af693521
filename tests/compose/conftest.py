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
from tests.conftest import wait_until


@dataclass
class Set:
    """What runs."""

    balancer: Balancer
    gateways: dict[str, Gateway]
    site: Recorder
    bus: Bus

    def page(self, user: str, cookie: str | None = None) -> Page:
        return Page(self.balancer.websocket, token(user), cookie)

    def other(self, name: str) -> str:
        return next(other for other in self.gateways if other != name)


@contextlib.contextmanager
def running_set(redis_url: str, differing: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[Set]:
    """``differing``: what is other for one gateway, by name."""
    settings = BusSettings(redis_url=redis_url, key_prefix=f"t{uuid.uuid4().hex[:10]}")
    shared = {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_KEY_PREFIX": settings.key_prefix}
    gateways = {
        name: Gateway(name, {**shared, **(differing or {}).get(name, {})}) for name in ("gateway-1", "gateway-2")
    }
    site = Recorder()
    bus = Bus(settings)
    try:
        for gateway in gateways.values():
            gateway.start()
        for gateway in gateways.values():
            wait_until(gateway.ready, f"{gateway.name} to be ready")
        addresses = [gateway.address for gateway in gateways.values()]
        with Balancer(CONFIG, addresses, site.address).running() as balancer:
            yield Set(balancer, gateways, site, bus)
    finally:
        bus.close()
        for gateway in gateways.values():
            gateway.kill()
        site.shutdown()
        site.server_close()


@pytest.fixture(scope="session")
def whole(redis_url: str) -> Iterator[Set]:
    """For tests that leave it as it was; each has a user of its own."""
    with running_set(redis_url) as whole:
        yield whole


@pytest.fixture
def user() -> str:
    return f"u{uuid.uuid4().hex[:8]}"


@pytest.fixture
def site() -> Iterator[Recorder]:
    site = Recorder()
    yield site
    site.shutdown()
    site.server_close()


@pytest.fixture
def balancer(site: Recorder) -> Iterator[Callable[..., Balancer]]:
    """A balancer of its own before a recorder, with an environment of its own."""
    with contextlib.ExitStack() as stack:

        def start(environment: Mapping[str, str] | None = None, config=CONFIG) -> Balancer:
            return stack.enter_context(Balancer(config, [site.address] * 2, site.address, environment).running())

        yield start
