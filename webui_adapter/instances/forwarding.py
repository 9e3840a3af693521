"""Commands for sessions of other instances: one message there, and one with the answer back.

The commands of an event stream are separate requests, and a load balancer may send them to any instance. The id of a
session names the process that has it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from eventbus.backends.instances import ControlChannel
from webui_adapter.context import GatewayContext
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.commands import Command
from webui_adapter.session.session import Session
from webui_adapter.session.states import State

__all__ = ["CommandForwarder", "carry_out", "life_of"]

log = logging.getLogger(__name__)

# Seconds. The clocks of two machines may differ by some of them.
_LATEST: Final = 30.0
_ANY_BYTES: Final = "latin-1"  # a command need not be UTF-8, and its refusal must be the same everywhere

Handle = Callable[[Session, Command], None]
Refusal = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Message:
    """A message between two instances, as JSON. ``refusal`` belongs to an answer, what follows it to a command."""

    id: str
    sender: str
    sent: float
    answer: bool
    refusal: Refusal | None = None
    user: str = ""
    session: str = ""
    body: str = ""


_MESSAGE: Final = TypeAdapter(_Message)


def life_of(session_id: str) -> str:
    """Return the process that has a session; empty if the id names none.

    Args:
        session_id: the id, as ``bus.hello`` has it.
    """
    return session_id.rpartition(".")[0]


def carry_out(session: Session, body: bytes | str, handle: Handle) -> Refusal | None:
    """Parse a command for a session, and begin to carry it out.

    Args:
        session: the session.
        body: the command as JSON.
        handle: carries out a command.

    Returns:
        The data of ``bus.error``, which the session gets too; None if the command was accepted.
    """
    refusals: list[Refusal] = []
    command = session.receive(body, refusals.append)
    if command is None:
        return refusals[0]
    handle(session, command)
    return None


class CommandForwarder:
    """Sends commands to other instances, and carries out theirs.

    Args:
        context: the gateway's settings, clock and counters.
        control: carries the messages.
        sessions: the open sessions by id.
        handle: carries out a command.
    """

    def __init__(
        self, context: GatewayContext, control: ControlChannel, sessions: Mapping[str, Session], handle: Handle
    ) -> None:
        self._context = context
        self._control = control
        self._sessions = sessions
        self._handle = handle
        self._waiting: dict[str, asyncio.Future[Refusal | None]] = {}

    async def forward(self, session_id: str, user: str, body: bytes) -> Refusal | None:
        """Let another instance carry out a command.

        Args:
            session_id: a session of that instance.
            user: the user whom the request proved to come from.
            body: the command as JSON.

        Returns:
            The data of ``bus.error``; None if the command was accepted.

        Raises:
            CommandRefused: too many commands wait, or the instance does not exist or does not answer.
            Unavailable, Refused: Redis did not take the message.
        """
        settings = self._context.settings
        if len(self._waiting) >= settings.forwarded_commands:
            raise CommandRefused("busy", "too many commands wait for other instances", retry_ms=1000)
        id_ = secrets.token_hex(8)
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        self._context.counters["forward.sent"] += 1
        try:
            async with asyncio.timeout(settings.forward_timeout):
                text = body.decode(_ANY_BYTES)
                message = self._message(id_, answer=False, user=user, session=session_id, body=text)
                if not await self._control.send(life_of(session_id), _encode(message)):
                    raise CommandRefused("not_found", "no such session")
                return await answer
        except TimeoutError:
            self._context.counters["forward.unanswered"] += 1
            raise CommandRefused(
                "unavailable", "the instance that has this session does not answer", retry_ms=1000
            ) from None
        finally:
            del self._waiting[id_]

    def received(self, payload: bytes) -> None:
        """Take a message of another instance.

        Args:
            payload: the message. One that cannot be read is counted.
        """
        try:
            message = _MESSAGE.validate_python(json.loads(payload))
        except ValueError:
            self._context.counters["forward.unreadable"] += 1
            return
        if message.answer:
            waiting = self._waiting.get(message.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.refusal)
            return
        self._context.counters["forward.received"] += 1
        if abs(self._context.clock.wall() - message.sent) > _LATEST:
            self._context.counters["forward.late"] += 1
            return
        refusal = self._carry_out(message)
        self._context.spawn(self._answer(message.sender, self._message(message.id, answer=True, refusal=refusal)))

    def _carry_out(self, message: _Message) -> Refusal | None:
        session = self._sessions.get(message.session)
        if (
            session is None
            or session.principal is None
            or session.principal.user != message.user
            or session.state is State.CLOSED
        ):
            return CommandRefused("not_found", "no such session").data()
        return carry_out(session, message.body.encode(_ANY_BYTES), self._handle)

    def _message(self, id_: str, **others: Any) -> _Message:
        return _Message(id_, self._context.life, self._context.clock.wall(), **others)

    async def _answer(self, life: str, message: _Message) -> None:
        await self._control.send(life, _encode(message))


def _encode(message: _Message) -> bytes:
    return json.dumps(asdict(message), separators=(",", ":")).encode()
