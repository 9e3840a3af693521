"""The gateway's settings: defaults, environment, values that are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from webui_adapter.settings import GatewaySettings


def test_limits_of_the_original_configuration_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBUI_JWT_SECRET", "0123456789abcdef" * 2)
    settings = GatewaySettings()
    assert settings.max_connections_per_user == 10
    assert settings.max_total_connections == 1000
    assert settings.heartbeat_interval == 30
    assert settings.message_rate_limit == 100
    assert settings.max_message_size == 1_048_576


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBUI_JWT_SECRET", "0123456789abcdef" * 2)
    monkeypatch.setenv("WEBUI_ALLOWED_ORIGINS", " https://a.example , https://b.example,")
    monkeypatch.setenv("WEBUI_MAX_TOTAL_CONNECTIONS", "7")
    monkeypatch.setenv("WEBUI_EVENTS", "my.events,more.events")
    settings = GatewaySettings()
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.max_total_connections == 7
    assert settings.events == ("my.events", "more.events")
    assert "0123456789abcdef" * 2 not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "bus"},
        {"prefix": "/a b"},
        {"prefix": "/a/"},
        {"port": 70000},
        {"on_too_many": "drop"},
        {"heartbeat_interval": 0},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(jwt_secret="0123456789abcdef" * 2, **wrong)
