"""Server-sent events: the same sessions by real ``curl``, by httpx, and by sockets that break off."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from eventbus import Bus
from eventbus.protocol.cursor import parse_cursor
from tests.conftest import wait_until
from tests.webui_adapter.events import Blip, Note, Progress
from tests.webui_adapter.gateways import ORIGIN, GatewayProcess, token
from tests.webui_adapter.transports.curl import curl, settled

Publish = Any


def test_a_person_with_curl_sees_readable_events(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    with curl(gateway, user) as stream:
        stream.until(settled(user), "the histories")
        assert stream.head.startswith("HTTP/1.1 200")
        head = stream.head.lower()
        assert "content-type: text/event-stream" in head
        assert "cache-control: no-cache, no-transform" in head
        assert "x-accel-buffering: no" in head
        # Some clients report a block that has only this field as an event without data.
        assert (stream.blocks[0]["retry"], stream.blocks[0]["event"]) == ("1000", "bus.hello")
        assert all("data" in block or "comment" in block for block in stream.blocks)
        assert sum("retry" in block for block in stream.blocks) == 1
        publish(user, Note(n=1, pad="a\nb"))
        stream.until(lambda c: c.got("gw.note"), "the event")
        event = stream.got("gw.note")[0]
        assert event["data"] == {"n": 1, "pad": "a\nb"}
        block = next(block for block in stream.blocks if block.get("event") == "gw.note")
        assert list(block) == ["id", "event", "data"]
        assert parse_cursor(block["id"])[f"user:{user}"].offset == event["offset"]


@pytest.mark.parametrize("how", ["header", "query"])
def test_last_event_id_resumes_all_channels(
    gateway: GatewayProcess, user: str, publish: Publish, bus: Bus, how: str
) -> None:
    """A browser sends it as a header. event-source-polyfill sends it in the query."""
    with curl(gateway, user) as stream:
        stream.until(settled(user), "the histories")
        publish(user, *(Note(n=i) for i in range(3)))
        stream.until(lambda c: len(c.got("gw.note")) == 3, "the events")
        last = stream.last_id
        assert set(parse_cursor(last)) == {f"user:{user}", "system"}
    publish(user, *(Note(n=i) for i in range(3, 50)), Progress(done=1), Progress(done=2), Blip(n=1))
    bus.announce(Note(n=-1))
    bus.flush(10)
    # Wins over the cursor of the query, which a browser's EventSource repeats as it was.
    cursor = f"?cursor=user:{user}=0"
    if how == "header":
        resumed = curl(gateway, user, "-H", f"Last-Event-ID: {last}", query=cursor)
    else:
        resumed = curl(gateway, user, query=f"{cursor}&lastEventId={quote(last)}")
    with resumed as stream:
        stream.until(settled(user), "the histories")
        ns = [event["data"]["n"] for event in stream.got("gw.note")]
        assert [n for n in ns if n >= 0] == list(range(3, 50))
        assert -1 in ns
        assert [event["data"]["done"] for event in stream.got("gw.progress")] == [2]
        assert stream.got("gw.blip") == []
        hows = {event["data"]["channel"]: event["data"]["how"] for event in stream.got("bus.subscribed")}
        assert hows == {f"user:{user}": "resumed", "system": "resumed"}


def test_a_stream_cut_off_before_the_first_event_misses_nothing(
    gateway: GatewayProcess, user: str, publish: Publish
) -> None:
    """The channel is still empty then; its place is before its first event."""
    with curl(gateway, user) as stream:
        stream.until(settled(user), "the histories")
        last = stream.last_id
    assert f"user:{user}=0" in last
    publish(user, Note(n=1))
    with curl(gateway, user, "-H", f"Last-Event-ID: {last}") as stream:
        stream.until(lambda c: c.got("gw.note"), "the event")


def test_a_gap_over_sse(gateway: GatewayProcess, user: str, publish: Publish) -> None:
    publish(user, Progress(done=1))
    with curl(gateway, user, "-H", f"Last-Event-ID: user:{user}=abc.7") as stream:
        stream.until(settled(user), "the histories")
        assert stream.got("bus.gap")[0]["data"]["reason"] == "epoch"
        assert stream.got("gw.progress")[0]["data"]["done"] == 1


def test_comments_keep_the_line_awake(brisk: GatewayProcess, user: str) -> None:
    with curl(brisk, user) as stream:
        stream.until(settled(user), "the histories")
        stream.until(lambda c: sum("comment" in block for block in c.blocks) >= 2, "two comments")
        assert not stream.ended(), "no client answers a comment, and no client is closed for that"


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"Authorization": "Bearer nonsense"}, "", 401),
        ({"Authorization": "Bearer {token}", "Origin": "https://evil.example"}, "", 403),
        ({"Cookie": "access_token={token}", "Origin": "https://evil.example"}, "", 403),
        ({"Authorization": "Bearer {token}"}, "?cursor=nonsense", 400),
        ({"Authorization": "Bearer {token}"}, "?topic=*", 400),
        ({"Authorization": "Bearer {token}", "Last-Event-ID": "nonsense"}, "", 400),
        ({}, "?token={token}", 401),
    ],
)
def test_refusals_are_http(
    gateway: GatewayProcess, user: str, headers: dict[str, str], query: str, status: int
) -> None:
    filled = {name: value.format(token=token(user)) for name, value in headers.items()}
    response = httpx.get(gateway.sse + query.format(token=token(user)), headers=filled)
    assert response.status_code == status
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


def test_a_page_of_the_list_may_read_the_refusal_too(gateway: GatewayProcess, user: str) -> None:
    for path in (gateway.sse, f"{gateway.http}/eventbus/sessions/x/commands"):
        response = httpx.options(path, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"})
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
        assert "last-event-id" in response.headers["access-control-allow-headers"]
        assert (
            "access-control-allow-origin" not in httpx.options(path, headers={"Origin": "https://evil.example"}).headers
        )
    response = httpx.get(gateway.sse, headers={"Origin": ORIGIN})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == ORIGIN


async def test_a_cookie_of_the_own_site_needs_no_origin_to_read_but_to_write(
    gateway: GatewayProcess, user: str
) -> None:
    cookies = {"access_token": token(user)}
    async with httpx.AsyncClient(timeout=10, cookies=cookies) as client:
        async with client.stream("GET", gateway.sse) as stream:
            assert stream.status_code == 200
        # An image or a script of another site: it reads nothing, and yet would take one of the user's connections.
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
            async with client.stream("GET", gateway.sse, headers={"Sec-Fetch-Site": site}) as stream:
                assert stream.status_code == status, site
        address = f"{gateway.http}/eventbus/sessions/x/commands"
        assert (await client.post(address, content=b"{}")).status_code == 403
        assert (await client.post(address, content=b"{}", headers={"Origin": ORIGIN})).status_code == 404


# --- those that break off ----------------------------------------------------------------------------------------


def test_streams_that_break_off_leave_nothing(gateway: GatewayProcess, user: str) -> None:
    before = gateway.metrics()["eventbus_connections"]
    request = f"GET /eventbus/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode()
    for i in range(24):
        peer = socket.create_connection(("127.0.0.1", gateway.port))
        peer.sendall(request)
        if i % 3 == 0:
            peer.recv(10)
        if i % 2:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.close()
    wait_until(lambda: gateway.metrics()["eventbus_connections"] == before, "all sessions to be gone")


def test_a_stream_without_a_reader_is_cut(brisk: GatewayProcess, user: str, publish: Publish) -> None:
    """The reader takes nothing, not even the end of the stream. The gateway cuts it and frees its place."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", brisk.port))
    peer.sendall(f"GET {brisk.prefix}/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode())
    wait_until(lambda: brisk.metrics()["eventbus_connections"] >= 1, "the session")

    def is_gone() -> bool:
        publish(user, *(Blip(n=i, pad="x" * 8000) for i in range(50)))
        return brisk.metrics()["eventbus_connections"] < 1

    wait_until(is_gone, "the session to end", 60)
    wait_until(lambda: _is_cut(peer), "the connection to be cut, with all its bytes unread")
    peer.close()


def _is_cut(peer: socket.socket) -> bool:
    try:
        peer.send(b"?")
    except OSError:
        return True
    return False
