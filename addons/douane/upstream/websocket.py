"""A WebSocket to a provider: the client's side of RFC 6455, over the same dialler as every other call.

Law: **memory does not grow with what the other side does not read or does not stop sending.** The socket stops reading
while messages wait, ``send`` waits while the provider does not take more, a message has a limit and so has the number of
its pieces. No extension is offered, so that a message is as long as it is on the wire.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from douane.call import Target
from douane.errors import UpstreamError
from douane.upstream.attached import Attached
from douane.upstream.request import encode

__all__ = ["CLOSE_SECONDS", "Closed", "Handshake", "WebSocket"]

HIGH_WATER = 256 * 1024
"""Bytes of messages held unread at which the connection stops reading."""
MOST_PIECES = 4096
"""Fragments of one message: empty ones count too."""
CLOSE_SECONDS = 5.0
"""For the provider to answer our closing."""

_quiet = logging.getLogger("douane.websocket")
_quiet.setLevel(logging.WARNING)  # at DEBUG the library would log every message


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended. *code* 1006: without a word."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the provider answered; *status* 101: it is open."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    subprotocol: str | None = None


class WebSocket(Attached):
    """Opened by :meth:`douane.upstream.pool.Pool.websocket`; one reader, one writer."""

    _raw: asyncio.Transport
    _transport: asyncio.Transport

    def __init__(self, target: Target, subprotocols: list[str], max_size: int) -> None:
        self.name = f"{target.host}:{target.port}"
        uri = WebSocketURI(target.scheme == "https", target.host, target.port, "/", "", None)
        self._protocol = ClientProtocol(uri, subprotocols=[Subprotocol(one) for one in subprotocols] or None,
                                        max_size=max_size, logger=_quiet)
        self._subprotocols = subprotocols
        self._inbox: deque[str | bytes] = deque()
        self._held = 0
        self._pieces: list[bytes] = []
        self._binary = False
        self._closed: Closed | None = None
        self._paused = False
        self._full = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._answered: asyncio.Future[Handshake | UpstreamError] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the socket is closed."""

    async def handshake(self, target: Target, path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Handshake:
        """Ask for the upgrade. Raises ValueError for what cannot be sent, UpstreamError."""
        head = encode(target, b"GET", path, headers, b"").removesuffix(b"\r\n")
        more = [b"upgrade: websocket", b"connection: Upgrade", b"sec-websocket-version: 13",
                b"sec-websocket-key: " + self._protocol.key.encode()]
        if self._subprotocols:
            more.append(b"sec-websocket-protocol: " + ", ".join(self._subprotocols).encode("latin-1"))
        self._transport.write(head + b"\r\n".join([*more, b"", b""]))
        answer = await self._answered
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def receive(self) -> str | bytes | Closed:
        """The next message; once it is closed, how."""
        while not self._inbox:
            if self._closed is not None:
                return self._closed
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._inbox.popleft()
        self._held -= len(message)
        if self._paused and self._held < HIGH_WATER:
            self._paused = False
            self._raw.resume_reading()
        return message

    async def send(self, text: str) -> None:
        """Raises UpstreamError where it is closed."""
        await self._writable()
        try:
            self._protocol.send_text(text.encode())
        except InvalidState:
            raise UpstreamError("upstream_error", f"{self.name} has closed the session") from None
        self._flush()

    async def close(self, code: int, reason: str) -> None:
        """Close in order, and wait a little for the other side to do the same. Idempotent."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        if self._paused:
            self._paused = False
            self._raw.resume_reading()
        self._inbox.clear()
        await asyncio.wait({self.gone}, timeout=CLOSE_SECONDS)
        self.abort()

    def abort(self) -> None:
        self._transport.abort()

    async def _writable(self) -> None:
        if self._full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()

    # What asyncio calls.

    def attach(self, raw: asyncio.Transport, transport: asyncio.Transport) -> None:
        self._raw = raw
        self._transport = transport

    def pause_writing(self) -> None:
        self._full = True
        self._raw.pause_reading()  # each ping is answered: who reads nothing must not make us write more

    def resume_writing(self) -> None:
        self._full = False
        if not self._paused:
            self._raw.resume_reading()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._begin(event)
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()
        if self._protocol.parser_exc is not None:
            self._end()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if not self.gone.done():
            self.gone.set_result(None)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _begin(self, response: Response) -> None:
        flaw = self._protocol.handshake_exc
        headers = tuple((name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
                        for name, value in response.headers.raw_items())
        answer: Handshake | UpstreamError
        if response.status_code == 101 and isinstance(flaw, InvalidHandshake):
            answer = UpstreamError("upstream_error", f"{self.name} does not upgrade to WebSocket as it should")
        else:
            answer = Handshake(response.status_code, headers, bytes(response.body or b""), self._protocol.subprotocol)
        if not self._answered.done():
            self._answered.set_result(answer)

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._binary = frame.opcode is Opcode.BINARY
            self._pieces = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._pieces.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self._end()
            return
        else:
            return
        if len(self._pieces) > MOST_PIECES:
            self._protocol.fail(1009, "too many fragments")
            self._end()
        elif frame.fin:
            self._hold(b"".join(self._pieces))

    def _hold(self, data: bytes) -> None:
        self._pieces = []
        try:
            message: str | bytes = data if self._binary else data.decode()
        except UnicodeDecodeError:
            self._protocol.fail(1007, "no UTF-8")
            self._end()
            return
        self._inbox.append(message)
        self._held += len(message)
        if self._held >= HIGH_WATER and not self._paused:
            self._paused = True
            self._raw.pause_reading()
        self._wake()

    def _end(self) -> None:
        if not self._answered.done():
            broken = isinstance(self._protocol.handshake_exc, InvalidMessage)
            how = "does not answer in HTTP/1.1" if broken else "closed the connection without an answer"
            self._answered.set_result(UpstreamError("upstream_error", f"{self.name} {how}"))
        if self._closed is None:
            close = self._protocol.close_rcvd or self._protocol.close_sent
            self._closed = Closed(1006) if close is None else Closed(close.code, close.reason)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
