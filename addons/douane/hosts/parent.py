"""``douane serve --workers N``: the parent, which governs no traffic and holds what there is one of.

Law: ports, CA, control socket, admin port, signals and the policies in force are the parent's alone; no call passes through
it, so that a slow question to it delays none. Law 8 for all workers together: they load a snapshot of the folder, and only
where all have loaded it do all take it into use; else the last good one stays with every one of them, and is what their
successors get, whatever lies in the folder meanwhile.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

from douane import logs
from douane.ca import Authority
from douane.control import ControlServer
from douane.errors import ConfigError, DouaneError
from douane.folder import snapshot
from douane.hosts import admin
from douane.hosts.banner import Addresses, Summary, banner
from douane.hosts.crew import ASK_SECONDS, Crew
from douane.hosts.http import DRAIN_SECONDS, HttpServer, listen
from douane.hosts.issue import asked, new_token
from douane.hosts.slots import open_slots
from douane.places import Places, guard_process, node_name, private_folder
from douane.source import Problems

__all__ = ["serve_with"]

log = logging.getLogger("douane.gateway")

_LOAD_SECONDS = 60.0
_CA_SECONDS = 60.0
"""How often the CA is looked at. By a clock that may have stood still while the machine slept: so more often than it needs."""

_LEDGER = ("stops", "stop_calls", "resume_calls", "balances")
"""What :class:`~douane.hosts.ledger.LedgerDesk` answers."""

type Files = Mapping[str, bytes]
type Request = Mapping[str, Any]


def serve_with(places: Places, workers: int) -> int:
    """Run until SIGTERM or SIGINT. Raises ConfigError, EnvironmentFailedError: before anything listens, or where a worker
    cannot be replaced."""
    guard_process()
    logs.setup()
    asyncio.run(_serve(places, workers))
    return 0


async def _serve(places: Places, workers: int) -> None:
    parent = Parent(places, workers)
    try:
        await parent.start()
        print(parent.banner(), file=sys.stderr, flush=True)
        await parent.stopping.wait()
        log.info("stopping: running calls have %d s to finish", int(DRAIN_SECONDS))
    finally:
        await parent.stop()
    if parent.failure is not None:
        raise parent.failure
    log.info("stopped; every outcome is written")


class Parent:
    """``start``, then ``stop``. ``start`` raises DouaneError."""

    def __init__(self, places: Places, workers: int) -> None:
        self.places = places
        self.stopping = asyncio.Event()
        self.failure: DouaneError | None = None
        private_folder(places.data)
        self._control = ControlServer(places.control, {
            "issue": self._issue, "reload": self._reload_asked, "stop": self._stop_asked, "status": self._status,
            **{what: partial(self._ledger, what) for what in _LEDGER}})
        self._control.claim()
        self._slots = open_slots(places.proxy, places.http, workers)
        self._crew = Crew(node_name(os.environ), self._slots, self._brief, self._certify, self._gave_up)
        self._admin_server = HttpServer(admin.make_app(self._crew.metrics, self.problems))
        self._admin: asyncio.Server | None = None
        self._files: Files = {}
        """The policies in force."""
        self._summary: Summary
        self._authority: Authority | None = None
        self._certifying = asyncio.Lock()
        self._tokens: dict[str, tuple[str, dict[str, str]]] = {}
        """sha256, in hex, → principal, tags."""
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._admin = (await listen(self._admin_server, self.places.admin, "--admin", serving=False))[0]
        self._handle_signals()
        problems = Problems()
        self._files = await asyncio.to_thread(snapshot, self.places.policies, problems)
        problems.raise_any()
        self._summary = await self._crew.start()
        await self._admin.start_serving()
        await self._control.start()
        self._spawn(self._keep_ca())

    async def stop(self) -> None:
        self.stopping.set()
        await self._control.close()
        await self._crew.stop()
        if self._admin is not None:
            self._admin.close()
        await self._admin_server.drain(1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def banner(self) -> str:
        notes = () if self._authority is None else self._authority.notes
        return banner(self._summary, self.places, self._addresses(), notes, len(self._slots))

    async def problems(self) -> list[str]:
        """Why the gateway is not ready; empty where it is."""
        return [*await self._crew.problems(), *(["stopping"] if self.stopping.is_set() else [])]

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_heard()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._spawn(self._crew.roll()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)

    def _gave_up(self, why: DouaneError) -> None:
        self.failure = why
        self.stopping.set()

    def _addresses(self) -> Addresses:
        proxy, http = (sockets[0].getsockname()[:2] for sockets in (self._slots[0].proxy, self._slots[0].http))
        return Addresses(proxy, http, self._admin_address())

    def _admin_address(self) -> tuple[str, int]:
        if self._admin is None:
            return self.places.admin.host, self.places.admin.port
        host, port = self._admin.sockets[0].getsockname()[:2]
        return str(host), int(port)

    # -- what workers get ----------------------------------------------------------------------------------------

    def _brief(self) -> dict[str, Any]:
        places, at = self.places, self._addresses()
        return {"folders": {name: str(getattr(places, name)) for name in ("policies", "data", "certs")},
                "ports": {"proxy": (places.proxy.host, at.proxy[1]), "http": (places.http.host, at.http[1]),
                          "admin": at.admin},
                "files": _as_text(self._files), "tokens": [(digest, *one) for digest, one in self._tokens.items()]}

    async def _certify(self, found: Summary) -> None:
        """The CA's folder is ready for these policies: made, or its intermediate renewed, by nobody else."""
        async with self._certifying:
            if self._authority is None:
                private_folder(self.places.certs)
                self._authority = await asyncio.to_thread(Authority.open, self.places.certs, found.tls_names)
            else:
                await asyncio.to_thread(self._authority.renew, found.tls_names)

    async def _keep_ca(self) -> None:
        while self._authority is not None:
            await asyncio.sleep(_CA_SECONDS)
            try:
                async with self._certifying:
                    renewed = await asyncio.to_thread(self._authority.renew)
                if renewed:
                    log.info("the intermediate CA was re-issued")
                    for answer in await self._crew.all("renew", ASK_SECONDS):
                        if isinstance(answer, DouaneError):
                            log.error("a worker does not serve the new intermediate CA yet: %s", answer)
            except DouaneError as error:
                log.error("the intermediate CA cannot be re-issued: %s", error)

    # -- reload --------------------------------------------------------------------------------------------------

    async def reload(self) -> str:
        """The revision that all have now. Raises ConfigError with every line that is wrong; then nothing has changed."""
        async with self._crew.changing:
            files, found, lines = await self._prepared()
            if found is None:
                await self._crew.all("discard", ASK_SECONDS, errors=lines)
                raise ConfigError("\n".join(lines))
            await self._crew.adopt()
            self._files, self._summary = files, found  # whoever begins from now on, begins with these
            log.info("policies reloaded", extra={"revision": found.revision[:12]})
            return found.revision

    async def _prepared(self) -> tuple[Files, Summary | None, list[str]]:
        """(snapshot, what it comes to, [] or what is wrong): every worker has loaded it, or none will take it."""
        problems, files, lines = Problems(), dict[str, bytes](), list[str]()
        try:
            files = dict(await asyncio.to_thread(snapshot, self.places.policies, problems))
        except ConfigError as error:
            return files, None, str(error).splitlines()
        answers = await self._crew.all("prepare", _LOAD_SECONDS, files=_as_text(files))
        for answer in answers:
            if isinstance(answer, DouaneError):
                lines += str(answer).splitlines()
        found = {Summary.of(one["summary"]) for one in answers if not isinstance(one, DouaneError)}
        lines = [*problems.lines(), *lines]
        if not lines and len(found) != 1:
            lines = ["the workers do not read the same from the policy files: reload again"]
        if not lines:
            try:
                await self._certify(next(iter(found)))
            except DouaneError as error:
                lines = str(error).splitlines()
        return files, None if lines else next(iter(found)), list(dict.fromkeys(lines))

    async def _reload_heard(self) -> None:
        try:
            await self.reload()
        except DouaneError as error:
            for line in str(error).splitlines():
                log.error("reload refused, the last good policies stay: %s", line)

    # -- the control socket --------------------------------------------------------------------------------------

    async def _issue(self, request: Request, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        """The answer goes out when every worker knows the token."""
        given, tags = asked(request)
        name: str = (await self._crew.one("owner", principal=given))["name"]
        token, raw = new_token()
        digest = raw.hex()
        self._tokens[digest] = (name, tags)
        if not request.get("lasting"):
            undo.callback(self._revoke, digest)
        for answer in await self._crew.all("issue", ASK_SECONDS, principal=name, digest=digest, tags=tags):
            if isinstance(answer, DouaneError):
                self._revoke(digest)
                raise answer
        return {**await self._status(request, undo), "principal": name, "token": token}

    def _revoke(self, digest: str) -> None:
        self._tokens.pop(digest, None)
        self._crew.tell("revoke", digest=digest)

    async def _ledger(self, what: str, request: Request, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        """One worker answers; where it has stopped calls or let them on, the others hear of it before the answer goes out."""
        answer = await self._crew.one("ledger", what=what, request=dict(request))
        if what in ("stop_calls", "resume_calls"):
            await self._crew.all("stops_changed", ASK_SECONDS)  # who is late looks by itself within a second
        return answer

    async def _reload_asked(self, request: Request, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        try:
            return {"revision": await self.reload()}
        except ConfigError as error:
            for line in str(error).splitlines():
                log.error("reload refused, the last good policies stay: %s", line)
            raise

    async def _stop_asked(self, request: Request, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        self.stopping.set()
        return {}

    async def _status(self, request: Request, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        at, found = self._addresses(), self._summary
        return {"proxy": list(at.proxy), "http": list(at.http), "admin": list(at.admin),
                "certs": str(self.places.certs), "revision": found.revision, "credentials": list(found.credentials),
                "secret_variables": list(found.secret_variables), "workers": self._crew.pids(),
                "problems": await self.problems()}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _as_text(files: Files) -> dict[str, str]:
    """As JSON can carry it, byte for byte."""
    return {name: data.decode("latin-1") for name, data in files.items()}
