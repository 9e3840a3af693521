"""How a command calls Redis: an error is one line and an exit code. And how it writes ages."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable
from typing import Annotated, Final, NoReturn, Protocol, TypeVar

import typer
from pydantic import ValidationError

from eventbus.errors import EventBusError, NoDeadLetter, RateLimited, Refused, TooManyRevocations, Unavailable
from eventbus.settings import BusSettings

__all__ = ["By", "Json", "age", "call", "fail", "operator", "seconds_of"]

By = Annotated[str | None, typer.Option(help="name of the operator for the log; default: the user of this shell")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object a line")]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Client(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Client)
T = TypeVar("T")


def call(make: Callable[[], C], request: Callable[[C], T]) -> T:
    """Make a client, send a request and close the client.

    Args:
        make: makes the client; it reads its settings from the environment.
        request: sends the request.

    Returns:
        The result of the request.

    Raises:
        typer.Exit: with code 1 if the thing does not exist, 2 for a mistake in the call or in a setting, 3 if Redis is
            not available or refuses.
    """
    try:
        client = make()
    except ValidationError as error:
        problem = error.errors()[0]
        fail(f"EVENTBUS_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}", 2)
    except ValueError as error:  # an address without a server, such as memory://
        fail(f"EVENTBUS_REDIS_URL: {error}", 2)
    try:
        return request(client)
    except NoDeadLetter as error:
        fail(str(error), 1)
    except Unavailable as error:
        fail(f"{error}; EVENTBUS_REDIS_URL names {BusSettings().redis_address}", 3)
    except (Refused, RateLimited, TooManyRevocations) as error:
        fail(str(error), 3)
    except EventBusError as error:
        fail(str(error), 2)
    finally:
        client.close()


def age(seconds: float) -> str:
    """Write an age in its largest unit.

    Args:
        seconds: the age; a negative one is written as 0.

    Returns:
        A text such as ``3h``.
    """
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit]:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def seconds_of(text: str | None, option: str) -> float | None:
    """Read an age, such as ``2h``.

    Args:
        text: the age; None: there is none.
        option: the option, for the error.

    Returns:
        The seconds; None without an age.

    Raises:
        typer.Exit: with code 2, if it cannot be read.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        fail(f"{option} must read 30s, 10m, 2h or 7d, not {text!r}", 2)
    return float(found[1]) * _UNITS[found[2]]


def operator() -> str:
    """Return the user of this shell; a container's may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def fail(message: str, code: int) -> NoReturn:
    """End the command.

    Args:
        message: what to do; one line.
        code: the exit code.

    Raises:
        typer.Exit: always.
    """
    typer.echo(f"eventbus: {message}", err=True)
    raise typer.Exit(code)
