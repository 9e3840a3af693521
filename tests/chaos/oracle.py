"""One oracle for all faults: what was acknowledged was received or declared missing, in order, once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.webui_adapter.page import Page

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What became of one user's events. ``declared``: each stretch of what is lost has a gap that tells of it; one gap
    does not excuse the next loss.
    """

    acknowledged: int
    received: int
    lost: int
    declared: bool
    repeated: int
    disordered: int

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return (self.lost == 0 or self.declared) and self.repeated == 0 and self.disordered == 0


def judge(acknowledged: Iterable[str], page: Page) -> Verdict:
    """``acknowledged``: ids that the emitter was told are safe. ``page``: what the listeners of a page were given."""
    order = list(acknowledged)
    wanted = set(order)
    ids = [event["id"] for event in page.events if event["type"].startswith("gw.")]
    disordered = 0
    last: dict[tuple[str, str], int] = {}
    for event in page.events:
        if event["type"] == "gw.note":
            topic = (event["topic"], event["type"])
            disordered += event["data"]["n"] <= last.get(topic, -1)
            last[topic] = event["data"]["n"]
    return Verdict(
        acknowledged=len(wanted),
        received=len(set(ids)),
        lost=len(wanted - set(ids)),
        declared=0 < page.gaps >= _stretches(order, set(ids)),
        repeated=len(ids) - len(set(ids)),
        disordered=disordered,
    )


def _stretches(order: Iterable[str], received: set[str]) -> int:
    """How often, in the order in which they were emitted, some were lost in a row."""
    stretches, before = 0, True
    for id_ in order:
        there = id_ in received
        stretches += before and not there
        before = there
    return stretches
