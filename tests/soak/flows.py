"""Random canvases: the same seed gives the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from celery import chain, chord, group
from celery.canvas import Signature

from tests.soak import app as a

__all__ = ["Flow", "Flows"]

LONGEST = 0.02  # seconds that a task works
FAILS, RETRIES, SPAWNS = 0.015, 0.08, 0.04  # of all tasks


@dataclass(frozen=True)
class Flow:
    """A canvas. ``planned``: tasks that it names; ``total``: with those that these start, if none fails."""

    signature: Signature
    shape: str
    planned: int
    total: int


class Flows:
    """Makes them. Late and early acknowledgement are mixed within most."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._planned = self._total = 0
        self._lateness = 0.5

    def next(self) -> Flow:
        """Another one."""
        random = self._random
        self._planned = self._total = 0
        self._lateness = random.choice((0.0, 0.5, 1.0, 1.0))
        shape = random.choice(("single", "group", "chain", "chord", "mapped", "nested", "stages"))
        signature = getattr(self, f"_{shape}")()
        return Flow(signature, shape, self._planned, self._total)

    def _task(self) -> Signature:
        random = self._random
        task = a.late if random.random() < self._lateness else a.early
        spawns = random.randint(1, 3) if random.random() < SPAWNS else 0
        self._planned += 1
        self._total += 1 + spawns
        return task.s(
            pause=random.random() * LONGEST,
            fails=random.random() < FAILS,
            tries=random.randint(1, 2) if random.random() < RETRIES else 0,
            spawns=spawns,
        )

    def _tasks(self, least: int, most: int) -> list[Signature]:
        return [self._task() for _ in range(self._random.randint(least, most))]

    def _single(self) -> Signature:
        return self._task()

    def _group(self) -> Signature:
        return group(self._tasks(2, 16))

    def _chain(self) -> Signature:
        return chain(self._tasks(2, 8))

    def _chord(self) -> Signature:
        return chord(self._tasks(2, 12), self._task())

    def _mapped(self) -> Signature:
        return chain(self._task(), group(self._tasks(2, 6)), self._task())

    def _nested(self) -> Signature:
        return group(chain(self._tasks(2, 3)) for _ in range(self._random.randint(2, 4)))

    def _stages(self) -> Signature:
        return chain(self._task(), group(self._tasks(2, 4)), self._task(), group(self._tasks(2, 4)), self._task())
