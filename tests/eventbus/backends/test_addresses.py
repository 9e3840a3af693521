"""Each form of EVENTBUS_REDIS_URL works with each connection that the product opens."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from eventbus import BusSettings, Event, Unavailable
from eventbus.backends.factory import connect, connect_probe
from eventbus.backends.ports import Write
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.cli.main import cli
from eventbus.events.encoder import EmissionBuilder
from eventbus.testing import RedisServer
from tests.eventbus.backends.heard import Heard
from tests.servers.certificates import Authority
from tests.servers.forwarder import Forwarder
from tests.servers.sentinel import running_sentinels

PASSWORD = "p@:/%#?&=+ ä"
Check = Callable[[BusSettings], None]


class Reached(Event, name="addresses.reached"):
    pass


class SocketServer(RedisServer):
    """A server that listens on a socket in the file system too."""

    def command(self) -> list[str]:
        return [*super().command(), "--unixsocket", str(self.folder / "my redis.sock")]


class Addresses:
    """Addresses of all forms. Parts start when a test asks for their address."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.server = SocketServer(folder)
        self.server.start()
        stack.callback(self.server.kill)
        for user, password in (("ann", "secret"), ("all@users", PASSWORD)):
            self.server.client.execute_command("ACL", "SETUSER", user, "on", f">{password}", "~*", "&*", "+@all")
        self.authority = Authority(folder)
        self._sentinels = ""

    def of(self, form: str) -> str:  # noqa: PLR0911 - one for each form
        """Return the address of a form."""
        port, path = self.server.port, quote(str(self.server.folder / "my redis.sock"))
        user, password = quote("all@users", safe=""), quote(PASSWORD, safe="")
        match form:
            case "tcp":
                return f"redis://127.0.0.1:{port}"
            case "database":
                return f"redis://127.0.0.1:{port}/3"
            case "database as an option":
                return f"redis://127.0.0.1:{port}/0?db=3"
            case "user":
                return f"redis://ann:secret@127.0.0.1:{port}/0"
            case "special characters":
                return f"redis://{user}:{password}@127.0.0.1:{port}/3"
            case "user as an option":
                return f"redis://127.0.0.1:{port}/0?username={user}&password={password}"
            case "socket":
                return f"unix://{path}"
            case "socket, user and database":
                return f"unix://{user}:{password}@{path}?db=3"
            case "sentinel" | "sentinel and user":
                return self._sentinel(f"{user}:{password}@" if "user" in form else "")
        return self._tls(form)

    def _tls(self, form: str) -> str:
        ca = f"ssl_ca_certs={self.authority.file}"
        address = "10.1.2.3" if form == "TLS without the host's name" else "127.0.0.1"
        name = form.replace(" ", "-").replace("'", "")
        context = self.authority.server_context(name, address=address, mutual="mutual" in form)
        port = self._stack.enter_context(Forwarder(self.server.port, context)).port
        url = f"rediss://ann:secret@127.0.0.1:{port}/3"
        match form:
            case "TLS":
                return f"{url}?{ca}"
            case "mutual TLS":
                certificate, key = self.authority.issue("client")
                return f"{url}?{ca}&ssl_certfile={certificate}&ssl_keyfile={key}"
            case "TLS without the host's name":
                return f"{url}?{ca}&ssl_check_hostname=false"
            case "TLS without a check":
                return f"{url}?ssl_cert_reqs=none"
            case "TLS of an unknown authority":
                return url
            case "mutual TLS without a certificate":
                return f"{url}?{ca}"
        raise LookupError(form)

    def _sentinel(self, user: str) -> str:
        if not self._sentinels:
            folder = self._folder / "sentinels"
            folder.mkdir()
            system = self._stack.enter_context(running_sentinels(folder))
            rights = ("on", f">{PASSWORD}", "~*", "&*", "+@all")
            system.master.client.execute_command("ACL", "SETUSER", "all@users", *rights)
            self._sentinels = system.url
        return self._sentinels.replace("://", f"://{user}")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with ExitStack() as stack:
        yield Addresses(tmp_path_factory.mktemp("addresses"), stack)


