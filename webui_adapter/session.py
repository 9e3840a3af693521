"""One browser connection's state machine: commands and events in, bytes out. No I/O; the clock is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from eventbus.cursor import Cursor, Position
from eventbus.resume import Resumption
from eventbus.topics import channel_of, whole_channel
from eventbus.wire import Record
from webui_adapter.clock import Clock
from webui_adapter.closecodes import CloseCode
from webui_adapter.commands import Auth, Command, Subscribe, parse_command
from webui_adapter.delivery import Batch, Delivery
from webui_adapter.errors import CommandRefused
from webui_adapter.limits import CommandRate, Rate
from webui_adapter.outlet import Framing, Outlet
from webui_adapter.settings import GatewaySettings
from webui_adapter.states import State
from webui_adapter.tokens import Principal
from webui_adapter.view import View, covered

__all__ = ["Session"]


# Refusals of what no working page sends. The others (a right that is missing, a rate, a limit) are everyday life.
_MALFORMED: Final = frozenset({"bad_json", "bad_command", "bad_topic", "too_large", "unauthenticated"})


class Session(Outlet):
    """What one browser reads, may do and has to do in time; how it is told is the outlet's."""

    __slots__ = (
        "asked",
        "bad_commands",
        "behind",
        "expires",
        "id",
        "next_ping",
        "opened",
        "pinged",
        "principal",
        "rate",
        "refusals",
        "views",
    )

    def __init__(
        self,
        id_: str,
        settings: GatewaySettings,
        framing: Framing,
        dirty: list[Outlet],
        counters: Counter[str],
        clock: Clock,
        behind: list[tuple[Session, str]] | None = None,
    ) -> None:
        """``behind`` takes note of channels that have to be read again; whoever looks at it begins to."""
        super().__init__(settings, framing, dirty, counters, clock)
        self.id = id_
        self.behind = [] if behind is None else behind
        self.principal: Principal | None = None
        self.views: dict[str, View] = {}
        # Subscriptions that wait for the authoriser.
        self.asked: list[Subscribe] = []
        now = clock.now()
        self.rate = CommandRate(settings.message_rate_limit, now)
        # To be refused as often again is no misunderstanding any more.
        self.refusals = Rate(settings.message_rate_limit, now)
        self.bad_commands = 0
        self.opened = now
        self.expires = now
        self.pinged = 0.0
        self.next_ping = 0.0

    # --- life ------------------------------------------------------------------------------------------------

    def open(self, principal: Principal, instance: str) -> None:
        """The token is good: greet."""
        self.enter(State.OPEN)
        self.renew(principal)
        self.say(
            "bus.hello",
            {
                "session": self.id,
                "user": principal.user,
                "instance": instance,
                "protocol": "eventbus.v1",
                "ping_ms": int(self.settings.heartbeat_interval * 1000),
                "expires": int(principal.expires * 1000),
            },
        )

    def renew(self, principal: Principal) -> None:
        """Go on under a fresh token. Its end is kept as a moment of the clock that only goes forward."""
        self.principal = principal
        self.expires = self.clock.now() + principal.expires + self.settings.jwt_leeway - self.clock.wall()

    def default_topics(self) -> tuple[str, ...]:
        """What a session reads without asking."""
        assert self.principal is not None
        return (f"user:{self.principal.user}:*", "system:*")

    # --- commands --------------------------------------------------------------------------------------------

    def receive(
        self, text: str | bytes, refused: Callable[[Mapping[str, object]], None] | None = None
    ) -> Command | None:
        """Read a command; what is wrong with it is answered here (``refused`` hears it too), and None returned."""
        try:
            excess = self.rate.take(self.clock.now())
            if len(text) > self.settings.max_command_size:
                limit = self.settings.max_command_size
                raise CommandRefused("too_large", f"a command has at most {limit} bytes", limit=limit)
            command = parse_command(text)
            if excess is not None:
                raise excess.refusal(command.ref)
            if self.state is State.WAITING and not isinstance(command, Auth):
                raise CommandRefused("unauthenticated", "the first command must be auth", field="do", ref=command.ref)
        except CommandRefused as error:
            self.refuse(error)
            if refused is not None:
                refused(error.data())
            return None
        return command

    def refuse(self, error: CommandRefused) -> None:
        """Answer a command with ``bus.error``; one who never gets the form right is closed."""
        self.counters[f"refused.{error.code}"] += 1
        self.say("bus.error", error.data())
        if error.code in _MALFORMED:
            self.bad_commands += 1
        if self.bad_commands >= self.settings.max_bad_commands:
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many malformed commands")
        if error.code == "rate_limited" and self.refusals.take(self.clock.now()):
            self.close(CloseCode.PROTOCOL_VIOLATION, "far too many commands")

    def answer(self, ref: str | float | None, **facts: object) -> None:
        """``bus.ok``."""
        self.say("bus.ok", facts if ref is None else {"ref": ref, **facts})

    def topics(self) -> set[str]:
        """Patterns in all channels, those that still wait for something included."""
        views = self.views.values()
        waiting = [command for view in views for command in view.waiting]
        return {pattern for view in views for pattern in view.patterns} | {c.topic for c in (*waiting, *self.asked)}

    # --- channels --------------------------------------------------------------------------------------------

    def watch(self, command: Subscribe, here: int) -> View:
        """Add a pattern; live events of its channel are buffered until ``replay``.

        ``here`` is the offset up to which live events have been handed to the sessions of this channel. What an
        earlier pattern has brought is not brought again, unless this one asks for it by ``since``.
        """
        channel = channel_of(command.topic)
        view = self.views.get(channel)
        if view is None:
            view = self.views[channel] = View()
        else:
            view.delivered = here
        view.bringing = command
        if command.since is not None:
            view.requested = command.since
        view.patterns[command.topic] = None
        view.whole = whole_channel(channel) in view.patterns
        return view

    def unwatch(self, pattern: str) -> View | None:
        """Take a pattern away; the view if it was the last one there."""
        self.asked = [command for command in self.asked if command.topic != pattern]
        channel = channel_of(pattern)
        view = self.views.get(channel)
        if view is None:
            return None
        view.waiting = [command for command in view.waiting if command.topic != pattern]
        view.patterns.pop(pattern, None)
        view.settled = tuple(settled for settled in view.settled if settled != pattern)
        view.whole = whole_channel(channel) in view.patterns
        if view.patterns:
            return None
        del self.views[channel]
        self._void(channel, "unsubscribed")
        return view

    def replay(self, channel: str, resumption: Resumption, kept: Resumption | None) -> None:
        """Hand over what ``resume`` found for the subscription that waits for it; only to an idle session.

        ``kept`` is the same for those that were settled before: what has come for them meanwhile.
        """
        view = self.views[channel]
        command = view.bringing
        assert command is not None
        records = {record.offset: record for record in resumption.records if view.is_for(command, record)}
        start, gap = resumption.start, resumption.gap
        if kept is not None:
            records |= {record.offset: record for record in kept.records if covered(view.settled, record.topic)}
            start, gap = min(start, kept.start, key=lambda position: position.offset), gap or kept.gap
        whole = Resumption(start, [records[offset] for offset in sorted(records)], resumption.position, gap)
        if resumption.more:
            # A page of it: the next one when the browser has taken this.
            view.bringing = replace(command, since=resumption.position, ref=None)
            if view.settled:
                view.delivered = resumption.position.offset
            self._bring(channel, view, whole, "resumed", list(view.patterns), command.ref)
            return
        view.bringing = None
        view.replaying = []
        view.settled = tuple(view.patterns)
        view.skip_to = resumption.position.offset
        how = "gap" if gap else "snapshot" if command.since is None else "resumed"
        self._bring(channel, view, whole, how, list(view.patterns), command.ref)

    def _hand_owed(self, channel: str, view: View, start: int) -> set[int]:
        """What the user is owed, before the rest of the channel: out of its order, so under a hold. Its offsets."""
        owed, view.owed = view.owed, None
        wanted = [] if owed is None else [record for record in owed.records if view.wants(record.topic)]
        if wanted:
            self.holds[channel] = start
            self.say("bus.hold", {"channel": channel, "offset": start})
            for record in wanted:
                self._write(self.framing.event(self, Delivery(channel, record)))
            del self.holds[channel]
            self.say("bus.release", {"channel": channel, "offset": start})
        return {record.offset for record in wanted}

    def take_again(self, deliveries: Sequence[Delivery]) -> None:
        """Events that nobody has acknowledged in time. Who is slow has them waiting, or will read them."""
        for delivery in deliveries:
            view = self.views.get(delivery.channel)
            if self.idle and view is not None and view.bringing is None and view.wants(delivery.topic):
                self._write(self.framing.event(self, delivery))

    def interrupt(self, channel: str, resumption: Resumption) -> None:
        """The whole channel has lost events: say so and begin anew from its present state."""
        view = self.views[channel]
        self._void(channel, "gap")
        if view.settled:
            view.delivered = resumption.position.offset
            records = [record for record in resumption.records if covered(view.settled, record.topic)]
            self._bring(channel, view, replace(resumption, records=records), "gap", list(view.settled), None)
        if view.bringing is None:
            view.skip_to = resumption.position.offset
        else:
            view.replaying.clear()  # it waits for a reading of its own, which what came before would not fit

    def forget_past(self, channel: str) -> None:
        """The life of a channel has ended in Redis, and nothing of it was missed: what comes next is of another one."""
        view = self.views[channel]
        if self.waits(channel) or (view.settled and view.replaying):
            # It would come after the next life has begun, and be taken for that one's.
            self.close(CloseCode.TOO_SLOW, "the channel begins anew, and this was behind; resume with the cursor")
        view.skip_to = 0
        view.delivered = 0
        view.replaying.clear()

    def adopt(self, channel: str, epoch: str) -> None:
        """A channel begins a life, and this session has missed nothing: the epoch belongs to the page's cursor."""
        self.forget_past(channel)
        view = self.views[channel]
        if view.bringing is None:
            view.position = Position(epoch, 0)
            where = {"channel": channel, "epoch": epoch, "offset": 0}
            self.say("bus.subscribed", {**where, "how": "resumed", "topics": list(view.patterns)})

    def is_behind(self, channel: str) -> bool:
        """See ``Outlet``."""
        view = self.views.get(channel)
        return view is not None and view.bringing is not None

    def fall_behind(self, channel: str, offset: int) -> None:
        """See ``Outlet``. The page has everything below what waited, and goes on from there when it takes again."""
        view = self.views.get(channel)
        if view is None or view.bringing is not None or view.position is None:
            return
        waiting = None if self.backlog is None else self.backlog.first(channel)
        safe = min(offset, offset if waiting is None else waiting) - 1
        self._void(channel, "behind")
        self.counters["behind"] += 1
        since = Position(view.position.epoch, safe)
        view.position = since
        view.bringing = Subscribe(next(iter(view.patterns)), since)
        view.settled, view.delivered = tuple(view.patterns), safe
        view.replaying.clear()
        self.behind.append((self, channel))

    def _void(self, channel: str, reason: str) -> None:
        """What waits of a channel is not to be sent any more."""
        if self.backlog is not None:
            self.counters[f"drop.{reason}"] += self.backlog.discard(channel)
        held = self.holds.pop(channel, None)
        if held is not None:
            self.say("bus.release", {"channel": channel, "offset": held})

    def _bring(
        self, channel: str, view: View, whole: Resumption, how: str, topics: list[str], ref: str | float | None
    ) -> None:
        """A replay's events and the words around them.

        Straight to the line: a history is bounded by the log, and the backlog may not be able to hold it.
        """
        start, end = whole.start, whole.position
        where = {"channel": channel, "epoch": end.epoch}
        if whole.gap is not None:
            self.counters[f"gap.{whole.gap.reason}"] += 1
            self.say("bus.gap", {**where, "offset": end.offset, "reason": whole.gap.reason})
        self.counters[f"resume.{how}"] += 1
        answer = {} if ref is None else {"ref": ref}
        self.say("bus.subscribed", {**where, "offset": start.offset, "how": how, "topics": topics, **answer})
        view.position = start
        handed = self._hand_owed(channel, view, start.offset)
        for record in whole.records:
            if record.offset in handed or not record.event:
                continue
            delivery = Delivery(channel, record)
            self._advance(delivery)
            self._write(self.framing.event(self, delivery))
        view.position = end
        self.say("bus.position", {**where, "offset": end.offset})

    def narrow(self) -> list[str]:
        """Channels that are read in part, and are up to date."""
        return [name for name, view in self.views.items() if not view.whole and view.bringing is None]

    def tell_position(self, channel: str, position: Position) -> None:
        """Say that everything up to a position has been handed over, if that is news, and nothing of it waits."""
        view = self.views[channel]
        known = view.position
        if known is None or known.epoch != position.epoch or known.offset >= position.offset or self.waits(channel):
            return
        view.position = position
        self.say("bus.position", {"channel": channel, "epoch": position.epoch, "offset": position.offset})

    def cursor(self) -> Cursor:
        """Where this session is in all of its channels; while one is on hold, the offset that is safe."""
        cursor: Cursor = {}
        for channel, view in self.views.items():
            if view.position is not None:
                cursor[channel] = Position(view.position.epoch, self.holds.get(channel, view.position.offset))
            elif view.requested is not None:
                cursor[channel] = view.requested
        return cursor

    # --- events ----------------------------------------------------------------------------------------------

    def take_some(self, batch: Batch) -> int:
        """Events of a channel that this session reads in part, or has had some of already. Returns how many it took."""
        view = self.views[batch.channel]
        taken = 0
        for delivery in batch.deliveries:
            record = delivery.record
            if view.bringing is not None:
                self._keep(view, record)
            elif record.offset > view.skip_to and view.wants(record.topic):
                self._deliver(delivery)
                taken += 1
        return taken

    def _keep(self, view: View, record: Record) -> None:
        view.kept += record.size
        if len(view.replaying) >= self.settings.backlog_events or view.kept > self.settings.backlog_bytes:
            # Then another reading is needed: one that has them all, since it begins after they came.
            view.replaying.clear()
            view.kept = record.size
        if not view.replaying:
            view.kept = record.size
        view.replaying.append(record)

    def _advance(self, delivery: Delivery) -> None:
        view = self.views.get(delivery.channel)
        if view is not None and view.position is not None and delivery.record.offset > view.position.offset:
            view.position = Position(view.position.epoch, delivery.record.offset)

    # --- time ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> tuple[float, bool]:
        """Look at the deadlines. Returns when to look again, and whether to ping."""
        settings = self.settings
        if self.state is State.WAITING:
            deadline = self.opened + settings.auth_deadline
            if now >= deadline:
                self.close(CloseCode.NO_TOKEN, "no token came in time")
            return deadline, False
        if self.close_code is not None:
            return now + settings.heartbeat_interval, False
        if now >= self.expires:
            self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        if self.blocked and now - self.stuck_since >= settings.stuck_after:
            self.close(CloseCode.TOO_SLOW, "nothing was taken for too long; resume with the cursor")
        if self.pinged and now - self.pinged >= settings.heartbeat_timeout:
            self.close(CloseCode.NO_PONG, "no pong in time")
        ping = not self.pinged and now >= self.next_ping
        if ping:
            self.next_ping = now + settings.heartbeat_interval
            if self.framing.pongs:
                self.pinged = now
        pong_due = self.pinged + settings.heartbeat_timeout if self.pinged else self.next_ping
        stuck_due = (self.stuck_since if self.blocked else now) + settings.stuck_after
        return min(self.expires, self.next_ping, pong_due, stuck_due), ping

    def pong(self) -> None:
        """The browser has answered a ping."""
        self.pinged = 0.0
