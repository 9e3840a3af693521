"""Logs as JSON lines, without tokens and without control characters."""

from __future__ import annotations

import logging.config
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["configure_logging", "redact", "redact_uvicorn_logs"]

# A JWT is three base64url parts. Everything after the name of a carrier is redacted as well.
_SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=access_token[.=])[^\s\"'&,;]+|(?<=bearer )\S+"
    r"|(?<=token=)[^\s\"'&,;]+|(?<=key=)[^\s\"'&,;]+|(?<=ticket=)[^\s\"'&,;]+|(?<=secret=)[^\s\"'&,;]+"
    r"|(?<=password=)[^\s\"'&,;]+",
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


class _Redaction(logging.Filter):
    """Redacts the texts that a line of the log is made of."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


_redaction = _Redaction()


def redact_uvicorn_logs() -> None:
    """Let the logs of uvicorn show no token of a query. A second call changes nothing."""
    # Handshakes of WebSockets are lines of uvicorn.error.
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_redaction)


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
        structlog.stdlib.ExtraAdder(["audit"]),  # of eventbus.audit
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
