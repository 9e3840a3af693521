"""One browser connection's state machine: commands and events in, bytes out. No I/O; the clock is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from eventbus.clock import Clock
from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.access.rate_limits import CommandRateLimiter
from webui_adapter.access.tokens import Principal
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Auth, Command, parse_command
from webui_adapter.session.output import Encoder, Output
from webui_adapter.session.states import State
from webui_adapter.session.subscriptions import Subscriptions
from webui_adapter.settings import GatewaySettings

__all__ = ["Session"]


# Refusals of what no working page sends. The others (a right that is missing, a rate, a limit) are everyday life.
_MALFORMED: Final = frozenset({"bad_json", "bad_command", "bad_topic", "too_large", "unauthenticated"})


class Session(Subscriptions):
    """What one browser may do and has to do in time; what it reads is the follower's, how it is told the outlet's."""

    __slots__ = (
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
    )

    def __init__(
        self,
        id_: str,
        settings: GatewaySettings,
        encoder: Encoder,
        dirty: list[Output],
        counters: Counter[str],
        clock: Clock,
        behind: list[tuple[Session, str]] | None = None,
    ) -> None:
        """``behind`` takes note of channels that have to be read again; whoever looks at it begins to."""
        super().__init__(settings, encoder, dirty, counters, clock)
        self.id = id_
        self.behind = [] if behind is None else behind
        self.principal: Principal | None = None
        now = clock.now()
        self.rate = CommandRateLimiter(settings.message_rate_limit, now)
        # To be refused as often again is no misunderstanding any more.
        self.refusals = TokenBucket(settings.message_rate_limit, now)
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
        self.send(
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
        self.send("bus.error", error.data())
        if error.code in _MALFORMED:
            self.bad_commands += 1
        if self.bad_commands >= self.settings.max_bad_commands:
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many malformed commands")
        if error.code == "rate_limited" and self.refusals.take(self.clock.now()):
            self.close(CloseCode.PROTOCOL_VIOLATION, "far too many commands")

    def answer(self, ref: str | float | None, **facts: object) -> None:
        """``bus.ok``."""
        self.send("bus.ok", facts if ref is None else {"ref": ref, **facts})

    # --- events ----------------------------------------------------------------------------------------------

    def overflow(self, channel: str, offset: int) -> None:
        """See ``Output``."""
        if self.rewind(channel, offset):
            self.behind.append((self, channel))

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
        if self.paused and now - self.paused_since >= settings.stuck_after:
            self.close(CloseCode.TOO_SLOW, "nothing was taken for too long; resume with the cursor")
        if self.pinged and now - self.pinged >= settings.heartbeat_timeout:
            self.close(CloseCode.NO_PONG, "no pong in time")
        ping = not self.pinged and now >= self.next_ping
        if ping:
            self.next_ping = now + settings.heartbeat_interval
            if self.encoder.answers_pings:
                self.pinged = now
        pong_due = self.pinged + settings.heartbeat_timeout if self.pinged else self.next_ping
        stuck_due = (self.paused_since if self.paused else now) + settings.stuck_after
        return min(self.expires, self.next_ping, pong_due, stuck_due), ping

    def pong(self) -> None:
        """The browser has answered a ping."""
        self.pinged = 0.0
