"""Logs as JSON lines, without tokens and without control characters."""

from __future__ import annotations

import logging.config
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["configure_logging", "redact"]

# A JWT is three base64url parts. Everything after the name of a carrier is redacted as well.
_SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=access_token[.=])[^\s\"'&,;]+|(?<=token=)[^\s\"'&,;]+|(?<=bearer )\S+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Replace every token in a text, and the one control character that JSON does not escape.

    Args:
        text: the text.

    Returns:
        The text without tokens.
    """
    return _SECRETS.sub("[token]", text).replace("\x7f", "\\x7f")


def _redact_all(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event


def configure_logging(level: str) -> None:
    """Send all logs to standard error, as one JSON object per line. JSON escapes control characters.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": shared,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _redact_all,
            structlog.processors.JSONRenderer(),
        ],
    }
    # Python warnings become lines of the log, too.
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            # The gateway logs connections itself.
            "loggers": {"uvicorn.access": {"level": "WARNING"}, "uvicorn.error": {"level": "INFO"}},
        }
    )
