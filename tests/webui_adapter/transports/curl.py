"""Event streams as curl shows them."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from tests.conftest import wait_until
from tests.webui_adapter.gateways import GatewayProcess, token

__all__ = ["Curl", "blocks", "curl", "settled"]


def blocks(text: str) -> list[dict[str, str]]:
    """Complete blocks of a stream: their fields; comments as ``comment``."""
    whole = text.rpartition("\n\n")[0]
    found = []
    for block in filter(None, whole.split("\n\n")):
        lines = [line.partition(":") for line in block.split("\n")]
        found.append({name or "comment": value.removeprefix(" ") for name, _, value in lines})
    return found


class Curl:
    """``curl -N``, as a person would look at a stream."""

    def __init__(self, gateway: GatewayProcess, user: str, *options: str, query: str = "", **claims: Any) -> None:
        found = shutil.which("curl")
        assert found is not None, "these tests need curl"
        bearer = f"Authorization: Bearer {token(user, **claims)}"
        self._process = subprocess.Popen(
            [found, "-sS", "-N", "-i", "-H", bearer, *options, f"{gateway.sse}{query}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        import os  # noqa: PLC0415 - one flag

        os.set_blocking(self._pipe.fileno(), False)
        self._text = ""

    @property
    def text(self) -> str:
        with contextlib.suppress(BlockingIOError, TypeError):
            self._text += (self._pipe.read() or b"").decode().replace("\r\n", "\n")
        return self._text

    @property
    def head(self) -> str:
        return self.text.partition("\n\n")[0]

    @property
    def blocks(self) -> list[dict[str, str]]:
        return blocks(self.text.partition("\n\n")[2])

    def got(self, type_: str) -> list[dict[str, Any]]:
        return [json.loads(block["data"]) for block in self.blocks if block.get("event") == type_]

    def until(self, condition: Callable[[Curl], object], what: str) -> None:
        wait_until(lambda: condition(self), f"{what}; so far: {self.text[-1500:]}")

    @property
    def last_id(self) -> str:
        return [block["id"] for block in self.blocks if "id" in block][-1]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def ended(self) -> bool:
        return self._process.poll() is not None


@contextlib.contextmanager
def curl(*args: Any, **options: Any) -> Iterator[Curl]:
    process = Curl(*args, **options)
    try:
        yield process
    finally:
        process.close()


def settled(user: str) -> Callable[[Curl], bool]:
    return lambda c: {event["data"]["channel"] for event in c.got("bus.position")} >= {f"user:{user}", "system"}
