"""The settings reference, from the classes that read the environment."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr, TypeAdapter
from table import GENERATED, sentence, table

from eventbus.settings import BusSettings
from webui_adapter.settings import GatewaySettings
from worker_adapter.settings import WorkerSettings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SECTIONS = {
    BusSettings: ("Event bus", "eventbus/settings.py", "All processes read these: applications, workers and gateways."),
    WorkerSettings: ("Celery workers", "worker_adapter/settings.py", "Processes that call `install()` read these."),
    GatewaySettings: ("Gateway", "webui_adapter/settings.py", "Gateway processes read these."),
}

# The first pattern that matches a name gives its unit; a number without a unit is an error of this table.
UNITS = {
    r"port": "",
    r"workers": "processes",
    r".*_(bytes|size)|write_high": "bytes",
    r".*_chars": "characters",
    r"channel_rate": "events per second",
    r"requeue_rate": "dead letters per second",
    r".*frame_rate_limit": "frames per second",
    r".*byte_rate_limit": "bytes per second",
    r"frames_per_turn": "frames",
    r".*_rate_limit": "commands per second",
    r".*_events|log_limit|pending_limit|dead_waiting": "events",
    r"snapshot_limit": "conflation keys",
    r"dedup_window": "event ids",
    r"ack_attempts": "attempts",
    r"dead_limit": "dead letters",
    r"audit_limit": "actions",
    r"operations_limit|cancelled_limit": "operations",
    r"revocation_limit": "revocations",
    r"running_shown": "tasks",
    r"breaker_failures|unexpected_tries": "failures",
    r"durable_replicas": "replicas",
    r"max_(total|unauthenticated)_connections|max_connections_per_(user|address)|address_open_burst": "connections",
    r"address_open_rate": "connections per second",
    r"address_ipv6_prefix": "bits",
    r"tracked_addresses": "addresses",
    r"forwarded_commands": "commands",
    r"max_topics": "patterns",
    r"max_bad_commands": "commands",
    r"max_tickets_per_user": "tickets",
    r"history_calls|authenticate_calls": "calls",
    r"check_batch": "channels",
    r"gc_threshold": "objects",
}
SECONDS = re.compile(
    r".*_(timeout|interval|ttl|lease|grace|budget|window|poll|scan|after|patience|leeway|deadline|spread|life|pause)"
    r"|lease|linger|silence_limit|retry_(min|max)"
)

INTRODUCTION = f"""{GENERATED.format(source="the settings classes")}

# Settings

Every setting is an environment variable. Each process reads its variables once, when it starts.
An application can also pass a settings object, for example `BusSettings(redis_url=…)`.
The field of the object has the name of the variable without the prefix, in lower case.

A process with an invalid value fails when it reads its settings. The error names the setting.

A duration is a number of seconds such as `90`, an ISO 8601 duration such as `PT90S`, `PT24H` or
`P30D`, or a clock time such as `00:01:30`.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for settings, (title, source, reader) in SECTIONS.items():
        prefix = settings.model_config.get("env_prefix", "")
        rows = [row(f"{prefix}{name}".upper(), name, field) for name, field in settings.model_fields.items()]
        parts.append(
            f"## {title}\n\n{reader} The class is `{settings.__name__}` in `{source}`.\n\n"
            + table(["Variable", "Type", "Default", "Description"], rows)
            + "\n"
        )
    return "\n".join(parts)


def row(variable: str, name: str, field: FieldInfo) -> list[str]:
    """The cells of one setting."""
    kind, measure = type_of(field.annotation), unit(name, field.annotation)
    return [
        f'<a id="{variable.lower()}"></a>`{variable}`',
        ", ".join(filter(None, [f"{kind} ({measure})" if measure else kind, bounds_of(field)])),
        default(field),
        sentence(field.description or ""),
    ]


def type_of(annotation: Any) -> str:
    """The type as an operator writes it in the environment."""
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(type_of(part) for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    names = {
        bool: "`true` or `false`",
        dict: "JSON object",
        float: "number",
        frozenset: "JSON list",
        int: "integer",
        Path: "path",
        SecretStr: "secret text",
        str: "text",
        timedelta: "duration",
        tuple: "comma-separated list",
    }
    return names[get_origin(annotation) or annotation]


def unit(name: str, annotation: Any) -> str:
    """The unit of a number."""
    if annotation not in (int, float):
        return ""
    for pattern, text in UNITS.items():
        if re.fullmatch(pattern, name):
            return text
    if SECONDS.fullmatch(name):
        return "seconds"
    raise LookupError(f"the unit of the setting {name} is unknown: add it to UNITS in docs/_generators/settings.py")


def bounds_of(field: FieldInfo) -> str:
    """The bounds of a number, or the pattern of a text."""
    texts = []
    for bound in field.metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if (value := getattr(bound, attribute, None)) is not None:
                texts.append(f"{sign}&nbsp;{number(value)}")
        if (pattern := getattr(bound, "pattern", None)) is not None:
            texts.append(f"pattern `{pattern}`")
        if (shortest := getattr(bound, "min_length", None)) is not None:
            texts.append(f"at least {shortest} character{'' if shortest == 1 else 's'}")
    return ", ".join(texts)


def number(value: float) -> str:
    """A number with its thousands apart, without a needless fraction."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def default(field: FieldInfo) -> str:
    """The default as an operator would write it."""
    if field.is_required():
        return "required"
    match field.get_default(call_default_factory=True):
        case None | "" | ():
            text = "none"
        case timedelta() as value:
            text = f"`{TypeAdapter(timedelta).dump_python(value, mode='json')}`"
        case bool() | dict() as value:
            text = f"`{json.dumps(value)}`"
        case int() | float() as value:
            text = number(value)
        case tuple() as value:
            text = f"`{','.join(value)}`"
        case frozenset() as value:
            text = f"`{json.dumps(sorted(value))}`"
        case value:
            text = f"`{value}`"
    return text
