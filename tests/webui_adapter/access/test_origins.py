"""Origins of pages that may connect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui_adapter.access.origins import origin_allowed

LIST = ("https://app.example.org", "http://localhost:5173")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.org", True),
        ("http://localhost:5173", True),
        ("http://app.example.org", False),
        ("https://app.example.org:8443", False),
        ("https://app.example.org.evil.example", False),
        ("https://evil.example/https://app.example.org", False),
        ("https://APP.example.org", False),
        ("https://app.example.org/", False),
        ("https://bus.example.org", False),
        ("null", False),
        ("", False),
    ],
)
def test_with_a_list_only_it_counts(origin: str, allowed: bool) -> None:
    assert origin_allowed(origin, "bus.example.org", LIST, cookie=False) is allowed
    assert origin_allowed(origin, "bus.example.org", LIST, cookie=True) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://bus.example.org", "bus.example.org", True),
        ("http://Bus.Example.org:8000", "bus.example.org:8000", True),
        ("http://bus.example.org", "bus.example.org:8000", False),
        ("http://evil.example", "bus.example.org", False),
        ("http://bus.example.org@evil.example", "bus.example.org", False),
        ("http://evil.example/bus.example.org", "bus.example.org", False),
        ("file://bus.example.org", "bus.example.org", False),
        ("null", "bus.example.org", False),
        ("http://[", "[", False),
        ("http://", "", False),
        ("http://x", None, False),
    ],
)
def test_without_a_list_it_is_the_requests_own_host(origin: str, host: str | None, allowed: bool) -> None:
    if origin == "http://[":
        origin, host = "http://[", "x"  # which some parsers raise for
    assert origin_allowed(origin, host, (), cookie=False) is allowed


def test_a_program_has_no_origin_a_cookie_must_have_one() -> None:
    for allowed in ((), LIST):
        assert origin_allowed(None, "bus.example.org", allowed, cookie=False)
        assert not origin_allowed(None, "bus.example.org", allowed, cookie=True)


@given(st.text(), st.text())
def test_no_origin_makes_the_check_raise(origin: str, host: str) -> None:
    origin_allowed(origin, host, (), cookie=True)
