"""The parser of EVENTBUS_REDIS_URL: the same as redis-py for one server, and errors that show no password."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from eventbus import BusSettings
from eventbus.errors import InvalidAddress
from eventbus.redis_url import Endpoint, RedisAddress, TlsOptions, parse_redis_url

TEXT = st.text(min_size=1, max_size=12).filter(lambda text: "\x00" not in text and text.isprintable())
# Older versions of redis-py decode an option twice.
UNESCAPED = TEXT.filter(lambda text: "%" not in text)
MAYBE = st.none() | TEXT
HOST = st.sampled_from(["", "localhost", "redis.example", "127.0.0.1", "[::1]"])


@st.composite
def addresses(draw: st.DrawFn) -> str:
    user, password = draw(MAYBE), draw(MAYBE)
    authority = draw(HOST) + draw(st.sampled_from(["", ":6380"]))
    if user is not None or password is not None:
        authority = f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@{authority}"
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "username": UNESCAPED,
                "password": UNESCAPED,
                "db": st.integers(0, 15),
                "ssl_cert_reqs": st.sampled_from(["none", "optional", "required"]),
                "ssl_ca_certs": st.just("/etc/ca file.pem"),
                "ssl_check_hostname": st.sampled_from(["true", "False", "no", "1"]),
            },
        )
    )
    path = draw(st.sampled_from(["", "/", "/0", "/7"]))
    scheme = draw(st.sampled_from(["redis", "rediss"]))
    return f"{scheme}://{authority}{path}" + (f"?{urlencode(options)}" if options else "")


@given(addresses())
def test_an_address_of_one_server_means_the_same_as_in_redis_py(url: str) -> None:
    theirs, ours = parse_url(url), parse_redis_url(url)
    assert ours.nodes == (Endpoint(theirs.get("host", "localhost"), theirs.get("port", 6379)),)
    assert ours.username == theirs.get("username")
    assert ours.password == theirs.get("password")
    assert ours.database == theirs.get("db", 0)
    assert (ours.tls is not None) == (theirs.get("connection_class") is SSLConnection)
    if ours.tls is not None:
        assert ours.tls.ca_certs == theirs.get("ssl_ca_certs")
        assert ours.tls.cert_reqs == theirs.get("ssl_cert_reqs", "required")
        assert ours.tls.check_hostname == (
            theirs.get("ssl_cert_reqs") != "none" and theirs.get("ssl_check_hostname", True)
        )


@given(TEXT, TEXT)
def test_each_user_and_password_can_be_written(user: str, password: str) -> None:
    for form in ("redis://{}:{}@h/3", "rediss+sentinel://{}:{}@h,i/name/3", "unix://{}:{}@/s?db=3"):
        address = parse_redis_url(form.format(quote(user, safe=""), quote(password, safe="")))
        assert (address.username, address.password, address.database) == (user, password, 3)


def test_a_socket_in_the_file_system() -> None:
    url = "unix://ann:secret@/run/my%20redis.sock?db=2"
    theirs, ours = parse_url(url), parse_redis_url(url)
    assert theirs["connection_class"] is UnixDomainSocketConnection
    assert ours == RedisAddress(
        "single", (Endpoint("", 0, theirs["path"]),), username="ann", password="secret", database=2
    )
    assert str(ours) == "/run/my redis.sock"


def test_sentinels_and_their_own_credentials() -> None:
    url = "rediss+sentinel://u:p@one:1,[::2]:2,three/my%20master/4?sentinel_username=s&sentinel_password=t"
    address = parse_redis_url(url + "&ssl_cert_reqs=CERT_NONE")
    assert address == RedisAddress(
        "sentinel",
        (Endpoint("one", 1), Endpoint("::2", 2), Endpoint("three", 26379)),
        service="my master",
        username="u",
        password="p",
        sentinel_username="s",
        sentinel_password="t",
        database=4,
        tls=TlsOptions(cert_reqs="none", check_hostname=False),
    )
    assert str(address) == "one:1,[::2]:2,three:26379/my master"


def test_nodes_of_a_cluster() -> None:
    address = parse_redis_url("redis+cluster://one,two:7000")
    assert (address.kind, address.nodes) == ("cluster", (Endpoint("one", 6379), Endpoint("two", 7000)))


def test_no_password_shows_in_a_text_of_an_address() -> None:
    address = parse_redis_url("rediss+sentinel://:hidden@h/m?sentinel_password=hidden&ssl_password=hidden")
    assert "hidden" not in repr(address) + str(address)


def test_options_of_redis_pys_client_are_ignored() -> None:
    assert parse_redis_url("redis://h?health_check_interval=30&max_connections=5") == parse_redis_url("redis://h")


@pytest.mark.parametrize(
    ("url", "part", "text"),
    [
        ("http://secret", "scheme", "must read redis://"),
        ("secret", "scheme", "must read redis://"),
        ("redis://h:secret", "port", "not a number"),
        ("redis://:secret/x@h", "port", "not a number"),
        ("redis://h:0", "port", "from 1 to"),
        ("redis://h:65536", "port", "from 1 to"),
        ("redis://:se@cret@h", "user", "%40"),
        ("redis://:12#secret@h", "fragment", "'#'"),
        ("redis://h/secret", "database", "not a number"),
        ("redis://h?db=secret", "database", "not a number"),
        ("redis://h,secret", "hosts", "several hosts"),
        ("redis://h?secret=1", "options", "known are db"),
        ("redis://h?socket_timeout=secret", "options", "EVENTBUS_SOCKET_TIMEOUT"),
        ("rediss://h?ssl_cert_reqs=secret", "ssl_cert_reqs", "none, optional or required"),
        ("unix://secret/x", "path", "whole path"),
        ("unix://", "path", "whole path"),
        ("redis+sentinel://secret:1", "service", "name the master"),
        ("redis+cluster://secret/1", "database", "only database 0"),
    ],
)
def test_a_wrong_address_names_the_variable_and_the_part_and_nothing_else(url: str, part: str, text: str) -> None:
    with pytest.raises(InvalidAddress, match=text) as caught:
        parse_redis_url(url)
    assert str(caught.value).startswith("EVENTBUS_REDIS_URL ")
    assert caught.value.part == part
    with pytest.raises(ValidationError) as at_start:
        BusSettings(redis_url=url)
    assert "secret" not in str(caught.value) + str(at_start.value)
