"""For the tests of those who emit: events captured without a server, and a real server for a while.

Nothing of it imports pytest; the fixtures are in ``pytest_eventbus``. See docs/TESTING.md.
"""

from eventbus.errors import NoServer
from eventbus.testing.capturing import capture
from eventbus.testing.current import operation
from eventbus.testing.emitted import Emitted, UnknownEvent
from eventbus.testing.events import Events
from eventbus.testing.like import Like, like
from eventbus.testing.server import RedisServer, free_port, server_binary

__all__ = [
    "Emitted",
    "Events",
    "Like",
    "NoServer",
    "RedisServer",
    "UnknownEvent",
    "capture",
    "free_port",
    "like",
    "operation",
    "server_binary",
]
