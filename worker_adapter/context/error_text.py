"""Text of an error for the browser: class and first line, without a traceback."""

from __future__ import annotations

from celery.exceptions import MaxRetriesExceededError, Reject, Retry

__all__ = ["caused_by_retry", "error_text"]


def error_text(error: object, limit: int) -> str:
    """Return the class and the first line of an error's message; never a traceback.

    Args:
        error: the error. For ``Retry`` and ``Reject`` the text is about the error that they name.
        limit: largest number of characters of the message. 0 leaves the class name only, for applications whose
            messages may hold secrets.
    """
    cause = _cause(error)
    name = type(cause).__name__ if isinstance(cause, BaseException) else type(error).__name__
    message = _first_line(cause)
    if isinstance(cause, MaxRetriesExceededError):
        # Celery's text goes on with the arguments of the task, which may be secret.
        message = message.partition(" args:")[0]
    if len(message) > limit:
        message = message[: limit - 1] + "…" if limit else ""
    return f"{name}: {message}" if message else name


def caused_by_retry(error: BaseException | None) -> bool:
    """Return whether an error was raised while Celery handled a retry, as in ``on_retry``.

    The next try has been published by then.

    Args:
        error: the error.
    """
    while error is not None and not isinstance(error, Retry):
        error = error.__context__
    return error is not None


def _cause(error: object) -> object:
    """The error for which a task asked for a retry or for its rejection, if it named one."""
    if isinstance(error, Retry):
        return error.exc if error.exc is not None else error
    if isinstance(error, Reject):
        return error.reason if error.reason is not None else error
    return error


def _first_line(error: object) -> str:
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - the application's __str__ may raise anything
        return ""
    line = text.splitlines()[0] if text else ""
    return "".join(character for character in line if character.isprintable())
