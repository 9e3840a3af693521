"""Logs as JSON lines, without tokens and without control characters."""

from __future__ import annotations

import logging.config
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["configure_logging", "redact"]

# A JWT is three base64url parts; everything after the carriers' names goes as well.
_SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=access_token[.=])[^\s\"'&,;]+|(?<=token=)[^\s\"'&,;]+|(?<=bearer )\S+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with every token in it replaced, and the one control character that JSON lets through."""
    return _SECRETS.sub("[token]", text).replace("\x7f", "\\x7f")


def _redact_all(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event


def configure_logging(level: str) -> None:
    """Send all logging to standard error: one JSON object per line (JSON escapes control characters)."""
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
    # Warnings too are lines of the log, not text between them.
    logging.captureWarnings(True)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            # One line a connection is the sessions' business, not the access log's.
            "loggers": {"uvicorn.access": {"level": "WARNING"}, "uvicorn.error": {"level": "INFO"}},
        }
    )
