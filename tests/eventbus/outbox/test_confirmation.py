"""Waiting until a browser has an event. The publisher is scripted: how often it is asked, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from eventbus.backends.ports import Publisher
from eventbus.errors import DeliveryFailed, Unavailable
from eventbus.outbox.confirmation import DeliveryConfirmation, _pauses

Wait = Callable[[DeliveryConfirmation, float], bool]


class Script:
    """A publisher with one answer for each question; the last one is repeated."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked, self.closed = [*answers], 0, 0

    def delivery_status(self, channel: str, id_: str) -> tuple[str, str]:
        assert (channel, id_) == ("user:ann", "7")
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "away":
            raise Unavailable("away")
        return answer, "invalid" if answer == "dead" else ""

    def close(self) -> None:
        self.closed += 1


def blocking(confirmation: DeliveryConfirmation, timeout: float) -> bool:
    return confirmation.wait(timeout)


def awaited(confirmation: DeliveryConfirmation, timeout: float) -> bool:
    return asyncio.run(confirmation.until(timeout))


def confirmation(script: Script) -> DeliveryConfirmation:
    return DeliveryConfirmation(lambda: cast("Publisher", script), "user:ann", "7")


@pytest.mark.parametrize("wait", [blocking, awaited])
@pytest.mark.parametrize(
    ("answers", "timeout", "result", "asked"),
    [
        (("acked",), 60.0, True, 1),
        (("waiting", "away", "waiting", "acked"), 60.0, True, 4),
        (("waiting",), 0.0, False, 1),
        (("acked",), 0.0, True, 1),
        (("waiting", "acked"), 0.001, True, 2),
    ],
)
def test_it_asks_until_it_is_acknowledged_or_the_time_is_over(
    wait: Wait, answers: tuple[str, ...], timeout: float, result: bool, asked: int
) -> None:
    script = Script(*answers)
    assert wait(confirmation(script), timeout) is result
    assert (script.asked, script.closed) == (asked, 1)


@pytest.mark.parametrize("wait", [blocking, awaited])
def test_a_dead_letter_ends_the_wait(wait: Wait) -> None:
    script = Script("waiting", "dead")
    with pytest.raises(DeliveryFailed, match="invalid"):
        wait(confirmation(script), 60.0)
    assert (script.asked, script.closed) == (2, 1)


def test_the_pauses_grow_to_a_quarter_of_a_second_and_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("eventbus.outbox.confirmation.time.monotonic", lambda: now[0])
    pauses = []
    for pause in _pauses(1.0):
        pauses.append(pause)
        now[0] += pause
    assert pauses[:3] == pytest.approx([0.02, 0.03, 0.045])
    assert pauses[-2] == 0.25
    assert max(pauses) == 0.25
    assert sum(pauses) == pytest.approx(1.0)
    assert pauses[:-1] == sorted(pauses[:-1])
