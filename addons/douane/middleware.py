"""The third door: Douane inside an ASGI service of your own, round its own endpoint::

    app = Douane(Starlette(routes=…), policies="policies", data="data", routes={"/llm": "anthropic"})

Laws: nothing is served before the policies are loaded and the audit log takes records. A governed path is answered by the
app behind only through the exchange (``visit.py``); which those are, the path alone says by which the app routes
(``routes.py``). The files close after the app has shut down.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from douane.asgi import App, Message, Receive, Scope, Send
from douane.audit import record
from douane.call import Caller
from douane.chain import Chain
from douane.errors import DouaneError
from douane.gate import Gate
from douane.hosts.house import Office, open_office
from douane.intake import Arrival, home_of, target_of
from douane.loader import Loaded
from douane.logs import where
from douane.metrics import Metrics
from douane.relay import Relay
from douane.reload import Reloader, Result
from douane.routes import Routes, below_root
from douane.upstream.pool import Pool
from douane.visit import Visit, Whole, relay

__all__ = ["WORKERS", "Douane", "relay"]

log = logging.getLogger("douane.middleware")

WORKERS = 64
"""Processes of one machine that may share a data folder."""
_NO_ROUTES: Mapping[str, str] = {}


class Douane:
    """Pure ASGI middleware round *app*, for asyncio. *policies*, *data*: folders; else ``DOUANE_POLICIES``, ``DOUANE_DATA``,
    else ``policies`` and ``data`` here. *routes*: path → provider, beside the providers' own paths, which are governed in
    any case.

    Opens in the lifespan, before *app* starts; under a server without one, at the first request, which raises ConfigError
    and EnvironmentFailedError then. In the lifespan it is ``request.state.douane``."""

    def __init__(self, app: App, *, policies: str | Path | None = None, data: str | Path | None = None,
                 routes: Mapping[str, str] = _NO_ROUTES) -> None:
        self.app = app
        self.metrics = Metrics()
        """A prometheus-client collector: ``metrics.text()``, or register it with a registry of yours."""
        self._policies, self._data = _folder("policies", policies), _folder("data", data)
        self._routes = dict(routes)
        self._desk: _Desk | None = None
        self._opening = threading.Lock()
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        else:
            await (self._desk or self._opened()).serve(scope, receive, send)

    async def reload(self) -> Result:
        """Read the policy files anew; where they are wrong, the last good ones stay and the result says why."""
        return await (self._desk or self._opened()).reload()

    def problems(self) -> list[str]:
        """Why governed calls are refused now, for a readiness probe; empty where they are not."""
        return ["not open"] if self._desk is None else self._desk.office.problems()

    async def close(self) -> None:
        """Let go of the files: for servers without a lifespan, when nothing runs any more. Idempotent."""
        self._closed = True
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.close()

    def _opened(self) -> "_Desk":
        """Blocks, for what comes next needs it: nothing can be judged before."""
        with self._opening:
            if self._closed:
                raise RuntimeError("Douane is closed: the service has shut down")
            if self._desk is None:
                self._desk = _Desk(self.app, open_office(self._policies, self._data, workers=WORKERS), self._routes,
                                   self._policies, self.metrics)
            return self._desk

    # -- the service's life --------------------------------------------------------------------------------------

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        startup = [await receive()]
        self._closed = False
        try:
            await self._opened().begin()
        except DouaneError as error:  # not raised: servers take that for an app without a lifespan, and go on
            await send({"type": "lifespan.startup.failed", "message": f"Douane: {error}"})
            return
        if "state" in scope:
            scope["state"]["douane"] = self
        state: Literal["starting", "started", "over"] = "starting"

        async def heard() -> Message:
            return startup.pop() if startup else await receive()

        async def said(message: Message) -> None:
            nonlocal state
            state = "started" if message["type"] == "lifespan.startup.complete" else "over"
            if state == "over":
                await self.close()
            await send(message)

        try:
            await self.app(scope, heard, said)
        except Exception as error:
            if state != "starting":
                raise
            log.warning("the app behind takes no lifespan: %s", where(error))
        finally:
            if state != "starting":
                await self.close()
        if state == "starting":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.close()
            await send({"type": "lifespan.shutdown.complete"})


class _Desk:
    """The door while it is open."""

    def __init__(self, app: App, office: Office, given: Mapping[str, str], policies: Path, metrics: Metrics) -> None:
        self.app = app
        self.office = office
        self._given = given
        self._policies = policies
        try:
            self._routes = Routes.of(given, office.loaded.providers)
            self.gate = Gate(office.loaded.chain, office.audit, office.prices, metrics, scribe=office.scribe,
                             ledger=office.ledger)
            if office.audit is not None:
                office.audit.append_blocking(record.event("start", self.gate.clock(), revision=self.gate.chain.revision))
        except DouaneError:
            office.close()
            raise
        self._pool = Pool(proxy=office.loaded.upstream_proxy)
        self._relay = Relay(self._pool)
        self._reloader = Reloader(office.loaded, lambda: office.load(policies), self._adopt)
        office.warm(self.gate.chain)
        self._duties = office.duties(self.gate)
        self._beginning: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """On the loop, before the first request: nobody who is stopped may pass before that is known."""
        if self._beginning is None:
            self._beginning = asyncio.ensure_future(self._begin())
        await self._beginning

    async def _begin(self) -> None:
        if self._duties is not None:
            await self._duties.start()

    async def close(self) -> None:
        if self._duties is not None:
            await self._duties.stop()
        await self._pool.aclose()
        await self.office.note(record.event("stop", self.gate.clock()))
        await asyncio.to_thread(self.office.close)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._beginning is None or not self._beginning.done():
            await self.begin()
        if self._arrival(self.gate.chain, scope) is None:
            await self.app(scope, receive, send)
        elif scope.get("method") == "OPTIONS":  # a browser's question before its call: no text, and none let through
            await self.app(scope, Whole({"type": "http.request", "body": b"", "more_body": False}, receive), send)
        else:
            await Visit(self.app, self._relay, scope).run(self.gate, self._arrival, receive, send)

    def _arrival(self, chain: Chain, scope: Scope) -> Arrival | None:
        """The :data:`~douane.governor.Door`."""
        path, raw = below_root(scope)
        place = self._routes.find(scope.get("method", "GET"), path, raw,
                                  unknown_pass=chain.edge.unknown_operations == "allow")
        if place is None:
            return None
        (host, homeless), client = home_of(place.provider), scope.get("client")
        return Arrival(place.provider, host, place.path, Caller(client[0] if client else ""),
                       target_of(place.provider, host, chain.ca), place.refused or homeless)

    # -- reload --------------------------------------------------------------------------------------------------

    async def reload(self) -> Result:
        return await self.office.reload(self.gate, self._reloader)

    def _adopt(self, loaded: Loaded) -> None:
        routes = Routes.of(self._given, loaded.providers)
        self.office.adopt(self.gate, loaded)
        self._routes = routes


def _folder(name: str, given: str | Path | None) -> Path:
    return Path(given or os.environ.get(f"DOUANE_{name.upper()}") or name).absolute()
