"""Opens and authenticates connections to the servers that ``EVENTBUS_REDIS_URL`` names.

``eventbus.redis_url`` has the parser. Here is what reads files and opens sockets. All connections of this package
come from here, so each form of address works with all of them.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - Python imports it at the first look-up of a host; see script.py
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from eventbus.backends.redis.connections.resp import Command
from eventbus.errors import Unavailable
from eventbus.redis_url import Endpoint, RedisAddress, TlsOptions, parse_redis_url

__all__ = [
    "Endpoint",
    "RedisAddress",
    "TlsOptions",
    "handshake",
    "open_socket",
    "open_transport",
    "parse_redis_url",
    "sentinel_address",
    "tls_context",
]

P = TypeVar("P", bound=asyncio.BaseProtocol)

_REQUIRED: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """Make the context of a TLS connection. It reads the files again for each one, so they can be replaced.

    Args:
        options: the address's options.

    Returns:
        The context.

    Raises:
        Unavailable: a file cannot be read.
    """
    part = "ssl_ca_certs"
    try:
        context = ssl.create_default_context(cafile=options.ca_certs, capath=options.ca_path)
        context.check_hostname = options.check_hostname
        context.verify_mode = _REQUIRED[options.cert_reqs]
        part = "ssl_certfile"
        if options.certfile is not None:
            context.load_cert_chain(options.certfile, options.keyfile, options.key_password)
    except (OSError, ValueError) as error:
        raise Unavailable(f"EVENTBUS_REDIS_URL has an {part} that cannot be used: {error}") from error
    return context


def handshake(address: RedisAddress) -> list[Command]:
    """Return the commands that begin a connection: they authenticate and select the database.

    Args:
        address: the address.

    Returns:
        The commands. An error as reply to any of them means that the connection cannot be used.
    """
    commands: list[Command] = []
    if address.password is not None:
        user = (address.username,) if address.username is not None else ()
        commands.append(("AUTH", *user, address.password))
    if address.database:
        commands.append(("SELECT", address.database))
    return commands


def sentinel_address(address: RedisAddress) -> RedisAddress:
    """Return the address of the sentinels themselves, with their own credentials.

    Args:
        address: an address of kind ``sentinel``.
    """
    return replace(
        address,
        kind="single",
        service="",
        username=address.sentinel_username,
        password=address.sentinel_password,
        sentinel_username=None,
        sentinel_password=None,
        database=0,
    )


def open_socket(address: RedisAddress, endpoint: Endpoint, seconds: float) -> socket.socket:
    """Open a blocking connection. It is not authenticated yet.

    Args:
        address: says whether to use TLS.
        endpoint: the server.
        seconds: time limit of each step.

    Returns:
        The socket, with that time limit.

    Raises:
        OSError: there is no connection.
        Unavailable: as ``tls_context``.
    """
    if endpoint.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(endpoint.path)
        except BaseException:
            sock.close()
            raise
        return sock
    context = None if address.tls is None else tls_context(address.tls)
    sock = socket.create_connection((endpoint.host, endpoint.port), seconds)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is not None:
            return context.wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise
    return sock


async def open_transport(address: RedisAddress, endpoint: Endpoint, make: Callable[[], P], seconds: float) -> P:
    """Open a connection in an event loop. It is not authenticated yet.

    Args:
        address: says whether to use TLS.
        endpoint: the server.
        make: makes the protocol.
        seconds: time limit.

    Returns:
        The protocol.

    Raises:
        TimeoutError, OSError: there is no connection.
        Unavailable: as ``tls_context``.
    """
    loop = asyncio.get_running_loop()
    # Use asyncio.timeout: before Python 3.12 wait_for swallows a cancellation that comes with the result.
    async with asyncio.timeout(seconds):
        if endpoint.path:
            _, protocol = await loop.create_unix_connection(make, endpoint.path)
        else:
            context = None if address.tls is None else tls_context(address.tls)
            _, protocol = await loop.create_connection(make, endpoint.host, endpoint.port, ssl=context)
    return protocol
