"""Where documents come from: the text that is on this machine, or a visitor's files."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from demo.settings import DemoSettings
from demo.store import Source

__all__ = ["POISON", "UploadRefused", "installed_text", "poisoned_text", "save_uploads", "uploaded_files"]

POISON: Final = "a file that kills its worker.txt"
_HARMLESS_DOCUMENTS: Final = 8

MAX_NAME: Final = 120
# Boundaries, headers and names of the parts of an upload, per file.
_FORM_OVERHEAD: Final = 2048
_SUFFIXES: Final = {".md", ".rst", ".txt"}
# Text, but nothing that anybody would look for: lists of modules, data of tests.
_SKIPPED_NAMES: Final = {"top_level.txt", "entry_points.txt", "SOURCES.txt", "requires.txt", "tests", "test"}


class UploadRefused(ValueError):
    """What was uploaded is over a limit, or nothing. The message names the limit; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int = 413) -> None:
        super().__init__(message)
        self.status = status


@lru_cache(maxsize=2)
def installed_text(limit: int) -> tuple[Source, ...]:
    """README, METADATA, .md, .rst and .txt files of the installed packages, at most ``limit`` of them, by name."""
    sources = {name: Source(name, path) for name, path in _installed()}
    return tuple(sources[name] for name in sorted(sources, key=str.casefold)[:limit])


def _installed() -> Iterator[tuple[str, Path]]:
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            if _is_prose(file) and path.is_file():
                yield _display_name(str(file).replace(".dist-info/", "/")), path


def _is_prose(file: PurePosixPath) -> bool:
    if file.name in _SKIPPED_NAMES or _SKIPPED_NAMES.intersection(file.parts):
        return False
    return file.suffix.lower() in _SUFFIXES or file.name == "METADATA" or file.stem.upper() == "README"


def poisoned_text(harmless: Sequence[Source], directory: Path) -> list[Source]:
    """A few of the harmless documents, and in their midst one that kills the process which reads it."""
    directory.mkdir(parents=True)
    path = directory / "0"
    path.write_text("Whoever reads this is killed.\n")
    half = _HARMLESS_DOCUMENTS // 2
    return [*harmless[:half], Source(POISON, path, kills=True), *harmless[half:_HARMLESS_DOCUMENTS]]


@asynccontextmanager
async def uploaded_files(request: Request, settings: DemoSettings) -> AsyncIterator[list[UploadFile]]:
    """The files of a form, as long as the block lasts. The size is judged before anything is read.

    Raises:
        UploadRefused: over the limit of the whole upload or of the number of files, or no length given.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise UploadRefused("an upload needs a Content-Length", 411)
    if int(length) > settings.max_upload_bytes + settings.max_files * _FORM_OVERHEAD:
        raise UploadRefused(f"the upload has {int(length):,} bytes; the limit is {settings.max_upload_bytes:,}")
    try:
        form = await request.form(max_files=settings.max_files, max_fields=1)
    except HTTPException as error:
        raise UploadRefused(f"not a form with at most {settings.max_files} files: {error.detail}", 400) from error
    try:
        yield [part for part in form.getlist("files") if isinstance(part, UploadFile)]
    finally:
        await form.close()


def save_uploads(files: Sequence[UploadFile], directory: Path, settings: DemoSettings) -> list[Source]:
    """Keep what was uploaded, under names of our own choice: a visitor's never becomes a path.

    Raises:
        UploadRefused: no file, or one that is too large.
    """
    if not files:
        raise UploadRefused("no file was chosen", 422)
    directory.mkdir(parents=True)
    sources: dict[str, Source] = {}
    for number, file in enumerate(files):
        name = _unique_name(sources, _display_name(file.filename or f"file {number + 1}"))
        if file.size is not None and file.size > settings.max_file_bytes:
            raise UploadRefused(
                f"{name} has {file.size:,} bytes; the limit for one file is {settings.max_file_bytes:,}"
            )
        path = directory / str(number)
        with path.open("wb") as kept:
            shutil.copyfileobj(file.file, kept)
        sources[name] = Source(name, path)
    return list(sources.values())


def _display_name(name: str) -> str:
    """A name that can be shown: printable, without a way up, cut at the front where it is long."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    shown = "".join(character for character in "/".join(parts) if character.isprintable()) or "unnamed"
    return shown if len(shown) <= MAX_NAME else f"…{shown[1 - MAX_NAME :]}"


def _unique_name(taken: dict[str, Source], name: str) -> str:
    number, unlike = 2, name
    while unlike in taken:
        unlike = f"{name} ({number})"
        number += 1
    return unlike
