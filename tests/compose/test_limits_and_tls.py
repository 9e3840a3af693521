"""HAProxy with the configuration of ``compose/``: limits per address, and the variant with TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.compose.events import emit
from tests.compose.page import Page
from tests.compose.parts import CONFIG, Balancer, get, raw, token
from tests.conftest import free_port, wait_until


def test_without_a_gateway_the_balancer_is_not_healthy(balancer):
    # No server listens there.
    front = balancer({"GATEWAY_1": f"127.0.0.1:{free_port()}", "GATEWAY_2": f"127.0.0.1:{free_port()}"})
    wait_until(lambda: get(f"{front.internal}/healthz")[0] == 503, "the health check to fail")
    assert get(f"{front.url}/eventbus/client.js")[0] == 503
    assert get(f"{front.url}/page")[0] == 200


def test_the_requests_of_an_address_are_limited(balancer):
    front = balancer({"MAX_REQUESTS_PER_ADDRESS": "5"})
    assert [get(f"{front.url}/{n}")[0] for n in range(7)] == [200] * 5 + [429] * 2


def test_the_open_connections_of_an_address_are_limited(balancer):
    front = balancer({"MAX_CONNECTIONS_PER_ADDRESS": "3"})
    with _lines(front.port, 3):
        assert raw(front.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == b""
    wait_until(lambda: get(f"{front.url}/")[0] == 200, "the address to be let in again")


def test_the_new_connections_of_an_address_are_limited(balancer):
    front = balancer({"MAX_NEW_CONNECTIONS_PER_ADDRESS": "4"})
    assert [get(f"{front.url}/{n}")[0] for n in range(6)] == [200] * 4 + [0] * 2


@contextmanager
def _lines(port, count):
    """Open connections that were answered once and stay open."""
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        yield


@pytest.fixture
def certificate(tmp_path):
    """Write certificate and key into one file, as HAProxy requires."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "site.pem"
    path.write_bytes(built.public_bytes(pem) + private)
    return path


async def test_the_variant_with_tls(whole, user, tmp_path, certificate):
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.read_text().replace("#TLS# ", ""))
    port = free_port()
    environment = {"TLS_BIND": f"127.0.0.1:{port}", "TLS_CERTIFICATE": str(certificate)}
    gateways = [gateway.address for gateway in whole.gateways.values()]
    trusted = ssl.create_default_context(cafile=certificate)

    def header(path, name) -> str:
        with urllib.request.urlopen(f"https://localhost:{port}{path}", context=trusted, timeout=5) as answer:
            return answer.headers[name]

    with Balancer(config, gateways, whole.site.address, environment).running() as front:
        redirect = raw(front.port, b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert redirect.startswith(b"HTTP/1.1 308 ")
        assert b"location: https://localhost/page" in redirect
        assert await asyncio.to_thread(header, "/tls", "Strict-Transport-Security")
        assert whole.site.headers_of("/tls")["x-forwarded-proto"] == ["https"]
        async with Page(f"wss://localhost:{port}/eventbus/ws", token(user), ssl=trusted) as page:
            await page.until(lambda: len(page.hows) == 2, "both channels")
            emit(whole, user, range(3))
            await page.until(lambda: len(page.events) == 3, "three events")
        assert "; Secure;" in await asyncio.to_thread(header, "/eventbus/client.js", "Set-Cookie")
