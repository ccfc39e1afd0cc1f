"""The web application of `serve`: what each path does, who may use it, and how an invalid request is refused."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
import redis
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from producers.contract.errors import ContactSyncError
from worker.serve.access import COOKIE, SESSION_SECONDS, Access
from worker.serve.actions import Actions
from worker.serve.params import body_of, filters_of, id_of, number_of, query_of, wanted_of
from worker.serve.refusal import Refused
from worker.serve.threads import ThreadPools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from worker.serve.access import Role
    from worker.serve.snapshots import SnapshotCache

_LOG = structlog.get_logger("contact_sync")

Needs = Literal["nobody", "reader", "operator"]
"""The role that a path needs: none, read, or act."""

_PAGE: Final = {"": ("page.html", "text/html"), "page.js": ("page.js", "text/javascript")} | {
    name: (name, "text/css" if name.endswith("css") else "image/svg+xml" if name.endswith("svg") else "text/javascript")
    for name in ("page.css", "chart.js", "icon.svg")
}

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def build_app(snapshots: SnapshotCache, access: Access, epoch: Callable[[], float] = time.time) -> Starlette:
    """Builds the application.

    Args:
        snapshots: the fleet's state; closed with the application.
        access: who may do what.
        epoch: this machine's clock, as Unix time in seconds.
    """
    site = _Site(snapshots, access, Actions(snapshots), ThreadPools(), epoch)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with site.threads.every(_SAMPLE_SECONDS, snapshots.snapshot):
            yield
        snapshots.close()

    routes: list[tuple[str, str, Needs, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/healthz", "nobody", site.alive),
        ("GET", "/readyz", "nobody", site.ready),
        ("GET", "/metrics", "reader", site.metrics),
        ("GET", "/api/workers-wanted", "reader", site.workers_wanted),
        ("GET", "/api/session", "nobody", site.session),
        ("POST", "/api/sign-in", "nobody", site.sign_in),
        ("POST", "/api/sign-out", "nobody", site.sign_out),
        ("GET", "/api/status", "reader", site.status),
        ("GET", "/api/history", "reader", site.history),
        ("GET", "/api/explain", "reader", site.explain),
        ("GET", "/api/audit", "reader", site.audit),
        ("GET", "/api/parked", "reader", site.parked),
        ("GET", "/api/dead-letters", "reader", site.letters),
        ("POST", "/api/dead-letters/redrive", "operator", site.redrive),
        ("POST", "/api/dead-letters/purge", "operator", site.purge),
        *(("GET", f"/{name}", "nobody", _file(*of)) for name, of in _PAGE.items()),
    ]
    app = Starlette(
        routes=[
            Route(path, _guarded(site, action, needs), methods=[method], name=f"{method} {path}")
            for method, path, needs, action in routes
        ],
        exception_handlers={HTTPException: _not_found(site)},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would redirect to whatever host the request names
    return app


_SAMPLE_SECONDS: Final = 5.0
"""How often it takes a snapshot while nobody asks, for the chart and the forecast."""


@dataclass(frozen=True, slots=True)
class _Site:
    """One handler for each path."""

    snapshots: SnapshotCache
    access: Access
    actions: Actions
    threads: ThreadPools
    epoch: Callable[[], float]

    def role(self, request: Request) -> Role | None:
        return self.access.role(request.headers, self.epoch())

    # For machines

    async def alive(self, _: Request) -> Response:
        return _json({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        await self.threads.quick(self.snapshots.ready)
        return _json({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        return Response(await self.threads.quick(self.actions.metrics), headers={"content-type": CONTENT_TYPE_LATEST})

    async def workers_wanted(self, request: Request) -> Response:
        query_of(request)
        return _json({"workers_wanted": await self.threads.quick(self.actions.workers_wanted)})

    # Signing in

    async def session(self, request: Request) -> Response:
        return _json({"role": self.role(request), "sign_in": self.access.needed})

    async def sign_in(self, request: Request) -> Response:
        token = (await body_of(request)).get("token")
        role = self.access.role_of_token(token) if isinstance(token, str) and self.access.needed else None
        if role is None:
            raise Refused(401, "wrong_token", "invalid token")
        await self.threads.slow(self.actions.signed_in, role, _source(request))
        response = _json({"role": role})
        response.set_cookie(
            COOKIE,
            self.access.session_cookie(role, self.epoch()),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def sign_out(self, _: Request) -> Response:
        response = _json({"role": None})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    # Reading

    async def status(self, request: Request) -> Response:
        query_of(request)
        return _json({"role": self.role(request), **await self.threads.quick(self.actions.status)})

    async def history(self, request: Request) -> Response:
        query_of(request)
        return _json({"points": [list(point) for point in await self.threads.quick(self.snapshots.points)]})

    async def explain(self, request: Request) -> Response:
        params = query_of(request, "owner", "contact")
        owner, contact = id_of(params, "owner"), id_of(params, "contact")
        return _json(await self.threads.slow(self.actions.explain, owner, contact))

    async def audit(self, request: Request) -> Response:
        query_of(request)
        return _json({"entries": await self.threads.quick(self.actions.trail)})

    async def letters(self, request: Request) -> Response:
        params = query_of(request, "owner", "contact", "reason", "skip")
        skip = number_of(params, "skip")
        return _json(await self.threads.slow(self.actions.letters, filters_of(params), skip))

    async def parked(self, request: Request) -> Response:
        skip = number_of(query_of(request, "skip"), "skip")
        return _json(await self.threads.slow(self.actions.parked, skip))

    # Acting

    async def redrive(self, request: Request) -> Response:
        return await self._act(request, self.actions.redrive)

    async def purge(self, request: Request) -> Response:
        return await self._act(request, self.actions.purge)

    async def _act(self, request: Request, action: Callable[..., Any]) -> Response:
        wanted = wanted_of(await body_of(request))
        return _json(await self.threads.slow(action, wanted, self.role(request), _source(request)))


def _guarded(
    site: _Site, action: Callable[[Request], Awaitable[Response]], needs: Needs
) -> Callable[[Request], Awaitable[Response]]:
    """Wraps a handler: checks access first, and turns every error into an answer."""

    async def endpoint(request: Request) -> Response:
        try:
            _admit(site, request, needs)
            response = await action(request)
        except Refused as refused:
            response = _refusal(refused)
        except redis.RedisError as error:
            # Only its type: its text may hold the address, and anybody may ask for /readyz.
            message = f"Redis does not answer, or refuses ({type(error).__name__})"
            response = _refusal(Refused(503, "redis_away", message))
        except ContactSyncError as error:
            response = _refusal(Refused(503, "unfit", str(error)))
        except Exception as error:  # noqa: BLE001 - any other error is a bug of ours; a client must not see a traceback
            _LOG.error("serve_failed", path=request.scope["route"].path, error=type(error).__name__)
            response = _refusal(Refused(500, "failed", "internal error: see the log of contact-sync serve"))
        response.headers.update(_HEADERS)
        return response

    return endpoint


_FOREIGN: Final = (
    "this request must come from this page, with the header X-Contact-Sync; "
    "behind a proxy, add the page's host name to CONTACT_SYNC_SERVE_HOSTS"
)


def _check_host(site: _Site, request: Request) -> None:
    if not site.access.is_known_host(request.headers.get("host", "")):
        raise Refused(421, "wrong_host", "unknown host name: use localhost, or add it to CONTACT_SYNC_SERVE_HOSTS")


def _admit(site: _Site, request: Request, needs: Needs) -> None:
    _check_host(site, request)
    if request.method == "POST" and not site.access.is_same_origin(request.headers):
        raise Refused(403, "foreign", _FOREIGN)
    if needs == "nobody":
        return
    role = site.role(request)
    if role is None:
        raise Refused(401, "sign_in", "sign in first")
    if needs == "operator" and role != "operator":
        raise Refused(403, "read_only", "this token is read-only")


def _source(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("worker.serve").joinpath("page", name).read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, media_type=kind)

    return send


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _refusal(refused: Refused) -> Response:
    return _json({"error": refused.error, "message": refused.message}, refused.status)


def _not_found(site: _Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Refuses what no handler is for: an unknown path, or a method that its path does not have."""

    async def refuse(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = "not found" if status == 404 else "this path does not support this method"
        try:
            _check_host(site, request)
            response = _refusal(Refused(status, "not_found" if status == 404 else "not_allowed", message))
        except Refused as refused:
            response = _refusal(refused)
        response.headers.update(_HEADERS)
        return response

    return refuse
