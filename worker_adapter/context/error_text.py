"""What an error says: to a browser, and to us."""

from __future__ import annotations

from celery.exceptions import MaxRetriesExceededError, Reject, Retry

__all__ = ["error_text", "of_retry"]


def error_text(error: object, limit: int) -> str:
    """Class and first line of the message, at most ``limit`` characters of it; never a traceback.

    ``limit`` 0 leaves the class name only: for applications whose messages may hold what a user must not see.
    """
    cause = _cause(error)
    name = type(cause).__name__ if isinstance(cause, BaseException) else type(error).__name__
    message = _first_line(cause)
    if isinstance(cause, MaxRetriesExceededError):
        # Celery's own text goes on with the task's arguments, which may be anything.
        message = message.partition(" args:")[0]
    if len(message) > limit:
        message = message[: limit - 1] + "…" if limit else ""
    return f"{name}: {message}" if message else name


def of_retry(error: BaseException | None) -> bool:
    """Whether an error came up while Celery dealt with a retry, as in ``on_retry``: the next try is under way."""
    while error is not None and not isinstance(error, Retry):
        error = error.__context__
    return error is not None


def _cause(error: object) -> object:
    """The error that made a task ask for a retry or for its rejection, where it named one."""
    if isinstance(error, Retry):
        return error.exc if error.exc is not None else error
    if isinstance(error, Reject):
        return error.reason if error.reason is not None else error
    return error


def _first_line(error: object) -> str:
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - the message is the application's code; a broken one is no message
        return ""
    line = text.splitlines()[0] if text else ""
    return "".join(character for character in line if character.isprintable())
