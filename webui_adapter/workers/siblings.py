"""How the workers of one machine ask each other: one question and one answer over a Unix socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from webui_adapter.workers.place import WorkerPlace

__all__ = ["Siblings"]

log = logging.getLogger(__name__)

_TIME_LIMIT: Final = 1.0
_ANSWER_LIMIT: Final = 4_194_304
_QUESTION_LIMIT: Final = 64


class Siblings:
    """The workers of one machine, as one of them sees them.

    Args:
        place: the place of this worker.
        answers: by question, a function that returns this worker's answer.
    """

    def __init__(self, place: WorkerPlace, answers: Mapping[str, Callable[[], bytes]]) -> None:
        self._place = place
        self._answers = answers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer the others from now on."""
        path = self._place.socket_of(self._place.number)
        path.unlink(missing_ok=True)  # of a process that was killed
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def aclose(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()

    async def ask_all(self, question: str) -> dict[int, bytes | None]:
        """Ask all workers, this one too.

        Args:
            question: a key of ``answers``.

        Returns:
            The answer of each worker by its number; None: it does not answer.
        """
        numbers = self._place.siblings
        answers = await asyncio.gather(*(self._ask(number, question) for number in numbers))
        return dict(zip(numbers, answers, strict=True))

    async def _ask(self, number: int, question: str) -> bytes | None:
        if number == self._place.number:
            return self._answers[question]()
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                path = self._place.socket_of(number)
                reader, writer = await asyncio.open_unix_connection(path, limit=_ANSWER_LIMIT)
                try:
                    writer.write(question.encode() + b"\n")
                    return await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            log.debug("worker %d does not answer: %r", number, error)
            return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                question = (await reader.readline())[:_QUESTION_LIMIT].decode(errors="replace").strip()
                answer = self._answers.get(question)
                if answer is not None:
                    writer.write(answer())
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):
            log.debug("cannot answer another worker", exc_info=True)
        finally:
            writer.close()
