"""Captured events, and assertions on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from eventbus.events.event import Event
from eventbus.protocol.topics import UserId
from eventbus.testing.captured_event import CapturedEvent
from eventbus.testing.failure_messages import expectation, listed, nearest
from eventbus.testing.matching import Like, Pattern, pattern_of
from eventbus.testing.targets import Address

__all__ = ["Events"]

E = TypeVar("E", bound=Event)


class Events(Sequence[CapturedEvent[Event]]):
    """Captured events in the order in which they were sent. The sequence grows while the block runs.

    Assertions take the class by position and members by name, so that an event may have members of any name. A member
    that the class does not have is a TypeError: no event could have it.

    Args:
        all_: grows while the block runs.
        address: limits the events to some topics; default: all.
        acked: called with channel and id of an event that a test acknowledges.
    """

    def __init__(
        self,
        all_: Sequence[CapturedEvent[Event]],
        address: Address | None = None,
        acked: Callable[[str, str], object] | None = None,
    ) -> None:
        """``acked`` is called with channel and id of an event that a test acknowledges."""
        self._all = all_
        self._address = address or Address()
        self._acked = acked

    def to(
        self,
        *,
        user: UserId | None = None,
        op: str | None = None,
        collection: str | None = None,
        topic: str | None = None,
    ) -> Events:
        """Return the events that went to an address. The result grows, too.

        Args:
            user: id of the user.
            op: id of the operation.
            collection: id of the collection.
            topic: a topic, or a pattern that ends in ``*``.

        Raises:
            InvalidName: ``topic`` is malformed.
        """
        address = Address(None if user is None else str(user), op, collection, topic).within(self._address)
        return Events(self._all, address, self._acked)

    def of(self, cls: type[E], /, **members: object) -> list[E]:
        """Return the events of a class, its subclasses included, whose members have these values.

        Args:
            cls: an event class.
            **members: values.
        """
        return self._found(Like(cls, members))

    def one(self, cls: type[E], /, **members: object) -> E:
        """Return the only event of a class with these members.

        Args:
            cls: an event class.
            **members: values.

        Raises:
            AssertionError: there is none, or there are several.
        """
        __tracebackhide__ = True
        like = Like(cls, members)
        found = self._found(like)
        if len(found) == 1:
            return found[0]
        if not found:
            raise AssertionError(self._nothing(like))
        raise AssertionError(
            f"one {expectation(like, self._address)} was to come, not {len(found)}\n{listed(self._all)}"
        )

    def none(self, cls: type[Event] = Event, /, **members: object) -> None:
        """Assert that there is no event of a class with these members.

        Args:
            cls: an event class; default: any.
            **members: values.

        Raises:
            AssertionError: there is one.
        """
        __tracebackhide__ = True
        like = Like(cls, members)
        if found := self._found(like):
            many = "one" if len(found) == 1 else str(len(found))
            raise AssertionError(
                f"no {expectation(like, self._address)} was to come, but {many} did\n{listed(self._all)}"
            )

    def in_order(self, *patterns: Pattern) -> list[Event]:
        """Return events that came in this order, with or without others between them.

        Args:
            *patterns: classes, events, or ``like(Class, member=…)``.

        Raises:
            AssertionError: an event did not come after the one before it.
        """
        __tracebackhide__ = True
        found: list[Event] = []
        at = 0
        for pattern in patterns:
            like = pattern_of(pattern)
            place = self._place(like, at)
            if place is None:
                raise AssertionError(self._not_after(like, at))
            found.append(self._all[place].event)
            at = place + 1
        return found

    def acknowledge(self, event: Event) -> None:
        """Acknowledge an event of ``deliver="ack"`` as a page does: ``receipt.delivered()`` is true then.

        Args:
            event: a captured event.

        Raises:
            LookupError: it is not one of these events.
            TypeError: these are a page's events, and a page acknowledges by itself.
        """
        if self._acked is None:
            raise TypeError("a page acknowledges by itself; only what capture() returns is acknowledged by a test")
        for emitted in self:
            if emitted.event is event:
                self._acked(emitted.channel, emitted.id)
                return
        raise LookupError("the event to acknowledge is not one of those captured; take it from one() or of()")

    def __iter__(self) -> Iterator[CapturedEvent[Event]]:
        return iter(self._mine())

    def __len__(self) -> int:
        return len(self._mine())

    @overload
    def __getitem__(self, index: int) -> CapturedEvent[Event]: ...
    @overload
    def __getitem__(self, index: slice) -> list[CapturedEvent[Event]]: ...
    def __getitem__(self, index: int | slice) -> CapturedEvent[Event] | list[CapturedEvent[Event]]:
        return self._mine()[index]

    def __repr__(self) -> str:
        return f"<{listed(self._mine())}>"

    def _mine(self) -> list[CapturedEvent[Event]]:
        # A copy of the list first: another thread may emit meanwhile.
        return [emitted for emitted in list(self._all) if self._address.covers(emitted)]

    def _found(self, like: Like[E]) -> list[E]:
        return [emitted.event for emitted in self._mine() if like.fits(emitted.event)]

    def _place(self, like: Like[Any], start: int) -> int | None:
        for place, emitted in enumerate(list(self._all)[start:], start):
            if self._address.covers(emitted) and like.fits(emitted.event):
                return place
        return None

    def _nothing(self, like: Like[Any]) -> str:
        all_ = list(self._all)
        return f"no {expectation(like, self._address)} came\n{nearest(like, self._address, all_)}\n{listed(all_)}"

    def _not_after(self, like: Like[Any], at: int) -> str:
        before = self._place(like, 0)
        if before is None:
            return self._nothing(like)
        return (
            f"{expectation(like, self._address)} was to come after number {at}; "
            f"the first that came is number {before + 1}\n"
            f"{listed(self._all)}"
        )
