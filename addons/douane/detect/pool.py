"""The worker processes of this process, shared by every scanner, so that a reload or a second policy starts no more of them.

Law: a worker that dies or does not answer in time is killed and replaced, and whoever asked it is told
(:class:`ScanFailedError`). A caller that goes away leaves no worker half read: the question is asked to its end."""

import asyncio
import atexit
import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import orjson

from douane.detect.prefilter import Prefilter
from douane.detect.values import ScanFailedError, Span, Wanted
from douane.detect.worker import LENGTH

__all__ = ["Pool", "pool", "worker_environment"]

_STARTS = 30.0
"""Seconds a worker may take to be ready: it imports presidio."""
_LOADS = 120.0
"""Seconds that a worker may take to load a language model."""
_TELLS = 0.5
"""Seconds more than it has that a worker may take to say that it was late."""
_READ = 65536
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TZ")
"""A worker reads hostile text: of our environment, where the keys are, it gets this."""


def worker_environment() -> dict[str, str]:
    """What a process that runs detectors is started with."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"REGEX_TIMEOUT_SECONDS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                   "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}


class _Answer(NamedTuple):
    spans: list[list[Span]]
    prefilter: str | None
    """With the first of its id: the engine's, in base64."""


@dataclass(slots=True)
class _Asked:
    wanted: Wanted
    texts: Sequence[str]
    seconds: float
    gone: bool = False
    """Nobody waits for the answer any more."""


