"""The site: the page, an anonymous login, and the endpoints of an indexing application."""

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
    """The objects that the endpoints share."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        self.visitors = Visitors(settings.secret.get_secret_value())
        self.service = IndexingService(settings)

    def gateway(self, request: Request) -> str:
        """Return the gateway's URL for the browser: the host name of this request, the gateway's port."""
        return self.settings.gateway or str(request.base_url.replace(port=self.settings.gateway_port, path="/eventbus"))

    def flower(self, request: Request) -> str:
        """Return Flower's URL for the browser, or an empty string without Flower."""
        port = self.settings.flower_port
        return str(request.base_url.replace(port=port, path="")) if port else ""

    def may_kill_worker(self, request: Request) -> bool:
        """Whether this request may kill the worker: from the loopback interface, with a loopback host name."""
        client = ipaddress.ip_address(request.client.host) if request.client else None
        local = client is not None and client.is_loopback and request.url.hostname in _LOOPBACK
        return self.settings.trouble and local

    async def protect(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Add headers that restrict the page to this site and the gateway."""
        response = await call_next(request)
        gateway = self.gateway(request)
        connect = f"'self' {gateway}/ {gateway.replace('http', 'ws', 1)}/"
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; connect-src {connect}; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def site_of(request: Request) -> Site:
    """Return the site of a request."""
    site: Site = request.app.state.site
    return site


SiteDependency = Annotated[Site, Depends(site_of)]
VisitorCookie = Annotated[str | None, Cookie(alias="demo_visitor")]


def visitor(site: SiteDependency, cookie: VisitorCookie = None) -> str:
    """Return the user of the request. Raises HTTPException without a valid cookie of this run."""
    user = site.visitors.user_of_cookie(cookie)
    if user is None:
        raise HTTPException(401, "not logged in; POST /login first")
    return user


Visitor = Annotated[str, Depends(visitor)]


def require_local(request: Request, site: SiteDependency) -> None:
    """Raises HTTPException if the request may not kill the worker."""
    if not site.may_kill_worker(request):
        raise HTTPException(403, "only a page on the machine of the demo may do this")


def page() -> Response:
    return FileResponse(_PAGE / "index.html", headers=_FRESH)


def client() -> Response:
    """Serve the browser client. From the site, a reloaded page also starts while the gateway is down."""
    return FileResponse(CLIENT, media_type="text/javascript", headers=_FRESH)


def healthz() -> dict[str, bool]:
    return {"ok": True}


def login(request: Request, site: SiteDependency, cookie: VisitorCookie = None) -> Response:
    """Return a fresh token for the gateway. A browser without a cookie becomes a new user."""
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
            "installed": len(site.service.installed()),
            "max_files": settings.max_files,
            "max_file_bytes": settings.max_file_bytes,
            "max_upload_bytes": settings.max_upload_bytes,
        },
        headers={"Cache-Control": "no-store"},
    )
    # With Lax, a form on another site cannot start tasks as this visitor.
    response.set_cookie(
        "demo_visitor", site.visitors.cookie(user), max_age=COOKIE_SECONDS, httponly=True, samesite="lax"
    )
    return response


async def index(request: Request, site: SiteDependency, user: Visitor, source: str = "upload") -> dict[str, Any]:
    """Start indexing. Returns the operation and a cursor that precedes its first event."""
    if source == "installed":
        return await run_in_threadpool(site.service.index_installed, user)
    if source == "poisoned":
        require_local(request, site)
        return await run_in_threadpool(site.service.index_poisoned, user)
    async with uploaded_files(request, site.settings) as files:
        return await run_in_threadpool(site.service.index_uploads, user, files)


def operation(operation: str, site: SiteDependency, user: Visitor) -> dict[str, Any]:
    """Return the state of an operation, for a page that has lost events or opens it for the first time."""
    found = site.service.operation(operation, user)
    if found is None:
        raise HTTPException(404, "you have no such operation")
    return found


def kill(site: SiteDependency, user: Visitor) -> dict[str, bool]:  # noqa: ARG001 - requires a login
    """Kill the worker with all its processes. Raises Unavailable if none runs."""
    site.service.kill_worker()
    return {"killed": True}


def search(
    operation: str, site: SiteDependency, user: Visitor, q: Annotated[str, Query(max_length=200)] = ""
) -> dict[str, Any]:
    """Search the passages of an index."""
    found = site.service.search(operation, user, q)
    if found is None:
        raise HTTPException(404, "you have no such index, or it is not ready")
    return found


async def refused(_: Request, error: Exception) -> Response:
    """Convert an error to a response with its message."""
    return JSONResponse({"detail": str(error)}, error.status if isinstance(error, UploadRefused) else 503)


def create_app(settings: DemoSettings | None = None) -> FastAPI:
    """Return the application, for ``uvicorn --factory demo.site:create_app``."""
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
