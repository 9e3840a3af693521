"""The conclusions from what sentinels say about one master, without I/O.

Each sentinel is asked all the time with GET-MASTER-ADDR-BY-NAME, and subscribed to ``+switch-master``. The event's
address counts immediately: the old master takes writes for ten seconds and more after it, and loses them. Clients that
ask with SENTINEL MASTERS get the old address for about a second from the sentinel that led the failover.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import hiredis

from eventbus.backends.redis.connections.resp import Command, pack
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint, RedisAddress

__all__ = ["MasterView", "SentinelSession"]

_EVENT: Final = b"+switch-master"
_EVENT_FIELDS: Final = 5  # name, old host, old port, new host, new port


class MasterView:
    """The master that sentinels name.

    Args:
        sentinels: number of sentinels in the address.

    Attributes:
        master: the master; None: not known yet.
        problem: the last thing that kept a sentinel from answering.
    """

    def __init__(self, sentinels: int) -> None:
        self._sentinels = sentinels
        self._named: dict[int, Endpoint] = {}
        self.master: Endpoint | None = None
        self.problem = "no sentinel has answered"

    def answered(self, sentinel: int, endpoint: Endpoint) -> None:
        """Note an answer. More than half of the sentinels decide.

        Args:
            sentinel: which one.
            endpoint: the master that it names.
        """
        self._named[sentinel] = endpoint
        if 2 * list(self._named.values()).count(endpoint) > self._sentinels:
            self.master = endpoint

    def switched(self, sentinel: int, endpoint: Endpoint) -> None:
        """Note an event. It counts immediately, and earlier answers of the others no longer do.

        Args:
            sentinel: which one.
            endpoint: the new master.
        """
        self._named = {sentinel: endpoint}
        self.master = endpoint

    def forget(self, sentinel: int, problem: str) -> None:
        """Note that a sentinel does not answer.

        Args:
            sentinel: which one.
            problem: why, for an error message.
        """
        self._named.pop(sentinel, None)
        self.problem = problem

    def locate(self, address: RedisAddress) -> Endpoint:
        """Return the master to connect to.

        Args:
            address: the address of the sentinels, for the message.

        Raises:
            Unavailable: no sentinel names a master.
        """
        found = self.likely
        if found is None:
            raise Unavailable(f"no sentinel at {address} names the master: {self.problem}")
        return found

    @property
    def likely(self) -> Endpoint | None:
        """The master, or the one that most of the answers name if fewer than half of the sentinels answer."""
        if self.master is not None or not self._named:
            return self.master
        return Counter(self._named.values()).most_common(1)[0][0]


class SentinelSession:
    """One connection to a sentinel: bytes out, bytes in.

    Args:
        view: receives the answers and events.
        sentinel: number of the sentinel.
        address: names the master and has the sentinels' credentials.
    """

    def __init__(self, view: MasterView, sentinel: int, address: RedisAddress) -> None:
        self._view = view
        self._sentinel = sentinel
        self._address = address
        self._reader = hiredis.Reader()
        self._greeted = False

    def greeting(self) -> bytes:
        """Return the first bytes to send. RESP3 allows other commands on a connection that subscribes."""
        hello: Command = ("HELLO", 3)
        if self._address.sentinel_password is not None:
            user = self._address.sentinel_username or "default"
            hello = (*hello, "AUTH", user, self._address.sentinel_password)
        # Subscribe before asking: otherwise a switch between the two would be missed.
        return pack(hello) + pack(("SUBSCRIBE", _EVENT)) + self.question()

    def question(self) -> bytes:
        """Return the bytes that ask for the master. They show also that the sentinel answers."""
        return pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service))

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived.

        Args:
            data: the bytes.

        Raises:
            Unavailable: the sentinel does not know the master or refuses the connection.
        """
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError as error:
            raise Unavailable(f"a sentinel sent no reply: {error}") from error

    def _take(self, reply: object) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise Unavailable(f"a sentinel answered: {reply}")
        # A push has three parts, an address has two. hiredis has a class for pushes from 3.2 on.
        if isinstance(reply, list) and len(reply) == 3:
            kind, channel, text = reply
            if kind == b"message" and channel == _EVENT:
                self._switched(text.decode(errors="replace").split())
        elif isinstance(reply, list) and len(reply) == 2:
            host, port = reply
            self._view.answered(self._sentinel, Endpoint(host.decode(), int(port)))
        elif reply is None:
            raise Unavailable(f"a sentinel knows no master named {self._address.service}; see EVENTBUS_REDIS_URL")

    def _switched(self, fields: list[str]) -> None:
        if len(fields) == _EVENT_FIELDS and fields[0] == self._address.service:
            self._view.switched(self._sentinel, Endpoint(fields[3], int(fields[4])))
