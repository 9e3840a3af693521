"""A transport that the server pulls from: event streams, and WebSockets of other servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from webui_adapter.session.session import Session

__all__ = ["PullTransport"]


class PullTransport:
    """A session counts as blocked while the server sends. Events that arrive meanwhile go through its send queue.

    Args:
        session: the session.
        write_high: bytes that are taken from the send queue in one step.
        comment: what the transport sends as a ping; empty: nothing.
        cut: ends the connection; None: the server offers no way, and notices by itself that the client reads nothing.
    """

    def __init__(
        self, session: Session, write_high: int, comment: bytes = b"", cut: Callable[[], None] | None = None
    ) -> None:
        self._session = session
        self._write_high = write_high
        self._comment = comment
        self._cut = cut
        self._wake = asyncio.Event()

    def flush(self) -> None:
        """Wake the server."""
        self._wake.set()

    def ping(self) -> None:
        """Send the comment that serves as a ping."""
        if self._comment:
            self._session.output.out.append(self._comment)
            self._wake.set()

    def cut(self) -> None:
        """End the connection if the server offers a way."""
        if self._cut is not None:
            self._cut()

    async def next(self) -> list[bytes]:
        """Wait until there is something to send, or the session is to be closed.

        Returns:
            The pieces to send; maybe none if the session is to be closed.
        """
        output = self._session.output
        output.resume_writing(self._write_high)
        while not output.out and output.close_code is None:
            self._wake.clear()
            await self._wake.wait()
        out, output.out = output.out, []
        output.pause_writing()
        return out
