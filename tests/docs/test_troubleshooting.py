"""docs/troubleshooting.md explains every message that a user can meet, and no others."""

from __future__ import annotations

import re

from tests.docs.messages import errors, log_lines, sources, texts
from tests.docs.sources import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
# Errors that no application sees: of bugs in this library, of metrics, of bytes in Redis and in the spool.
INTERNAL = frozenset(
    {
        *("AssertionError", "CounterMetricFamily", "Damaged", "GaugeMetricFamily", "HistogramMetricFamily"),
        "InvalidRecord",
    }
)


# Messages of programs other than the packages.
FOREIGN = ("error while attempting to bind on address", "make: ", "not a cursor", "not a pattern")


def explained() -> set[str]:
    """The messages in the first column of the page's tables."""
    rows = re.findall(r"^\| (`.*?`)(?: with `\w+`)? \|", PAGE.read_text(), re.MULTILINE)
    found = {message.replace("\\|", "|") for row in rows for message in re.findall(r"`([^`]+)`", row)}
    return {message for message in found if " " in message}


def pattern(message: str) -> re.Pattern[str]:
    """Matches the messages that have some text in the place of each ``…``."""
    return re.compile(re.escape(message).replace("…", ".*"), re.DOTALL)


def messages() -> set[str]:
    found = {message for path in sources() for message in log_lines(path)}
    found |= {message for path in sources() for name, message in errors(path) if name not in INTERNAL}
    # Others hold nothing but the message of another error, or are about a test's own parts.
    return {
        message
        for message in found
        if re.search(r"\w+ \w+ \w+", message) and not message.startswith(("… …;", "…; the", "… is not JSON"))
    }


def test_every_message_is_explained():
    known = [pattern(message) for message in explained()]
    missing = {message for message in messages() if not any(general.fullmatch(message) for general in known)}
    assert not missing, "\n".join(sorted(missing))


def test_every_explained_message_exists():
    found = {text for path in sources() for text in texts(path)}
    stale = {
        message
        for message in explained()
        if not message.startswith(FOREIGN) and not any(map(pattern(message).fullmatch, found))
    }
    assert not stale, "\n".join(sorted(stale))
