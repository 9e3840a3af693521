"""Rates, as token buckets, and the three of them that a command has to pass. Time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.errors import CommandRefused
from webui_adapter.settings import GatewaySettings

__all__ = ["CommandRateLimiter", "CommandRateLimiters", "RateLimitExceeded", "Scope"]

Scope = Literal["session", "user", "instance"]

# Users without a session whose rates are kept before those that are as good as new are let go.
_VISITORS = 1_000


@dataclass(frozen=True, slots=True)
class RateLimitExceeded:
    """Which rate is exhausted, what it allows a second, and after how many seconds there is room."""

    scope: Scope
    limit: float
    wait: float

    def refusal(self, ref: str | float | None = None) -> CommandRefused:
        """The answer to the command that was one too many."""
        return CommandRefused(
            "rate_limited",
            f"more than {self.limit:g} commands a second of this {self.scope}",
            limit=self.limit,
            scope=self.scope,
            retry_ms=int(self.wait * 1000) + 1,
            ref=ref,
        )


@dataclass(slots=True)
class UserRate:
    """One user's rate over all sessions here, and how many these are."""

    user: str
    rate: TokenBucket
    sessions: int = 0


class CommandRateLimiter:
    """What one session may send: within its own rate, its user's and the instance's."""

    __slots__ = ("instance", "own", "user")

    def __init__(self, per_second: float, now: float) -> None:
        self.own = TokenBucket(per_second, now)
        self.user: UserRate | None = None
        self.instance: TokenBucket | None = None

    def take(self, now: float) -> RateLimitExceeded | None:
        """Take one of each, or say which is exhausted, the narrowest first; then nothing is taken of any."""
        rates: list[tuple[Scope, TokenBucket]] = [("session", self.own)]
        if self.user is not None:
            rates.append(("user", self.user.rate))
        if self.instance is not None:
            rates.append(("instance", self.instance))
        return _take(rates, now)


def _take(rates: Sequence[tuple[Scope, TokenBucket]], now: float) -> RateLimitExceeded | None:
    for scope, rate in rates:
        wait = rate.wait(now)
        if wait:
            return RateLimitExceeded(scope, rate.per_second, wait)
    for _, rate in rates:
        rate.spend()
    return None


class CommandRateLimiters:
    """The rates that sessions share. A user's goes with the last session."""

    def __init__(self, settings: GatewaySettings, now: float) -> None:
        self._settings = settings
        self._instance = TokenBucket(settings.instance_rate_limit, now)
        self._users: dict[str, UserRate] = {}
        # Of those who ask over HTTP and have no session here.
        self._sessionless: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._users)

    def connected(self, rate: CommandRateLimiter) -> None:
        """A connection counts towards the instance's rate, whoever it is."""
        rate.instance = self._instance

    def authenticated(self, rate: CommandRateLimiter, user: str, now: float) -> None:
        """From now on it counts towards its user's, too."""
        if user not in self._users:
            known = self._sessionless.pop(user, None) or TokenBucket(self._settings.user_rate_limit, now)
            self._users[user] = UserRate(user, known)
        rate.user = self._users[user]
        rate.user.sessions += 1

    def disconnected(self, rate: CommandRateLimiter) -> None:
        """The connection is gone."""
        of_user, rate.user = rate.user, None
        if of_user is not None:
            of_user.sessions -= 1
            if not of_user.sessions:
                del self._users[of_user.user]

    def requested(self, user: str, now: float) -> None:
        """A request over HTTP: within the user's rate, sessions or none, and the instance's.

        Raises:
            CommandRefused: ``rate_limited``.
        """
        excess = _take([("user", self._rate_of(user, now)), ("instance", self._instance)], now)
        if excess is not None:
            raise excess.refusal()

    def _rate_of(self, user: str, now: float) -> TokenBucket:
        if user in self._users:
            return self._users[user].rate
        if user not in self._sessionless:
            if len(self._sessionless) >= _VISITORS:
                # What the instance's rate lets through in the second that a rate needs to be full bounds the rest.
                self._sessionless = {name: rate for name, rate in self._sessionless.items() if not rate.is_full(now)}
            self._sessionless[user] = TokenBucket(self._settings.user_rate_limit, now)
        return self._sessionless[user]
