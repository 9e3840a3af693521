"""A TCP proxy that can fall silent like a cut cable, or refuse WebSockets as some company proxies do."""

from __future__ import annotations

import asyncio
import contextlib

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TcpProxy:
    """Forwards each connection to the port ``towards``.

    A cut proxy forwards no bytes and closes no connection. Chromium's own offline mode is not enough: it leaves open
    connections alone.
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

    def restore(self) -> None:
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
            asyncio.ensure_future(self._copy(reader, there_writer)),
            asyncio.ensure_future(self._copy(there_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            there_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            await self._whole.wait()
            writer.write(chunk)
            await writer.drain()
