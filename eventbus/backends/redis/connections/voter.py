"""Knowledge of one connection about the data: its timeline, and the last write that shows whether data were lost.

``eventbus/protocol/timeline.py`` explains the terms. This module sends nothing: a connection asks the questions, and
sends the answer with ``join``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis

from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import OUTDATED, no_permission
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.timeline import KEPT, RENEWAL, decode_join, join
from eventbus.errors import EventBusError, Unavailable
from eventbus.protocol.cursor import Position
from eventbus.protocol.timeline import UNKNOWN, Evidence, Statement, Timeline
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["REST", "BlockingJoin", "Heard", "Voter"]

log = logging.getLogger(__name__)

# Seconds that the end of a connection may take, and those of one wait for a verdict on the data.
_LEAVE: Final = 0.2
_VERDICT: Final = 0.5
_PAUSE: Final = 0.05

_SERVER: Final = re.compile(rb"^master_replid:([0-9a-f]{10})", re.MULTILINE)
_OUTDATED: Final = re.compile(rf"{OUTDATED} ([0-9a-f]+\.\d+)")

REST: Final = 0.5
"""Seconds without a write after which a process says that it is idle."""

Heard = Callable[[], tuple[str, Position] | None]
"""Returns the channel and the position of the last publication that this process received; None: there is none."""


class Voter:
    """The evidence of one connection.

    Args:
        settings: names the patience, and how long channels live.
        keys: names of the keys.
        active: whether other processes wait for the statement of this one.
        heard: for a process that receives publications.

    Attributes:
        timeline: of the data on the present connection.
    """

    QUESTION: Final[Command] = ("INFO", "replication")
    """Asked when a connection opens. The reply names the life of the server's data."""

    def __init__(self, settings: BusSettings, keys: Keys, *, active: bool, heard: Heard | None = None) -> None:
        self._settings = settings
        self._durable = settings.durable == "replicas"
        self._keys = keys
        self.active = active
        self.heard = heard
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._process = f"{self._pid}-{secrets.token_hex(6)}"
        self.timeline = UNKNOWN
        self._entry = 0
        self._renewed = 0.0
        self._idle = self._resting = True
        self._wrote = 0.0
        self._last: tuple[str, Position] | None = None  # written after the last renewal
        self._implied: tuple[str, Position] | None = None  # heard before it
        self._sent: tuple[str, Position] | None = None
        self._server: Endpoint | None = None  # that the evidence is about
        self._asked: Endpoint | None = None

    # --- writes ------------------------------------------------------------------------------------------------

    def note_write(self, channel: str, position: Position) -> None:
        """Note a write that Redis has acknowledged.

        Args:
            channel: the channel.
            position: its end after the write.
        """
        self._last, self._wrote = (channel, position), time.monotonic()

    @property
    def renewal_due(self) -> bool:
        """Whether the entry has to be renewed before the next write."""
        return self.active and (self._idle or time.monotonic() - self._renewed > RENEWAL)

    @property
    def rest_in(self) -> float | None:
        """Seconds until this process should say that it is idle; None: it has."""
        if not self.active or self._idle:
            return None
        return max(0.0, max(self._wrote, self._renewed) + REST - time.monotonic())

    # --- joining -----------------------------------------------------------------------------------------------

    def _newest(self) -> tuple[str, Position] | None:
        heard = None if self.heard is None else self.heard()
        return self._last if heard is None or heard == self._implied else heard

    def is_elsewhere(self, greeting: Sequence[Any]) -> bool:
        """Return whether a connection leads to other data than the last statement was about.

        Args:
            greeting: the reply to ``QUESTION`` on that connection.
        """
        found = _SERVER.search(greeting[0]) if greeting and isinstance(greeting[0], bytes) else None
        server = self.timeline.name.partition(".")[0]
        return bool(server) and found is not None and found[1].decode() != server

    def questions(self) -> list[Command]:
        """Return the commands whose replies ``answer`` needs."""
        if self._pid != os.getpid():
            self._begin()  # the evidence belongs to the parent process
        if not self.timeline.name or not self.active:
            return []
        last = self._newest()
        asked: list[Command] = [("HGET", self._keys.timeline[1], self._process)]
        if last is not None:
            asked.append(("HMGET", self._keys.channel(last[0])[0], "epoch", "offset", "parent", "fork"))
        return asked

    def answer(self, replies: Sequence[Any], *, server: Endpoint | None = None, idle: bool = False) -> Command:
        """Return the command that states what the replies show.

        Args:
            replies: the replies to ``questions``.
            server: the server that sent them.
            idle: the process writes nothing until the next call.
        """
        self._asked = server
        self._sent = None if self.heard is None else self.heard()
        statement = self._statement(replies) if replies else "unsure"
        process = self._process if self.active else ""
        self._resting = idle
        return join(self._settings, self._keys, process, statement, self.timeline.name, idle=idle)

    def _statement(self, replies: Sequence[Any]) -> Statement:
        age = time.monotonic() - self._renewed
        entry = int(replies[0].split()[0]) if replies[0] else None
        own = Evidence(entry=self._entry, fresh=age < KEPT.total_seconds() / 2)
        statements = {self._of_unconfirmed(own.state(entry, None))} if self._entry else set()
        last = self._newest()
        if last is not None and len(replies) > 1:
            epoch, offset, parent, fork = replies[1]
            here = Position(epoch.decode(), int(offset)) if epoch else None
            written = Evidence(position=last[1], fresh=age < self._settings.channel_ttl(last[0]))
            statement = written.state(None, here, (parent or b"").decode(), int(fork or 0))
            statements.add(statement if last == self._last else self._of_unconfirmed(statement))
        order: tuple[Statement, ...] = ("gone", "unconfirmed", "unsure", "intact")
        return next((one for one in order if one in statements), "unsure")

    def _of_unconfirmed(self, statement: Statement) -> Statement:
        """Return the statement about a write that no replica has confirmed to its writer, for all that is known.

        In durable mode a promoted replica has all that was confirmed. A server that returns with older data may not.
        """
        promoted = self._server is not None and self._asked is not None and self._asked != self._server
        return "unconfirmed" if statement == "gone" and self._durable and promoted else statement

    def joined(self, reply: Any) -> bool:
        """Take the reply to ``answer``.

        Args:
            reply: the reply.

        Returns:
            False while the verdict is pending: no channel may be used yet.
        """
        found = decode_join(reply)
        if found.verdict == "pending":
            return False
        self.timeline = found.timeline
        self._entry, self._renewed, self._idle = found.now_ms, time.monotonic(), self._resting
        self._last, self._implied = None, self._sent
        self._server = self._asked or self._server
        return True

    def outdated(self, error: Exception) -> None:
        """Take the timeline that a script named when it refused the present one.

        Args:
            error: the error of the script.
        """
        found = _OUTDATED.search(str(error))
        if found is not None:
            self.timeline = Timeline(found[1], "")

    def leave(self) -> Command | None:
        """Return the command that ends the evidence of this process in order; None: there is none."""
        if not self.active or self._pid != os.getpid() or not self.timeline.name:
            return None
        return ("HDEL", self._keys.timeline[1], self._process)


