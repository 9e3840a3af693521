"""The format of what workers and gateways exchange through Redis: its number, and who may write which. No I/O.

The number covers the state of a channel, its log and snapshot, publications, pending events and dead letters. It grows
when an older gateway would read something wrong or miss it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from eventbus.errors import NewerFormat

__all__ = ["FIRST_NAMED", "FORMAT", "OLDEST_WRITTEN", "FormatChoice", "check_format", "choose_format"]

FORMAT: Final = 2
"""The format that this version reads, along with all earlier ones, and writes.

1. Pending events and dead letters are in sorted sets. The state names no format.
2. They are in lists. The state names its format.
"""

OLDEST_WRITTEN: Final = 1
"""The oldest format that this version can still write, for gateways that know no newer one."""

FIRST_NAMED: Final = 3
"""From this format on, the first line of a publication names the format. Those of format 1 and 2 are the same."""


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """The format that a writer uses.

    Attributes:
        format: its number.
        problem: why it is not the writer's newest one, or who cannot read it, and what to do; None: all is well.
    """

    format: int
    problem: str | None = None


def choose_format(own: int, announced: Collection[tuple[str, int]], unannounced: int = 0) -> FormatChoice:
    """Choose the newest format that all running gateways understand.

    Args:
        own: the newest format of this writer.
        announced: instance and format of each gateway that announces one.
        unannounced: number of gateways that announce none, as those before format 2.

    Returns:
        The choice. It is no older than ``OLDEST_WRITTEN``, even if a gateway cannot read that.
    """
    formats = [number for _, number in announced] + [OLDEST_WRITTEN] * (unannounced > 0)
    oldest = min(formats, default=own)
    if oldest >= own:
        return FormatChoice(own)
    behind = sorted(f"{instance} (format {number})" for instance, number in announced if number < own)
    if unannounced:
        behind.append(f"{unannounced} of an earlier version (format {OLDEST_WRITTEN})")
    chosen = max(oldest, OLDEST_WRITTEN)
    names = ", ".join(behind[:10])
    effect = f"this process writes format {chosen} until then" if oldest == chosen else f"they cannot read {chosen}"
    return FormatChoice(chosen, f"gateways do not understand format {own}: {names}; upgrade gateways first; {effect}")


def check_format(found: int, known: int = FORMAT) -> None:
    """Check that this version understands a format.

    Args:
        found: the format of some data.
        known: the newest format that is understood.

    Raises:
        NewerFormat: a newer version wrote the data.
    """
    if found > known:
        raise NewerFormat(found, known)