def publishes(settings: BusSettings) -> None:
    with contextlib.closing(RedisPublisher(settings)) as publisher:
        emission = EmissionBuilder(settings).build("user:ann:operation:9", Reached())
        (answer,) = publisher.publish([Write("user:ann", [emission])])
        if isinstance(answer, Exception):
            raise answer


def reads(settings: BusSettings) -> None:
    async def run() -> None:
        _, reader = connect(settings)
        try:
            await reader.read("user:ann", 0)
        finally:
            await reader.aclose()

    asyncio.run(run())


def subscribes_and_probes(settings: BusSettings) -> None:
    async def run() -> None:
        heard, probe = Heard(), connect_probe(settings)
        assert probe is not None
        subscriber, _ = connect(settings)
        try:
            assert await probe.publish_canary("first", "one") is None
            await subscriber.start(heard)
            async with asyncio.timeout(10):
                while not heard.probes:
                    await probe.publish_canary("second", "one")
                    await asyncio.sleep(0.01)
        finally:
            await asyncio.gather(subscriber.aclose(), probe.aclose())

    asyncio.run(run())


def runs_the_command(settings: BusSettings) -> None:
    environment = {"EVENTBUS_REDIS_URL": settings.redis_url, "EVENTBUS_KEY_PREFIX": settings.key_prefix}
    result = CliRunner().invoke(cli, ["dead-letters", "count"], env=environment)
    if result.exit_code == 3:  # Redis does not carry it out
        raise Unavailable(result.output)
    assert result.exit_code == 0, result.output


CONNECTIONS = [publishes, reads, subscribes_and_probes, runs_the_command]
FORMS = [
    "tcp",
    "database",
    "database as an option",
    "user",
    "special characters",
    "user as an option",
    "socket",
    "socket, user and database",
    "TLS",
    "mutual TLS",
    "TLS without the host's name",
    "TLS without a check",
    "sentinel",
    "sentinel and user",
]


def settings_of(url: str) -> BusSettings:
    return BusSettings(redis_url=url, key_prefix=f"t{uuid.uuid4().hex[:10]}", retry_max=0.1, spool=False)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_works_with_each_connection(addresses: Addresses, form: str, connection: Check) -> None:
    connection(settings_of(addresses.of(form)))


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("form", ["TLS of an unknown authority", "mutual TLS without a certificate"])
def test_a_certificate_that_is_missing_is_an_error(addresses: Addresses, form: str, connection: Check) -> None:
    with pytest.raises(Unavailable):
        connection(settings_of(addresses.of(form)))


def test_a_file_that_is_missing_is_named(addresses: Addresses) -> None:
    with pytest.raises(Unavailable, match="EVENTBUS_REDIS_URL has an ssl_ca_certs that cannot be used"):
        publishes(settings_of("rediss://127.0.0.1:1?ssl_ca_certs=/no/such/file"))


async def test_two_databases_do_not_receive_each_others_events(addresses: Addresses) -> None:
    here, there = (settings_of(addresses.of(form)) for form in ("tcp", "database"))
    there = there.model_copy(update={"key_prefix": here.key_prefix})
    heard, (subscriber, _) = Heard(), connect(here)
    await subscriber.start(heard)
    async with asyncio.timeout(10):
        while not heard.restorations:
            await asyncio.sleep(0.01)
        await subscriber.subscribe("user:ann")
        for settings in (there, here):
            await asyncio.to_thread(publishes, settings)
            probe = connect_probe(settings)
            assert probe is not None
            await probe.publish_canary(f"of {settings.redis.database}", "one")
            await probe.aclose()
        while not heard.probes:
            await asyncio.sleep(0.01)
    assert heard.probes == ["of 0"]
    assert [channel for channel, _ in heard.received_] == ["user:ann"]
    await subscriber.aclose()


@pytest.mark.parametrize("database", [0, 3, 12])
def test_the_channel_of_a_pubsub_channel(database: int) -> None:
    keys = Keys("eb", database)
    assert keys.channel_of_live(keys.live("user:ann").encode()) == "user:ann"
    assert Keys("eb").live("user:ann") == "eb:{user:ann}:live"
