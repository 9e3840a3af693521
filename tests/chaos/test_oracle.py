"""The oracle detects each kind of broken promise, and accepts a kept one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.chaos.oracle import judge
from tests.webui_adapter.page import ChannelPosition, Page


def page_of(events: Sequence[tuple[str, int]]) -> Page:
    page = Page()
    page.positions["user:1"] = ChannelPosition("e", 0)
    for id_, n in events:
        page.events.append({"id": id_, "type": "gw.note", "topic": "user:1:operation:1", "data": {"n": n}})
    return page


def test_all_in_order_once() -> None:
    assert judge(["a", "b"], page_of([("a", 1), ("b", 2)])).holds


@pytest.mark.parametrize(
    "events",
    [[("a", 1)], [("a", 1), ("b", 2), ("b", 3)], [("b", 2), ("a", 1)], []],
    ids=["lost", "twice", "order", "all"],
)
def test_a_broken_promise(events: list[tuple[str, int]]) -> None:
    assert not judge(["a", "b"], page_of(events)).holds


def test_lost_and_declared() -> None:
    page = page_of([("a", 1)])
    gap = {"channel": "user:1", "epoch": "e", "offset": 2, "reason": "trimmed"}
    page.receive(json.dumps({"type": "bus.gap", "time": 0, "data": gap}))
    assert judge(["a", "b"], page).holds


def test_one_gap_does_not_excuse_two_losses() -> None:
    page = page_of([("b", 2), ("d", 4)])
    gap = {"channel": "user:1", "epoch": "e", "offset": 2, "reason": "trimmed"}
    page.receive(json.dumps({"type": "bus.gap", "time": 0, "data": gap}))
    assert judge(["a", "b", "d"], page).holds
    assert not judge(["a", "b", "c", "d"], page).holds
