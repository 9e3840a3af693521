"""A session whose line is pulled from: SSE streams, and WebSockets of a server that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from webui_adapter.session.session import Session

__all__ = ["PullTransport"]


class PullTransport:
    """While its reader is busy sending, the session counts as blocked, and what comes then goes through its backlog."""

    def __init__(
        self, session: Session, write_high: int, comment: bytes = b"", cut: Callable[[], None] | None = None
    ) -> None:
        """``comment`` is what serves as a ping, ``cut`` ends the connection, where the server offers that."""
        self._session = session
        self._write_high = write_high
        self._comment = comment
        self._cut = cut
        self._wake = asyncio.Event()

    def flush(self) -> None:
        """See ``Transport``."""
        self._wake.set()

    def ping(self) -> None:
        """See ``Transport``: a comment, where there is such a thing."""
        if self._comment:
            self._session.output.out.append(self._comment)
            self._wake.set()

    def cut(self) -> None:
        """See ``Transport``. Where the server offers no way, it finds out itself that the peer takes nothing."""
        if self._cut is not None:
            self._cut()

    async def next(self) -> list[bytes]:
        """What to send now; waits until there is something, or the session is to be closed (then maybe nothing)."""
        output = self._session.output
        output.resume_writing(self._write_high)
        while not output.out and output.close_code is None:
            self._wake.clear()
            await self._wake.wait()
        out, output.out = output.out, []
        output.pause_writing()
        return out
