"""The metrics reference, from what a gateway would answer to Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr
from table import GENERATED, sentence, table

from eventbus.backends.pending import Totals
from eventbus.settings import BusSettings
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.monitoring.metrics import Metrics
from webui_adapter.settings import GatewaySettings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

INTRODUCTION = f"""{GENERATED.format(source="the gateway's collector")}

# Metrics

A gateway answers `GET /metrics` in the Prometheus text format. Each instance reports its own
numbers. In addition to the metrics below it exports the usual `process_*` and `python_info`.

Only the instance that runs the sweeper exports `eventbus_pending`, `eventbus_dead_letters` and
`eventbus_dead_letters_oldest_seconds`. Their numbers are about all channels.
"""


def page() -> str:
    """The whole page."""
    found = sorted(families(), key=lambda family: family.name)
    rows = [[f"`{name(family)}`", family.type, labels(family), sentence(family.documentation)] for family in found]
    return f"{INTRODUCTION}\n{table(['Name', 'Type', 'Labels', 'Meaning'], rows)}\n"


def families() -> list[Metric]:
    """The metrics of a gateway that has not started; a sweeper has counted before, so that none is left out."""
    settings = GatewaySettings(_env_file=None, jwt_secret=SecretStr("only to build one gateway, long enough"))
    gateway = connect_gateway(settings, BusSettings(redis_url="redis://127.0.0.1:1/0"))
    sweeper = gateway.maintenance.sweeper
    assert sweeper is not None
    sweeper.totals = Totals(0, 0, 0)
    registry = Metrics(gateway)._registry  # noqa: SLF001 - its text has no type
    return [family for family in registry.collect() if family.name.startswith("eventbus_")]


def name(family: Metric) -> str:
    """The name that Prometheus stores."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels(family: Metric) -> str:
    """The names of the labels."""
    return ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ())) or "none"
