"""mitmproxy layers of ours: the doorway, and what lies behind it: a governed host, or a tunnel.

Law: the CONNECT host alone decides what is governed. A governed host is never tunnelled: not under another port, not by a
ClientHello that names it inside a tunnel. Bytes to a governed host that are not TLS end the connection.
"""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from OpenSSL import SSL

from douane.call import Caller
from douane.edge import Govern, Refuse, Tunnel
from douane.hosts.connect import MAX_CONNECT_HEAD, ConnectPoint, parse_connect, server_name
from douane.hosts.http import HttpServer
from douane.hosts.internals import ClientTLSLayer, Context, commands, events, layer, starts_like_tls_record
from douane.hosts.reach import DIAL_SECONDS
from douane.hosts.transport import AsgiLayer, DouaneHandler

__all__ = ["Doorkeeper", "Doorway", "Vetoed"]

HEAD_SECONDS = 30.0
"""What a client may take to say whom it wants, and again to finish its TLS handshake."""

type Generated = Generator[commands.Command, Any, None]


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """What the layers need of the house."""

    decide: Callable[[str, int, Literal["http", "https"]], Govern | Tunnel | Refuse]
    may_pass: Callable[[Caller], Refuse | None]
    """Whether this caller may tunnel and call at all: None, or why not (``unauthenticated``)."""
    server: HttpServer
    refused: Callable[[Caller, str, Refuse], None]
    """Told of every CONNECT that is turned away: caller, ``host:port``, why."""
    tunnelled: Callable[[], None]
    context: Callable[[str], SSL.Context]
    """The TLS context with the leaf for a governed host."""
    listeners: Callable[[], list[tuple[str, int]]]
    governs: Callable[[str], bool]
    """Whether a server name belongs to a governed host, on whatever port."""


