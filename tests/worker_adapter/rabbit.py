"""A RabbitMQ for the tests, from the system's package, with a separate port, name, folder and epmd, no plugins."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import free_port, wait_until


def _program(name):
    """Debian's own wrapper needs a separate user; the program behind it does not."""
    behind = Path("/usr/lib/rabbitmq/bin") / name
    found = str(behind) if behind.exists() else shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        pytest.fail("RabbitMQ is not installed: make system-parts")
    return found


class Rabbit:
    """One node."""

    def __init__(self, folder):
        self.port, epmd = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._log = folder / "out"
        (folder / "plugins").write_text("[].")
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # or it does not let itself be ended before it has seen the node go
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._process = None

    def start(self):
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [_program("rabbitmq-server")], env=self._environment, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(self._answers, f"RabbitMQ to answer, see {self._log}", 60)

    def stop(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # It was started as a daemon, and outlives the node.
        subprocess.run(["epmd", "-kill"], env=self._environment, stdout=subprocess.DEVNULL, check=False)

    def _answers(self):
        if self._process.poll() is not None:
            pytest.fail(f"RabbitMQ has ended: {self._log.read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"AMQP\x00\x00\x09\x01")
                line.settimeout(5)
                return bool(line.recv(8))
        except OSError:
            return False
