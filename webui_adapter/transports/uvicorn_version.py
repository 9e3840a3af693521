"""The parts of uvicorn's protocol classes that the gateway uses, checked when it is imported.

These parts are not uvicorn's public interface, and a new version may rename them. A check at the start names the
version. Without it the first connection would fail with an ``AttributeError``.
"""

from __future__ import annotations

from typing import Any

import uvicorn
from websockets.frames import Frame, Opcode
from websockets.version import version as websockets_version

from webui_adapter.errors import NotConfigured

__all__ = ["FLOOR", "accept_close_within_message", "check_parts", "limit_messages"]

FLOOR = "0.45"
"""The oldest uvicorn that works; ``pyproject.toml`` asks for the same."""


def check_parts(protocol: type, attributes: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """Check that a class of uvicorn has what a subclass of ours uses.

    Args:
        protocol: the class of uvicorn.
        attributes: names that its ``__init__`` sets.
        methods: names of its methods.

    Raises:
        NotConfigured: a name is missing. The message names uvicorn's version and what to install.
    """
    # ``co_names`` holds every attribute that the function sets, so that no connection must be made to see them.
    known = {*protocol.__init__.__code__.co_names, *dir(protocol)}  # type: ignore[misc]
    missing = [name for name in (*attributes, *methods) if name not in known]
    if missing:
        raise NotConfigured(
            f"cannot use uvicorn {uvicorn.__version__}: its {protocol.__name__} has no {', '.join(missing)}. "
            f"Install uvicorn {FLOOR} or newer, in a version that docs/reference/compatibility.md names, "
            "or serve the application with another ASGI server."
        )


def limit_messages(parser: Any, limit: int) -> None:
    """Limit the messages that a parser of websockets accepts.

    Args:
        parser: the parser.
        limit: the largest message, in bytes.

    Raises:
        NotConfigured: this version of websockets keeps the limit elsewhere.
    """
    # ``max_message_size`` since websockets 15.0.2, ``max_size`` before.
    name = next((name for name in ("max_message_size", "max_size") if hasattr(parser, name)), None)
    if name is None:
        raise NotConfigured(
            f"cannot limit the messages of websockets {websockets_version}. "
            "Install a version that docs/reference/compatibility.md names."
        )
    setattr(parser, name, limit)


def accept_close_within_message(parser: Any) -> None:
    """Accept a close frame before the last fragment of a message, as RFC 6455, section 5.4, allows.

    websockets fails such a connection with 1002.

    Args:
        parser: the parser.
    """
    # ``current_size`` since websockets 15.0.2, ``cur_size`` before.
    name = "current_size" if hasattr(parser, "current_size") else "cur_size"
    take = parser.recv_frame

    def recv_frame(frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            setattr(parser, name, None)
        take(frame)

    parser.recv_frame = recv_frame
