"""The files of ``compose/``: valid by schema and by HAProxy itself, and consistent with the gateway's settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from tests.compose.parts import CONFIG, ROOT, haproxy
from webui_adapter.settings import GatewaySettings

FOLDER = ROOT / "compose"
COMPOSE = FOLDER / "compose.yaml"
SERVICES = YAML(typ="safe").load(COMPOSE)["services"]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def haproxy_timeout(name: str) -> float:
    return seconds(re.search(rf"^ +timeout {name} +(\S+)$", CONFIG.read_text(), re.MULTILINE)[1])


def test_compose_files_are_valid_by_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [COMPOSE, FOLDER / "compose.four.yaml"]
    checked = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("environment", [{}, {"GATEWAY_3": "gateway-3:8080", "GATEWAY_4": "gateway-4:8080"}])
def test_haproxy_accepts_its_configuration_without_a_warning(environment):
    # As in its container at the start: no variable is set and no name resolves.
    environment = {"PATH": os.environ["PATH"], **environment}
    command = [haproxy(), "-c", "-f", CONFIG]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_only_haproxy_is_published_and_flower_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "haproxy": ["${PUBLIC_PORT:-8080}:8080"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"],
    }
    assert YAML(typ="safe").load(COMPOSE)["networks"]["internal"] == {"internal": True}
    outside = {name for name, service in SERVICES.items() if set(service["networks"]) != {"internal"}}
    assert outside == {"haproxy", "flower"}


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_bounded_restarted_and_checked(name):
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert 1024 <= service["ulimits"]["nofile"] <= 20_000
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"]["max-size"]


def test_secrets_come_from_the_environment_and_a_missing_one_says_so():
    text = COMPOSE.read_text()
    for secret in ("WEBUI_JWT_SECRET", "FLOWER_BASIC_AUTH"):
        assert re.findall(rf"{secret}: (.*)", text), secret
        for use in re.findall(rf"\$\{{{secret}(.{{2}})", text):
            assert use == ":?", "empty counts as missing"
        assert re.search(rf"^{secret}=$", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert SERVICES["site"]["environment"]["DEMO_SECRET"].startswith("${WEBUI_JWT_SECRET:?")
    assert ".env" in (FOLDER / ".gitignore").read_text().splitlines()


def test_everything_named_in_the_example_is_used():
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    texts = COMPOSE.read_text() + (FOLDER / "compose.secure.yaml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", texts))
    assert named == used


def test_a_gateway_may_finish_its_drain():
    settings = GatewaySettings(jwt_secret="0123456789abcdef" * 2)
    drain = settings.drain_spread + settings.shutdown_grace
    for name in ("gateway-1", "gateway-2"):
        assert seconds(SERVICES[name]["stop_grace_period"]) > drain


def test_haproxy_is_more_patient_than_an_idle_stream():
    settings = GatewaySettings(jwt_secret="0123456789abcdef" * 2)
    for name in ("client", "server", "tunnel"):
        assert haproxy_timeout(name) > 2 * settings.heartbeat_interval
    assert haproxy_timeout("tunnel") == 3600
    assert haproxy_timeout("http-request") <= 5


def test_haproxy_has_two_descriptors_for_each_connection():
    connections = int(re.search(r"presetenv MAX_CONNECTIONS (\d+)", CONFIG.read_text())[1])
    assert 2 * connections + 100 < SERVICES["haproxy"]["ulimits"]["nofile"]


def test_a_full_redis_says_so():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--maxmemory") + 1]


def test_the_image_is_built_without_a_frontend_to_be_pulled_and_runs_without_root():
    text = (FOLDER / "Dockerfile").read_text()
    assert "# syntax=" not in text
    for target in ("gateway", "demo"):
        stage = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert re.search(r"^USER app$", stage, re.MULTILINE), target
