"""Key sets from a real web server and from files: rotation, outages, and sets that cannot be used."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from eventbus.clock import SystemClock
from tests.webui_adapter.gateways import Client, GatewayProcess, eventually, running
from tests.webui_adapter.page import Page
from webui_adapter.access.authenticator import Authenticator, Credentials
from webui_adapter.access.credentials.key_set import parse_key_set, read_source
from webui_adapter.access.revocations import Revocations
from webui_adapter.errors import AuthenticationFailed, NotConfigured, TokenRefused
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.settings import GatewaySettings


class Key:
    """A key pair with an id."""

    def __init__(self, kid: str | None) -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    def jwk(self, **more: Any) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key()))
        return {**public, **({} if self.kid is None else {"kid": self.kid}), **more}

    def sign(self, **claims: Any) -> str:
        headers = None if self.kid is None else {"kid": self.kid}
        return jwt.encode({"sub": "ann", "exp": int(time.time()) + 60, **claims}, self.private, "ES256", headers)


OLD, NEW, FOREIGN = Key("2026-11"), Key("2026-12"), Key("foreign")


class Publisher:
    """A real web server that publishes a key set."""

    def __init__(self) -> None:
        self.requests = 0
        self.status = 200
        self.body = b""
        self.drip = False
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.requests += 1
                self.send_response(publisher.status)
                if publisher.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(publisher.body)))
                self.end_headers()
                for byte in publisher.body if publisher.drip else ():
                    self.wfile.write(bytes([byte]))
                    publisher.released.wait(0.1)
                if not publisher.drip:
                    self.wfile.write(publisher.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/keys"

    def publish(self, *keys: Key) -> None:
        self.body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    found = Publisher()
    found.publish(OLD)
    threading.Thread(target=found.server.serve_forever, args=(0.05,), daemon=True).start()
    yield found
    found.released.set()
    found.server.shutdown()
    found.server.server_close()


class Own:
    """An authenticator with a key set."""

    def __init__(self, source: str, **settings: Any) -> None:
        given_: dict[str, Any] = {"jwt_algorithm": "ES256", "jwt_jwks": source, "jwt_jwks_pause": 0.001, **settings}
        self.counters = Counter[str]()
        self.authenticator = Authenticator(GatewaySettings(**given_), Revocations(), self.counters, SystemClock())

    async def user(self, token: str) -> str:
        """The user of a token, as a gateway finds it."""
        credentials = Credentials(token)
        principal = self.authenticator.check_now(credentials) or await self.authenticator.check(credentials)
        assert principal is not None
        return principal.user

    async def refused(self, token: str) -> TokenRefused:
        with pytest.raises(TokenRefused) as caught:
            await self.user(token)
        assert token not in str(caught.value)
        return caught.value


async def test_a_new_key_is_read_when_its_first_token_comes(publisher: Publisher) -> None:
    own = Own(publisher.url)
    assert await own.user(OLD.sign()) == "ann"
    publisher.publish(OLD, NEW)
    assert await own.user(NEW.sign()) == "ann"
    assert publisher.requests == 2
    for key in (OLD, NEW):
        assert await own.user(key.sign()) == "ann"
    assert publisher.requests == 2, "known keys cause no request"
    publisher.publish(NEW)
    await own.refused(FOREIGN.sign())
    await own.refused(OLD.sign())


async def test_unknown_keys_are_asked_for_rarely_and_once_for_all(publisher: Publisher) -> None:
    own = Own(publisher.url, jwt_jwks_pause=3600)
    await asyncio.gather(*(own.user(OLD.sign()) for _ in range(20)))
    assert publisher.requests == 1
    for _ in range(5):
        refusal = await own.refused(FOREIGN.sign())
        assert refusal.expired, "the client tries again with a fresh token: the key may be known by then"
    assert publisher.requests == 1


async def test_known_keys_stay_if_the_set_cannot_be_read(publisher: Publisher) -> None:
    own = Own(publisher.url, jwt_jwks_timeout=0.3, jwt_jwks_size=5_000)
    assert await own.user(OLD.sign()) == "ann"
    good = publisher.body
    failures = 0
    for status, body in ((500, good), (302, good), (200, b"no JSON"), (200, b'{"keys":[]}'), (200, b" " * 5_001)):
        publisher.status, publisher.body = status, body
        await own.refused(NEW.sign())
        failures += 1
        assert own.counters["keys.failed"] == failures
        assert await own.user(OLD.sign()) == "ann"
    publisher.status, publisher.body, publisher.drip = 200, good, True
    await own.refused(NEW.sign())
    assert own.counters["keys.failed"] == failures + 1, "a server that sends one byte after the other"
    publisher.server.server_close()
    await own.refused(NEW.sign())
    assert await own.user(OLD.sign()) == "ann"


async def test_without_any_key_it_is_not_the_clients_fault() -> None:
    own = Own("http://127.0.0.1:1/keys")
    with pytest.raises(AuthenticationFailed, match="WEBUI_JWT_JWKS"):
        await own.user(OLD.sign())
    assert own.authenticator.not_ready is not None


async def test_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [OLD.jwk()]}))
    own = Own(str(file))
    assert own.authenticator.check_now(Credentials(OLD.sign())) is not None, "known from the start"
    file.write_text(json.dumps({"keys": [OLD.jwk(), NEW.jwk()]}))
    assert await own.user(NEW.sign()) == "ann"
    file.unlink()
    await own.refused(FOREIGN.sign())
    assert await own.user(NEW.sign()) == "ann"


@pytest.mark.parametrize(
    ("content", "settings", "reason"),
    [
        (None, {}, "No such file"),
        ("{", {}, "keys.json"),
        ("[]", {}, "no member keys"),
        ('{"keys": [7, {}]}', {}, "no usable key"),
        ('{"keys": []}', {"jwt_algorithm": "HS256", "jwt_secret": "x" * 32}, "HS256"),
        (json.dumps({"keys": [OLD.jwk()]}), {"jwt_algorithm": "RS256"}, "no usable key for RS256"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
    tmp_path: Path, content: str | None, settings: dict[str, Any], reason: str
) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NotConfigured, match=reason):
        Own(str(file), **settings)


def test_keys_that_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(NEW.private))
    short = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))
    listed = [
        OLD.jwk(use="sig", alg="ES256"),
        NEW.jwk(kid="for encryption", use="enc"),
        NEW.jwk(kid="for another algorithm", alg="ES384"),
        {**private, "kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
        {**NEW.jwk(), "x": "AA", "kid": "damaged"},
    ]
    assert parse_key_set(json.dumps({"keys": listed}).encode(), "ES256").keys() == {"2026-11"}
    assert private["d"] not in caplog.text
    with pytest.raises(ValueError, match="no usable key"):
        parse_key_set(json.dumps({"keys": [short]}).encode(), "RS256")


async def test_a_token_without_a_key_id_needs_a_set_of_one_key(publisher: Publisher) -> None:
    unnamed = Key(None)
    unnamed.private = OLD.private
    own = Own(publisher.url)
    assert await own.user(unnamed.sign()) == "ann"
    publisher.publish(OLD, NEW)
    assert await own.user(NEW.sign()) == "ann"
    await own.refused(unnamed.sign())


async def test_a_known_id_with_another_key_is_a_forgery(publisher: Publisher) -> None:
    own, forger = Own(publisher.url), Key(OLD.kid)
    assert not (await own.refused(forger.sign())).expired
    assert "InvalidSignature" in str(await own.refused(forger.sign()))


@given(
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(st.sampled_from(["keys", "kty", "kid", "crv", "x", "y", "n", "e", "d", "use", "alg"]), x)
        ),
    ).map(lambda x: json.dumps(x).encode())
)
def test_whatever_is_published_is_refused_not_crashed_on(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_key_set(text, "ES256")


def test_the_size_has_a_limit(publisher: Publisher) -> None:
    assert read_source(publisher.url, 5, len(publisher.body)) == publisher.body
    with pytest.raises(ValueError, match="WEBUI_JWT_JWKS_SIZE"):
        read_source(publisher.url, 5, len(publisher.body) - 1)


async def test_a_rotation_needs_no_restart_of_the_gateway(publisher: Publisher, tmp_path: Path, redis_url: str) -> None:
    settings = {"jwt_secret": None, "jwt_algorithm": "ES256", "jwt_jwks": publisher.url, "jwt_jwks_pause": 0.1}
    with running(tmp_path, redis_url, "jwks", **settings) as gateway:
        assert await _greeted(gateway, OLD)
        publisher.publish(NEW)
        await _greeted_in_the_end(gateway, NEW)
        answer = gateway.get("/eventbus/operations", headers={"Authorization": f"Bearer {OLD.sign()}"})
        assert answer.status_code == 401
        assert gateway.get("/eventbus/operations", headers={"Authorization": f"Bearer {NEW.sign()}"}).json() == {
            "operations": []
        }
        await eventually(lambda: publisher.requests >= 2, "the requests")


async def _greeted_in_the_end(gateway: GatewayProcess, key: Key) -> None:
    """Connect again after each 4100, as a client does: the pause between two readings may not be over."""
    async with asyncio.timeout(20):
        while not await _greeted_or_4100(gateway, key):
            pass


async def _greeted_or_4100(gateway: GatewayProcess, key: Key) -> bool:
    try:
        return await _greeted(gateway, key)
    except ConnectionClosedError as error:
        return error.rcvd is None or error.rcvd.code != CloseCode.TOKEN_EXPIRED


async def _greeted(gateway: GatewayProcess, key: Key) -> bool:
    async with connect(gateway.ws) as connection:
        client = Client(connection, Page())
        await client.send(do="auth", token=key.sign())
        await client.until(lambda page: page.data_of("bus.hello"))
        return True
