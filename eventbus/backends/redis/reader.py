"""Reads the history of channels from an event loop, and runs the scripts of the stores."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from eventbus.backends.redis.cluster.pipeline import ClusterPipeline
from eventbus.backends.redis.connections.errors import OUTDATED, ScriptUnknown, no_permission
from eventbus.backends.redis.connections.pipeline import Pipeline, Reply
from eventbus.backends.redis.connections.voter import Heard, Voter
from eventbus.backends.redis.format_check import FormatCheck
from eventbus.backends.redis.scripts.channel import fork, read
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.backends.redis.timelines.pipelined import PipelinedTimelines
from eventbus.clock import ServerClock
from eventbus.errors import TransportError, Unavailable
from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.history import History, Page
from eventbus.settings import BusSettings

__all__ = ["RedisReader"]

log = logging.getLogger(__name__)

R = TypeVar("R")

# Seconds that the end of the connection may take, and those of one wait for a verdict on the data.
_LEAVE: Final = 0.2
_VERDICT: Final = 1.0
_PAUSE: Final = 0.05


class RedisReader:
    """``Reader`` over one connection. Calls of one turn of the event loop go out together.

    Args:
        settings: address, time limits and the keys' prefix.
        most_waiting: maximum number of calls that wait for a reply.

    Attributes:
        formats: chooses the format that all running gateways understand.
        clock: the clock of Redis, as of the last ``server_ms``.
    """

    def __init__(self, settings: BusSettings, *, most_waiting: int = 20_000) -> None:
        self.clock = ServerClock()
        self._keys = Keys.of(settings)
        self._cluster: PipelinedTimelines | None = None
        self._pipeline: ClusterPipeline | Pipeline
        if settings.redis.kind == "cluster":
            self._cluster = PipelinedTimelines(settings, most_waiting=most_waiting)
            self._pipeline = self._cluster.pipeline
        else:
            self._pipeline = Pipeline(settings, most_waiting=most_waiting, questions=[Voter.QUESTION])
        self.formats = FormatCheck(settings, unannounced=0)
        self._voter = Voter(settings, self._keys, active=False)
        self._moved: Callable[[str], None] | None = None
        self._greeting: list[Reply] | None = None  # of the connection whose timeline is known
        self._joining: asyncio.Future[None] | None = None
        self._loading: dict[str, asyncio.Future[Reply]] = {}

    async def read(self, channel: str, after: int | None, page: Page | None = None) -> History:
        """See ``Reader``."""
        return await self.run(read(self._keys, channel, after, page))

    async def fork(self, channel: str, epoch: str) -> bool:
        """See ``Reader``."""
        return await self.run(fork(self._keys, channel, epoch))

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        """See ``Reader``."""
        states = (self._keys.channel(channel)[0] for channel in channels)
        replies = await self._pipeline.execute_all([("HMGET", state, "epoch", "offset") for state in states])
        return [Position(epoch.decode(), int(offset)) if epoch else BEGINNING for epoch, offset in replies]

    async def format_to_write(self) -> int:
        """Return the newest format that all running gateways understand. From time to time it asks Redis.

        Raises:
            Unavailable: the server did not answer.
        """
        questions = self.formats.questions(time.monotonic())
        if questions:
            replies = await self._pipeline.execute_all(questions)
            for reply in replies:
                if isinstance(reply, Unavailable):
                    raise reply
            self.formats.answered(time.monotonic(), replies)
        return self.formats.choice.format

    async def run(self, call: Call[R]) -> R:
        """Run a script. If the server does not have it, load it first.

        Args:
            call: the call.

        Returns:
            The decoded reply.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the call.
        """
        try:
            reply = await self._run(call)
        except ScriptUnknown:
            await self._load(call.script)
            reply = await self._run(call)
        return call.decode(reply)

    async def _run(self, call: Call[R]) -> Reply:
        if not call.script.has_timeline:
            return await self._pipeline.execute(call.command)
        if self._cluster is not None:
            return await self._cluster.run(call)
        while (greeting := await self._pipeline.connect()) is not self._greeting:
            await self._join(greeting)
        # In the turn in which connect() has returned, commands use the same connection.
        try:
            return await self._pipeline.execute(call.command_on(self._voter.timeline))
        except Unavailable as error:
            if error.code == OUTDATED:
                self._greeting = None
                self._voter.outdated(error)
            raise

    async def _join(self, greeting: list[Reply]) -> None:
        """Learn the timeline of the data on a new connection. All calls that wait share one attempt."""
        if self._joining is None:
            self._joining = asyncio.ensure_future(self._learn(greeting))
            self._joining.add_done_callback(self._join_ended)
        await asyncio.shield(self._joining)

    def _join_ended(self, done: asyncio.Future[None]) -> None:
        self._joining = None
        if not done.cancelled():
            done.exception()  # marks it as retrieved

    async def _learn(self, greeting: list[Reply]) -> None:
        if self._moved is not None and self._voter.is_elsewhere(greeting):
            self._moved("the data are those of another server")
        end = time.monotonic() + _VERDICT
        while True:
            questions = self._voter.questions()
            replies = await self._pipeline.execute_all(questions) if questions else []
            if await self._state(replies):
                # Another connection may have been made meanwhile. Then it joins next.
                self._greeting = greeting
                return
            if time.monotonic() > end:
                raise Unavailable("Redis has restarted, and it is not known yet whether it lost data")
            await asyncio.sleep(_PAUSE)

    async def _state(self, replies: Sequence[Reply]) -> bool:
        """State what this process knows. Returns whether the timeline is known."""
        try:
            return self._voter.joined(
                await self._pipeline.execute(self._voter.answer(replies, server=self._pipeline.endpoint))
            )
        except TransportError as error:
            if not no_permission(error):
                raise
            log.warning("cannot ask Redis for its replication id, so a rollback may stay unnoticed: %s", error)
            return True

    def be_voter(self, heard: Heard, moved: Callable[[str], None]) -> None:
        """Be a voter of what this process receives. ``renew`` is then called about once a second.

        Args:
            heard: returns the last position that was received.
            moved: called before a statement about the data of another server.
        """
        if self._cluster is not None:
            self._cluster.be_voter(heard)
        else:
            self._voter.active, self._voter.heard, self._moved = True, heard, moved

    async def renew(self) -> bool:
        """See ``Reader``."""
        if self._cluster is not None:
            return await self._cluster.renew()
        greeting, before = await self._pipeline.connect(), self._voter.timeline
        if greeting is self._greeting:
            await self._state([])
        else:
            await self._join(greeting)
        return self._voter.timeline.name != before.name

    async def _load(self, script: Script) -> None:
        """Load a script, once for all calls that found it missing."""
        loading = self._loading.get(script.sha)
        if loading is None:
            loading = asyncio.ensure_future(self._pipeline.execute(("SCRIPT", "LOAD", script.source)))
            self._loading[script.sha] = loading
            loading.add_done_callback(lambda done: self._loaded(script, done))
        await asyncio.shield(loading)

    def _loaded(self, script: Script, done: asyncio.Future[Reply]) -> None:
        del self._loading[script.sha]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: asyncio need not warn if no call waits

    async def execute(self, *command: str | bytes | int) -> Reply:
        """Run a command.

        Args:
            command: the command and its arguments.

        Returns:
            The reply.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the command.
        """
        return await self._pipeline.execute(command)

    async def server_ms(self) -> int:
        """Return the server's milliseconds since 1970. A round trip."""
        return self.clock.observe(await self.execute("TIME"))

    async def aclose(self) -> None:
        """See ``Reader``."""
        if self._cluster is not None:
            await self._cluster.leave()
        leaving = self._voter.leave()
        if leaving is not None and self._greeting is not None:
            with contextlib.suppress(TransportError, TimeoutError):
                async with asyncio.timeout(_LEAVE):
                    await self._pipeline.execute(leaving)
        await self._pipeline.aclose()
