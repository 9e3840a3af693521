"""An operation that runs in a separate worker, and its leases."""

import asyncio

import pytest

from eventbus import BusSettings
from eventbus.backends.redis.operation_client import Operations
from eventbus.backends.redis.operation_store import RedisOperations
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from tests.conftest import wait_until
from tests.worker_adapter import lives as a
from tests.worker_adapter.conftest import publishing_to
from tests.worker_adapter.listening import END, SubscriptionListener
from worker_adapter import start_operation

SHORT = {"EVENTBUS_WORKER_LEASE": "3", "EVENTBUS_WORKER_CANCEL_POLL": "0.1"}


@pytest.fixture(autouse=True)
def _here(application, redis_url):
    a.app.conf.result_backend = f"{redis_url.removesuffix('/0')}/2"
    with publishing_to(a.app, f"{redis_url.removesuffix('/0')}/1"):
        yield


@pytest.fixture
def settings(redis_url):
    return BusSettings(redis_url=redis_url)


@pytest.fixture
def operations(settings):
    with Operations(settings) as operations:
        yield operations


class World:
    """An operation that runs in a separate worker."""

    def __init__(self, settings, operations, user, flow):
        self.settings, self.operations, self.user = settings, operations, user
        self.listening = SubscriptionListener(settings.redis_url, user)
        self.id = start_operation(flow.set(queue=user), user=user).id
        self.leases = Keys(settings.key_prefix).operation(f"user:{user}", self.id)[2]

    def begun(self, path):
        wait_until(path.exists, "the task to begin")
        self.listening.until(lambda heard: any(e.type == "task.started" for e in heard))
        wait_until(lambda: self.info().tasks, "its lease, of which Redis may hear a moment later")

    def info(self):
        return self.operations.get(self.user, self.id)

    def lease(self):
        """End of the lease (ms); None while nothing runs."""
        return next(iter(self._leases().values()), None)

    def _leases(self):
        redis = RedisPublisher(self.settings)
        try:
            (found,) = redis.execute(("ZRANGE", self.leases, 0, -1, "WITHSCORES"))
        finally:
            redis.close()
        # The names of the other entries are no keys of tasks: the end of the silence, and of a wait.
        return {found[i]: int(found[i + 1]) for i in range(0, len(found), 2) if found[i].strip()}

    def sweep(self):
        """Check this operation's leases, as a gateway does."""

        async def check():
            reader = RedisReader(self.settings)
            book = RedisOperations(self.settings, reader)
            try:
                return await book.expire_leases(f"user:{self.user} {self.id}")
            finally:
                await reader.aclose()

        return asyncio.run(check())

    def forget_lease(self):
        """Let the lease expire."""
        redis = RedisPublisher(self.settings)
        redis.execute(*(("ZADD", self.leases, "XX", 1, key) for key in self._leases()))
        redis.close()

    def states(self):
        return [
            e.type.removeprefix("operation.")
            for e in self.listening.events
            if e.type.startswith("operation.") and e.type != "operation.progress"
        ]

    def until(self, *types):
        self.listening.until(lambda heard: any(e.type in types for e in heard))

    def end(self):
        self.until(*END)
        self.listening.close()
        return self.states()


@pytest.fixture
def begin(settings, operations):
    return lambda user, flow: World(settings, operations, user, flow)


@pytest.fixture
def start(start_worker):
    def begun(queue, pool="prefork", patience=20, **more):
        places = [] if pool == "solo" else ["-c", "2"]
        return start_worker(
            "--pool", pool, *places, queue=queue, app="tests.worker_adapter.lives", patience=patience, **SHORT, **more
        )

    return begun
