"""The gateway as one process: both doors, the admin port, the control socket, signals, the clock."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping
from typing import Any

from douane.audit import record
from douane.control import ControlServer, Operation
from douane.errors import ConfigError, DouaneError, EnvironmentFailedError
from douane.hosts import admin
from douane.hosts.banner import Addresses, banner
from douane.hosts.desk import LedgerDesk
from douane.hosts.doors import DRAIN_SECONDS, Doors
from douane.hosts.house import House
from douane.hosts.http import HttpServer, listen
from douane.hosts.issue import asked, new_token, owner
from douane.hosts.summary import summary
from douane.loader import Loaded, tls_names
from douane.places import Places
from douane.reload import Reloader, Result

__all__ = ["DRAIN_SECONDS", "Gateway"]

log = logging.getLogger("douane.gateway")

HOUR = 3600.0


class Gateway:
    """``start``, then ``stop``; ``reload`` between them. ``start`` raises ConfigError and EnvironmentFailedError."""

    def __init__(self, places: Places, house: House) -> None:
        self.places = places
        self.house = house
        self.doors = Doors(places, house, self._others)
        self.stopping = self.doors.stopping
        self._reloader = Reloader(house.loaded, self._load, self.doors.adopt)
        self.admin_server = HttpServer(admin.make_app(self._metrics, self._problems))
        self._admin: list[asyncio.Server] = []
        self._hourly: asyncio.Task[Any] | None = None
        self._control = ControlServer(places.control, {
            "issue": self._issue, "reload": self._reload_asked, "stop": self._stop_asked, "status": self._status,
            **self._ledger_operations()})

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self.doors.open()
        try:
            self._admin = await listen(self.admin_server, self.places.admin, "--admin")
        except EnvironmentFailedError:
            await self.doors.proxy.stop()
            raise
        await self._control.start()
        self._hourly = self.doors.spawn(self._every_hour())
        gate = self.doors.gate
        await self.house.note(record.event("start", gate.clock(), revision=gate.chain.revision))

    async def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing new, let what runs finish for *seconds*, write every outcome, close."""
        await self.doors.proxy.stop()
        await self._control.close()
        cut = await self.doors.drain(seconds)
        for server in self._admin:
            server.close()
        await self.admin_server.drain(1)
        if self._hourly is not None:
            self._hourly.cancel()
        await self.doors.close(cut)

    async def reload(self) -> Result:
        """Build the new chain whole, off the loop, then swap; where it is wrong the last good one stays."""
        return await self.house.reload(self.doors.gate, self._reloader)

    def _load(self) -> Loaded:
        """In a thread: the new policies, and an intermediate that signs for their hosts."""
        loaded = self.house.load(self.places.policies)
        self.house.authority.renew(tls_names(loaded))
        return loaded

    def addresses(self) -> Addresses:
        proxy = self.doors.proxy.addresses()[0][:2]
        return Addresses(proxy, self.doors.http_address(), (self._others() or [(self.places.admin.host, 0)])[0])

    def banner(self) -> str:
        return banner(summary(self.doors.loaded), self.places, self.addresses(), self.house.authority.notes)

    def handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self.doors.spawn(self.reload()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)

    def _others(self) -> list[tuple[str, int]]:
        return [one.getsockname()[:2] for server in self._admin for one in server.sockets]

    async def _metrics(self) -> bytes:
        return self.doors.metrics.text()

    async def _problems(self) -> list[str]:
        return self.doors.problems()

    # -- the control socket --------------------------------------------------------------------------------------

    async def _issue(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        name, tags = asked(request)
        name = owner(self.doors.loaded.directory, name)
        token, digest = new_token()
        self.house.tokens.issue(name, digest, tags)
        if not request.get("lasting"):
            undo.callback(self.house.tokens.revoke, digest)
        return {**await self._status(request, undo), "principal": name, "token": token}

    async def _reload_asked(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        result = await self.reload()
        if not result.ok:
            raise ConfigError("\n".join(result.lines))
        return {"revision": result.revision}

    async def _stop_asked(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        self.stopping.set()
        return {}

    def _ledger_operations(self) -> dict[str, Operation]:
        duties, ledger = self.doors.duties, self.house.ledger
        return {} if duties is None or ledger is None else LedgerDesk(ledger, self.doors.gate, duties).operations

    async def _status(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        at, loaded = self.addresses(), self.doors.loaded
        return {"proxy": list(at.proxy), "http": list(at.http), "admin": list(at.admin),
                "certs": str(self.places.certs), "revision": loaded.chain.revision,
                "credentials": sorted(loaded.credential_providers),
                "secret_variables": sorted(loaded.secret_variables), "problems": self.doors.problems()}

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
