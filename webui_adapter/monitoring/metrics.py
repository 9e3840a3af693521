"""Metrics for Prometheus. All other modules count plain numbers; this one names and labels them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventbus.backends.redis.acl.denials import denials
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.health.status import Degradation

__all__ = ["Metrics"]


# Prefix of a counter -> metric, help, label. The rest of the counter's name is the label's value.
_COUNTED = {
    "drop": ("eventbus_dropped", "Events dropped, or replaced by a newer state, by reason", "reason"),
    "disconnect": ("eventbus_disconnects", "Connections that ended, by close code", "code"),
    "resume": ("eventbus_resumes", "Channels that a session began to read, by how it resumed", "how"),
    "gap": ("eventbus_gaps", "Gaps reported to sessions, by reason", "reason"),
    "refused": ("eventbus_refused", "Commands and connections refused, by reason", "reason"),
    "paused": (
        "eventbus_reads_paused",
        "Times that nothing was read from a connection for a while, by the rate it exceeded",
        "reason",
    ),
    "dead": ("eventbus_dead_lettered", "Events that this instance moved to the dead letters, by reason", "reason"),
    "forward": (
        "eventbus_forwarded_commands",
        "Commands for sessions of another instance: sent, unanswered, received, late, unreadable",
        "how",
    ),
    "probe": ("eventbus_probe_failures", "Health checks of Redis that failed, by how", "how"),
    "operation_request": ("eventbus_operation_requests", "Requests to list, show or cancel operations", "what"),
    "revoke": ("eventbus_revokes", "Cancellations sent to workers over the broker, by outcome", "how"),
    "auth": ("eventbus_auth_failures", "Tokens refused, by reason", "reason"),
}
_PLAIN = {
    "connect": ("eventbus_connects", "Connections opened"),
    "acked": ("eventbus_acknowledged", "Pending events acknowledged by clients of this instance"),
    "revoked": ("eventbus_sessions_revoked", "Sessions ended by an operator, or because their token was revoked"),
    "keys.failed": ("eventbus_key_set_failures", "Times that the key set of WEBUI_JWT_JWKS could not be read"),
    "tickets": ("eventbus_tickets", "Tickets issued by this instance"),
    "cancelled": ("eventbus_cancels", "Operations cancelled through this instance"),
    "lost.operations": ("eventbus_operations_lost", "Operations that this instance marked as lost"),
    "lost.tasks": ("eventbus_tasks_lost", "Tasks whose worker this instance found to be gone"),
    "behind": ("eventbus_behind", "Times that a session's send queue was full and the session read the log instead"),
    "hole": ("eventbus_holes", "Missing events noticed in live channels; each starts a recovery"),
    "local": ("eventbus_local_events", "Events of this process shown to its own sessions while Redis was unreachable"),
    "check.channels": ("eventbus_quiet_checks", "Idle channels compared with Redis"),
    "rollback.channel": (
        "eventbus_channel_rollbacks",
        "Channels whose data in Redis went back in time; pages get bus.gap",
    ),
    "check.missed": ("eventbus_quiet_missed", "Idle channels that had missed events; each was recovered"),
    "format.newer": ("eventbus_newer_format", "Publications and readings in a format that this instance does not know"),
    "instance.expired": (
        "eventbus_instance_expirations",
        "Times that the lease of this instance had ended before it was renewed",
    ),
    "redis.lost": ("eventbus_redis_lost", "Times that the subscriber lost its connection"),
}


class _GatewayCollector(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counts()
        yield from self._pending()
        denied = CounterMetricFamily(
            "eventbus_redis_denied",
            "Commands that Redis refused because its user lacks a right, by right",
            labels=["right"],
        )
        for right, count in denials().items():
            denied.add_metric([right], count)
        yield denied
        hub = self._gateway.hub
        yield CounterMetricFamily("eventbus_deliveries", "Events handed to sessions", value=hub.deliveries)
        yield CounterMetricFamily("eventbus_events", "Events received from Redis", value=hub.events)
        latency = self._gateway.latency
        yield HistogramMetricFamily(
            "eventbus_delivery_latency_seconds",
            "Seconds from emit to the gateway's socket, per delivery",
            buckets=latency.cumulative(),
            sum_value=latency.sum,
        )

    def _gauges(self) -> Iterator[Metric]:
        gateway = self._gateway
        monitor = gateway.revocation_monitor
        revocations = 0 if monitor is None else len(monitor.known)
        age = -1.0 if monitor is None or monitor.read_at is None else gateway.clock.now() - monitor.read_at
        backlogs = [s.output.send_queue for s in gateway.sessions.values() if s.output.send_queue is not None]
        values = {
            "eventbus_connections": ("Open connections", len(gateway.sessions)),
            "eventbus_unauthenticated_connections": (
                "Open connections that wait for their token",
                gateway.connection_limits.unauthenticated,
            ),
            "eventbus_channels": ("Channels that sessions of this instance read", len(gateway.hub.channels)),
            "eventbus_slow_sessions": ("Sessions whose client reads too slowly", len(backlogs)),
            "eventbus_outbox_depth": (
                "Events in the send queues of slow clients of this gateway",
                sum(map(len, backlogs)),
            ),
            "eventbus_revocations": ("Revoked users' tokens and single tokens that this instance knows", revocations),
            "eventbus_revocations_age_seconds": ("Seconds since revocations were last read; -1: never", age),
            "eventbus_ready": ("1 if this instance accepts connections", 0 if gateway.not_ready else 1),
        }
        for name, (text, value) in values.items():
            yield GaugeMetricFamily(name, text, value=value)
        degraded = GaugeMetricFamily("eventbus_degraded", "1 for each reason why Redis is unhealthy", labels=["reason"])
        for trouble in Degradation:
            degraded.add_metric([trouble.label], int(trouble in gateway.redis_monitor.health))
        yield degraded

    def _pending(self) -> Iterator[Metric]:
        sweeper = self._gateway.maintenance.sweeper
        if sweeper is None:
            return
        yield GaugeMetricFamily("eventbus_sweeper", "1 if this instance runs the sweeper", value=int(sweeper.sweeping))
        if sweeper.totals is not None:
            totals = sweeper.totals
            age = max(0.0, self._gateway.clock.wall() - totals.oldest_dead / 1000) if totals.oldest_dead else 0.0
            yield GaugeMetricFamily(
                "eventbus_pending", "Events that wait for a client's acknowledgement", totals.pending
            )
            yield GaugeMetricFamily(
                "eventbus_dead_letters", "Dead letters that were neither requeued nor purged", totals.dead
            )
            yield GaugeMetricFamily(
                "eventbus_dead_letters_oldest_seconds", "Age of the oldest dead letter in seconds", age
            )

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
    """The registry of one gateway. The process-wide default registry may hold an application's metrics.

    Args:
        gateway: the gateway.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_GatewayCollector(gateway))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
