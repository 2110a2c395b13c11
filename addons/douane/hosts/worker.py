"""One worker of ``douane serve --workers N``: ``python -m douane.hosts.worker FD``, started by :mod:`crew` alone.

Law: what a worker serves, and when, its parent says, over the socketpair FD: the policies in force (as bytes, so that no two
workers read two states of a folder), its two ports, its log, every one-run token; the CA is read, never written. When the
parent goes, however it goes, the worker finishes what runs and ends: none is left without one.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from douane import logs
from douane.audit import record
from douane.errors import EnvironmentFailedError
from douane.hosts.channel import Channel
from douane.hosts.desk import LedgerDesk
from douane.hosts.doors import Doors
from douane.hosts.hand import HELD_BACK
from douane.hosts.house import Fittings, close_abandoned, furnish, with_authority
from douane.hosts.http import DRAIN_SECONDS
from douane.hosts.issue import owner
from douane.hosts.summary import summary
from douane.loader import Loaded, tls_names
from douane.metrics import Metrics
from douane.places import Listen, Places, guard_process, node_name

__all__ = ["main"]

log = logging.getLogger("douane.gateway")

_TELL_SECONDS = 1.0
"""How often the parent hears of the counts: so much of them is lost with a worker that is killed."""
_SWEEP_SECONDS = 3600.0

type Said = Mapping[str, Any]


class Worker:
    def __init__(self, ours: socket.socket) -> None:
        self.channel = Channel(ours, {
            "begin": self._begin, "open": self._open, "prepare": self._prepare, "adopt": self._adopt,
            "discard": self._discard, "issue": self._issue, "revoke": self._revoke, "owner": self._owner,
            "counts": self._counts, "problems": self._problems, "renew": self._renew, "abandoned": self._abandoned,
            "ledger": self._ledger, "stops_changed": self._stops_changed, "leave": self._leave, "stop": self._stop})
        self._number = 0
        self._fittings = Fittings()
        self._loaded: Loaded | None = None
        """Before the doors are open; then theirs counts."""
        self._fresh: Loaded | None = None
        """Prepared, and not adopted yet."""
        self._places: Places | None = None
        self._order: Said = {}
        self._doors: Doors | None = None
        self._ending: asyncio.Task[None] | None = None
        self._clocks: list[asyncio.Task[None]] = []

    async def live(self) -> None:
        """Until the parent closes the line, or a signal ends us; then nothing is left open."""
        await self.channel.open()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminated)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2):  # of a terminal or a group: the parent's to heed
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        await self.channel.run()
        if self._ending is None and self._doors is not None:
            log.warning("the parent is gone: running calls have %d s to finish", int(DRAIN_SECONDS))
        await self.end()
        self.channel.close()

    async def end(self, leave: float = 0.0) -> None:
        """Finish what runs, write every outcome, close; once. *leave*: seconds in which connections end by themselves first."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(leave))
        await asyncio.shield(self._ending)

    async def _end(self, leave: float) -> None:
        doors = self._doors
        if doors is None:
            return
        if leave:
            await doors.leave(leave)
        doors.stopping.set()
        cut = await doors.drain(1.0 if leave else DRAIN_SECONDS)
        for clock in self._clocks:
            clock.cancel()
        await doors.close(cut)

    def _terminated(self) -> None:
        async def end() -> None:
            await self.end()
            self.channel.close()

        self._clocks.append(asyncio.get_running_loop().create_task(end()))

    # -- beginning -----------------------------------------------------------------------------------------------

    async def _begin(self, said: Said) -> dict[str, Any]:
        self._order, self._number = said, said["worker"]
        logs.setup(worker=self._number)
        for digest, name, tags in said["tokens"]:
            self._fittings.tokens.issue(name, bytes.fromhex(digest), tags)
        folders = {name: Path(path) for name, path in said["folders"].items()}
        ports = {name: Listen(*at) for name, at in said["ports"].items()}
        self._places = Places(folders["policies"], folders["data"], folders["certs"], ports["proxy"], ports["admin"],
                              ports["http"])
        self._loaded = await asyncio.to_thread(self._fittings.load, self._places.policies, _files(said))
        return {"summary": asdict(summary(self._loaded))}

    async def _open(self, said: Said) -> dict[str, Any]:
        if self._places is None or self._loaded is None:
            raise EnvironmentFailedError("a worker was told to open before it had begun")
        places = self._places
        office = await asyncio.to_thread(furnish, self._fittings, self._loaded, places.data, said["chains"])
        house = with_authority(office, places.certs, keeps=False)
        admin = (places.admin.host, places.admin.port)
        proxy, http = ([socket.socket(fileno=fd) for fd in self._order[name]] for name in ("proxy", "http"))
        self._doors = doors = Doors(places, house, lambda: [admin], proxy, http)
        try:
            await doors.open()
        except BaseException:
            await self.end()
            raise
        gate = doors.gate
        for died in said["died"]:
            await house.note(record.event("worker_died", gate.clock(), worker=self._number, how=died))
        await house.note(record.event("start", gate.clock(), revision=gate.chain.revision, worker=self._number))
        gc.freeze()  # what was imported lives for ever; no collection need walk it
        self._clocks += [asyncio.get_running_loop().create_task(clock()) for clock in (self._every_second, self._every_hour)]
        return {"chain": house.audit.node if house.audit is not None else ""}

    # -- reload --------------------------------------------------------------------------------------------------

    async def _prepare(self, said: Said) -> dict[str, Any]:
        doors = self._opened()
        self._fresh = None
        fresh = await asyncio.to_thread(doors.house.load, doors.places.policies, _files(said))
        doors.house.check(fresh)
        self._fresh = fresh
        return {"summary": asdict(summary(fresh))}

    async def _adopt(self, said: Said) -> dict[str, Any]:
        """Raises before it has changed anything."""
        doors, fresh = self._opened(), self._fresh
        if fresh is None:
            raise EnvironmentFailedError("a worker was told to adopt what it has not prepared")
        await asyncio.to_thread(doors.house.authority.renew, tls_names(fresh))
        before = doors.loaded.chain.revision
        doors.adopt(fresh)
        self._fresh = None
        await doors.house.note(record.event("reload", doors.gate.clock(), revision=fresh.chain.revision, before=before))
        return {}

    async def _discard(self, said: Said) -> dict[str, Any]:
        doors = self._opened()
        self._fresh = None
        await doors.house.note(record.event("reload_refused", doors.gate.clock(), revision=doors.loaded.chain.revision,
                                            errors=said["errors"]))
        return {}

    async def _renew(self, said: Said) -> dict[str, Any]:
        await asyncio.to_thread(self._opened().house.authority.renew)
        return {}

    # -- what is asked of all ------------------------------------------------------------------------------------

    async def _issue(self, said: Said) -> dict[str, Any]:
        self._fittings.tokens.issue(said["principal"], bytes.fromhex(said["digest"]), said["tags"])
        return {}

    async def _revoke(self, said: Said) -> dict[str, Any]:
        self._fittings.tokens.revoke(bytes.fromhex(said["digest"]))
        return {}

    async def _owner(self, said: Said) -> dict[str, Any]:
        return {"name": owner(self._opened().loaded.directory, said["principal"])}

    async def _counts(self, said: Said) -> dict[str, Any]:
        return {"counts": self._counted()}

    async def _problems(self, said: Said) -> dict[str, Any]:
        return {"problems": self._opened().problems()}

    async def _abandoned(self, said: Said) -> dict[str, Any]:
        doors = self._opened()
        return {"calls": await asyncio.to_thread(close_abandoned, doors.places.data, node_name(os.environ), doors.house.ledger)}

    async def _ledger(self, said: Said) -> dict[str, Any]:
        """What somebody asks of the ledger over the control socket."""
        doors = self._opened()
        if doors.duties is None or doors.house.ledger is None:
            raise EnvironmentFailedError("there is no ledger")
        return await LedgerDesk(doors.house.ledger, doors.gate, doors.duties).operations[said["what"]](said["request"], None)

    async def _stops_changed(self, said: Said) -> dict[str, Any]:
        duties = self._opened().duties
        if duties is not None:
            await duties.hear_stops()
        return {}

    async def _leave(self, said: Said) -> dict[str, Any]:
        await self.end(leave=DRAIN_SECONDS)
        return {"counts": self._counted()}

    async def _stop(self, said: Said) -> dict[str, Any]:
        await self.end()
        return {"counts": self._counted()}

    def _opened(self) -> Doors:
        if self._doors is None:
            raise EnvironmentFailedError("a worker was asked before it was open")
        return self._doors

    def _counted(self) -> dict[str, Any]:
        return (Metrics() if self._doors is None else self._doors.metrics).counts()

    # -- by the clock --------------------------------------------------------------------------------------------

    async def _every_second(self) -> None:
        last: dict[str, Any] = {}
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            now = self._counted()
            if now != last:
                self.channel.tell("counted", counts=now)
                last = now

    async def _every_hour(self) -> None:
        """One of the workers is enough: the store is everybody's."""
        while self._number == 1 and (histories := self._opened().house.histories) is not None:
            await asyncio.sleep(_SWEEP_SECONDS)
            histories.sweep()


def _files(said: Said) -> dict[str, bytes]:
    return {name: text.encode("latin-1") for name, text in said["files"].items()}


def main() -> int:
    guard_process()
    logs.setup()
    line = socket.socket(fileno=int(sys.argv[1]))
    line.setblocking(False)
    try:
        import uvloop
    except ImportError:
        asyncio.run(Worker(line).live())
    else:
        uvloop.run(Worker(line).live())
    return 0


if __name__ == "__main__":
    sys.exit(main())
