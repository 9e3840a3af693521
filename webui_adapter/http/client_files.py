"""The built browser client, served from memory: a file's answer would parse ``Range`` headers of strangers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from webui_adapter.transports.error_responses import json_response

__all__ = ["add_client_files"]

_FOLDER: Final = Path(__file__).parents[1] / "client" / "dist"
# Pages of other origins may import the client. It holds no secret, and browsers load modules with CORS.
_PUBLIC: Final = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_TYPES: Final = {".js": "text/javascript", ".ts": "text/plain"}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def add_client_files(router: APIRouter, prefix: str) -> None:
    """Add the route of the client's files. It matches any name under the prefix, so it must be the last route.

    Args:
        router: the router.
        prefix: the path of the gateway's routes.
    """
    files = _read()

    @router.get(f"{prefix}/{{name}}", include_in_schema=False)
    async def client(request: Request, name: str) -> Response:
        # Only files that the build makes, by name: the path holds nothing that the client sent.
        file = files.get(name)
        if file is None:
            hint = "" if files else "; the client is not built: run make client and restart the gateway"
            return json_response({"code": "not_found", "message": f"no such file{hint}"}, 404, {})
        headers = {**_PUBLIC, "ETag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


def _read() -> dict[str, _File]:
    found: dict[str, _File] = {}
    for path in _FOLDER.glob("*.*") if _FOLDER.is_dir() else ():
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        found[path.name] = _File(content, _TYPES.get(path.suffix, "application/octet-stream"), etag)
    return found