class _Worker:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own module, by our own interpreter
                [sys.executable, "-m", "douane.detect.worker", str(theirs.fileno())], pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=worker_environment())
        ours.setblocking(False)
        self._socket, self.ready = ours, False
        self._known: set[int] = set()
        self.pid = self._process.pid

    async def ask(self, number: int, wanted: Wanted, texts: Sequence[str], seconds: float) -> _Answer:
        """Raises :class:`ScanFailedError` where the worker says so, TimeoutError or OSError where it does not say anything."""
        if not self.ready:
            await self.begin()
        if wanted.model is not None and number not in self._known and texts:
            await self.ask(number, wanted, (), _LOADS)  # to load a model is no part of the time that texts have
        first = None if number in self._known else asdict(wanted)
        try:
            raw = orjson.dumps({"id": number, "wanted": first, "texts": texts, "seconds": seconds})
        except orjson.JSONEncodeError:  # a lone surrogate
            raw = json.dumps({"id": number, "wanted": first, "texts": texts, "seconds": seconds}).encode()
        async with asyncio.timeout(seconds + _TELLS):
            await asyncio.get_running_loop().sock_sendall(self._socket, LENGTH.pack(len(raw)) + raw)
            said = await self._receive()
        if "failed" in said:
            raise ScanFailedError(said["failed"])
        self._known.add(number)
        return _Answer([[Span(*one) for one in spans] for spans in said["spans"]], said.get("prefilter"))

    def knows(self, number: int) -> bool:
        """Whether it has what it takes for that question."""
        return number in self._known

    async def begin(self) -> None:
        """Wait until it is ready. Raises as :meth:`ask`."""
        async with asyncio.timeout(_STARTS):
            said = await self._receive()
        if "broken" in said:
            raise ScanFailedError(f"the detector does not start: {said['broken']}")
        self.ready = True

    async def _receive(self) -> dict[str, Any]:
        got = bytearray()
        size = LENGTH.size
        while len(got) < size:
            part = await asyncio.get_running_loop().sock_recv(self._socket, max(size - len(got), _READ))
            if not part:
                raise ConnectionError("the worker is gone")
            got += part
            if len(got) >= LENGTH.size:
                size = LENGTH.size + LENGTH.unpack_from(got)[0]
        said: dict[str, Any] = orjson.loads(memoryview(got)[LENGTH.size:])
        return said

    def close(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Pool:
    """Workers, the free among them, and who waits for one. Used from one thread."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._free: list[_Worker] = []
        self._waiting: deque[asyncio.Future[_Worker]] = deque()
        self._asked: dict[Wanted, int] = {Wanted(): 0}
        self._prefilters: dict[Wanted, Prefilter] = {}
        self._tasks: set[asyncio.Task[list[list[Span]]]] = set()
        self.holders: WeakSet[object] = WeakSet()

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def grow(self, workers: int) -> None:
        """Start processes until there are so many; returns before they are ready."""
        while len(self._workers) < workers:
            self._add()

    def prefilter(self, wanted: Wanted) -> Prefilter | None:
        """What tells texts in which nothing can stand; None until a worker has answered for *wanted*, or where it has none."""
        return self._prefilters.get(wanted)

    def load(self, wanted: Wanted) -> None:
        """Have a worker load the model of *wanted* now; whether it can, the first question tells."""
        self._begin(_Asked(wanted, (), _LOADS))

    async def ready(self, wanted: Wanted) -> None:
        """Wait until a worker has begun, and loaded a model where *wanted* has one, so that a call's time does not run before.
        Raises :class:`ScanFailedError`."""
        if wanted.model is not None and not any(worker.knows(self._asked.get(wanted, -1)) for worker in self._workers):
            await self.ask(wanted, (), _LOADS)
        elif not any(worker.ready for worker in self._workers):
            await self.ask(Wanted(), (), _STARTS)

    async def ask(self, wanted: Wanted, texts: Sequence[str], seconds: float) -> list[list[Span]]:
        """The spans of each text, as the first free worker finds them. Raises :class:`ScanFailedError`."""
        asked = _Asked(wanted, texts, seconds)
        try:
            return await asyncio.shield(self._begin(asked))
        except asyncio.CancelledError:
            asked.gone = True
            raise

    def _begin(self, asked: _Asked) -> "asyncio.Task[list[list[Span]]]":
        task = asyncio.get_running_loop().create_task(self._ask(asked))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[list[list[Span]]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may have gone

    async def _ask(self, asked: _Asked) -> list[list[Span]]:
        worker = await self._get()
        if asked.gone:  # while it waited for its turn: others wait behind it
            self._put(worker)
            return []
        answered, wanted = False, asked.wanted
        try:
            number = self._asked.setdefault(wanted, len(self._asked))
            found, prefilter = await worker.ask(number, wanted, asked.texts, asked.seconds)
            answered = True
        except ScanFailedError:
            answered = worker.ready
            raise
        except TimeoutError:
            raise ScanFailedError("a detector did not answer in time") from None
        except (OSError, ValueError):
            raise ScanFailedError("a detector died") from None
        except asyncio.CancelledError:
            self._drop(worker)  # the loop ends: no new one
            raise
        finally:
            if answered:
                self._put(worker)
            else:
                self._replace(worker)
        if prefilter is not None and wanted not in self._prefilters:
            made = Prefilter.load(base64.b64decode(prefilter))
            if made is not None:
                self._prefilters[wanted] = made
        return found

    async def _get(self) -> _Worker:
        if not self._workers:
            self._add()
        if self._free:
            return self._free.pop()
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._put(turn.result())  # it was given in the moment in which nobody wanted it any more
            raise

    def _put(self, worker: _Worker) -> None:
        if worker not in self._workers:
            return  # the pool has been closed meanwhile
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._free.append(worker)

    def _add(self) -> None:
        worker = _Worker()
        self._workers.append(worker)
        self._put(worker)

    def _drop(self, worker: _Worker) -> bool:
        if worker not in self._workers:
            return False  # dropped before, or the pool has been closed meanwhile
        self._workers.remove(worker)
        worker.close()
        return True

    def _replace(self, worker: _Worker) -> None:
        if self._drop(worker):
            if worker.ready:
                self._add()
            else:  # one that never began would not the next time; the next question tries
                self._refuse("the detector does not start")

    def _refuse(self, why: str) -> None:
        while self._waiting and not self._workers:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(ScanFailedError(why))

    async def aclose(self) -> None:
        """End the workers once what they are asked is answered, which takes a bounded time."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.close()

    def close(self) -> None:
        """End the workers at once; the next question starts new ones."""
        workers, self._workers, self._free = self._workers, [], []
        for worker in workers:
            worker.close()
        self._refuse("the scanner is closed")


_pools: list[Pool] = []
_here = threading.local()


def pool() -> Pool:
    """The pool of this thread: workers answer to one event loop."""
    mine: Pool | None = getattr(_here, "pool", None)
    if mine is None:
        mine = _here.pool = Pool()
        _pools.append(mine)
    return mine


@atexit.register
def _close() -> None:
    for each in _pools:
        each.close()
