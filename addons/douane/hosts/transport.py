"""mitmproxy's decrypted stream as an asyncio transport.

Law: bytes flow both ways under backpressure. A protocol that pauses reading stops the socket's reader
(:class:`DouaneHandler`), a socket that does not take more pauses the protocol.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Generator, Iterable
from typing import Any

from OpenSSL import SSL

from douane.hosts.internals import (
    ClientTLSLayer,
    ConnectionState,
    Context,
    ProxyConnectionHandler,
    commands,
    events,
    layer,
    server_hooks,
)
from douane.logs import where

__all__ = ["AsgiLayer", "DouaneHandler", "LayerTransport"]

log = logging.getLogger("douane.hosts")

SLICE = 32 * 1024
"""Bytes that OpenSSL is given at once: what it makes of them fits into one read of twice as much."""
HIGH_WATER = 256 * 1024
"""Bytes in a client's socket buffer above which the protocol is asked to pause."""

type Generated = Generator[commands.Command, Any, None]


class DouaneHandler(ProxyConnectionHandler):
    """One client connection. Reads only while ``readable`` is set; dials nothing that our hook has not approved."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.readable = asyncio.Event()
        self.readable.set()
        self.asgi: AsgiLayer | None = None
        """Who reads and writes here once it is HTTP: it heeds the pressure of its writes by itself."""

    async def drain_writers(self) -> None:
        """Awaited before more is read."""
        if self.asgi is None:
            await super().drain_writers()
        if not self.readable.is_set():
            await self.readable.wait()

    async def server_event(self, event: events.Event) -> None:
        """What a client sends once it is HTTP goes past the other layers, which have nothing to say to it and take a fifth of a
        call to say so; the end of its TLS is theirs."""
        if self.asgi is not None and type(event) is events.DataReceived and event.connection is self.client:
            asgi = self.asgi
            try:
                if asgi.hear(event.data):
                    return
            except Exception as error:  # noqa: BLE001 - the host's outermost guard: what is not understood goes no further
                if not isinstance(error, SSL.Error):  # an alert of the client's, or what is no TLS
                    log.error("a connection failed: %s", where(error))
                asgi.lose()
                self.close_connection(self.client)
                return
            event = events.DataReceived(self.client, b"")
        await super().server_event(event)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        if isinstance(hook, server_hooks.ServerConnectHook):
            # mitmproxy logs and skips a hook that raises: the veto stands before the hook may lift it.
            hook.data.server.error = "not an approved tunnel"
        await super().handle_hook(hook)

    def wake(self, event: events.Event) -> None:
        """Hand *event* to the layers now. Must not be called from inside a layer."""
        step = self.server_event(event)
        try:
            step.send(None)
        except StopIteration:
            return
        step.close()
        raise RuntimeError("mitmproxy's server_event waited: it was called from inside a layer")


class _Close(events.Event):
    """The transport was closed and has sent what it held."""


_CLOSE = _Close()


class LayerTransport(asyncio.Transport):
    """What the HTTP protocol writes to. Writes of one turn of the loop leave as one.

    *outer*: the TLS layer between us and the socket, None where there is none. What is written goes to its OpenSSL
    connection and on to the socket without a round through mitmproxy's layers, which would cost a tenth of a call."""

    def __init__(self, handler: DouaneHandler, loop: asyncio.AbstractEventLoop, outer: ClientTLSLayer | None) -> None:
        client = handler.client
        super().__init__({"peername": client.peername[:2], "sockname": client.sockname[:2], "sslcontext": outer is not None})
        self._handler = handler
        self._outer = outer
        self._loop = loop
        self._out: list[bytes] = []
        self._scheduled = False
        self._closing = False
        self._paused = False
        self._draining: asyncio.Task[None] | None = None
        self.protocol: asyncio.Protocol | None = None

    # -- the protocol's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        self._out.append(bytes(data))
        self._schedule()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._schedule()

    def abort(self) -> None:
        self._out.clear()
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("a streaming protocol is needed")
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        if self.protocol is None:
            raise RuntimeError("no protocol yet")
        return self.protocol

    def pause_reading(self) -> None:
        self._handler.readable.clear()

    def resume_reading(self) -> None:
        self._handler.readable.set()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._out)) + self._socket_buffer()

    # -- the layer's side

    def closed(self) -> None:
        """The connection is gone."""
        self._closing = True
        self._handler.readable.set()
        if self._draining is not None:
            self._draining.cancel()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        io = self._handler.transports.get(self._handler.client)
        if io is None or io.writer is None:
            return
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._send(data, io.writer)
            if not self._paused and self._socket_buffer() > HIGH_WATER and self.protocol is not None:
                self._paused = True
                self.protocol.pause_writing()
                self._draining = self._loop.create_task(self._drain())
        if self._closing:
            self._handler.wake(_CLOSE)

    def _send(self, data: bytes, writer: Any) -> None:
        if writer.is_closing():
            return
        if self._outer is None:
            writer.write(data)
            return
        tls = self._outer.tls
        try:
            for start in range(0, len(data), SLICE):
                tls.sendall(data[start : start + SLICE] if len(data) > SLICE else data)
                writer.write(tls.bio_read(2 * SLICE))
        except SSL.Error:
            return  # the peer has ended its TLS, or broken it; what it may still send is not ours to answer

    def flush_tls(self) -> None:
        """What OpenSSL has to say by itself: an alert, an answer to a key update."""
        io = self._handler.transports.get(self._handler.client)
        if self._outer is not None and io is not None and io.writer is not None and not io.writer.is_closing():
            try:
                io.writer.write(self._outer.tls.bio_read(2 * SLICE))
            except SSL.WantReadError:
                return

    def _socket_buffer(self) -> int:
        io = self._handler.transports.get(self._handler.client)
        if io is None or io.writer is None:
            return 0
        transport = getattr(io.writer, "transport", None)
        return 0 if transport is None else int(transport.get_write_buffer_size())

    async def _drain(self) -> None:
        io = self._handler.transports.get(self._handler.client)
        with contextlib.suppress(OSError):
            if io is not None and io.writer is not None:
                await io.writer.drain()
        self._paused = False
        if self.protocol is not None:
            self.protocol.resume_writing()


