"""Revocations are queued up to a limit and sent together. Workers that receive them: tests/worker_adapter."""

from __future__ import annotations

from collections import Counter

import pytest

from eventbus.operations.events import OperationRef
from tests.webui_adapter.parts import settings
from webui_adapter.maintenance.broker_control import BrokerControl


def test_a_revocation_beyond_the_limit_is_dropped_and_counted() -> None:
    counters: Counter[str] = Counter()
    control = BrokerControl(settings(broker_url="redis://127.0.0.1:1/0"), counters)
    for n in range(1002):
        control.revoke(OperationRef("ann", str(n)))
    assert counters["revoke.dropped"] == 2
    control.revoke(OperationRef("ann", "0"))
    assert counters["revoke.dropped"] == 2, "that one waits already"
    assert not counters["revoke.failed"], "nothing was tried yet"


def test_stamps_distinguish_users() -> None:
    assert OperationRef("ann", "9").stamp != OperationRef("bob", "9").stamp
    # Neither part may hold a space, so no two operations share a stamp.
    assert OperationRef("ann", "9").stamp == "ann:9"


@pytest.mark.parametrize("options", ['{"global_keyprefix": "shop-"}', "{}"])
def test_options_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setenv("WEBUI_BROKER_OPTIONS", options)
    monkeypatch.setenv("WEBUI_BROKER_URL", "redis://:hunter2@broker/1")
    given = settings()
    assert given.broker_options == ({} if options == "{}" else {"global_keyprefix": "shop-"})
    assert "hunter2" not in repr(given)
