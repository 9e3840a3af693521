"""The site: the page, a login without a name, and the endpoints that an application of this kind has."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Cookie, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from demo.indexing_service import IndexingService, Unavailable
from demo.settings import CLIENT, DemoSettings, demo_settings
from demo.sources import UploadRefused, uploaded_files
from demo.visitors import COOKIE_SECONDS, TOKEN_SECONDS, Visitors

__all__ = ["create_app"]

_PAGE: Final = Path(__file__).parent / "static"
_FRESH: Final = {"Cache-Control": "no-cache"}
_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


class Site:
    """The endpoints and what they share."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.visitors = Visitors(settings.secret.get_secret_value())
        self.library = IndexingService(settings)

    def gateway(self, request: Request) -> str:
        """The gateway's address as seen by the browser: the site's host, whatever name it was called by."""
        return self.settings.gateway or str(request.base_url.replace(port=self.settings.gateway_port, path="/eventbus"))

    def flower(self, request: Request) -> str:
        """Flower's address as seen by the browser; empty where there is none."""
        port = self.settings.flower_port
        return str(request.base_url.replace(port=port, path="")) if port else ""

    def may_kill_worker(self, request: Request) -> bool:
        """Whether who asks may kill the worker: on this machine, under this machine's own name, in a demo's stack."""
        client = ipaddress.ip_address(request.client.host) if request.client else None
        near = client is not None and client.is_loopback and request.url.hostname in _LOOPBACK
        return self.settings.trouble and near

    async def protect(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Headers that let the page load nothing foreign, and talk to the site and the gateway only."""
        response = await call_next(request)
        gateway = self.gateway(request)
        connect = f"'self' {gateway}/ {gateway.replace('http', 'ws', 1)}/"
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; connect-src {connect}; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    site: Site = request.app.state.site
    return site


SiteDependency = Annotated[Site, Depends(site_of)]
VisitorCookie = Annotated[str | None, Cookie(alias="demo_visitor")]


def visitor(site: SiteDependency, cookie: VisitorCookie = None) -> str:
    """Who asks. Raises HTTPException where that is nobody whom this run of the demo knows."""
    user = site.visitors.user_of_cookie(cookie)
    if user is None:
        raise HTTPException(401, "nobody is logged in; POST /login first")
    return user


Visitor = Annotated[str, Depends(visitor)]


def require_local(request: Request, site: SiteDependency) -> None:
    """Raises HTTPException where who asks may not kill anything."""
    if not site.may_kill_worker(request):
        raise HTTPException(403, "only a page on the demo's own machine may do that")


def page() -> Response:
    return FileResponse(_PAGE / "index.html", headers=_FRESH)


def client() -> Response:
    """The bus' client, from the site: a page that is reloaded while the gateway is away starts all the same."""
    return FileResponse(CLIENT, media_type="text/javascript", headers=_FRESH)


def healthz() -> dict[str, bool]:
    return {"ok": True}


def login(request: Request, site: SiteDependency, cookie: VisitorCookie = None) -> Response:
    """A fresh token for the gateway; for a browser that is here for the first time a user as well."""
    user = site.visitors.user_of_cookie(cookie) or site.visitors.new()
    settings = site.settings
    response = JSONResponse(
        {
            "user": user,
            "token": site.visitors.token(user),
            "expires_in": TOKEN_SECONDS,
            "gateway": site.gateway(request),
            "flower": site.flower(request),
            "trouble": site.may_kill_worker(request),
            "installed": len(site.library.installed()),
            "max_files": settings.max_files,
            "max_file_bytes": settings.max_file_bytes,
            "max_upload_bytes": settings.max_upload_bytes,
        },
        headers={"Cache-Control": "no-store"},
    )
    # Lax keeps other sites' forms from starting work in this visitor's name.
    response.set_cookie(
        "demo_visitor", site.visitors.cookie(user), max_age=COOKIE_SECONDS, httponly=True, samesite="lax"
    )
    return response


async def index(request: Request, site: SiteDependency, user: Visitor, source: str = "upload") -> dict[str, Any]:
    """Start indexing; answer with the operation and the cursor from which the page misses nothing."""
    if source == "installed":
        return await run_in_threadpool(site.library.index_installed, user)
    if source == "poisoned":
        require_local(request, site)
        return await run_in_threadpool(site.library.index_poisoned, user)
    async with uploaded_files(request, site.settings) as files:
        return await run_in_threadpool(site.library.index_uploads, user, files)


def operation(operation: str, site: SiteDependency, user: Visitor) -> dict[str, Any]:
    """What is known of an operation: for a page that has missed something, or opens it for the first time."""
    found = site.library.operation(operation, user)
    if found is None:
        raise HTTPException(404, "no such operation of yours")
    return found


def kill(site: SiteDependency, user: Visitor) -> dict[str, bool]:  # noqa: ARG001 - somebody has to be logged in
    """Kill the worker with all its processes. Raises Unavailable where there is none just now."""
    site.library.kill_worker()
    return {"killed": True}


def search(
    operation: str, site: SiteDependency, user: Visitor, q: Annotated[str, Query(max_length=200)] = ""
) -> dict[str, Any]:
    """Passages that hold the words."""
    found = site.library.search(operation, user, q)
    if found is None:
        raise HTTPException(404, "no index of yours under this name, or not yet")
    return found


async def refused(_: Request, error: Exception) -> Response:
    """Over a limit, which the message names."""
    return JSONResponse({"detail": str(error)}, error.status if isinstance(error, UploadRefused) else 503)


def create_app(settings: DemoSettings | None = None) -> FastAPI:
    """The application, for ``uvicorn --factory demo.site:create_app``."""
    app = FastAPI(title="Event bus demo", docs_url=None, redoc_url=None, openapi_url=None)
    site = app.state.site = Site(settings or demo_settings())
    app.middleware("http")(site.protect)
    app.get("/")(page)
    app.get("/client.js")(client)
    app.get("/healthz")(healthz)
    app.post("/login")(login)
    app.post("/index")(index)
    app.get("/operations/{operation}")(operation)
    app.get("/search")(search)
    app.post("/worker/kill", dependencies=[Depends(require_local)])(kill)
    app.exception_handler(UploadRefused)(refused)
    app.exception_handler(Unavailable)(refused)
    app.mount("/static", StaticFiles(directory=_PAGE))
    return app
