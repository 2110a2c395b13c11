"""Who gets which connection.

Law: **connections are shared only between calls to the same place under the same trust**: scheme, host, port, roots
and pinned address. Kept ones are reused last in, first out; calls beyond the cap wait first come, first served.

**What is sent twice.** A kept connection may be closed by the provider just as we write. Before each reuse the kernel
is asked whether the peer has sent or closed anything, so what remains is the time a FIN is on its way; then nobody
can know whether the call was processed. The rule is Go's (net/http): sent again, once, on a fresh connection, only
where not one byte of an answer came, the body is at hand, and the method is idempotent or the caller gave an
``Idempotency-Key``. Any other POST fails with ``upstream_error``, which SDKs retry by themselves: a model call costs
money, and paying twice for one is not ours to choose.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress

from douane.call import Target
from douane.errors import UpstreamError
from douane.upstream.answer import Answer
from douane.upstream.connection import Connection, StaleError
from douane.upstream.dial import Dialer
from douane.upstream.request import encode, repeatable
from douane.upstream.settings import Limits, Timeouts
from douane.upstream.websocket import Handshake, WebSocket

__all__ = ["Pool"]

type _Key = tuple[str, str, int, str, str]

_TIMEOUTS = Timeouts()
_LIMITS = Limits()


class Pool:
    """For one event loop. *proxy*: reach every target by CONNECT through it."""

    def __init__(self, timeouts: Timeouts = _TIMEOUTS, limits: Limits = _LIMITS, *,
                 proxy: Target | None = None) -> None:
        self._limits = limits
        self._dial = Dialer(timeouts, limits, proxy)
        self._lanes: dict[_Key, _Lane] = {}
        self._sockets: set[WebSocket] = set()
        self._closed = False

    async def request(self, target: Target, method: bytes, path: bytes, headers: Iterable[tuple[bytes, bytes]],
                      body: bytes | AsyncIterable[bytes] = b"") -> Answer:
        """Send one request; its answer as soon as the head has come (and what came of the body with it).

        *path* is sent as it is: raw, with the query, ``target.base_path`` already in it. Host, framing and hop-by-hop
        fields are written here (:func:`douane.upstream.request.encode`). A body of bytes has a content-length, an
        iterable goes out in chunks; the iterable stays the caller's, who closes it. An answer that comes before the
        body is sent ends the sending.

        Raises ValueError for what cannot be sent, UpstreamError (``upstream_error``, ``upstream_timeout``), and
        whatever the iterable raises. Cancelled at any moment, it closes the connection."""
        head = encode(target, method, path, headers, body)
        lane = self._lane(target)
        connection = lane.idle() or await lane.take()
        try:
            return await connection.exchange(method, head, body)
        except StaleError:
            if not isinstance(body, bytes) or not repeatable(method, head):
                raise
        connection = await self._lane(target).take()
        return await connection.exchange(method, head, body)

    async def websocket(self, target: Target, path: bytes, headers: Iterable[tuple[bytes, bytes]],
                        subprotocols: list[str], max_size: int) -> tuple[WebSocket, Handshake]:
        """Open a WebSocket, by a connection of its own; *path* and *headers* as for :meth:`request`. *max_size*: bytes of one
        message. Where the handshake's status is not 101 it is refused, and the caller closes it all the same. Raises
        ValueError, UpstreamError."""
        if self._closed:
            raise _shut()
        if len(self._sockets) >= self._limits.per_target:
            raise UpstreamError("upstream_error", "too many WebSockets are open")
        one = WebSocket(target, subprotocols, max_size)
        self._sockets.add(one)
        one.gone.add_done_callback(lambda _: self._sockets.discard(one))
        try:
            await self._dial.open(target, one)
        except BaseException:
            self._sockets.discard(one)
            raise
        try:
            async with asyncio.timeout(self._dial.timeouts.connect):
                return one, await one.handshake(target, path, headers)
        except TimeoutError:
            one.abort()
            raise UpstreamError("upstream_timeout", f"{one.name} did not upgrade to WebSocket in time") from None
        except BaseException:
            one.abort()
            raise

    async def aclose(self) -> None:
        """Close every connection; calls under way end with UpstreamError. Returns once the sockets are closed."""
        self._closed = True
        for one in list(self._sockets):
            one.abort()
            await one.gone
        lanes = list(self._lanes.values())
        for lane in lanes:
            lane.close()
        for lane in lanes:
            await lane.emptied()

    def _lane(self, target: Target) -> "_Lane":
        key = (target.scheme, target.host, target.port, target.ca, target.address)
        lane = self._lanes.get(key)
        if lane is None:
            if self._closed:
                raise _shut()
            lane = _Lane(lambda: self._dial(target), self._limits, lambda: self._lanes.pop(key, None))
            self._lanes[key] = lane
        return lane


def _shut() -> UpstreamError:
    return UpstreamError("upstream_error", "the gateway is shutting down")


class _Lane:
    """The connections to one place. A *slot* is the right to one of them; it is counted in ``_slots`` until it is
    given up, and passes from hand to hand while calls wait."""

    def __init__(self, dial: Callable[[], Awaitable[Connection]], limits: Limits,
                 on_empty: Callable[[], object]) -> None:
        self._dial = dial
        self._limits = limits
        self._on_empty = on_empty
        self._slots = 0
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | UpstreamError | None]] = deque()
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    def idle(self) -> Connection | None:
        """A kept connection, the one used last. (While calls wait there is none.)"""
        while self._idle:
            connection = self._idle.pop()
            if connection.clean():
                return connection
            connection.abort()
        return None

    async def take(self) -> Connection:
        """A connection other than an idle one: dialled where there is room, waited for where there is none."""
        if self._closed:
            raise _shut()
        if self._slots < self._limits.per_target:
            self._slots += 1
            return await self._new()
        given = await self._turn()
        while given is not None and not given.clean():
            given.abort()  # lost on the way here; the next slot is ours still
            given = await self._turn(first=True)
        return given or await self._new()

    async def _turn(self, first: bool = False) -> Connection | None:
        """Wait for a connection, or (None) a slot."""
        future: asyncio.Future[Connection | UpstreamError | None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if first else self._waiting.append)(future)
        try:
            given = await future
        except BaseException:
            if future.cancelled() or not future.done():
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(future)
            else:
                self._give_back(future.result())
            raise
        if isinstance(given, UpstreamError):
            raise given
        return given

    def _give_back(self, given: Connection | UpstreamError | None) -> None:
        if isinstance(given, Connection):
            self.freed(given)
        elif given is None:
            self._vacate()

    async def _new(self) -> Connection:
        try:
            connection = await self._dial()
        except BaseException:
            self._vacate()
            raise
        if not connection.adopt(self):
            self._vacate()
            raise UpstreamError("upstream_error", f"{connection.name} closed the connection as soon as it was made")
        self._all.add(connection)
        if self._closed:
            connection.abort()
            raise _shut()
        return connection

    def _next(self, given: Connection | None) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(given)
                return True
        return False

    def _vacate(self) -> None:
        if not self._next(None):
            self._slots -= 1
        if not self._slots:
            self._on_empty()
        if self._emptied is not None and not self._all and not self._emptied.done():
            self._emptied.set_result(None)

    # What a connection tells its owner.

    def freed(self, connection: Connection) -> None:
        if self._next(connection):
            return
        if self._closed or len(self._idle) >= self._limits.idle_per_target:
            connection.abort()
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._vacate()

    # The end.

    def close(self) -> None:
        self._closed = True
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(_shut())
        for connection in list(self._all):
            connection.fail(_shut())

    async def emptied(self) -> None:
        """Wait until every connection is closed (those being dialled close themselves)."""
        if self._all:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied
