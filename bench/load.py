"""The load: raw HTTP/1.1 over TLS, through CONNECT or not, in closed loops or at a fixed rate.

Law: a call counts only when its answer is a whole 200; anything else ends the run with what came instead. Every loop is
bounded in time.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.bodies import PACE, Bodies, Door
from bench.mock import EVENTS

__all__ = ["BenchError", "Client", "Sample", "at_rate", "closed_loop", "connect", "new_connections", "paced_streams"]

_PATIENCE = 30.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_STAMP = re.compile(rb"@([0-9a-f]{16})@")
_LAST = b"0\r\n\r\n"
clock = time.monotonic


class BenchError(Exception):
    """A target that does not start, or does not answer as it should."""


@dataclass(slots=True)
class Sample:
    """One burst. Latencies in seconds; *events* one-way."""

    calls: int = 0
    seconds: float = 0.0
    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    cpu: float = 0.0


class Client(asyncio.Protocol):
    """One keep-alive connection: :meth:`send`, and *done* is called with it once the answer is whole."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.begun = 0.0
        self.sample = Sample()
        self.failed: Callable[[str], None] = _ignore
        self.restores = False
        self._done: Callable[[Client], None] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's derive from nothing

    def send(self, request: bytes, done: Callable[["Client"], None], begun: float) -> None:
        self.begun, self._done = begun, done
        self._buffer, self._need, self._first, self._scanned = b"", 0, True, 0
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        if not self._need:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if buffer[9:12] != b"200":
                self._fail(f"answered {buffer[:300]!r}")
                return
            length = _LENGTH.search(buffer, 0, end + 2)
            self._need = end + 4 + int(length[1]) if length else -1
        if self._need > 0:
            if len(buffer) >= self._need:
                self._finish()
            return
        if self._first and b"data:" in buffer:
            self._first = False
            self.sample.first.append(clock() - self.begun)
        for stamp in _STAMP.finditer(buffer, self._scanned):
            self.sample.events.append((time.monotonic_ns() - int(stamp[1], 16)) / 1e9)
            self._scanned = stamp.end()
        if buffer.endswith(_LAST):
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        if self._done:
            self._fail(f"closed the connection ({error or 'no error'}) after {self._buffer[:300]!r}")

    def _finish(self) -> None:
        if self.restores and b"<EMAIL_" in self._buffer:
            self._fail("left a placeholder in its answer")
            return
        done, self._done = self._done, None
        self.sample.calls += 1
        self.sample.latency.append(clock() - self.begun)
        if done:
            done(self)

    def _fail(self, why: str) -> None:
        self._done = None
        self.failed(why)


class _Tunnel(asyncio.Protocol):
    """Until a proxy has answered CONNECT."""

    def __init__(self, ready: asyncio.Future[None]) -> None:
        self._ready = ready
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if b"\r\n\r\n" in self._buffer and not self._ready.done():
            if self._buffer[9:12] == b"200":
                self._ready.set_result(None)
            else:
                self._ready.set_exception(BenchError(f"CONNECT was answered {self._buffer[:300]!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(BenchError(f"CONNECT was cut ({error or 'no error'})"))


async def connect(door: Door) -> Client:
    """A connection ready for a call. Raises BenchError or OSError."""
    loop = asyncio.get_running_loop()
    if not door.connect:
        _, client = await loop.create_connection(Client, "127.0.0.1", door.port, ssl=door.context,
                                                 server_hostname=door.name)
        client.restores = door.restores
        return client
    ready: asyncio.Future[None] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Tunnel(ready), "127.0.0.1", door.port)
    transport.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (door.connect.encode(), door.connect.encode()))
    await ready
    client = Client()
    client.restores = door.restores
    tls = await loop.start_tls(transport, client, door.context, server_hostname=door.name)
    if tls is None:
        raise BenchError("the connection went during its handshake")
    client.connection_made(tls)
    return client


