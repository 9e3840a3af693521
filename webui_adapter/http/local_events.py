"""Events of this process while Redis is unreachable: its own sessions receive them without a position in their channel.

The sessions receive them again, with their position, when Redis returns. Clients recognise them by their id
(``docs/reference/protocol.md``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from eventbus.bus import Bus
from eventbus.events.encoder import Emission
from eventbus.protocol.topics import matches
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.session.session import Session

__all__ = ["LocalEvents", "local_events_shown"]


class LocalEvents:
    """Passes events from a bus's outbox, in any thread, to a gateway's event loop.

    Args:
        gateway: the gateway.
        loop: its event loop.
    """

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self._gateway = gateway
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: list[Emission] = []
        self._dropped = 0

    def show(self, emission: Emission) -> None:
        """Take an event. Never blocks and never raises; above ``local_events`` waiting events it drops this one.

        Args:
            emission: the event.
        """
        with self._lock:
            if len(self._waiting) >= self._gateway.settings.local_events:
                self._dropped += 1
                return
            self._waiting.append(emission)
            if len(self._waiting) > 1:
                return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        with self._lock:
            emissions, self._waiting = self._waiting, []
            dropped, self._dropped = self._dropped, 0
        counters = self._gateway.counters
        counters["drop.local_full"] += dropped
        for emission in emissions:
            counters["local"] += 1
            self._deliver(emission)
        self._gateway.flush()

    def _deliver(self, emission: Emission) -> None:
        gateway = self._gateway
        channel = gateway.hub.channels.get(emission.channel)
        event = b"{" + emission.tail
        if channel is None or len(event) > gateway.settings.max_message_size:
            return
        type_ = emission.header.split(" ", 5)[4]
        for session in gateway.hub.sessions_of(channel):
            if _wants(session, emission) and not session.send_local(type_, event):
                gateway.counters["drop.local_slow"] += 1


def _wants(session: Session, emission: Emission) -> bool:
    """Return whether a session has subscribed to the topic, or waits for Redis to do so."""
    subscription = session.subscriptions.channels[emission.channel]
    return subscription.covers(emission.topic) or any(
        matches(asked.topic, emission.topic) for asked in subscription.queued_commands
    )


@contextlib.contextmanager
def local_events_shown(gateway: Gateway, bus: Bus | None) -> Iterator[None]:
    """Show the events of a bus to a gateway's sessions while Redis is unreachable. Call it in the gateway's event loop.

    Args:
        gateway: the gateway.
        bus: the bus; None: none.

    Yields:
        None.
    """
    if bus is None:
        yield
        return
    show = LocalEvents(gateway, asyncio.get_running_loop()).show
    observers = bus.outbox.observers
    observers.append(show)
    try:
        yield
    finally:
        observers.remove(show)
