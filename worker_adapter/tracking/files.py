"""``track_file``: report how many bytes of a file have been read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from worker_adapter.tracking.steps import Progress, progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Readable", "TrackedFile", "track_file"]

Readable = str | os.PathLike[str] | BinaryIO


class TrackedFile(io.BufferedIOBase):
    """A binary file that counts each byte that is read as a step. A context manager.

    It closes a file that ``track_file`` has opened. It leaves open a file that was passed in.

    Args:
        file: the file.
        steps: the progress.
        close_file: whether ``close`` closes the file.
    """

    def __init__(self, file: BinaryIO, steps: Progress, *, close_file: bool) -> None:
        self._file = file
        self._steps = steps
        self._close_file = close_file
        self._start = file.tell() if file.seekable() else 0

    @classmethod
    def of(cls, file: Readable, count: Callable[[int | None], Progress]) -> TrackedFile:
        """Open a path, or use a file from its present position.

        Args:
            file: a path, or a file opened for bytes.
            count: makes the progress for a number of bytes, None if it is unknown.

        Returns:
            A binary file that counts the bytes that are read.

        Raises:
            OSError: the path cannot be opened.
            TypeError: the file is opened for text.
        """
        if isinstance(file, (str, os.PathLike)):
            opened = Path(file).open("rb")  # noqa: SIM115 - close() closes it
            return cls(opened, count(_bytes_left(opened)), close_file=True)
        _refuse_text(file)
        return cls(file, count(_bytes_left(file)), close_file=False)

    def __enter__(self) -> Self:
        self._steps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.__exit__(kind, error, trace)
        self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's.

        Args:
            size: largest number of bytes; -1 or None reads to the end.

        Returns:
            The bytes; empty at the end.
        """
        return self._counted(self._file.read(-1 if size is None else size))

    def read1(self, size: int = -1, /) -> bytes:
        """As a buffered file's: makes at most one system call if the file supports it.

        Args:
            size: largest number of bytes.

        Returns:
            The bytes; empty at the end.
        """
        one = getattr(self._file, "read1", self._file.read)
        return self._counted(one(size))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As a file's.

        Args:
            buffer: receives the bytes.

        Returns:
            The number of bytes; 0 at the end.
        """
        with memoryview(buffer) as view, view.cast("B") as bytes_:
            found = self.read(len(bytes_))
            bytes_[: len(found)] = found
        return len(found)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """As a buffered file's.

        Args:
            buffer: receives the bytes.

        Returns:
            The number of bytes; 0 at the end.
        """
        with memoryview(buffer) as view, view.cast("B") as bytes_:
            found = self.read1(len(bytes_))
            bytes_[: len(found)] = found
        return len(found)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As a file's.

        Args:
            size: largest number of bytes; -1 or None reads to the end of the line.

        Returns:
            The line; empty at the end of the file.
        """
        return self._counted(self._file.readline(-1 if size is None else size))

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As a file's; all bytes before the new position count as read.

        Args:
            offset: as a file's.
            whence: as a file's.

        Returns:
            The new position.
        """
        position = self._file.seek(offset, whence)
        self._steps.set(max(0, position - self._start))
        return position

    def tell(self) -> int:
        """Return the position, as a file's."""
        return self._file.tell()

    def readable(self) -> bool:
        """Return True, as a file's."""
        return True

    def seekable(self) -> bool:
        """Return whether the file below is seekable."""
        return self._file.seekable()

    def close(self) -> None:
        """Close this file, and the file below if ``track_file`` has opened it."""
        if self._close_file:
            self._file.close()
        super().close()

    def _counted(self, found: bytes) -> bytes:
        self._steps.step(len(found))
        return found


def _refuse_text(file: object) -> None:
    if isinstance(file, io.TextIOBase):
        raise TypeError("track_file() counts bytes; give it a file opened with 'rb', and wrap that for text")


def _bytes_left(file: BinaryIO) -> int | None:
    """Bytes from the present position to the end; None if the end is unknown, as of a pipe."""
    if not file.seekable():
        return None
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end - here


def track_file(file: Readable, *, stage: str = "", message: str = "") -> TrackedFile:
    """Read a file with one step of ``progress`` per byte, unit ``bytes``.

        with track_file("corpus.jsonl", stage="reading") as lines:
            for line in lines:
                read(line)

    The total is the number of bytes from the present position to the end, None for a pipe. For text use
    ``io.TextIOWrapper(track_file(…))``.

    Args:
        file: a path, or a file opened for bytes.
        stage: name that distinguishes several progresses of one task.
        message: text that the page shows.

    Returns:
        A binary file that counts the bytes that are read.

    Raises:
        OSError: the path cannot be opened.
        TypeError: the file is opened for text.
    """
    return TrackedFile.of(file, lambda total: progress(total, stage=stage, unit="bytes", message=message))