async def closed_loop(clients: Sequence[Client], bodies: Bodies, seconds: float) -> Sample:
    """Each connection sends its next call as soon as it has the answer: one at least, *seconds* long."""
    sample, ended = _start(clients)
    left = len(clients)
    until = clock() + seconds

    def send(client: Client) -> None:
        client.send(bodies.request(), again, clock())

    def again(client: Client) -> None:
        nonlocal left
        if clock() < until:
            send(client)
            return
        left -= 1
        if not left and not ended.done():
            ended.set_result(None)

    def begin() -> None:
        for client in clients:
            send(client)

    return await _run(sample, ended, begin)


async def at_rate(clients: Sequence[Client], bodies: Bodies, rate: float, seconds: float) -> Sample:
    """Calls fall due at a fixed rate whatever the target does; one that finds no free connection waits, and its latency
    counts from when it was due (no coordinated omission)."""
    sample, ended = _start(clients)
    loop = asyncio.get_running_loop()
    free, due = list(clients), deque[float]()
    begin = clock()
    total, issued = int(rate * seconds), 0

    def dispatch() -> None:
        while free and due:
            client = free.pop()
            client.send(bodies.request(), back, due.popleft())
        if issued == total and not due and len(free) == len(clients) and not ended.done():
            ended.set_result(None)

    def back(client: Client) -> None:
        free.append(client)
        dispatch()

    def tick() -> None:
        nonlocal issued
        now = clock()
        while issued < total and begin + issued / rate <= now:
            due.append(begin + issued / rate)
            issued += 1
        dispatch()
        if issued < total:
            loop.call_later(begin + issued / rate - clock(), tick)

    return await _run(sample, ended, tick)


async def paced_streams(clients: Sequence[Client], bodies: Bodies, *, aligned: bool) -> Sample:
    """One paced stream on each connection: begun all at once where *aligned*, else spread over one pause."""
    sample, ended = _start(clients)
    loop = asyncio.get_running_loop()
    left = len(clients)

    def done(client: Client) -> None:
        nonlocal left
        left -= 1
        if not left and not ended.done():
            ended.set_result(None)

    def send(client: Client) -> None:
        client.send(bodies.request(), done, clock())

    def begin() -> None:
        for place, client in enumerate(clients):
            wait = 0.0 if aligned else PACE / 1000 * place / len(clients)
            loop.call_later(wait, send, client)

    await _run(sample, ended, begin)
    if len(sample.events) < 0.99 * EVENTS * len(clients):
        raise BenchError(f"{len(sample.events)} events of {EVENTS * len(clients)} came whole")
    return sample


async def new_connections(door: Door, bodies: Bodies, parallel: int, seconds: float) -> Sample:
    """A new connection for each call: CONNECT where there is a proxy, TLS, one call, close."""
    total = Sample()
    begin = clock()

    async def worker() -> None:
        while (begun := clock()) < begin + seconds:
            client = await asyncio.wait_for(connect(door), _PATIENCE)
            await closed_loop([client], bodies, 0.0)
            total.calls += 1
            total.latency.append(clock() - begun)
            client.transport.close()

    await asyncio.gather(*[worker() for _ in range(parallel)])
    total.seconds = clock() - begin
    return total


def _start(clients: Sequence[Client]) -> tuple[Sample, asyncio.Future[None]]:
    sample = Sample()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(why: str) -> None:
        if not ended.done():
            ended.set_exception(BenchError(why))

    for client in clients:
        client.sample, client.failed = sample, failed
    return sample, ended


async def _run(sample: Sample, ended: asyncio.Future[None], begin: Callable[[], object]) -> Sample:
    started = clock()
    begin()
    try:
        await asyncio.wait_for(ended, _PATIENCE)
    except TimeoutError:
        raise BenchError(f"no end within {_PATIENCE:.0f} s, {sample.calls} calls answered") from None
    sample.seconds = clock() - started
    return sample


def _ignore(why: str) -> None:
    """A connection nobody uses may end as it likes."""
