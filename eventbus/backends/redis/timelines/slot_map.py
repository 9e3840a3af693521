"""A value for each slot of a cluster. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

__all__ = ["EMPTY", "SlotMap", "combine"]


@dataclass(frozen=True, slots=True)
class SlotMap:
    """A text for each slot, kept as ranges. Without arguments, each slot has the empty text.

    Attributes:
        starts: first slot of each range, ascending from 0.
        values: value of each range; neighbours differ.
    """

    starts: tuple[int, ...] = (0,)
    values: tuple[str, ...] = ("",)

    def at(self, slot: int) -> str:
        """Return the value of a slot.

        Args:
            slot: the slot.
        """
        return self.values[bisect_right(self.starts, slot) - 1]

    @property
    def found(self) -> set[str]:
        """All values except the empty one."""
        return {*self.values} - {""}

    @property
    def text(self) -> str:
        """The map as text, such as ``5461=8f0c2a91d3 10923=``: values by the first slot of their range."""
        return " ".join(f"{start}={value}" for start, value in zip(self.starts, self.values, strict=True))

    @classmethod
    def read(cls, text: str) -> SlotMap:
        """Read what ``text`` wrote.

        Args:
            text: the text; an empty one is the empty map.

        Returns:
            The map.
        """
        pairs = [part.partition("=") for part in text.split()]
        return _packed((int(start), value) for start, _, value in pairs) if pairs else cls()

    @classmethod
    def of(cls, values: Iterable[str]) -> SlotMap:
        """Make a map.

        Args:
            values: value of each slot, in order.

        Returns:
            The map.
        """
        return _packed(enumerate(values))

    @classmethod
    def single(cls, slot: int, value: str) -> SlotMap:
        """Make a map with one value.

        Args:
            slot: the slot.
            value: its value; the other slots have the empty text.

        Returns:
            The map.
        """
        points = [(0, ""), (slot, value), (slot + 1, "")]
        return _packed(points if slot else points[1:])


EMPTY: Final = SlotMap()
"""Each slot has the empty text."""


def combine(decide: Callable[..., str], *maps: SlotMap) -> SlotMap:
    """Combine maps slot by slot.

    Args:
        decide: returns the new value of a slot from its values in the maps.
        maps: the maps.

    Returns:
        The combined map.
    """
    points = sorted({start for one in maps for start in one.starts})
    return _packed((point, decide(*(one.at(point) for one in maps))) for point in points)


def _packed(points: Iterable[tuple[int, str]]) -> SlotMap:
    firsts = [next(run) for _, run in groupby(points, key=lambda point: point[1])]
    return SlotMap(tuple(start for start, _ in firsts), tuple(value for _, value in firsts))
