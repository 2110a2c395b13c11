"""The proxy and the HTTP port of one process, and all that lies behind them.

Law: nothing listens before the policies are loaded, the CA is ready and the audit log takes records; at the end the
streams finish, every outcome is written, and only then the log closes.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from douane.audit import record
from douane.call import Caller
from douane.edge import Decision, Refuse, decide, is_loopback
from douane.errors import ConfigError, EnvironmentFailedError
from douane.gate import Gate
from douane.governor import Governor
from douane.hosts.contexts import TlsContexts
from douane.hosts.door import OnlyForwarded, PlainProxy, proxy_door
from douane.hosts.house import House
from douane.hosts.http import DRAIN_SECONDS, HttpServer, listen
from douane.hosts.layers import Doorkeeper
from douane.hosts.proxy import ProxyListener
from douane.hosts.reverse import Fence, ReverseApp, reverse_door
from douane.loader import Loaded
from douane.metrics import Metrics
from douane.places import Places
from douane.policies.authenticate import Unrecognised, recognise
from douane.providers.hosts import unparsed
from douane.relay import Relay
from douane.upstream.pool import Pool

__all__ = ["DRAIN_SECONDS", "Doors"]

log = logging.getLogger("douane.gateway")

_LOOK_SECONDS = 0.05

type Sockets = Sequence[socket.socket]
type Address = tuple[str, int]


def _check_strangers(places: Places, loaded: Loaded) -> None:
    """Raises ConfigError where a port lies beyond loopback and nobody who calls from there could be known."""
    for option, at in (("--proxy", places.proxy), ("--http", places.http)):
        if not _on_loopback(at.host) and not loaded.has_principals:
            raise ConfigError(f"{option} {at}: beyond loopback, tunnels and calls need a known principal, "
                              "and the policy files name none with a key or a cidr beyond loopback")


class Doors:
    """``open``, then ``close``; ``leave`` before it where a successor has taken over.

    *others*: addresses of ours beside these two, which nobody may tunnel to. *proxy*, *http*: sockets that are bound, to listen
    on in place of the places' own addresses."""

    def __init__(self, places: Places, house: House, others: Callable[[], list[Address]], proxy: Sockets = (),
                 http: Sockets = ()) -> None:
        self.places = places
        self.house = house
        self.loaded = house.loaded
        self.stopping = asyncio.Event()
        self.metrics = Metrics()
        self.gate = Gate(house.loaded.chain, house.audit, house.prices, self.metrics, scribe=house.scribe,
                         ledger=house.ledger)
        self.pool = Pool(proxy=house.loaded.upstream_proxy)
        relay = Relay(self.pool)
        governor = Governor(OnlyForwarded(relay), self.gate, proxy_door)
        self.server = HttpServer(PlainProxy(governor, relay, lambda: self.keeper))
        fence = Fence(places.http.host, _on_loopback(places.http.host), lambda: self.loaded.directory)
        self.http_server = HttpServer(Governor(ReverseApp(relay, places.http.host, self.problems), self.gate,
                                               reverse_door(fence)))
        self.keeper = Doorkeeper(
            decide=self._decide, may_pass=self._may_pass, server=self.server, refused=self._refused,
            tunnelled=lambda: self.metrics.tunnel("tunnelled"), context=TlsContexts(house.authority).of,
            listeners=lambda: [*self.addresses(), *others()], governs=self._governs)
        self.proxy = ProxyListener(places.proxy, self.keeper, proxy)
        self.duties = house.duties(self.gate)
        self._http_sockets = http
        self._http: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen. Raises ConfigError, EnvironmentFailedError."""
        _check_strangers(self.places, self.loaded)
        if self.duties is not None:
            await self.duties.start()
        await self.proxy.start()
        try:
            self._http = await listen(self.http_server, self.places.http, "--http", self._http_sockets)
        except EnvironmentFailedError:
            await self.proxy.stop()
            raise
        self.house.warm(self.gate.chain)

    async def leave(self, seconds: float) -> None:
        """Take no new connection, and let those that are here end by themselves for *seconds*: each with an answer that says
        it is the last, so that no client sends a call to a connection that closes."""
        await self._shut()
        deadline = asyncio.get_running_loop().time() + seconds
        for server in (self.server, self.http_server):
            server.leave()
        while asyncio.get_running_loop().time() < deadline:
            left = [self.server.has_left(), self.http_server.has_left(), self.proxy.has_left()]
            if all(left):
                break
            await asyncio.sleep(_LOOK_SECONDS)

    async def drain(self, seconds: float) -> int:
        """Take nothing new, let what runs finish for *seconds*. Returns how many requests were cut."""
        await self._shut()
        cut = sum(await asyncio.gather(self.server.drain(seconds), self.http_server.drain(seconds)))
        if cut:
            log.warning("requests were cut at the end of the drain", extra={"requests": cut})
        return cut

    async def close(self, cut: int) -> None:
        """After :meth:`drain`: write what is left to write, and let go of everything."""
        if self.duties is not None:
            await self.duties.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.proxy.finish()
        await self.pool.aclose()
        await self.house.note(record.event("stop", self.gate.clock(), cut=cut))
        self.house.close()

    async def _shut(self) -> None:
        await self.proxy.stop()
        for server in self._http:
            server.close()

    def adopt(self, fresh: Loaded) -> None:
        """Exchanges that open from now on have the new chain."""
        self.house.adopt(self.gate, fresh)
        self.loaded = fresh

    def problems(self) -> list[str]:
        """Why this process is not ready; empty where it is."""
        return [*self.house.problems(), *(["stopping"] if self.stopping.is_set() else [])]

    def addresses(self) -> list[Address]:
        return self.proxy.addresses() + [one.getsockname()[:2] for server in self._http for one in server.sockets]

    def http_address(self) -> Address:
        return self._http[0].sockets[0].getsockname()[:2] if self._http else (self.places.http.host, 0)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that :meth:`close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
        self.spawn(self.house.note(record.event("refused", self.gate.clock(), host=name, client=caller.address,
                                                code=why.code, reason=why.reason)))


def _on_loopback(host: str) -> bool:
    return host == "localhost" or (not any(c.isalpha() and c not in "abcdef" for c in host) and is_loopback(host))
