"""The admin port: ``/metrics``, ``/healthz``, ``/readyz``. Read-only, and deaf to browsers that were led here."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["make_app"]


class _SameMachineNames:
    """Refuse a Host that is a name (DNS rebinding): the port is reached by address, ``localhost`` or a service name that
    holds no dot; refuse requests a browser made for another site."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1").partition(":")[0]
            is_name = "." in host and any(c.isalpha() for c in host)
            if is_name or headers.get(b"sec-fetch-site") == b"cross-site" or b"origin" in headers:
                refusal = PlainTextResponse("Douane: not for browsers of other sites\n", 403)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def make_app(metrics: Callable[[], Awaitable[bytes]], problems: Callable[[], Awaitable[list[str]]]) -> Starlette:
    """*metrics*: in the exposition format. *problems*: why the gateway is not ready, empty where it is."""

    async def show_metrics(request: Request) -> Response:
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        found = await problems()
        return JSONResponse({"ready": not found, "problems": found}, 503 if found else 200)

    return Starlette(
        routes=[Route("/metrics", show_metrics), Route("/healthz", health), Route("/readyz", ready)],
        middleware=[Middleware(_SameMachineNames)])
