"""``/healthz``, ``/readyz`` and ``/metrics``. With several workers, each of them answers for all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, PlainTextResponse

from webui_adapter.gateway.gateway import Gateway
from webui_adapter.monitoring.metrics import Metrics
from webui_adapter.workers.siblings import Siblings

__all__ = ["METRICS", "READY", "add_probes", "answers_to_siblings", "merge_metrics", "merge_readiness"]

METRICS: Final = "metrics"
READY: Final = "ready"
"""The questions that workers ask each other."""

_TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"
_SILENT: Final = "does not answer"


def add_probes(
    router: APIRouter, gateway: Gateway, ensure_started: Callable[[], Awaitable[None]], siblings: Siblings | None
) -> None:
    """Add the routes.

    Args:
        router: receives them.
        gateway: the gateway that answers.
        ensure_started: starts the gateway if the application has not.
        siblings: the workers of this machine; None: this process is the only one.
    """
    answers = answers_to_siblings(gateway)

    @router.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("ok")

    @router.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        await ensure_started()
        if siblings is None:
            reason = gateway.not_ready
            return JSONResponse({"ready": reason is None, "reason": reason}, 200 if reason is None else 503)
        answer = merge_readiness(await siblings.ask_all(READY))
        return JSONResponse(answer, 200 if answer["ready"] else 503)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        if siblings is None:
            return Response(answers[METRICS](), media_type=_TEXT_FORMAT)
        return Response(merge_metrics(await siblings.ask_all(METRICS)), media_type=_TEXT_FORMAT)


def answers_to_siblings(gateway: Gateway) -> dict[str, Callable[[], bytes]]:
    """Return what a worker answers to the others.

    Args:
        gateway: the gateway of this worker.
    """
    return {METRICS: Metrics(gateway).text, READY: lambda: json.dumps(gateway.not_ready).encode()}


def merge_readiness(answers: Mapping[int, bytes | None]) -> dict[str, object]:
    """Say whether a machine accepts connections. One ready worker is enough: the others get no connection that it
    could not answer, or restart within a second.

    Args:
        answers: the reason of each worker as JSON, null if it is ready; None: it does not answer.

    Returns:
        ``ready``, the first ``reason`` if it is not, and the reason of each worker.
    """
    reasons = {str(number): _SILENT if text is None else json.loads(text or b'""') for number, text in answers.items()}
    ready = None in reasons.values()
    return {"ready": ready, "reason": None if ready else next(iter(reasons.values()), ""), "workers": reasons}


def merge_metrics(answers: Mapping[int, bytes | None]) -> bytes:
    """Join the metrics of several workers. Each sample gets the label ``worker``.

    Args:
        answers: the metrics of each worker in Prometheus' text format; None: it does not answer.

    Returns:
        The metrics of all, and ``eventbus_worker_up`` for each.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(answers))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, answers: Mapping[int, bytes | None]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        up = GaugeMetricFamily("eventbus_worker_up", "1 if this worker answers the others", labels=["worker"])
        for number, text in self._answers.items():
            worker = {"worker": str(number)}
            up.add_metric([str(number)], 0 if text is None else 1)
            for family in text_string_to_metric_families((text or b"").decode()):
                target = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                target.samples += [sample._replace(labels={**sample.labels, **worker}) for sample in family.samples]
        yield up
        yield from merged.values()
