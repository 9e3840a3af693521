"""One browser connection's state machine: commands and events in, bytes out. No I/O; the clock is an argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.access.principal import Principal
from webui_adapter.access.rate_limits import CommandRateLimiter
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.protocol.commands import Auth, Command, parse_command
from webui_adapter.session.output import Output
from webui_adapter.session.states import NEXT, State
from webui_adapter.session.subscriptions import Subscriptions

__all__ = ["Session"]


# Refusals that no working client causes. The others (a missing right, a rate, a limit) are normal.
_MALFORMED: Final = frozenset({"bad_json", "bad_command", "bad_topic", "too_large", "unauthenticated"})


class Session:
    """One browser connection: its life, its commands and its deadlines.

    Attributes:
        output: What is written to the connection.
        subscriptions: The channels that the client reads.
        state: Where the session is in its life.
        client: The address that the connection counts for; empty: none.
        principal: The user, from when the token was accepted; None before.
        rate: The limit of this connection's commands.
        refusals: The limit of refused commands. As many refusals again are no misunderstanding.
        bad_commands: How many malformed commands came.
        opened: The clock's time, in seconds, at which the connection began.
        expires: The clock's time, in seconds, at which the token expires.
        oldest: The clock's time, in seconds, at which the session has lasted as long as it may.
        pinged: The clock's time of the ping without an answer; 0.0: none.
        next_ping: The clock's time of the next ping.
    """

    __slots__ = (
        "bad_commands",
        "client",
        "expires",
        "next_ping",
        "oldest",
        "opened",
        "output",
        "pinged",
        "principal",
        "rate",
        "refusals",
        "state",
        "subscriptions",
    )

    def __init__(self, output: Output, subscriptions: Subscriptions, client: str = "") -> None:
        """Begin a session that waits for its token.

        Args:
            output: What is written to the connection.
            subscriptions: The channels that the client reads; they write to the same output.
            client: The address that the connection counts for; empty: none.
        """
        now, limit = output.clock.now(), output.settings.message_rate_limit
        self.output = output
        self.subscriptions = subscriptions
        self.state = State.WAITING
        self.client = client
        self.principal: Principal | None = None
        self.rate = CommandRateLimiter(limit, now)
        self.refusals = TokenBucket(limit, now)
        self.bad_commands = 0
        self.opened = now
        self.expires = now
        self.oldest = now
        self.pinged = 0.0
        self.next_ping = 0.0

    @property
    def id(self) -> str:
        """The session's id."""
        return self.output.session_id

    # --- life ------------------------------------------------------------------------------------------------

    def enter(self, state: State) -> None:
        """Change the state.

        Args:
            state: The next state.

        Raises:
            AssertionError: The table has no such change: a bug in the gateway.
        """
        if state not in NEXT[self.state]:
            raise AssertionError(f"a session cannot go from {self.state.name} to {state.name}")
        self.state = state
        if state is State.CLOSED:
            self.output.end()

    def open(self, principal: Principal, instance: str, life: float = math.inf) -> None:
        """Greet the client, whose token is accepted.

        Args:
            principal: The user.
            instance: The name of this gateway instance.
            life: Seconds that the session may last, also with fresh tokens.
        """
        self.enter(State.OPEN)
        self.oldest = self.output.clock.now() + life
        self.renew(principal)
        self.send(
            "bus.hello",
            {
                "session": self.id,
                "user": principal.user,
                "instance": instance,
                "protocol": "eventbus.v1",
                "ping_ms": int(self.output.settings.heartbeat_interval * 1000),
                "expires": self.expires_ms,
            },
        )

    @property
    def ends(self) -> float:
        """The clock's time, in seconds, at which the session ends without a fresh token, or in any case."""
        return min(self.expires, self.oldest)

    @property
    def expires_ms(self) -> int | None:
        """When the token or the session ends, in milliseconds since 1970; None: never."""
        assert self.principal is not None
        clock = self.output.clock
        end = min(self.principal.expires, clock.wall() + self.oldest - clock.now())
        return None if math.isinf(end) else int(end * 1000)

    def renew(self, principal: Principal) -> None:
        """Continue with a fresh token.

        Args:
            principal: The same user, with a new time of expiry.
        """
        clock = self.output.clock
        self.principal = principal
        # A moment of the monotonic clock: the wall clock may jump.
        self.expires = clock.now() + principal.expires + self.output.settings.jwt_leeway - clock.wall()

    def default_topics(self) -> tuple[str, ...]:
        """Return the topics that a session reads without a subscribe command."""
        assert self.principal is not None
        return (f"user:{self.principal.user}:*", "system:*")

    def close(self, code: CloseCode, reason: str) -> None:
        """Ask the transport to end the connection after what waits. The first reason counts.

        Args:
            code: The close code.
            reason: A text for people.
        """
        self.output.close(code, reason)

    # --- commands --------------------------------------------------------------------------------------------

    def receive(
        self, text: str | bytes, refused: Callable[[Mapping[str, object]], None] | None = None
    ) -> Command | None:
        """Parse a command; answer it with ``bus.error`` if it is refused.

        Args:
            text: The command as JSON.
            refused: Called with the data of ``bus.error`` as well.

        Returns:
            The command; None if it is refused.
        """
        try:
            return self._parse(text)
        except CommandRefused as error:
            self.refuse(error)
            if refused is not None:
                refused(error.data())
            return None

    def _parse(self, text: str | bytes) -> Command:
        """Parse a command that may be served. Raise CommandRefused."""
        excess = self.rate.take(self.output.clock.now())
        limit = self.output.settings.max_command_size
        if len(text) > limit:
            raise CommandRefused("too_large", f"a command has at most {limit} bytes", limit=limit)
        command = parse_command(text)
        if excess is not None:
            raise excess.refusal(command.ref)
        if self.state is State.WAITING and not isinstance(command, Auth):
            raise CommandRefused("unauthenticated", "the first command must be auth", field="do", ref=command.ref)
        return command

    def refuse(self, error: CommandRefused) -> None:
        """Answer a command with ``bus.error``. Close the connection after too many malformed commands.

        Args:
            error: Why the command is refused.
        """
        self.output.counters[f"refused.{error.code}"] += 1
        self.send("bus.error", error.data())
        if error.code in _MALFORMED:
            self.bad_commands += 1
        if self.bad_commands >= self.output.settings.max_bad_commands:
            self.close(CloseCode.PROTOCOL_VIOLATION, "too many malformed commands")
        if error.code == "rate_limited" and self.refusals.take(self.output.clock.now()):
            self.close(CloseCode.PROTOCOL_VIOLATION, "far too many commands")

    def answer(self, ref: str | float | None, **facts: object) -> None:
        """Answer a command with ``bus.ok``.

        Args:
            ref: The command's own reference; None if it has none.
            facts: The data of the answer.
        """
        self.send("bus.ok", facts if ref is None else {"ref": ref, **facts})

    # --- control and local events ----------------------------------------------------------------------------

    def send(self, type_: str, data: Mapping[str, object]) -> None:
        """Send a control event. It does not queue behind events.

        Args:
            type_: The event's type: ``bus.…``.
            data: Its data; JSON values.
        """
        self.output.send(type_, data)

    def send_local(self, type_: str, event: bytes) -> bool:
        """Send an event that has no position in its channel.

        Args:
            type_: The event's type.
            event: The whole event as JSON.

        Returns:
            False if the session is not open or its client is slow: it does not get the event.
        """
        return self.state in (State.OPEN, State.LEAVING) and self.output.send_local(type_, event)

    # --- time ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> tuple[float, bool]:
        """Check the deadlines.

        Args:
            now: The clock's time, in seconds.

        Returns:
            When to check again, and whether to ping now.
        """
        output, settings = self.output, self.output.settings
        if self.state is State.WAITING:
            deadline = self.opened + settings.auth_deadline
            if now >= deadline:
                self.close(CloseCode.NO_TOKEN, "no token came in time")
            return deadline, False
        if output.close_code is not None:
            return now + settings.heartbeat_interval, False
        if now >= self.expires:
            self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        if now >= self.oldest:
            self.close(CloseCode.SESSION_EXPIRED, "the session has lasted as long as a session may")
        if output.paused and now - output.paused_since >= settings.stuck_after:
            self.close(CloseCode.TOO_SLOW, "the client accepted no data for too long; resume with the cursor")
        if self.pinged and now - self.pinged >= settings.heartbeat_timeout:
            self.close(CloseCode.NO_PONG, "no pong in time")
        ping = not self.pinged and now >= self.next_ping
        if ping:
            self.next_ping = now + settings.heartbeat_interval
            if output.encoder.answers_pings:
                self.pinged = now
        pong_due = self.pinged + settings.heartbeat_timeout if self.pinged else self.next_ping
        stuck_due = (output.paused_since if output.paused else now) + settings.stuck_after
        return min(self.ends, self.next_ping, pong_due, stuck_due), ping

    def pong(self) -> None:
        """Note that the client has answered a ping."""
        self.pinged = 0.0
