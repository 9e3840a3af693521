"""Text of an error that a browser may read."""

import pytest
from celery.exceptions import Reject, Retry
from hypothesis import given
from hypothesis import strategies as st

from worker_adapter.context.error_text import error_text


class Broken(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such page"), "ValueError: no such page"),
        (ValueError("first\nTraceback (most recent call last):"), "ValueError: first"),
        (ValueError("\n\n first"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 50), "ValueError: " + "x" * 19 + "…"),
        (ValueError("a\x00\x1b[31mb\u202ec"), "ValueError: a[31mbc"),
        (Broken(), "Broken"),
        (Retry(exc=OSError("away")), "OSError: away"),
        (Reject(KeyError("k"), requeue=False), "KeyError: 'k'"),
        (Reject("not for me"), "Reject: not for me"),
    ],
)
def test_class_and_first_line(error, text):
    assert error_text(error, 20) == text


def test_without_room_the_class_is_all_there_is():
    assert error_text(ValueError("password=1234"), 0) == "ValueError"


@given(st.text(), st.integers(0, 50))
def test_never_longer_than_allowed_and_never_two_lines(message, limit):
    text = error_text(ValueError(message), limit)
    assert len(text) <= len("ValueError: ") + limit
    assert len(text.splitlines()) == 1