class BlockingJoin:
    """Learns the timeline of the data on each new blocking connection.

    Args:
        connection: the connection.
        voter: what this process knows.

    Attributes:
        greeting: of the connection whose timeline is known; None: no timeline is known.
    """

    def __init__(self, connection: BlockingConnection, voter: Voter) -> None:
        self._connection = connection
        self._voter = voter
        self.greeting: list[Any] | None = None

    def timeline(self, *, idle: bool = False) -> Timeline:
        """Return the timeline of the data on the present connection.

        Args:
            idle: this process writes nothing until the next call.

        Returns:
            The timeline. Send the commands that use it with ``greeting``.

        Raises:
            Unavailable: it is not known yet whether the server lost data.
            redis.RedisError, OSError: the server did not answer.
        """
        voter, connection = self._voter, self._connection
        known = self.greeting is not None and connection.greeting is self.greeting
        if known and not idle and not voter.renewal_due:
            return voter.timeline
        end = time.monotonic() + _VERDICT
        while True:
            greeting = connection.connect()
            questions = [] if greeting is self.greeting else voter.questions()
            replies = connection.round_trip(questions, greeting=greeting) if questions else []
            answer = voter.answer(replies, server=connection.endpoint, idle=idle)
            (reply,) = connection.round_trip([answer], greeting=greeting)
            if isinstance(reply, redis.RedisError) and not no_permission(reply):
                raise reply
            if isinstance(reply, redis.RedisError):
                log.warning("cannot ask Redis for its replication id, so a rollback may stay unnoticed: %s", reply)
            if isinstance(reply, redis.RedisError) or voter.joined(reply):
                self.greeting = greeting
                return voter.timeline
            if connection.limit is not None or time.monotonic() > end:
                raise Unavailable("Redis has restarted, and it is not known yet whether it lost data; the outbox waits")
            time.sleep(_PAUSE)

    def outdated(self, error: Exception) -> None:
        """Ask again before the next call: the data have another timeline.

        Args:
            error: the error of a script that names it.
        """
        self.greeting = None
        self._voter.outdated(error)

    def leave(self) -> None:
        """End the evidence of this process in order, if that takes little time."""
        connection, leaving = self._connection, self._voter.leave()
        if leaving is not None and self.greeting is not None and connection.greeting is self.greeting:
            connection.limit = _LEAVE
            with contextlib.suppress(redis.RedisError, OSError, EventBusError):
                connection.round_trip([leaving], greeting=self.greeting)
            connection.limit = None
        self.greeting = None
