"""pytest-celery's setup over processes: our Valkey, and workers with ``install(app)``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from tests.pytest_celery import shop
from tests.pytest_celery.nodes import ServerContainer, WorkerContainer


@pytest.fixture
def celery_broker_cluster(eventbus_server) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(CeleryTestBroker(ServerContainer(eventbus_server.url.replace("/0", "/5"))))


@pytest.fixture
def celery_backend_cluster(eventbus_server) -> CeleryBackendCluster:
    return CeleryBackendCluster(CeleryTestBackend(ServerContainer(eventbus_server.url.replace("/0", "/6"))))


@pytest.fixture
def celery_setup_app(celery_setup_config) -> Celery:
    """The application itself, not one of pytest-celery's: it has the tasks."""
    app = shop.app
    if app.conf.broker_url not in (None, celery_setup_config["broker_url"]):
        # Another test's nodes: it would go on with connections to them.
        app._pool = app.amqp._producer_pool = app._backend_cache = app._local.backend = None
    app.conf.update(celery_setup_config)
    return app


@pytest.fixture
def celery_worker_cluster(tmp_path, celery_setup_app, eventbus_environment) -> Iterator[CeleryWorkerCluster]:
    environment = {
        **eventbus_environment,
        "SHOP_BROKER": celery_setup_app.conf.broker_url,
        "SHOP_BACKEND": celery_setup_app.conf.result_backend,
    }
    container = WorkerContainer(
        tmp_path, "tests.pytest_celery.shop", environment, "--pool", "solo", "--without-gossip", "--without-mingle"
    )
    node = CeleryTestWorker(container, celery_setup_app)
    try:
        node.ready()
        yield CeleryWorkerCluster(node)
    finally:
        node.teardown()
