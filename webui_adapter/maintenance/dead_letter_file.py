"""Dead letters on this host's disk, while Redis accepts no writes: one file for all gateways of the same Redis."""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from webui_adapter.channels.validation import Undeliverable

__all__ = ["DeadLetterFile"]

log = logging.getLogger(__name__)

_TRIES: Final = 5
_FLAGS: Final = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class DeadLetterFile:
    """Lines of JSON, appended under a lock. Every method blocks: for a thread.

    One process at a time moves the lines to Redis. Meanwhile they are in a second file. A process that dies in between
    leaves both files to the next one.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Begin without a file.

        Args:
            folder: The folder of the files.
            limit: The maximal size of the file in bytes. The second file may have as many again.
        """
        self._folder = folder
        self._file = folder / "dead-letters.jsonl"
        self._moving = folder / "dead-letters.moving"
        self._limit = limit
        self._lock: int | None = None

    def append(self, undeliverables: Sequence[Undeliverable]) -> int:
        """Append events, in order.

        Args:
            undeliverables: The events.

        Returns:
            How many had room; 0 if the disk fails.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._open_current()
        except OSError as error:
            log.error("cannot keep dead letters in %s: %s", self._folder, error)  # noqa: TRY400 - no bug of ours
            return 0
        try:
            return self._write(descriptor, undeliverables)
        except OSError as error:
            log.error("cannot keep dead letters in %s: %s", self._folder, error)  # noqa: TRY400 - no bug of ours
            return 0
        finally:
            os.close(descriptor)

    def claim(self) -> tuple[list[Undeliverable], int] | None:
        """Take the events to move them to Redis. ``commit`` or ``release`` must follow.

        Returns:
            The events, the oldest first, and the number of damaged lines. None if there are none, or another process
            moves them.
        """
        if not (self._file.exists() or self._moving.exists()):
            return None
        lock = os.open(self._folder / "dead-letters.lock", os.O_RDWR | _FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._moving.exists():
                self._rename()
            lines = [line for line in self._moving.read_bytes().split(b"\n") if line]
        except OSError:
            os.close(lock)
            return None
        self._lock = lock
        undeliverables = [undeliverable for undeliverable in map(_parse, lines) if undeliverable is not None]
        return undeliverables, len(lines) - len(undeliverables)

    def commit(self) -> None:
        """Delete the claimed lines: all are in Redis."""
        self._moving.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Give the claimed lines back: not all are in Redis."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open_current(self) -> int:
        """Return the open, locked file; not one that was renamed between opening and locking."""
        for _ in range(_TRIES):
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | _FLAGS, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if os.fstat(descriptor).st_ino == self._file.stat().st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            os.close(descriptor)
        raise OSError(f"{self._file} is renamed again and again")

    def _write(self, descriptor: int, undeliverables: Sequence[Undeliverable]) -> int:
        size = os.fstat(descriptor).st_size
        for kept, undeliverable in enumerate(undeliverables):
            facts = {**asdict(undeliverable), "content": base64.b64encode(undeliverable.content).decode()}
            line = json.dumps(facts).encode() + b"\n"
            if size + len(line) > self._limit:
                return kept
            # A full disk may have cut the line before. The new line begins after it.
            size += os.write(descriptor, line if kept or not size else b"\n" + line)
        return len(undeliverables)

    def _rename(self) -> None:
        descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._file.rename(self._moving)
        finally:
            os.close(descriptor)


def _parse(line: bytes) -> Undeliverable | None:
    try:
        facts = json.loads(line)
        return Undeliverable(facts["channel"], facts["id"], facts["reason"], base64.b64decode(facts["content"]))
    except (ValueError, TypeError, KeyError):
        return None
