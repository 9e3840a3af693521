"""The event class of these tests."""

from __future__ import annotations

from eventbus import Event


class Counted(Event, name="compose.counted"):
    n: int


def emit(whole, user, numbers) -> None:
    for n in numbers:
        whole.bus.emit(user, "9", Counted(n=n))
    assert whole.bus.flush(10)


def numbers(page) -> list[int]:
    return [event["data"]["n"] for event in page.events]
