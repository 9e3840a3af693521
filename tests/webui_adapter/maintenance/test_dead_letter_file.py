"""Dead letters on disk."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tests.webui_adapter.parts import USER
from webui_adapter.channels.validation import Undeliverable
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile


def undeliverable(n: int, size: int = 10) -> Undeliverable:
    return Undeliverable(USER, f"c{n}", "undecodable", b"\xff" * size)


def test_the_file_returns_its_events(tmp_path: Path) -> None:
    dead_letter_file = DeadLetterFile(tmp_path / "new", 10_000)
    assert dead_letter_file.claim() is None
    assert dead_letter_file.append([undeliverable(1), undeliverable(2)]) == 2
    assert dead_letter_file.append([undeliverable(3)]) == 1
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2), undeliverable(3)], 0)
    dead_letter_file.release()
    assert dead_letter_file.append([undeliverable(4)]) == 1
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2), undeliverable(3)], 0), (
        "what is on its way goes first"
    )
    dead_letter_file.commit()
    assert dead_letter_file.claim() == ([undeliverable(4)], 0)
    dead_letter_file.commit()
    assert dead_letter_file.claim() is None


def test_the_file_is_bounded(tmp_path: Path) -> None:
    assert DeadLetterFile(tmp_path, 1000).append([undeliverable(n, 200) for n in range(10)]) == 2


def test_a_line_cut_short_costs_itself_only(tmp_path: Path) -> None:
    dead_letter_file = DeadLetterFile(tmp_path, 10_000)
    dead_letter_file.append([undeliverable(1)])
    with (tmp_path / "dead-letters.jsonl").open("ab") as file:
        file.write(b'{"channel": "user:1", "id')
    dead_letter_file.append([undeliverable(2)])
    assert dead_letter_file.claim() == ([undeliverable(1), undeliverable(2)], 1)


def test_one_process_at_a_time_moves_the_file(tmp_path: Path) -> None:
    one, other = DeadLetterFile(tmp_path, 10_000), DeadLetterFile(tmp_path, 10_000)
    one.append([undeliverable(1)])
    assert one.claim() is not None
    assert other.claim() is None
    one.release()
    assert other.claim() == ([undeliverable(1)], 0)
    other.commit()


def test_nothing_is_written_to_a_file_that_is_being_moved(tmp_path: Path) -> None:
    """The writer has opened the file, and another renames it before the writer has its lock."""
    dead_letter_file = DeadLetterFile(tmp_path, 10_000)
    dead_letter_file.append([undeliverable(1)])
    file = tmp_path / "dead-letters.jsonl"
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()) and not moved:
            moved.append(file.rename(tmp_path / "dead-letters.moving"))
        real(descriptor, how)

    moved: list[Path] = []
    try:
        fcntl.flock = flock
        assert dead_letter_file.append([undeliverable(2)]) == 1
    finally:
        fcntl.flock = real
    assert dead_letter_file.claim() == ([undeliverable(1)], 0)
    dead_letter_file.commit()
    assert dead_letter_file.claim() == ([undeliverable(2)], 0)


def test_a_disk_that_fails_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert DeadLetterFile(tmp_path / "file" / "below", 1000).append([undeliverable(1)]) == 0
