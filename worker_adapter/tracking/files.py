"""``track_file``: reading, told in bytes."""

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
    """A binary file whose bytes are steps while it is read; anything that reads files takes it.

    It is a context manager as files are. What ``track_file`` has opened it closes; a file that was given stays open.
    """

    def __init__(self, file: BinaryIO, steps: Progress, *, mine: bool) -> None:
        self._file = file
        self._steps = steps
        self._mine = mine
        self._start = file.tell() if file.seekable() else 0

    @classmethod
    def of(cls, file: Readable, count: Callable[[int | None], Progress]) -> TrackedFile:
        """Open what is a path; ``count`` makes the progress for a number of bytes, None if that is not known."""
        if isinstance(file, (str, os.PathLike)):
            opened = Path(file).open("rb")  # noqa: SIM115 - closed with the Reading
            return cls(opened, count(_left(opened)), mine=True)
        _refuse_text(file)
        return cls(file, count(_left(file)), mine=False)

    def __enter__(self) -> Self:
        self._steps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.__exit__(kind, error, trace)
        self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's."""
        return self._counted(self._file.read(-1 if size is None else size))

    def read1(self, size: int = -1, /) -> bytes:
        """As a buffered file's: with one call of the system at most, where the file can."""
        one = getattr(self._file, "read1", self._file.read)
        return self._counted(one(size))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As a file's."""
        with memoryview(buffer) as view, view.cast("B") as bytes_:
            found = self.read(len(bytes_))
            bytes_[: len(found)] = found
        return len(found)

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """As a buffered file's."""
        with memoryview(buffer) as view, view.cast("B") as bytes_:
            found = self.read1(len(bytes_))
            bytes_[: len(found)] = found
        return len(found)

    def readline(self, size: int | None = -1, /) -> bytes:
        """As a file's."""
        return self._counted(self._file.readline(-1 if size is None else size))

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As a file's; what lies before the place counts as read."""
        place = self._file.seek(offset, whence)
        self._steps.set(max(0, place - self._start))
        return place

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def readable(self) -> bool:
        """As a file's."""
        return True

    def seekable(self) -> bool:
        """As a file's."""
        return self._file.seekable()

    def close(self) -> None:
        """Close it, and the file if it was opened for this."""
        if self._mine:
            self._file.close()
        super().close()

    def _counted(self, found: bytes) -> bytes:
        self._steps.step(len(found))
        return found


def _refuse_text(file: object) -> None:
    if isinstance(file, io.TextIOBase):
        raise TypeError("track_file() counts bytes; give it a file opened with 'rb', and wrap that for text")


def _left(file: BinaryIO) -> int | None:
    """Bytes from here to the end; None for what has no end, or does not know it."""
    if not file.seekable():
        return None
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end - here


def track_file(file: Readable, *, stage: str = "", message: str = "") -> TrackedFile:
    """Read a file with a step of ``progress`` per byte, unit ``bytes``.

        with track_file("corpus.jsonl", stage="reading") as lines:
            for line in lines:
                read(line)

    ``file`` is a path, or a file opened for bytes, which is counted from where it stands. The total is what is left in
    it, None for a pipe. For text: ``io.TextIOWrapper(track_file(…))``.

    Raises:
        OSError: the path cannot be opened.
        TypeError: a file opened for text.
    """
    return TrackedFile.of(file, lambda total: progress(total, stage=stage, unit="bytes", message=message))
