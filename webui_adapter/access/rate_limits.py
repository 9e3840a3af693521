"""Rate limits of commands: of one session, of one user, of the whole instance. Time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.errors import CommandRefused
from webui_adapter.settings import GatewaySettings

__all__ = ["CommandRateLimiter", "CommandRateLimiters", "RateLimitExceeded", "Scope"]

Scope = Literal["session", "user", "instance"]

# Above this number of users without a session, the gateway forgets rates from which nothing was taken.
_SESSIONLESS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class RateLimitExceeded:
    """A rate that is exhausted.

    Attributes:
        scope: what the rate is about.
        limit: commands per second that it allows.
        wait: seconds until it allows the next one.
    """

    scope: Scope
    limit: float
    wait: float

    def refusal(self, ref: str | float | None = None) -> CommandRefused:
        """Return the answer to the command that exceeded the rate.

        Args:
            ref: the command's own reference.
        """
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
    """The rate of one user over all sessions of this instance, and the number of these sessions."""

    user: str
    rate: TokenBucket
    sessions: int = 0


class CommandRateLimiter:
    """Limits the commands of one session by three rates: the session's, its user's and the instance's.

    Args:
        per_second: commands per second of this session.
        now: the clock's time in seconds.
    """

    __slots__ = ("instance", "own", "user")

    def __init__(self, per_second: float, now: float) -> None:
        self.own = TokenBucket(per_second, now)
        self.user: UserRate | None = None
        self.instance: TokenBucket | None = None

    def take(self, now: float) -> RateLimitExceeded | None:
        """Count one command towards all rates. If one rate is exhausted, count it towards none.

        Args:
            now: the clock's time in seconds.

        Returns:
            None; or the exhausted rate, of several the narrowest.
        """
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
    """Owns the rates that sessions share. A user's rate ends with the user's last session.

    Args:
        settings: the limits.
        now: the clock's time in seconds.
    """

    def __init__(self, settings: GatewaySettings, now: float) -> None:
        self._settings = settings
        self._instance = TokenBucket(settings.instance_rate_limit, now)
        self._users: dict[str, UserRate] = {}
        # Rates of users that ask over HTTP and have no session here.
        self._sessionless: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._users)

    def connected(self, rate: CommandRateLimiter) -> None:
        """Count a connection's commands towards the rate of the instance.

        Args:
            rate: the connection's limiter.
        """
        rate.instance = self._instance

    def authenticated(self, rate: CommandRateLimiter, user: str, now: float) -> None:
        """Count a connection's commands towards the rate of its user as well.

        Args:
            rate: the connection's limiter.
            user: the user's id.
            now: the clock's time in seconds.
        """
        if user not in self._users:
            known = self._sessionless.pop(user, None) or TokenBucket(self._settings.user_rate_limit, now)
            self._users[user] = UserRate(user, known)
        rate.user = self._users[user]
        rate.user.sessions += 1

    def disconnected(self, rate: CommandRateLimiter) -> None:
        """Forget a connection that has ended.

        Args:
            rate: the connection's limiter.
        """
        of_user, rate.user = rate.user, None
        if of_user is not None:
            of_user.sessions -= 1
            if not of_user.sessions:
                del self._users[of_user.user]

    def requested(self, user: str, now: float) -> None:
        """Count a request over HTTP towards the rates of the user and of the instance.

        Args:
            user: the user's id; the user need not have a session.
            now: the clock's time in seconds.

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
            if len(self._sessionless) >= _SESSIONLESS_MAX:
                # A rate is full again after one second. The instance's rate bounds the users of that second.
                self._sessionless = {name: rate for name, rate in self._sessionless.items() if not rate.is_full(now)}
            self._sessionless[user] = TokenBucket(self._settings.user_rate_limit, now)
        return self._sessionless[user]
