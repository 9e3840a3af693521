"""TLS and users of Redis as in ``compose.secure.yaml``: the same scripts start Debian's Redis for the product."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from ruamel.yaml import YAML

from demo.settings import DemoSettings
from eventbus import Bus, BusSettings
from tests.compose.parts import ROOT
from tests.conftest import free_port, wait_until
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, page
from tests.worker_adapter.conftest import running

FOLDER = ROOT / "compose"
OVERLAY = FOLDER / "compose.secure.yaml"
SERVICES = YAML(typ="safe").load(OVERLAY)["services"]
ROLES = ("EMITTER", "GATEWAY", "ADMIN", "METRICS", "BROKER")
PASSWORDS = {f"REDIS_{role}_PASSWORD": f"password-{role}" for role in ROLES}


class Secure:
    """The server, and addresses as the services have them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()

    def address(self, service: str, variable: str) -> str:
        """The address of a service, with this machine's port and folder."""
        text = SERVICES[service]["environment"][variable]
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: PASSWORDS[found[1]], text)
        return text.replace("@redis:6379", f"@localhost:{self.port}").replace("/certificates", str(self.folder))

    def client(self, role: str) -> redis.Redis:
        return redis.Redis(
            host="localhost",
            port=self.port,
            username=f"eventbus-{role.lower()}",
            password=f"password-{role}",
            ssl=True,
            ssl_ca_certs=str(self.folder / "ca.pem"),
        )

    def answers(self) -> bool:
        try:
            return bool(self.client("METRICS").ping())
        except redis.ConnectionError:
            return False


def certificates(folder: Path) -> None:
    owner = {"OWNER": f"{os.getuid()}:{os.getgid()}"}
    command = ["sh", FOLDER / "certificates.sh", folder, "localhost"]
    subprocess.run(command, env={**os.environ, **owner}, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    certificates(folder)
    server, log = Secure(folder), folder / "log"
    program = shutil.which("redis-server")
    assert program, "Debian's redis-server has TLS, and the pinned Valkey has not: make system-parts"
    script, _, users, *_ = SERVICES["redis"]["command"][1:]
    command = ["sh", f"{FOLDER}{script}", program, f"{FOLDER}{users}", str(folder), str(server.port)]
    environment = {**os.environ, **PASSWORDS, "TMPDIR": str(folder)}
    with running([*command, "--dir", str(folder)], log, env=environment) as process:
        wait_until(lambda: process.poll() is not None or server.answers(), f"the server, see {log}", 30)
        assert process.poll() is None, log.read_text()
        yield server


async def test_the_services_work_with_their_addresses(secure: Secure, tmp_path: Path) -> None:
    """A task of a worker reaches a page: the broker and the bus are encrypted, and each program has its user."""
    emitter = secure.address("worker", "EVENTBUS_REDIS_URL")
    environment = {
        **os.environ,
        "EVENTBUS_REDIS_URL": emitter,
        "TESTS_BROKER": secure.address("worker", "DEMO_BROKER"),
        "TESTS_BROKER_OPTIONS": f'{{"global_keyprefix": "{DemoSettings.model_fields["prefix"].default}:"}}',
        "TESTS_BACKEND": "disabled://",
        "C_FORCE_ROOT": "1",
    }
    log = tmp_path / "worker"
    app = [sys.executable, "-m", "celery", "-A", "tests.worker_adapter.app", "worker", "-c", "1", "-l", "INFO"]
    script = (
        "from tests.worker_adapter.app import step; from worker_adapter import start_operation; "
        "start_operation(step.si(), user='ann', label='Secure')"
    )
    with (
        GatewayProcess(tmp_path, secure.address("gateway-1", "EVENTBUS_REDIS_URL")) as gateway,
        running(app, log, env=environment) as worker,
    ):
        wait_until(lambda: b" ready." in log.read_bytes() or worker.poll() is not None, f"the worker, see {log}", 60)
        bus = Bus(BusSettings(redis_url=emitter))
        async with page(gateway, "ann") as client:
            bus.emit("ann", "op", Note(n=1))
            assert bus.flush(10)
            await client.until(lambda page: page.got("gw.note") == [1])
            run = partial(subprocess.run, env=environment, check=True, cwd=ROOT)
            await asyncio.to_thread(run, [sys.executable, "-c", script])
            await client.until(
                lambda page: "operation.succeeded" in [event["type"] for event in page.events], seconds=40
            )
        bus.close()


def test_nothing_works_without_tls_or_with_another_authority(secure: Secure, tmp_path: Path) -> None:
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        redis.Redis(port=secure.port, socket_timeout=5).ping()
    certificates(tmp_path)
    other = secure.client("METRICS")
    other.connection_pool.connection_kwargs["ssl_ca_certs"] = str(tmp_path / "ca.pem")
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        other.ping()


def test_a_present_certificate_stays(secure: Secure) -> None:
    before = (secure.folder / "redis.pem").read_bytes()
    certificates(secure.folder)
    assert (secure.folder / "redis.pem").read_bytes() == before
    assert not (secure.folder / "ca.key").exists(), "the authority signs nothing else"
    assert (secure.folder / "redis.key").stat().st_mode & 0o077 == 0


def test_a_password_that_the_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, **PASSWORDS, "REDIS_ADMIN_PASSWORD": "a b"}
    command = ["sh", FOLDER / "redis-secure.sh", "true", FOLDER / "users.acl", tmp_path, "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "REDIS_ADMIN_PASSWORD" in done.stderr


def test_the_overlay_is_valid_and_names_known_services() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", OVERLAY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    known = YAML(typ="safe").load(FOLDER / "compose.yaml")["services"]
    assert SERVICES.keys() - known.keys() == {"certificates"}
    users_of_redis = {name for name, one in known.items() if "redis" in one.get("depends_on", {})}
    assert users_of_redis <= SERVICES.keys(), "each service that uses Redis has its user"
    passwords = set(re.findall(r"\$\{(REDIS_\w+_PASSWORD)", OVERLAY.read_text()))
    assert passwords == set(PASSWORDS)
    example = (FOLDER / ".env.example").read_text()
    assert all(re.search(rf"^# {name}=$", example, re.MULTILINE) for name in passwords)
