"""Gateways with small bounds, run both ways."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator

import pytest

from tests.security.ways import WAYS, serving
from tests.webui_adapter.gateways import GatewayProcess

_numbers = itertools.count(1)


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"s{next(_numbers)}"


@pytest.fixture(scope="module", params=WAYS)
def bounded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> Iterator[GatewayProcess]:
    """A gateway whose floods end soon."""
    folder = tmp_path_factory.mktemp("bounded")
    with serving(
        request.param,
        folder,
        redis_url,
        f"sec{uuid.uuid4().hex[:8]}",
        frame_rate_limit=400,
        unauthenticated_frame_rate_limit=40,
        byte_rate_limit=131_072,
        unauthenticated_byte_rate_limit=65_536,
        frames_per_turn=50,
        flood_patience=0.2,
        close_timeout=1.0,
        auth_deadline=30,
    ) as process:
        yield process
