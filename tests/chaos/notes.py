"""Notes to one user, and the page that has to have them or a gap."""

from __future__ import annotations

import time
from collections.abc import Callable

from eventbus import Bus, Receipt
from tests.chaos.oracle import figures, judge
from tests.chaos.watcher import Watcher
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, eventually

__all__ = ["Notes", "Report", "has_all", "returning", "settled"]

Report = Callable[..., None]


class Notes:
    """Emits numbered notes to one user, and knows which of them Redis has confirmed."""

    def __init__(self, bus: Bus, user: str) -> None:
        self._bus = bus
        self.user = user
        self.receipts: list[Receipt] = []

    def emit(self, count: int) -> None:
        """Emit without waiting."""
        for _ in range(count):
            self.receipts.append(self._bus.emit(self.user, "op", Note(n=len(self.receipts))))

    async def confirmed(self, count: int = 0) -> None:
        """Emit, then wait until Redis has confirmed all events."""
        self.emit(count)
        await eventually(lambda: self._bus.flush(0.5), "Redis to confirm the events", 30)

    @property
    def acknowledged(self) -> list[str]:
        return [one.id for one in self.receipts if one.status in {"published", "duplicate", "spooled"}]


def returning(former: Watcher, gateway: GatewayProcess) -> Watcher:
    """A page that returns with its cursor."""
    watcher = Watcher(former.user, gateway)
    watcher.page = former.page
    return watcher


async def has_all(watcher: Watcher, notes: Notes) -> None:
    await eventually(
        lambda: set(notes.acknowledged) <= {event["id"] for event in watcher.page.events}, "the page to be up to date"
    )


async def settled(watcher: Watcher, notes: Notes, report: Report, *, gaps: int | None = None) -> None:
    """Wait until the page is up to date again, judge it, and report the figures."""
    began = time.monotonic()
    await notes.confirmed(1)
    last = notes.receipts[-1].id
    await eventually(lambda: _newest(watcher) == last or _declared(watcher, notes), "the page to be up to date", 30)
    pause = time.monotonic() - began
    await notes.confirmed(1)
    await eventually(lambda: _newest(watcher) == notes.receipts[-1].id, "an event after it", 30)
    verdict = judge(notes.acknowledged, watcher.page)
    report(**figures([verdict], [watcher.page]), longest_pause=f"{pause:.1f} s")
    assert verdict.holds, verdict
    if gaps is not None:
        assert watcher.page.gaps == gaps


def _newest(watcher: Watcher) -> str:
    return "".join(event["id"] for event in watcher.page.events[-1:])


def _declared(watcher: Watcher, notes: Notes) -> bool:
    return judge(notes.acknowledged, watcher.page).declared
