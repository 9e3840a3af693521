"""Keys of tokens by their ids: a JSON Web Key Set (RFC 7517), read again and again from an address or a file."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import jwt

from eventbus.clock import Clock
from webui_adapter.access.credentials.keys import check_key
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings

__all__ = ["KeySet", "parse_key_set", "read_source"]

log = logging.getLogger(__name__)

_CHUNK: Final = 65_536


class KeySet:
    """The keys of ``WEBUI_JWT_JWKS``. If they cannot be read, the known ones stay.

    Args:
        source: an address or a file.
        settings: the algorithm, intervals and limits.
        counters: receives ``keys.failed``.
        clock: the time.

    Raises:
        NotConfigured: the file has no usable key, or the algorithm has no public keys.
    """

    def __init__(self, source: str, settings: GatewaySettings, counters: Counter[str], clock: Clock) -> None:
        if settings.jwt_algorithm.startswith("HS"):
            raise NotConfigured(
                f"cannot use WEBUI_JWT_JWKS with {settings.jwt_algorithm}: a key set has public keys; set "
                "WEBUI_JWT_ALGORITHM=RS256, ES256 or another one with a key pair"
            )
        self._source = source
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._keys: Mapping[str | None, Any] = {}
        self._asked: float | None = None
        self._reading: asyncio.Task[None] | None = None
        if not _is_address(source):
            try:
                self._keys = self._read()
            except (OSError, ValueError) as error:
                raise NotConfigured(f"cannot use WEBUI_JWT_JWKS={source}: {error}") from error

    @property
    def is_empty(self) -> bool:
        """Whether no key is known yet."""
        return not self._keys

    def find(self, kid: object) -> Any | None:
        """Return the key with an id, or None.

        Args:
            kid: the id that a token names; None: it names none, which suffices for a set of one key.
        """
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if kid is None or isinstance(kid, str) else None

    async def refresh(self) -> None:
        """Read the keys again for a token with an unknown key, unless that was tried a short time ago."""
        if self._reading is None:
            if self._asked is not None and self._clock.now() - self._asked < self._settings.jwt_jwks_pause:
                return
            self._reading = asyncio.create_task(self._replace())
            self._reading.add_done_callback(self._read_ended)
        await asyncio.shield(self._reading)

    async def run(self) -> None:
        """Read the keys as long as the gateway lives; more often while there are none."""
        while True:
            await self.refresh()
            settings = self._settings
            await asyncio.sleep(settings.jwt_jwks_pause if self.is_empty else settings.jwt_jwks_interval)

    def _read_ended(self, _: asyncio.Task[None]) -> None:
        self._reading = None

    async def _replace(self) -> None:
        self._asked = self._clock.now()
        try:
            async with asyncio.timeout(self._settings.jwt_jwks_timeout):
                self._keys = await asyncio.to_thread(self._read)
        except (OSError, ValueError, HTTPException) as error:
            self._counters["keys.failed"] += 1
            log.warning(
                "cannot read the keys of WEBUI_JWT_JWKS: %s; the known keys stay", str(error) or "it took too long"
            )
        except Exception:
            self._counters["keys.failed"] += 1
            log.exception("cannot read the keys of WEBUI_JWT_JWKS")

    def _read(self) -> Mapping[str | None, Any]:
        settings = self._settings
        text = read_source(self._source, settings.jwt_jwks_timeout, settings.jwt_jwks_size)
        return parse_key_set(text, settings.jwt_algorithm)


def parse_key_set(text: bytes, algorithm: str) -> Mapping[str | None, Any]:
    """Parse a key set. Keys for another algorithm or purpose are left out, and so are unsafe ones.

    Args:
        text: the set as JSON.
        algorithm: the algorithm of the tokens.

    Returns:
        The usable keys by their ids.

    Raises:
        ValueError: it is no key set, or has no usable key.
    """
    found = json.loads(text)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JSON Web Key Set: it has no member keys")  # noqa: TRY004 - of the text
    keys: dict[str | None, Any] = {}
    for member in listed:
        if not isinstance(member, dict):
            continue
        kid = member.get("kid")
        if member.get("use", "sig") != "sig" or member.get("alg", algorithm) != algorithm:
            continue
        try:
            if "d" in member:
                raise ValueError("it is private; publish the public key only")
            key = jwt.PyJWK(member, algorithm).key
            check_key(key, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # PyJWT's messages may quote the key.
            reason = error if type(error) is ValueError else type(error).__name__
            log.warning("cannot use key %r of WEBUI_JWT_JWKS: %s", kid, reason)
            continue
        keys[kid if isinstance(kid, str) else None] = key
    if not keys:
        raise ValueError(f"it has no usable key for {algorithm}")
    return keys


def read_source(source: str, seconds: float, limit: int) -> bytes:
    """Read a file, or the answer of a web server. It blocks.

    Args:
        source: an address, or the name of a file.
        seconds: time limit.
        limit: largest size in bytes.

    Returns:
        The content.

    Raises:
        OSError: it cannot be read, or not in time.
        ValueError: it is too large.
    """
    if _is_address(source):
        request = urllib.request.Request(source, headers={"Accept": "application/json"})  # noqa: S310 - see _is_address
        with _opener.open(request, timeout=seconds) as answer:
            return _read_all(answer, time.monotonic() + seconds, limit)
    with Path(source).open("rb") as file:
        return _read_all(file, time.monotonic() + seconds, limit)


def _read_all(stream: Any, end: float, limit: int) -> bytes:
    content = b""
    while part := stream.read1(_CHUNK):
        content += part
        if len(content) > limit:
            raise ValueError(f"it has more than {limit} bytes (WEBUI_JWT_JWKS_SIZE)")
        if time.monotonic() > end:
            raise TimeoutError("it took too long (WEBUI_JWT_JWKS_TIMEOUT)")
    return content


def _is_address(source: str) -> bool:
    return source.startswith(("https://", "http://"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: another server would decide about the keys."""

    def redirect_request(self, *_: object) -> None:
        """See ``HTTPRedirectHandler``. The answer then counts as an error."""


_opener = urllib.request.build_opener(_NoRedirect)
