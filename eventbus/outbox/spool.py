"""The spool: entries that a process could not send, on this host's disk. Used by one thread at a time.

Each process has a file and locks it as long as it lives. A file without a lock has lost its process. The next process
that looks adopts it, and sends it before its own entries, oldest file first. A process that dies while it sends an
adopted file leaves it to the next one, which begins at the start: event ids make that harmless.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from eventbus.outbox.entries import Entry
from eventbus.outbox.spool_format import HEAD, Damaged, frame, frame_length, unframe
from eventbus.settings import BusSettings

__all__ = ["Spool", "spool_folder"]

log = logging.getLogger(__name__)

_SUFFIX = ".spool"


def spool_folder(settings: BusSettings) -> Path:
    """Return the folder for the processes of this host, user and application that use this Redis.

    Args:
        settings: ``spool_dir``, ``application``, ``redis_url`` and ``key_prefix`` name it.
    """
    bus = hashlib.blake2b(f"{settings.redis_url} {settings.key_prefix}".encode(), digest_size=8).hexdigest()
    parent = settings.spool_dir or Path(tempfile.gettempdir()) / f"celery-eventbus-{os.getuid()}"
    return parent / (f"{settings.application}-{bus}" if settings.application else bus)


class _File:
    """One process's file: appended at the end, read from the front."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.read_to = 0
        self.taken_to = 0
        self.end = os.fstat(descriptor).st_size
        # How many entries wait, by topic.
        self.topics: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()

    def append(self, data: bytes, topics: Sequence[str]) -> None:
        written = os.pwrite(self.descriptor, data, self.end)
        if written != len(data):
            os.ftruncate(self.descriptor, self.end)
            raise OSError(f"the disk took {written} of {len(data)} bytes")
        self.end += written
        self.topics.update(topics)

    def entry(self) -> Entry | None:
        """Return the next entry; None at the end. Raises Damaged."""
        if self.taken_to >= self.end:
            return None
        try:
            length = frame_length(os.pread(self.descriptor, HEAD, self.taken_to))
            # Before reading: a damaged length may ask for four gigabytes.
            if length > self.end - self.taken_to:
                raise Damaged("the last frame is cut")
            entry = unframe(os.pread(self.descriptor, length, self.taken_to))
        except OSError as error:
            # An OSError would end the thread, and all delivery of this process.
            raise Damaged(f"the disk cannot read it: {error}") from error
        self.taken_to += length
        return entry

    def index(self) -> bool:
        """Read all of a file that another process wrote. False if its end is damaged: the damaged end is ignored."""
        try:
            while (entry := self.entry()) is not None:
                self.topics[entry.topic] += 1
        except Damaged as error:
            log.warning("%s is damaged from byte %d on: %s", self.path.name, self.taken_to, error)
            self.end = self.taken_to
            return False
        else:
            return True
        finally:
            self.taken_to = 0

    def close(self, *, unlink: bool) -> None:
        if unlink:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Spool:
    """Files of this process and of ended processes. The bound is over all processes of the host that share the folder.

    Args:
        settings: the folder, its bound and when to call fsync.

    Attributes:
        counts: number of entries by ``spooled``, ``spool_full`` and ``spool_failed``, and of ``damaged`` files.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._limit = settings.spool_bytes
        self._fsync = settings.spool_fsync
        self._folder = spool_folder(settings)
        self._own: _File | None = None
        self._orphans: deque[_File] = deque()
        self.counts: Counter[str] = Counter()

    @property
    def waiting(self) -> bool:
        """Whether any entry waits on disk."""
        return bool(self._orphans) or (self._own is not None and self._own.read_to < self._own.end)

    @property
    def own_waiting(self) -> bool:
        """Whether an entry of this process waits on disk."""
        return self._own is not None and self._own.read_to < self._own.end

    @property
    def used(self) -> int:
        """Bytes on this disk, of all processes. Reads the folder at each call."""
        return self._used()

    def holds(self, topic: str) -> bool:
        """Return whether an entry of a topic waits on disk.

        Args:
            topic: the topic.
        """
        return any(file.topics[topic] > 0 for file in self._files())

    def holds_behind(self, topic: str) -> bool:
        """Return whether an entry of a topic waits on disk behind those that were taken.

        Args:
            topic: the topic.
        """
        return any(file.topics[topic] > file.taken[topic] for file in self._files())

    def append(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write entries.

        Args:
            entries: in order.

        Returns:
            Entries that were written. There was no room for the others, or the disk failed.
        """
        written, frames = self._framed(entries)
        try:
            if frames:
                own = self._own or self._open_own()
                own.append(b"".join(frames), [entry.topic for entry in written])
                if self._fsync == "always":
                    os.fsync(own.descriptor)
        except OSError as error:
            log.error("cannot write events to %s: %s", self._folder, error)  # noqa: TRY400 - no bug of ours
            self.counts["spool_failed"] += len(frames)
            return []
        self.counts["spooled"] += len(frames)
        return written

    def _framed(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[bytes]]:
        """Entries that have room, and their frames."""
        room = self._limit - self._used()
        written: list[Entry] = []
        frames: list[bytes] = []
        for number, entry in enumerate(entries):
            try:
                data = frame(entry)
            except (TypeError, ValueError):
                # An error of this library, in one entry: the others must reach the disk.
                log.exception("cannot write an event of %s to disk", entry.channel)
                self.counts["spool_failed"] += 1
                continue
            room -= len(data)
            if room < 0:
                self.counts["spool_full"] += len(entries) - number
                break
            written.append(entry)
            frames.append(data)
        return written, frames

    def look_for_orphans(self) -> None:
        """Adopt the files of ended processes."""
        try:
            names = sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except OSError:
            return
        mine = {file.path for file in self._files()}
        for path in names:
            if path not in mine:
                file = _adopt(path)
                if file is not None:
                    self.counts["damaged"] += not file.index()
                    self._orphans.append(file)
                    log.info("adopted the spool of an ended process: %d entries", file.topics.total())

    def take(self, limit: int) -> list[Entry]:
        """Return the next entries to send, in order. They stay on disk until ``done``.

        Args:
            limit: at most so many.
        """
        file = self._first()
        entries: list[Entry] = []
        while file is not None and len(entries) < limit:
            try:
                entry = file.entry()
            except Damaged as error:
                log.warning("%s is damaged: %s", file.path.name, error)
                self.counts["damaged"] += 1
                file.end = file.taken_to
                break
            if entry is None:
                break
            entries.append(entry)
            file.taken[entry.topic] += 1
        if file is not None and not entries:
            self._finish(file)
        return entries

    def done(self) -> None:
        """Note that the taken entries are settled."""
        file = self._first()
        if file is None:
            return
        file.topics.subtract(file.taken)
        file.taken.clear()
        file.read_to = file.taken_to
        if file.read_to >= file.end:
            self._finish(file)

    def put_back(self) -> None:
        """Note that the taken entries are not settled: they will be taken again."""
        for file in self._files():
            file.taken_to = file.read_to
            file.taken.clear()

    def close(self, *, forked: bool = False) -> None:
        """Close all files. The next process adopts those that still have entries.

        Args:
            forked: whether this is a forked child, which must not change the parent's files.
        """
        for file in self._files():
            if self._fsync != "never" and not forked:
                with contextlib.suppress(OSError):
                    os.fsync(file.descriptor)
            file.close(unlink=not forked and file.read_to >= file.end)
        self._orphans.clear()
        self._own = None

    def _files(self) -> tuple[_File, ...]:
        return (*self._orphans, *(() if self._own is None else (self._own,)))

    def _first(self) -> _File | None:
        if self._orphans:
            return self._orphans[0]
        return self._own if self.own_waiting else None

    def _finish(self, file: _File) -> None:
        """Remove a file that was sent: unlinked before its lock is released, so that no process adopts it."""
        if self._orphans and self._orphans[0] is file:
            self._orphans.popleft()
        if file is self._own:
            self._own = None
        file.close(unlink=True)

    def _used(self) -> int:
        """Bytes of all files, other processes' included."""
        try:
            return sum(entry.stat().st_size for entry in os.scandir(self._folder) if entry.name.endswith(_SUFFIX))
        except OSError:
            return 0

    def _open_own(self) -> _File:
        _make_folder(self._folder)
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        # Another name until it is locked: a process that looks for orphans must not find it before.
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.rename(path)
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        self._own = _File(path, descriptor)
        return self._own


def _make_folder(folder: Path) -> None:
    """Make a folder that only this user can use. Its parent may be writable by all users."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set EVENTBUS_SPOOL_DIR to a folder of this user")


def _adopt(path: Path) -> _File | None:
    """Open and lock a file; None if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        if found.st_nlink and found.st_uid == os.getuid():
            return _File(path, descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None