class Doorway(layer.Layer):
    """The first bytes of a client: a CONNECT head, or a plain HTTP request for the proxy."""

    def __init__(self, context: Context, handler: DouaneHandler, keeper: Doorkeeper) -> None:
        super().__init__(context)
        self._handler = handler
        self._keeper = keeper
        self._buffer = b""
        self._peer = context.client.peername[0] if context.client.peername else ""
        self._timer: asyncio.TimerHandle | None = None

    def _handle_event(self, event: events.Event) -> Generated:
        if isinstance(event, events.Start):
            self._timer = _patience(self._handler)
        elif isinstance(event, events.DataReceived):
            self._buffer += event.data
            yield from self._read_head()
        elif isinstance(event, events.ConnectionClosed):
            self._stop_timer()
            yield commands.CloseConnection(self.context.client)

    def _read_head(self) -> Generated:
        start = self._buffer[:8]
        if start != b"CONNECT "[: len(start)]:
            if starts_like_tls_record(self._buffer):
                yield from self._turn_away(b"", 400)
                return
            yield from self._plain()
        elif b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            self._stop_timer()
            yield from self._connect(head, rest)
        elif len(self._buffer) > MAX_CONNECT_HEAD:
            yield from self._turn_away(b"The CONNECT head is too large.\n", 400)

    def _connect(self, head: bytes, rest: bytes) -> Generated:
        try:
            host, port, caller = parse_connect(head, self._peer)
        except ValueError as error:
            yield from self._turn_away(f"Bad CONNECT request: {error}.\n".encode(), 400)
            return
        keeper = self._keeper
        stranger = keeper.may_pass(caller)
        decision = stranger or keeper.decide(host, port, "https")
        if isinstance(decision, Refuse):
            keeper.refused(caller, f"{host}:{port}", decision)
            status = 407 if decision.code == "unauthenticated" else 403
            yield from self._turn_away(f"Douane: {decision.reason}.\n".encode(), status)
        elif isinstance(decision, Govern):
            yield commands.SendData(self.context.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            yield from self._become(Governed(self.context, self._handler, keeper, decision, caller), rest)
        else:
            yield from self._become(Tunnelled(self.context, self._handler, keeper, decision, caller), rest)

    def _plain(self) -> Generated:
        """HTTP in absolute form, or somebody who takes the proxy for a web server; the app tells them apart."""
        self._stop_timer()
        point = ConnectPoint(Caller(self._peer))
        asgi = AsgiLayer(self.context, self._handler,
                         lambda: self._keeper.server.protocol({"door": point}, absolute=True), None)
        yield from self._become(asgi, self._buffer)

    def _become(self, child: layer.Layer, data: bytes) -> Generated:
        self._buffer = b""
        self._handle_event = child.handle_event  # type: ignore[method-assign]
        yield from child.handle_event(events.Start())
        if data:
            yield from child.handle_event(events.DataReceived(self.context.client, data))

    def _turn_away(self, text: bytes, status: int) -> Generated:
        self._stop_timer()
        if text:
            reason = {400: "Bad Request", 403: "Forbidden", 407: "Proxy Authentication Required"}[status]
            ask = "Proxy-Authenticate: Basic realm=\"douane\"\r\n" if status == 407 else ""
            head = (f"HTTP/1.1 {status} {reason}\r\n{ask}Content-Type: text/plain; charset=utf-8\r\n"
                    f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n")
            yield commands.SendData(self.context.client, head.encode() + text)
        yield commands.CloseConnection(self.context.client)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _patience(handler: DouaneHandler) -> asyncio.TimerHandle:
    """Close the client's connection in HEAD_SECONDS, unless cancelled."""
    def too_slow() -> None:
        if handler.client in handler.transports:
            handler.close_connection(handler.client)

    return asyncio.get_running_loop().call_later(HEAD_SECONDS, too_slow)


class Governed(layer.Layer):
    """A tunnel to a governed host: TLS is ours, then HTTP for the ASGI app. Bytes that are not TLS end it."""

    def __init__(self, context: Context, handler: DouaneHandler, keeper: Doorkeeper, decision: Govern, caller: Caller) -> None:
        super().__init__(context)
        self._handler, self._keeper, self._decision, self._caller = handler, keeper, decision, caller
        self._first = b""
        self._timer: asyncio.TimerHandle | None = None
        """Runs until the handshake is done."""

    def _handle_event(self, event: events.Event) -> Generated:
        if isinstance(event, events.Start):
            self._timer = _patience(self._handler)
        elif isinstance(event, events.DataReceived):
            self._first += event.data
            if len(self._first) >= 3:
                yield from self._choose()
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _choose(self) -> Generated:
        if not starts_like_tls_record(self._first):
            self._keeper.refused(self._caller, self._decision.host, Refuse("host_not_allowed", "no TLS inside the tunnel"))
            yield commands.CloseConnection(self.context.client)
            return
        client = self.context.client
        self.context.server.address = (self._decision.host, 443)
        outer = ClientTLSLayer(self.context)
        outer.child_layer = AsgiLayer(self.context, self._handler, self._protocol, outer)
        client.alpn_offers = []
        self._handle_event = outer.handle_event  # type: ignore[method-assign]
        yield from outer.handle_event(events.Start())
        yield from outer.handle_event(events.DataReceived(client, self._first))
        self._first = b""

    def _protocol(self) -> asyncio.Protocol:
        if self._timer is not None:
            self._timer.cancel()
        point = ConnectPoint(self._caller, self._decision.host, (self.context.client.sni or "").lower().removesuffix("."), True)
        return self._keeper.server.protocol({"door": point}, absolute=False)


class Vetoed(str):
    """Why a dial was refused, as ``server.error`` carries it; any other text there is a failure, not a refusal."""

    __slots__ = ()


class Tunnelled(layer.Layer):
    """Bytes both ways, undecrypted; the first of the client's are looked at for the name of a governed host."""

    def __init__(self, context: Context, handler: DouaneHandler, keeper: Doorkeeper, to: Tunnel, caller: Caller) -> None:
        super().__init__(context)
        self._handler, self._keeper, self._caller = handler, keeper, caller
        self._peeked: bytes | None = b""
        context.server.address = (to.host, to.port)
        self._name = f"{to.host}:{to.port}"

    def _handle_event(self, event: events.Event) -> Generated:
        client, server = self.context.client, self.context.server
        if isinstance(event, events.Start):
            timer = asyncio.get_running_loop().call_later(DIAL_SECONDS, self._give_up)
            error = yield commands.OpenConnection(server)
            timer.cancel()
            if error:
                yield from self._no_tunnel(error)
                return
            self._keeper.tunnelled()
            yield commands.SendData(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        elif isinstance(event, events.DataReceived):
            if event.connection is server:
                yield commands.SendData(client, event.data)
            else:
                yield from self._from_client(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._closed(event.connection is client)

    def _no_tunnel(self, error: str) -> Generated:
        status, why = "502 Bad Gateway", self.context.server.error or error
        if isinstance(why, Vetoed):
            status = "403 Forbidden"
            self._keeper.refused(self._caller, self._name, Refuse("host_not_allowed", why))
        text = f"Douane: no tunnel to {self._name}: {why}.\n".encode()
        head = (f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n")
        yield commands.SendData(self.context.client, head.encode() + text)
        yield commands.CloseConnection(self.context.client)

    def _from_client(self, data: bytes) -> Generated:
        if self._peeked is None:
            yield commands.SendData(self.context.server, data)
            return
        self._peeked += data
        try:
            name = server_name(self._peeked)
        except ValueError:
            yield from self._end("an unreadable ClientHello")
            return
        if name and self._keeper.governs(name):
            yield from self._end(f"a ClientHello for {name}")
        elif name is not None:
            first, self._peeked = self._peeked, None
            yield commands.SendData(self.context.server, first)

    def _end(self, what: str) -> Generated:
        self._keeper.refused(self._caller, self._name, Refuse("host_mismatch", f"{what} in a tunnel to {self._name}"))
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)

    def _give_up(self) -> None:
        """mitmproxy dials without a time-out of its own; cancelled, it reports a failed connection."""
        io = self._handler.transports.get(self.context.server)
        if io is not None and io.handler is not None and not self.context.server.connected:
            io.handler.cancel("timed out")

    def _closed(self, by_client: bool) -> Generated:
        client, server = self.context.client, self.context.server
        if not (client.connected and server.connected) or not (
                client.state & client.state.CAN_READ or server.state & server.state.CAN_READ):
            for one in (server, client):
                if one.connected:
                    yield commands.CloseConnection(one)
        else:
            yield commands.CloseTcpConnection(server if by_client else client, half_close=True)
