"""One oracle for all faults: each acknowledged event was received once and in order, or declared missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.webui_adapter.page import Page

__all__ = ["Verdict", "figures", "judge"]


@dataclass(frozen=True)
class Verdict:
    """The events of one user, counted.

    ``declared`` is true when each run of lost events has a gap that declares it. One gap does not excuse a second run.
    """

    acknowledged: int
    received: int
    lost: int
    declared: bool
    repeated: int
    disordered: int

    @property
    def holds(self) -> bool:
        """True when the promise was kept."""
        return (self.lost == 0 or self.declared) and self.repeated == 0 and self.disordered == 0


def judge(acknowledged: Iterable[str], page: Page) -> Verdict:
    """Compare the ids that the bus acknowledged with the events that a page delivered to its listeners."""
    order = list(acknowledged)
    expected = set(order)
    ids = [event["id"] for event in page.events if event["type"].startswith("gw.")]
    disordered = 0
    last: dict[tuple[str, str], int] = {}
    for event in page.events:
        if event["type"] == "gw.note":
            topic = (event["topic"], event["type"])
            disordered += event["data"]["n"] <= last.get(topic, -1)
            last[topic] = event["data"]["n"]
    return Verdict(
        acknowledged=len(expected),
        received=len(set(ids)),
        lost=len(expected - set(ids)),
        declared=0 < page.gaps >= _runs(order, set(ids)),
        repeated=len(ids) - len(set(ids)),
        disordered=disordered,
    )


def figures(verdicts: Sequence[Verdict], pages: Sequence[Page]) -> dict[str, object]:
    """Return what the table of the figures says of each row."""
    return {
        "acknowledged": sum(verdict.acknowledged for verdict in verdicts),
        "received": sum(verdict.received for verdict in verdicts),
        "lost": sum(verdict.lost for verdict in verdicts),
        "declared": sum(page.gaps for page in pages),
        "duplicates": sum(verdict.repeated for verdict in verdicts),
        "disordered": sum(verdict.disordered for verdict in verdicts),
    }


def _runs(order: Iterable[str], received: set[str]) -> int:
    """Count the runs of lost events, in the order in which they were emitted."""
    runs, before = 0, True
    for id_ in order:
        there = id_ in received
        runs += before and not there
        before = there
    return runs
