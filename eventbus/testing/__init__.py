"""Test kit for applications: capture events without a server, or run a real server for a while.

It imports no pytest; the fixtures are in ``pytest_eventbus``. See docs/how-to/test-your-code.md.
"""

from eventbus.errors import NoServer
from eventbus.testing.captured_event import CapturedEvent, UnknownEvent
from eventbus.testing.captured_events import Events
from eventbus.testing.event_capture import capture
from eventbus.testing.matching import Like, like
from eventbus.testing.operation_context import operation
from eventbus.testing.redis_server import RedisServer, free_port, server_binary

__all__ = [
    "CapturedEvent",
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
