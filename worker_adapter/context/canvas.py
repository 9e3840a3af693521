"""A canvas made ready to travel: every leaf of it counted, and marked in its own signature.

The marks lie in the options of each signature, where they survive whatever Celery does with it: a chain's rest
travels as data within messages, a chord's body within every task of its header, and some of them are published by the
worker's main process, where no task is current that they could be copied from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from celery.canvas import Signature, chunks, maybe_signature, xmap, xstarmap

from worker_adapter.context.headers import TASK_KEY, planned_key

__all__ = ["Plan", "plan"]

_NONE: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """``flow`` is a marked copy of a canvas, ``leaves`` the number of tasks that it will publish by itself."""

    flow: Signature
    leaves: int


def plan(flow: Signature, headers: Mapping[str, str]) -> Plan:
    """Copy a canvas with ``headers`` on all of its leaves, and on each a mark that says that it was planned.

    Counted are tasks and callbacks (``link``); not error callbacks, which run only if something fails, and not
    Celery's own tasks. A group given as a generator is consumed. The canvas that was given stays as it is.
    """
    walk = _Walk(flow.app, headers)
    # This group is what chunks() publishes, and it drops its own options on the way.
    return Plan(walk.mark(flow.group() if isinstance(flow, chunks) else flow), walk.leaves)


class _Walk:
    def __init__(self, app: Celery, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers
        self.leaves = 0

    def mark(self, node: Any, handed: Mapping[str, Any] = _NONE) -> Signature:
        """A marked copy of a signature, or of the dict that one becomes in a message.

        ``handed`` are headers of the container. Celery lets them replace those of the tasks that the container
        publishes, the marks with them; so they are taken from the container and given to those tasks beforehand.
        """
        copy = self._copy(node)
        kind = copy.get("subtask_type")
        if kind in ("chain", "group", "chord"):
            handed = {**(copy.options.pop("headers", None) or _NONE), **handed}
        if kind == "chain":
            copy.tasks = [self.mark(task, _NONE if i else handed) for i, task in enumerate(copy.tasks)]
        elif kind == "group":
            copy.tasks = [self.mark(task, handed) for task in copy.tasks]
        elif kind == "chord":
            header = copy.tasks
            whole = isinstance(header, Signature)
            copy.tasks = self.mark(header, handed) if whole else [self.mark(task, handed) for task in header]
            copy.body = self.mark(copy.body, handed)
        else:
            self.leaves += 1
            self._add(copy, handed, {TASK_KEY: planned_key(self.leaves)})
        return copy

    def _copy(self, node: Any) -> Signature:
        copy = maybe_signature(node, app=self._app).clone()
        if isinstance(node, (xmap, xstarmap)):
            # clone() makes a plain signature of it, which would be routed by Celery's name and not by the task's.
            copy = type(node).from_dict(copy, app=node.app)
        for kind in ("link", "link_error"):
            found = copy.options.get(kind)
            if found:
                several = found if isinstance(found, (list, tuple)) else [found]
                mark = self.mark if kind == "link" else self._errback
                copy.options[kind] = [mark(callback) for callback in several]
        return copy

    def _errback(self, node: Any) -> Signature:
        copy = maybe_signature(node, app=self._app).clone()
        self._add(copy, _NONE, _NONE)
        return copy

    def _add(self, copy: Signature, handed: Mapping[str, Any], own: Mapping[str, str]) -> None:
        copy.options["headers"] = {**(copy.options.get("headers") or _NONE), **handed, **self._headers, **own}
