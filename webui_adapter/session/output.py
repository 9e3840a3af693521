"""The output of one connection: bytes to write, the send queue of a slow client, and how the connection ends.

A client that keeps up costs one append per publication. The send queue exists only while the socket accepts no more
data. No I/O; the clock is an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from eventbus.clock import Clock
from eventbus.protocol.cursor import Cursor, Position
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.batch import Batch, Delivery
from webui_adapter.session.connection import Encoder, Transport
from webui_adapter.session.send_queue import OrderHeld, OrderRestored, Overflow, SendQueue, Step
from webui_adapter.settings import GatewaySettings

__all__ = ["Output"]


class Output:
    """The output of one connection.

    Attributes:
        session_id: The id of the session that writes here.
        dirty: The gateway's list of outputs with something to write. An output appends itself.
        transport: The connection, from when it exists until it is gone.
        out: What the transport writes next.
        send_queue: Events of a slow client; None while the client keeps up.
        positions: The position of the client in each channel. Before a channel's first history is delivered,
            this is where the client asked to resume.
        held_offsets: Channels whose events may overtake each other, with the offset that is safe to resume from.
        idle_callbacks: Functions to call when nothing waits any more.
        paused: The socket accepts no more data.
        paused_since: The clock's time, in seconds, at which the socket stopped accepting data.
        closed: The session has ended.
        close_code: The code to end the connection with; None while the connection stays.
    """

    __slots__ = (
        "clock",
        "close_code",
        "close_reason",
        "closed",
        "closing_since",
        "counters",
        "dirty",
        "encoder",
        "held_offsets",
        "idle_callbacks",
        "out",
        "paused",
        "paused_since",
        "positions",
        "send_queue",
        "session_id",
        "settings",
        "transport",
    )

    def __init__(
        self,
        session_id: str,
        settings: GatewaySettings,
        encoder: Encoder,
        dirty: list[Output],
        counters: Counter[str],
        clock: Clock,
    ) -> None:
        """Begin with a connection that accepts data.

        Args:
            session_id: The id of the session that writes here.
            settings: Limits of the send queue: ``backlog_events``, ``backlog_bytes``.
            encoder: How events become bytes of this kind of connection.
            dirty: The list that receives this output when it has something to write.
            counters: Receives ``drop.{reason}`` and ``gap.{reason}``.
            clock: The gateway's clock.
        """
        self.session_id = session_id
        self.settings = settings
        self.encoder = encoder
        self.dirty = dirty
        self.counters = counters
        self.clock = clock
        # An attribute, not a lookup: this is the hot path.
        self.transport: Transport | None = None
        self.out: list[bytes] = []
        self.send_queue: SendQueue | None = None
        self.positions: dict[str, Position] = {}
        self.held_offsets: dict[str, int] = {}
        self.idle_callbacks: list[Callable[[], None]] = []
        self.paused = False
        self.paused_since = 0.0
        self.closed = False
        self.close_code: CloseCode | None = None
        self.close_reason = ""
        self.closing_since = 0.0

    # --- control events and the end --------------------------------------------------------------------------

    def send(self, type_: str, data: Mapping[str, object]) -> None:
        """Send a control event. It does not queue behind events, since it is about the connection.

        Args:
            type_: The event's type: ``bus.…``.
            data: Its data; JSON values.
        """
        if not self.closed:
            self._write(self.encoder.control(self, type_, data))

    def send_local(self, type_: str, event: bytes) -> bool:
        """Send an event that has no position in its channel.

        Args:
            type_: The event's type.
            event: The whole event as JSON.

        Returns:
            False if the client is slow: it does not get the event.
        """
        if not self.idle:
            return False
        self._write(self.encoder.local(type_, event))
        return True

    def close(self, code: CloseCode, reason: str) -> None:
        """Ask the transport to end the connection after what is in ``out``. The first reason counts.

        Args:
            code: The close code.
            reason: A text for people.
        """
        if self.close_code is None and not self.closed:
            self.close_code = code
            self.close_reason = reason
            self.closing_since = self.clock.now()
            # Also if ``out`` waits for a client that reads nothing: the flush sets the deadline of the close.
            self.dirty.append(self)

    def end(self) -> None:
        """Note that the session has ended, and run the callbacks that still wait for an idle moment."""
        self.closed = True
        callbacks, self.idle_callbacks = self.idle_callbacks, []
        for callback in callbacks:
            callback()

    # --- events ----------------------------------------------------------------------------------------------

    def deliver(self, batch: Batch) -> Sequence[Overflow]:
        """Deliver all events of a batch. The hot path: one append for a client that keeps up.

        Args:
            batch: Events of one channel that the client reads as a whole.

        Returns:
            The channels that the send queue has no room for. Once the batch's own channel is among them, the rest of
            the batch is skipped, since the log has it.
        """
        if self.paused or self.send_queue is not None or not self.encoder.shares_frames:
            return self._deliver_each(batch)
        out = self.out
        if not out:
            self.dirty.append(self)
        out.append(batch.frames)
        return ()

    def _deliver_each(self, batch: Batch) -> Sequence[Overflow]:
        found: list[Overflow] = []
        for delivery in batch.deliveries:
            overflows = self.deliver_one(delivery)
            found += overflows
            if any(overflow.channel == batch.channel for overflow in overflows):
                break
        return found

    def deliver_one(self, delivery: Delivery) -> Sequence[Overflow]:
        """Write one event, or queue it while the socket accepts no data.

        Args:
            delivery: The event.

        Returns:
            The channels that the send queue has no room for.
        """
        if self.paused or self.send_queue is not None:
            return self._queue(delivery)
        self.write_event(delivery)
        return ()

    def write_event(self, delivery: Delivery, *, in_order: bool = True) -> None:
        """Write one event, whatever waits.

        Args:
            delivery: The event.
            in_order: The event follows what the client has of the channel, so the client's position moves to it.
        """
        if in_order:
            position, offset = self.positions.get(delivery.channel), delivery.record.offset
            if position is not None and offset > position.offset:
                self.positions[delivery.channel] = Position(position.epoch, offset)
        self._write(self.encoder.event(self, delivery))

    def _queue(self, delivery: Delivery) -> Sequence[Overflow]:
        if self.send_queue is None:
            self.send_queue = SendQueue(self.settings.backlog_events, self.settings.backlog_bytes)
        lost: dict[str, int] = {}
        for drop in self.send_queue.push(delivery, self.clock.server_ms()):
            self.counters[f"drop.{drop.reason}"] += 1
            # The client would never learn of a dropped event that is kept; it gets it from the log or the snapshot.
            if drop.reason in ("full", "shed") and drop.item.keep != "nothing":
                channel, offset = drop.item.channel, drop.item.record.offset
                lost[channel] = min(offset, lost.get(channel, offset))
        if not lost:
            return ()
        return [Overflow(channel, self.safe_offset(channel, offset)) for channel, offset in lost.items()]

    def safe_offset(self, channel: str, missing: int) -> int:
        """Return the offset up to which the client has everything of a channel.

        Args:
            channel: The channel.
            missing: The offset of an event that the client does not have. Others may wait in the send queue.
        """
        queued = None if self.send_queue is None else self.send_queue.first(channel)
        return (missing if queued is None else min(missing, queued)) - 1

    def _write(self, data: bytes) -> None:
        if not self.out:
            self.dirty.append(self)
        self.out.append(data)

    # --- positions -------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """Return where the client can resume after what has been written so far.

        Returns:
            A position per channel. While a channel's events may overtake each other, it is the safe one.
        """
        if not self.held_offsets:
            return dict(self.positions)
        held = self.held_offsets
        return {name: Position(at.epoch, held.get(name, at.offset)) for name, at in self.positions.items()}

    def hold(self, channel: str, offset: int) -> None:
        """Announce that events of a channel may overtake each other from here on.

        Args:
            channel: The channel.
            offset: The client has everything up to here.
        """
        self.held_offsets[channel] = offset
        self.send("bus.hold", {"channel": channel, "offset": offset})

    def release(self, channel: str, offset: int) -> None:
        """Announce that a channel's events are in order again.

        Args:
            channel: The channel.
            offset: The client has everything up to here.
        """
        self.held_offsets.pop(channel, None)
        self.send("bus.release", {"channel": channel, "offset": offset})

    # --- flow control ----------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing waits for the socket: the moment for a replay."""
        return not self.paused and self.send_queue is None

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call a function immediately, or in the first idle moment, or when the session ends.

        Args:
            callback: The function.
        """
        if self.idle or self.closed:
            callback()
        else:
            self.idle_callbacks.append(callback)

    def has_queued(self, channel: str) -> bool:
        """Return whether the send queue holds events of a channel.

        Args:
            channel: The channel.
        """
        return self.send_queue is not None and channel in self.send_queue

    def discard(self, channel: str, reason: str) -> None:
        """Drop what the send queue holds of a channel.

        Args:
            channel: The channel.
            reason: The counter's name: ``drop.{reason}``.
        """
        if self.send_queue is not None:
            self.counters[f"drop.{reason}"] += self.send_queue.discard(channel)
        held, position = self.held_offsets.get(channel), self.positions.get(channel)
        if held is not None:
            # Events above the held offset may be among the dropped ones: the resume point goes back to it.
            if position is not None:
                self.positions[channel] = Position(position.epoch, held)
            self.release(channel, held)

    def pause_writing(self) -> None:
        """Note that the socket accepts no more data for now."""
        if not self.paused:
            self.paused = True
            self.paused_since = self.clock.now()

    def resume_writing(self, limit_bytes: int) -> None:
        """Note that the socket accepts data again, and move queued events to ``out``.

        Args:
            limit_bytes: About how many bytes to move; at least one event.
        """
        self.paused = False
        if self.send_queue is not None:
            self._write_queued(self.send_queue, limit_bytes)
        while self.idle_callbacks and self.send_queue is None and not self.out:
            self.idle_callbacks.pop(0)()

    def _write_queued(self, send_queue: SendQueue, limit_bytes: int) -> None:
        steps, dropped = send_queue.pop(limit_bytes, self.clock.server_ms())
        for drop in dropped:
            self.counters[f"drop.{drop.reason}"] += 1
        for step in steps:
            self._step(step)
        if not len(send_queue):
            self.send_queue = None

    def _step(self, step: Step) -> None:
        match step:
            case Delivery():
                self.write_event(step)
            case OrderHeld(channel, offset):
                self.hold(channel, offset)
            case OrderRestored(channel, offset):
                self.release(channel, offset)