class AsgiLayer(layer.Layer):
    """A mitmproxy layer that is an ASGI server: what comes goes into the protocol, what it writes goes out."""

    def __init__(self, context: Context, handler: DouaneHandler, make: Callable[[], asyncio.Protocol],
                 outer: ClientTLSLayer | None) -> None:
        super().__init__(context)
        self._handler = handler
        self._outer = outer
        self._transport = LayerTransport(handler, asyncio.get_running_loop(), outer)
        self._make = make
        self._stack = contextlib.ExitStack()
        self._open = False

    def hear(self, data: bytes) -> bool:
        """What came from the socket; False where the client has ended its TLS. Raises SSL.Error where it is broken: then what
        came with it is not heard."""
        whole = True
        if self._outer is not None:
            tls, parts = self._outer.tls, []
            tls.bio_write(data)
            try:
                while True:
                    parts.append(tls.recv(65535))
            except SSL.WantReadError:
                if not parts:  # TLS spoke for itself, and may want an answer
                    self._transport.flush_tls()
            except SSL.ZeroReturnError:
                whole = False
            data = parts[0] if len(parts) == 1 else b"".join(parts)
        protocol = self._transport.protocol
        if data and protocol is not None and self._open:
            protocol.data_received(data)
        return whole

    def _handle_event(self, event: events.Event) -> Generated:
        if isinstance(event, events.DataReceived):
            protocol = self._transport.protocol
            if protocol is not None and self._open:
                protocol.data_received(event.data)
        elif isinstance(event, (_Close, events.ConnectionClosed)):
            yield from self._end()
        elif isinstance(event, events.Start):
            # The protocol has its own timers; mitmproxy's watchdog would end a call whose provider is still thinking.
            self._stack.enter_context(self._handler.timeout_watchdog.disarm())
            self._handler.asgi = self
            self._transport.set_protocol(self._make())
            self._open = True
            self._transport.protocol.connection_made(self._transport)  # type: ignore[union-attr]

    def lose(self) -> None:
        """The client has left. Idempotent."""
        self._handler.asgi = None
        if self._open:
            self._open = False
            self._stack.close()
            self._transport.closed()
            if self._transport.protocol is not None:
                self._transport.protocol.connection_lost(None)

    def _end(self) -> Generated:
        """Half-closed is closed: an HTTP client that has sent FIN has left."""
        self.lose()
        if self.context.client.state & ConnectionState.CAN_WRITE:
            yield commands.CloseConnection(self.context.client)
