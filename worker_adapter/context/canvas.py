"""Plan of a canvas: the number of its tasks, and a key for each of them.

The headers are written into the options of each signature. There they survive everything that Celery does with a
canvas: the rest of a chain travels as data within messages, and so does the body of a chord. The worker's main process
publishes some of these signatures. It runs no task from which the headers could be inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import celery
from celery import Celery
from celery.canvas import Signature, chunks, maybe_signature, xmap, xstarmap

from worker_adapter.context.headers import TASK_KEY, planned_key

__all__ = ["Plan", "plan"]

_NONE: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """A canvas that is ready to be published.

    Attributes:
        flow: a copy of the canvas with headers on each task.
        tasks: the number of tasks that the canvas publishes.
    """

    flow: Signature
    tasks: int


def plan(flow: Signature, headers: Mapping[str, str]) -> Plan:
    """Copy a canvas and write headers and a key into each of its tasks.

    Tasks and callbacks (``link``) are counted. Error callbacks are not, because they run only after a failure. Celery's
    own tasks are not counted either.

    Args:
        flow: the canvas; it is not changed. A generator in a group is consumed.
        headers: headers of every task.

    Returns:
        The copy and the number of its tasks.
    """
    walk = _Walk(flow.app, headers)
    # chunks() publishes this group. The group would lose the options of chunks() on the way.
    return Plan(walk.plan(flow.group() if isinstance(flow, chunks) else flow), walk.tasks)


class _Walk:
    def __init__(self, app: Celery, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers
        self.tasks = 0

    def plan(self, node: Any, inherited: Mapping[str, Any] = _NONE) -> Signature:
        """Return a copy, with headers, of a signature or of the dict that one becomes in a message.

        ``inherited`` are headers of the container. Celery lets them replace the headers of the tasks that the container
        publishes, our keys included. So they are taken from the container and written into those tasks.
        """
        copy = self._copy(node)
        kind = copy.get("subtask_type")
        if kind in ("chain", "group", "chord"):
            inherited = {**(copy.options.pop("headers", None) or _NONE), **inherited}
        if kind == "chain":
            copy.tasks = [self.plan(task, _NONE if i else inherited) for i, task in enumerate(copy.tasks)]
        elif kind == "group":
            copy.tasks = [self.plan(task, inherited) for task in copy.tasks]
        elif kind == "chord":
            header = copy.tasks
            whole = isinstance(header, Signature)
            copy.tasks = self.plan(header, inherited) if whole else [self.plan(task, inherited) for task in header]
            copy.body = self.plan(copy.body, inherited)
        else:
            self.tasks += 1
            self._add(copy, inherited, {TASK_KEY: planned_key(self.tasks)})
        return copy

    def _copy(self, node: Any) -> Signature:
        copy = maybe_signature(node, app=self._app).clone()
        if isinstance(node, (xmap, xstarmap)) and celery.VERSION >= (5, 7):
            # clone() returns a plain signature, which Celery would route by its own task name.
            copy = type(node).from_dict(copy, app=node.app)
        elif isinstance(node, (xmap, xstarmap)):
            # Celery before 5.7 publishes a map without its options, our headers included. A plain signature keeps them.
            copy.kwargs["it"] = list(copy.kwargs["it"])
            copy.options.setdefault("route_name", maybe_signature(node.kwargs["task"]).name)
        for kind in ("link", "link_error"):
            found = copy.options.get(kind)
            if found:
                several = found if isinstance(found, (list, tuple)) else [found]
                plan_callback = self.plan if kind == "link" else self._errback
                copy.options[kind] = [plan_callback(callback) for callback in several]
        return copy

    def _errback(self, node: Any) -> Signature:
        copy = maybe_signature(node, app=self._app).clone()
        self._add(copy, _NONE, _NONE)
        return copy

    def _add(self, copy: Signature, inherited: Mapping[str, Any], own: Mapping[str, str]) -> None:
        copy.options["headers"] = {**(copy.options.get("headers") or _NONE), **inherited, **self._headers, **own}
