"""One connection's way out: what is to be written, what waits for a slow browser, and whether it has ended.

A connection that keeps up costs an append per publication. Only when the edge says that the socket takes no more does a
backlog come into being, and it goes when the browser has caught up. No I/O; the clock is an argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from eventbus.clock import Clock
from eventbus.protocol.cursor import Cursor
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.send_queue import OrderHeld, OrderRestored, SendQueue, Step
from webui_adapter.session.states import NEXT, State
from webui_adapter.settings import GatewaySettings

__all__ = ["Encoder", "Output", "Transport"]


class Encoder(Protocol):
    """How events become bytes of one kind of line.

    ``shares_frames``: the frames of ``Batch`` are what this line takes. ``answers_pings``: its pings are answered.
    """

    shares_frames: bool
    answers_pings: bool

    def event(self, output: Output, delivery: Delivery) -> bytes: ...
    def control(self, output: Output, type_: str, data: Mapping[str, object]) -> bytes: ...
    def local(self, type_: str, event: bytes) -> bytes: ...


class Transport(Protocol):
    """An edge's end of one session. Nothing here may block or raise."""

    def flush(self) -> None:
        """Write what is in ``session.out``, and end the connection if ``session.close_code`` is set."""

    def ping(self) -> None:
        """Send a ping."""

    def cut(self) -> None:
        """End the connection without waiting for the peer."""


class Output(ABC):
    """``out`` is what the edge has to write next; in ``dirty`` it hears that there is something."""

    __slots__ = (
        "__weakref__",
        "clock",
        "close_code",
        "close_reason",
        "closing_since",
        "counters",
        "dirty",
        "encoder",
        "held_offsets",
        "idle_callbacks",
        "out",
        "paused",
        "paused_since",
        "send_queue",
        "settings",
        "state",
        "transport",
    )

    def __init__(
        self,
        settings: GatewaySettings,
        encoder: Encoder,
        dirty: list[Output],
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.encoder = encoder
        self.dirty = dirty
        self.counters = counters
        self.clock = clock
        self.state = State.WAITING
        # Its end of the connection, from the moment there is one until it is gone. Not looked up: it is the hot path.
        self.transport: Transport | None = None
        self.out: list[bytes] = []
        self.send_queue: SendQueue | None = None
        self.held_offsets: dict[str, int] = {}
        self.idle_callbacks: list[Callable[[], None]] = []
        self.paused = False
        self.paused_since = 0.0
        self.close_code: CloseCode | None = None
        self.close_reason = ""
        self.closing_since = 0.0

    @abstractmethod
    def cursor(self) -> Cursor:
        """Where the browser could resume after what has been written so far."""

    @abstractmethod
    def _advance(self, delivery: Delivery) -> None:
        """An event is about to be written: what is known of the place in its channel moves on."""

    # --- life ------------------------------------------------------------------------------------------------

    def enter(self, state: State) -> None:
        """Change state; a change that the table does not have is a bug in the gateway."""
        if state not in NEXT[self.state]:
            raise AssertionError(f"a session cannot go from {self.state.name} to {state.name}")
        self.state = state
        if state is State.CLOSED:
            callbacks, self.idle_callbacks = self.idle_callbacks, []
            for callback in callbacks:
                callback()

    def close(self, code: CloseCode, reason: str) -> None:
        """Ask the edge to end the connection, after what is in ``out``. The first reason stays."""
        if self.close_code is None and self.state is not State.CLOSED:
            self.close_code = code
            self.close_reason = reason
            self.closing_since = self.clock.now()
            if not self.out:
                self.dirty.append(self)

    def send(self, type_: str, data: Mapping[str, object]) -> None:
        """One of the gateway's own words. It does not queue behind events: it is about the connection."""
        if self.state is not State.CLOSED:
            self._write(self.encoder.control(self, type_, data))

    def send_local(self, type_: str, event: bytes) -> bool:
        """An event without a place in its channel. A browser that is behind goes without: it will come again."""
        if not self.idle or self.state not in (State.OPEN, State.LEAVING):
            return False
        self._write(self.encoder.local(type_, event))
        return True

    # --- events ----------------------------------------------------------------------------------------------

    def deliver(self, batch: Batch) -> None:
        """Events of a channel that this session reads whole. The hot path: keep it an append."""
        if self.paused or self.send_queue is not None or not self.encoder.shares_frames:
            for delivery in batch.deliveries:
                self._deliver_one(delivery)
            return
        out = self.out
        if not out:
            self.dirty.append(self)
        out.append(batch.frames)

    def _deliver_one(self, delivery: Delivery) -> None:
        if self.paused or self.send_queue is not None:
            self._queue(delivery)
            return
        self._advance(delivery)
        self._write(self.encoder.event(self, delivery))

    def _queue(self, delivery: Delivery) -> None:
        if self.is_behind(delivery.channel):
            return  # it will be read from the log
        if self.send_queue is None:
            self.send_queue = SendQueue(self.settings.backlog_events, self.settings.backlog_bytes)
        for drop in self.send_queue.push(delivery, int(self.clock.wall() * 1000)):
            self.counters[f"drop.{drop.reason}"] += 1
            # Of what is kept the page would never learn; if it comes back it gets it from log or snapshot.
            if drop.reason in ("full", "shed") and drop.item.keep != "nothing":
                self.overflow(drop.item.channel, drop.item.record.offset)

    @abstractmethod
    def is_behind(self, channel: str) -> bool:
        """Whether events of this channel are not to be kept, since they will be read."""

    @abstractmethod
    def overflow(self, channel: str, offset: int) -> None:
        """What waits of this channel, and this offset, does not fit into memory: it will be read from the log."""

    def _write(self, data: bytes) -> None:
        if not self.out:
            self.dirty.append(self)
        self.out.append(data)

    # --- flow ------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        if not self.paused:
            self.paused = True
            self.paused_since = self.clock.now()

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the line: the moment for a replay."""
        return not self.paused and self.send_queue is None

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call back at once or in the first idle moment; at the latest when the session ends."""
        if self.idle or self.state is State.CLOSED:
            callback()
        else:
            self.idle_callbacks.append(callback)

    def has_queued(self, channel: str) -> bool:
        """Whether the backlog has something of this channel."""
        return self.send_queue is not None and channel in self.send_queue

    def resume_writing(self, limit_bytes: int) -> None:
        """The socket takes again: move about ``limit_bytes`` of what waits to ``out``."""
        self.paused = False
        if self.send_queue is not None:
            self._serve(self.send_queue, limit_bytes)
        while self.idle_callbacks and self.send_queue is None and not self.out:
            self.idle_callbacks.pop(0)()

    def _serve(self, send_queue: SendQueue, limit_bytes: int) -> None:
        steps, dropped = send_queue.pop(limit_bytes, int(self.clock.wall() * 1000))
        for drop in dropped:
            self.counters[f"drop.{drop.reason}"] += 1
        for step in steps:
            self._step(step)
        if not len(send_queue):
            self.send_queue = None

    def _step(self, step: Step) -> None:
        match step:
            case Delivery():
                self._advance(step)
                self._write(self.encoder.event(self, step))
            case OrderHeld(channel, offset):
                self.held_offsets[channel] = offset
                self.send("bus.hold", {"channel": channel, "offset": offset})
            case OrderRestored(channel, offset):
                self.held_offsets.pop(channel, None)
                self.send("bus.release", {"channel": channel, "offset": offset})
