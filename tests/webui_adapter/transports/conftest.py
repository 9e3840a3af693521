"""A gateway that the tests of transports share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webui_adapter.gateways import GatewayProcess, running


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory, redis_url: str, key_prefix: str) -> Iterator[GatewayProcess]:
    """A gateway with little patience for heads of requests."""
    folder: Path = tmp_path_factory.mktemp("strict")
    with running(
        folder,
        redis_url,
        key_prefix,
        handshake_timeout=0.6,
        max_handshake_size=2048,
        max_head_size=8192,
        close_timeout=1.0,
    ) as process:
        yield process
