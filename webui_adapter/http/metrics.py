"""What Prometheus reads. The rest of the gateway counts in plain numbers; names and labels are made here."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from webui_adapter.gateway.gateway import Gateway
from webui_adapter.health.status import Degradation

__all__ = ["Metrics"]

# Counter name in the gateway -> metric, its help, its label; the rest of the counter's name is the label's value.
_COUNTED = {
    "drop": ("eventbus_dropped", "Events not delivered, or replaced by a newer state, by reason", "reason"),
    "disconnect": ("eventbus_disconnects", "Ended connections by close code", "code"),
    "resume": ("eventbus_resumes", "Channels handed over to a session, by how", "how"),
    "gap": ("eventbus_gaps", "Gaps declared to a session, by reason", "reason"),
    "refused": ("eventbus_refused", "Commands and connections refused, by reason", "reason"),
    "dead": ("eventbus_dead_lettered", "Events given up on, by what this instance did to them", "reason"),
    "probe": ("eventbus_probe_failures", "Probes of Redis that failed, by how", "how"),
    "operation_request": ("eventbus_operation_requests", "Requests to list, show or cancel operations", "what"),
    "revoke": ("eventbus_revokes", "Cancelled operations that workers were told of over the broker, by outcome", "how"),
    "auth": ("eventbus_auth_failures", "Tokens not accepted", "reason"),
}
_PLAIN = {
    "connect": ("eventbus_connects", "Connections begun"),
    "acked": ("eventbus_acknowledged", "Events that left the pending lists by a page's word here"),
    "cancelled": ("eventbus_cancels", "Operations that somebody has stopped here"),
    "lost.operations": ("eventbus_operations_lost", "Operations that this instance has taken for lost"),
    "lost.tasks": ("eventbus_tasks_lost", "Tasks whose worker this instance has taken for lost"),
    "behind": ("eventbus_behind", "Times that a session's backlog was full, so that it reads from the log instead"),
    "hole": ("eventbus_holes", "Holes noticed in live channels, each followed by a repair"),
    "local": ("eventbus_local_events", "Events of this process shown to its own sessions while Redis was away"),
    "check.channels": ("eventbus_quiet_checks", "Quiet channels compared with Redis"),
    "check.missed": ("eventbus_quiet_missed", "Quiet channels that had missed something, each brought up to date"),
    "redis.lost": ("eventbus_redis_lost", "Times that the subscriber's connection was lost"),
}


class _GatewayCollector(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counts()
        yield from self._letters()
        hub = self._gateway.hub
        yield CounterMetricFamily("eventbus_deliveries", "Events handed to sessions", value=hub.deliveries)
        yield CounterMetricFamily("eventbus_events", "Events received from Redis", value=hub.events)
        latency = self._gateway.latency
        yield HistogramMetricFamily(
            "eventbus_delivery_latency_seconds",
            "From emit to the gateway's socket, per delivery",
            buckets=latency.cumulative(),
            sum_value=latency.sum,
        )

    def _gauges(self) -> Iterator[Metric]:
        gateway = self._gateway
        backlogs = [s.output.send_queue for s in gateway.sessions.values() if s.output.send_queue is not None]
        values = {
            "eventbus_connections": ("Open connections", len(gateway.sessions)),
            "eventbus_channels": ("Channels that somebody reads here", len(gateway.hub.channels)),
            "eventbus_slow_sessions": ("Sessions whose browser does not keep up", len(backlogs)),
            "eventbus_outbox_depth": ("Events that wait for slow browsers", sum(map(len, backlogs))),
            "eventbus_ready": ("1 if this instance wants connections", 0 if gateway.not_ready else 1),
        }
        for name, (text, value) in values.items():
            yield GaugeMetricFamily(name, text, value=value)
        degraded = GaugeMetricFamily("eventbus_degraded", "1 for what is wrong with Redis", labels=["reason"])
        for trouble in Degradation:
            degraded.add_metric([trouble.label], int(trouble in gateway.redis_monitor.health))
        yield degraded

    def _letters(self) -> Iterator[Metric]:
        sweeper = self._gateway.maintenance.sweeper
        if sweeper is None:
            return
        yield GaugeMetricFamily("eventbus_sweeper", "1 if this instance holds the lease", value=int(sweeper.sweeping))
        if sweeper.totals is not None:
            totals = sweeper.totals
            age = max(0.0, self._gateway.clock.wall() - totals.oldest_dead / 1000) if totals.oldest_dead else 0.0
            yield GaugeMetricFamily("eventbus_pending", "Events that wait for a user's acknowledgement", totals.pending)
            yield GaugeMetricFamily("eventbus_dead_letters", "Events given up on and not decided about", totals.dead)
            yield GaugeMetricFamily("eventbus_dead_letters_oldest_seconds", "Age of the oldest dead letter", age)

    def _counts(self) -> Iterator[Metric]:
        families = {
            prefix: CounterMetricFamily(name, text, labels=[label]) for prefix, (name, text, label) in _COUNTED.items()
        }
        for name, count in self._gateway.counters.items():
            prefix, _, value = name.partition(".")
            if name not in _PLAIN and prefix in families:
                families[prefix].add_metric([value], count)
        yield from families.values()
        for name, (metric, text) in _PLAIN.items():
            yield CounterMetricFamily(metric, text, value=self._gateway.counters[name])


class Metrics:
    """One gateway's registry; the process-wide default one may hold an application's own."""

    def __init__(self, gateway: Gateway) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_GatewayCollector(gateway))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
