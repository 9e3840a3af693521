"""The settings of the bus: the environment, and the forms of a duration."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from eventbus import BusSettings


@pytest.mark.parametrize("text", ["5400", "5400.0", "PT90M", "01:30:00"])
def test_a_duration_is_read_in_each_form(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EVENTBUS_USER_TTL", text)
    assert BusSettings().user_ttl == timedelta(minutes=90)
    assert BusSettings().channel_ttl("user:42") == 5400


@pytest.mark.parametrize("text", ["", "soon", "1h", "nan", "1e30"])
def test_a_text_that_is_no_duration_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EVENTBUS_USER_TTL", text)
    with pytest.raises(ValidationError, match="user_ttl"):
        BusSettings()
