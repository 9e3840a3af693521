"""The sources of documents: text that is installed on this machine, or uploaded files."""

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
# Bytes per file of an upload for boundaries, headers and names.
_FORM_OVERHEAD: Final = 2048
_SUFFIXES: Final = {".md", ".rst", ".txt"}
# Text files without prose: lists of modules, test data.
_SKIPPED_NAMES: Final = {"top_level.txt", "entry_points.txt", "SOURCES.txt", "requires.txt", "tests", "test"}


class UploadRefused(ValueError):
    """An upload is empty or over a limit. The message has the limit; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 413) -> None:
        super().__init__(message)
        self.status = status


@lru_cache(maxsize=2)
def installed_text(limit: int) -> tuple[Source, ...]:
    """Return the first ``limit`` README, METADATA, .md, .rst and .txt files of the installed packages, by name."""
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
    """Return some of the harmless documents and, among them, one that kills the process that reads it."""
    directory.mkdir(parents=True)
    path = directory / "0"
    path.write_text("The process that reads this file is killed.\n")
    half = _HARMLESS_DOCUMENTS // 2
    return [*harmless[:half], Source(POISON, path, kills=True), *harmless[half:_HARMLESS_DOCUMENTS]]


@asynccontextmanager
async def uploaded_files(request: Request, settings: DemoSettings) -> AsyncIterator[list[UploadFile]]:
    """Yield the files of a form. The size is checked before the body is read.

    Raises:
        UploadRefused: the upload has no length, too many bytes or too many files.
    """
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise UploadRefused("cannot accept the upload: it has no Content-Length", 411)
    if int(length) > settings.max_upload_bytes + settings.max_files * _FORM_OVERHEAD:
        raise UploadRefused(
            f"cannot accept the upload: it has {int(length):,} bytes; the limit is {settings.max_upload_bytes:,}"
        )
    try:
        form = await request.form(max_files=settings.max_files, max_fields=1)
    except HTTPException as error:
        raise UploadRefused(
            f"cannot accept the upload: not a form with at most {settings.max_files} files: {error.detail}", 400
        ) from error
    try:
        yield [part for part in form.getlist("files") if isinstance(part, UploadFile)]
    finally:
        await form.close()


def save_uploads(files: Sequence[UploadFile], directory: Path, settings: DemoSettings) -> list[Source]:
    """Store uploaded files under numbers. The name from the visitor is never used as a path.

    Raises:
        UploadRefused: there is no file, or one is too large.
    """
    if not files:
        raise UploadRefused("cannot accept the upload: no file was chosen", 422)
    directory.mkdir(parents=True)
    sources: dict[str, Source] = {}
    for number, file in enumerate(files):
        name = _unique_name(sources, _display_name(file.filename or f"file {number + 1}"))
        if file.size is not None and file.size > settings.max_file_bytes:
            raise UploadRefused(
                f"cannot accept {name}: {file.size:,} bytes; the limit for one file is {settings.max_file_bytes:,}"
            )
        path = directory / str(number)
        with path.open("wb") as stored:
            shutil.copyfileobj(file.file, stored)
        sources[name] = Source(name, path)
    return list(sources.values())


def _display_name(name: str) -> str:
    """Return the name for the page: printable, without ``..``, and cut at the front if it is long."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    shown = "".join(character for character in "/".join(parts) if character.isprintable()) or "unnamed"
    return shown if len(shown) <= MAX_NAME else f"…{shown[1 - MAX_NAME :]}"


def _unique_name(existing: dict[str, Source], name: str) -> str:
    number, unique = 2, name
    while unique in existing:
        unique = f"{name} ({number})"
        number += 1
    return unique
