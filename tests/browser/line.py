"""A TCP line that can be cut like a network cable, or refuse WebSockets like some companies' proxies."""

from __future__ import annotations

import asyncio
import contextlib

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Line:
    """Forwards to ``towards``.

    Cut, it says nothing at all: bytes stay where they are, and nobody is told. Chromium's own offline mode leaves
    connections alone that are open.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.towards = 0
        self.websockets = True
        self.refused = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._pairs: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()
        self.websockets = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._forward(reader, writer)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await self._whole.wait()
        if not self.websockets and b"upgrade: websocket" in head.lower():
            self.refused += 1
            writer.write(REFUSAL)
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.towards)
        there_writer.write(head)
        ways = [
            asyncio.ensure_future(self._carry(reader, there_writer)),
            asyncio.ensure_future(self._carry(there_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            there_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            await self._whole.wait()
            writer.write(chunk)
            await writer.drain()
