"""The gateway process: puts the house together, listens, reloads, drains, stops.

Law: nothing listens before the policies are loaded, the CA is ready and the audit log takes records; at the end the
streams finish (``DRAIN_SECONDS``), every outcome is written, and only then the log closes.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
import signal
from collections.abc import Coroutine, Mapping
from typing import Any, Literal

from douane.audit import record
from douane.call import Caller
from douane.control import ControlServer, Operation
from douane.edge import Decision, Refuse, decide, is_loopback
from douane.errors import ConfigError, DouaneError, EnvironmentFailedError
from douane.gate import Gate
from douane.governor import Governor
from douane.hosts import admin
from douane.hosts.contexts import TlsContexts
from douane.hosts.door import OnlyForwarded, PlainProxy, proxy_door
from douane.hosts.house import House
from douane.hosts.http import HttpServer
from douane.hosts.layers import Doorkeeper
from douane.hosts.ledger import LedgerDesk
from douane.hosts.proxy import ProxyListener
from douane.hosts.reverse import Fence, ReverseApp, reverse_door
from douane.loader import Loaded, tls_names
from douane.metrics import Metrics
from douane.places import Listen, Places
from douane.policies.authenticate import Unrecognised, recognise
from douane.providers.hosts import unparsed
from douane.relay import Relay
from douane.reload import Reloader, Result
from douane.upstream.pool import Pool

__all__ = ["DRAIN_SECONDS", "Gateway"]

log = logging.getLogger("douane.gateway")

DRAIN_SECONDS = 30.0
HOUR = 3600.0


class Gateway:
    """One process's gateway. ``start``, then ``stop``; ``reload`` between them. ``start`` raises ConfigError and
    EnvironmentFailedError."""

    def __init__(self, places: Places, house: House) -> None:
        self.places = places
        loaded = house.loaded
        self.house = house
        self._reloader = Reloader(loaded, self._load, lambda fresh: house.adopt(self.gate, fresh))
        self.metrics = Metrics()
        self.gate = Gate(loaded.chain, house.audit, house.prices, self.metrics, scribe=house.scribe,
                         ledger=house.ledger)
        self.pool = Pool(proxy=loaded.upstream_proxy)
        relay = Relay(self.pool)
        governor = Governor(OnlyForwarded(relay), self.gate, proxy_door)
        self.server = HttpServer(PlainProxy(governor, relay, lambda: self.keeper))
        fence = Fence(places.http.host, _on_loopback(places.http.host), lambda: self.loaded.directory)
        self.http_server = HttpServer(Governor(ReverseApp(relay, places.http.host, self.problems), self.gate,
                                               reverse_door(fence)))
        self.admin_server = HttpServer(admin.make_app(self.metrics, self.problems))
        self.keeper = Doorkeeper(
            decide=self._decide, may_pass=self._may_pass, server=self.server, refused=self._refused,
            tunnelled=lambda: self.metrics.tunnel("tunnelled"), context=TlsContexts(house.authority).of,
            listeners=self.listeners,
            governs=self._governs)
        self.proxy = ProxyListener(places.proxy, self.keeper)
        self._duties = house.duties(self.gate)
        self._admin: asyncio.Server | None = None
        self._http: asyncio.Server | None = None
        self._hourly: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.stopping = asyncio.Event()
        self._control = ControlServer(places.control, {
            "issue": self._issue, "reload": self._reload_asked, "stop": self._stop_asked, "status": self._status,
            **self._ledger_operations()})

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        for option, at in (("--proxy", self.places.proxy), ("--http", self.places.http)):
            if not _on_loopback(at.host) and not self.loaded.has_principals:
                raise ConfigError(f"{option} {at}: beyond loopback, tunnels and calls need a known principal, "
                                  "and the policy files name none with a key or a cidr beyond loopback")
        if self._duties is not None:
            await self._duties.start()
        await self.proxy.start()
        self._http = await self._listen(self.http_server, self.places.http, "--http")
        self._admin = await self._listen(self.admin_server, self.places.admin, "--admin")
        await self._control.start()
        self._hourly = self._spawn(self._every_hour())
        self.house.warm(self.gate.chain)
        await self.house.note(record.event("start", self.gate.clock(), revision=self.gate.chain.revision))

    async def _listen(self, server: HttpServer, at: Listen, option: str) -> asyncio.Server:
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: server.protocol({}, absolute=False), at.host, at.port)
        except OSError as error:
            await self.proxy.stop()
            raise EnvironmentFailedError(f"cannot listen on {at}: {error.strerror or error}; "
                                         f"choose another with {option} HOST:PORT") from None

    async def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing new, let what runs finish for *seconds*, write every outcome, close."""
        await self.proxy.stop()
        if self._http is not None:
            self._http.close()
        await self._control.close()
        cut = sum(await asyncio.gather(self.server.drain(seconds), self.http_server.drain(seconds)))
        if cut:
            log.warning("requests were cut at the end of the drain", extra={"requests": cut})
        if self._admin is not None:
            self._admin.close()
        await self.admin_server.drain(1)
        if self._hourly is not None:
            self._hourly.cancel()
        if self._duties is not None:
            await self._duties.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.proxy.finish()
        await self.pool.aclose()
        await self.house.note(record.event("stop", self.gate.clock(), cut=cut))
        self.house.close()

    async def reload(self) -> Result:
        """Build the new chain whole, off the loop, then swap; where it is wrong the last good one stays."""
        return await self.house.reload(self.gate, self._reloader)

    def _load(self) -> Loaded:
        """In a thread: the new policies, and an intermediate that signs for their hosts."""
        loaded = self.house.load(self.places.policies)
        self.house.authority.renew(tls_names(loaded))
        return loaded

    @property
    def loaded(self) -> Loaded:
        return self._reloader.loaded

    def problems(self) -> list[str]:
        """Why the gateway is not ready; empty where it is."""
        return [*self.house.problems(), *(["stopping"] if self.stopping.is_set() else [])]

    def listeners(self) -> list[tuple[str, int]]:
        found = self.proxy.addresses()
        for server in (self._http, self._admin):
            if server is not None:
                found += [sock.getsockname()[:2] for sock in server.sockets]
        return found

    def http_address(self) -> tuple[str, int]:
        return (self.places.http.host, 0) if self._http is None else self._http.sockets[0].getsockname()[:2]

    def admin_address(self) -> tuple[str, int]:
        return (self.places.admin.host, 0) if self._admin is None else self._admin.sockets[0].getsockname()[:2]

    def handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)

    # -- what the layers ask -------------------------------------------------------------------------------------

    def _decide(self, host: str, port: int, scheme: Literal["http", "https"]) -> Decision:
        chain = self.gate.chain
        return decide(host, port, scheme, chain.providers, chain.edge, unparsed)

    def _governs(self, name: str) -> bool:
        chain = self.gate.chain
        return chain.providers.governs(name) and name not in chain.edge.tunnel

    def _may_pass(self, caller: Caller) -> Refuse | None:
        try:
            principal, _ = recognise(self.loaded.directory, caller, ())
        except Unrecognised as error:
            return Refuse("unauthenticated", str(error))
        if principal is None and not _on_loopback(self.places.proxy.host):
            return Refuse("unauthenticated", "present a principal's name and key as the proxy user and password")
        return None

    def _refused(self, caller: Caller, name: str, why: Refuse) -> None:
        self.metrics.tunnel(why.code)
        log.warning("refused", extra={"host": name, "client": caller.address, "code": why.code})
        self._spawn(self.house.note(record.event("refused", self.gate.clock(), host=name, client=caller.address,
                                            code=why.code, reason=why.reason)))

    # -- the control socket --------------------------------------------------------------------------------------

    async def _issue(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        name, tags = request.get("principal") or self._default_principal(), request.get("tags") or {}
        if not isinstance(name, str) or not isinstance(tags, dict) or not all(isinstance(v, str) for v in tags.values()):
            raise ConfigError("principal must be a string, tags must map strings to strings")
        if self.loaded.directory.by_name(name) is None:
            raise ConfigError(f"no principal is called {name!r} in the policy files")
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).digest()
        self.house.tokens.issue(name, digest, tags)
        if not request.get("lasting"):
            undo.callback(self.house.tokens.revoke, digest)
        return {**await self._status(request, undo), "principal": name, "token": token}

    def _default_principal(self) -> str:
        known = self.loaded.directory.by_address("127.0.0.1")
        if known is None:
            raise ConfigError("say who calls: --as PRINCIPAL (the policy files give loopback callers no name)")
        return known.name

    async def _reload_asked(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        result = await self.reload()
        if not result.ok:
            raise ConfigError("\n".join(result.lines))
        return {"revision": result.revision}

    async def _stop_asked(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        self.stopping.set()
        return {}

    def _ledger_operations(self) -> dict[str, Operation]:
        if self._duties is None or self.house.ledger is None:
            return {}
        return LedgerDesk(self.house.ledger, self.gate, self._duties).operations

    async def _status(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        host, port = self.proxy.addresses()[0][:2]
        return {"proxy": [host, port], "http": list(self.http_address()), "admin": list(self.admin_address()),
                "certs": str(self.places.certs), "revision": self.gate.chain.revision,
                "credentials": sorted(self.loaded.credential_providers),
                "secret_variables": sorted(self.loaded.secret_variables), "problems": self.problems()}

    # -- small things --------------------------------------------------------------------------------------------

    async def _every_hour(self) -> None:
        """What ends by the clock: histories, the intermediate CA."""
        while True:
            await asyncio.sleep(HOUR)
            if self.house.histories is not None:
                self.house.histories.sweep()
            try:
                if await asyncio.to_thread(self.house.authority.renew):
                    log.info("the intermediate CA was re-issued")
            except DouaneError as error:
                log.error("the intermediate CA cannot be re-issued: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _on_loopback(host: str) -> bool:
    return host == "localhost" or (not any(c.isalpha() and c not in "abcdef" for c in host) and is_loopback(host))
