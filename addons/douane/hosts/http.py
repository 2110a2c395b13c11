"""uvicorn's HTTP protocol, made strict, and all its connections.

Law: what is no clean HTTP/1.1 request is answered 400 and its connection ends; a head, trailers and waiting are bounded.
A server that leaves cuts nobody: each connection's next answer says that it is the last, and only one on which nothing has
been said for ``RESTING_SECONDS`` is closed without.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from douane.asgi import DISCONNECT, Departure
from douane.edge import split_authority
from douane.errors import EnvironmentFailedError
from douane.hosts.served import Config, HttpToolsProtocol, ServerState
from douane.hosts.slots import BACKLOG
from douane.hosts.sockets import MAX_MESSAGE, WebSocketProtocol
from douane.places import Listen

__all__ = ["DRAIN_SECONDS", "HttpProtocol", "HttpServer", "listen"]

DRAIN_SECONDS = 30.0
"""What running calls have when a gateway stops."""
MAX_HEAD = 64 * 1024
"""Bytes of request line and header fields."""
MAX_FIELDS = 200
KEEP_ALIVE_SECONDS = 75
PONG_SECONDS = 60.0
"""For the answer to a ping, of which a WebSocket's client gets one every 20 s."""
STALLED_SECONDS = 60.0
"""A connection with an unfinished request, or none yet, is closed after this long without a byte."""
RESTING_SECONDS = 2.0
"""What a server that leaves gives a connection between requests: a client may be about to send one."""

_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})


class _MalformedError(Exception):
    pass


class _State(ServerState):
    """All connections', with the moment from which on every answer is its connection's last; None: not yet."""

    leaves_since: float | None = None


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, refusing what it tolerates: unbounded heads, several Hosts, absolute-form where none belongs,
    trailers that look like headers, stalled requests.

    *absolute*: whether requests must name a whole URL (a proxy's plain port) or must not (inside a tunnel)."""

    def __init__(self, config: Config, server_state: _State, app_state: dict[str, Any], *, absolute: bool) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self._all = server_state
        self._absolute = absolute
        self._in_message = False
        self._upgrades = False
        self._deaf = False
        self._head_size = 0
        """Bytes since the message began, its head ended or its last body byte: of a head or of trailers."""
        self._heard = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._departure = Departure()
        self._extensions = {DISCONNECT: self._departure}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(STALLED_SECONDS, self._check_stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        self._departure.gone = True
        if self._departure.tell is not None:
            self._departure.tell()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.parser is None or self.transport.is_closing():
            return
        self._heard = self.loop.time()
        self._head_size += len(data)
        super().data_received(data)
        if self._in_message and self._head_size > MAX_HEAD:
            self.send_400_response("The request head or its trailers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        self._in_message = True
        self._upgrades = False

    def on_headers_complete(self) -> None:
        self._check_head()
        self._head_size = 0
        self._upgrades = self._is_handshake()
        super().on_headers_complete()
        if self._all.leaves_since is not None:
            self.say_last()
        self.headers = []  # of trailers: they must not join the headers of a request that may have been judged
        if self.parser.should_upgrade() and not self._should_upgrade():  # what follows the head is no HTTP
            self.cycle.keep_alive = False
            self._deaf = True

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def _is_handshake(self) -> bool:
        """Of a WebSocket, in answer to the one request there is, and inside a tunnel or on a port of our own: through a plain
        proxy it is asked for by CONNECT."""
        if not self.parser.should_upgrade() or self._absolute or self.parser.get_method() != b"GET":
            return False
        return (self.cycle is None or self.cycle.response_complete) and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._deaf = True
        self.app_state = self.scope["state"]
        super().handle_websocket_upgrade()

    def on_body(self, body: bytes) -> None:
        self._head_size = 0  # what is counted from here are trailers
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._head_size = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._heard = self.loop.time()
        super().on_response_complete()

    def say_last(self) -> None:
        """Where there is an answer to come, it is the connection's last, and says so."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def rests_since(self) -> float | None:
        """When the last byte came or went, between requests; None within one."""
        within = self._in_message or (self.cycle is not None and not self.cycle.response_complete)
        return None if within else self._heard

    def _check_head(self) -> None:
        headers = self.headers
        if len(headers) > MAX_FIELDS:
            raise _MalformedError("too many fields")
        if self._head_size > MAX_HEAD and sum(len(name) + len(value) for name, value in headers) > MAX_HEAD:
            raise _MalformedError("head too large")
        hosts = 0
        has_body = False
        for name, value in headers:
            if name not in _FRAMING:
                continue
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                has_body = has_body or value.strip(b"0") != b""
            else:
                has_body = True
                if value.lower() != b"chunked":
                    raise _MalformedError("transfer coding")
        if has_body and self.parser.should_upgrade():
            raise _MalformedError("a body behind an upgrade, which the parser takes for another protocol")
        if hosts != 1:
            raise _MalformedError("Host")
        if self._absolute:
            self.scope["state"]["url"] = self._split_url()
        elif not self.url.startswith(b"/"):
            raise _MalformedError("request target")

    def _split_url(self) -> tuple[str, str, int]:
        """(scheme, canonical host, port) of a request in absolute form; what follows is left as an origin-form target."""
        try:
            scheme, _, rest = self.url.decode("ascii").partition("://")
            cut = min((at for at in map(rest.find, "/?") if at != -1), default=len(rest))
            scheme = scheme.lower()
            host, port = split_authority(rest[:cut], {"http": 80, "https": 443}[scheme])
        except (KeyError, ValueError):
            raise _MalformedError("request target") from None
        path = rest[cut:].partition("#")[0].encode()
        self.url = path if path.startswith(b"/") else b"/" + path
        return scheme, host, port

    def _check_stalled(self) -> None:
        idle = self.loop.time() - self._heard
        waiting = self._in_message or self.cycle is None
        if waiting and not self.flow.read_paused and idle >= STALLED_SECONDS:
            self.transport.close()
            return
        left = STALLED_SECONDS - idle if waiting and idle < STALLED_SECONDS else STALLED_SECONDS
        self._timer = self.loop.call_later(left, self._check_stalled)


class HttpServer:
    """Everything uvicorn's protocol needs, made once: configuration, state of all connections."""

    def __init__(self, app: Any) -> None:
        self.config = Config(app, http="httptools", ws=WebSocketProtocol, lifespan="off", log_config=None, access_log=False,
                             server_header=False, date_header=False, proxy_headers=False, interface="asgi3",
                             timeout_keep_alive=KEEP_ALIVE_SECONDS, ws_max_size=MAX_MESSAGE, ws_per_message_deflate=False,
                             ws_ping_timeout=PONG_SECONDS)
        self.config.load()
        self.state = _State()

    def protocol(self, state: dict[str, Any], *, absolute: bool) -> HttpProtocol:
        return HttpProtocol(self.config, self.state, state, absolute=absolute)

    def leave(self) -> None:
        """Have every connection end with its next answer."""
        self.state.leaves_since = asyncio.get_running_loop().time()
        for connection in self.state.connections:
            if isinstance(connection, HttpProtocol):
                connection.say_last()

    def has_left(self) -> bool:
        """Whether every connection has ended; those that rest for long are ended here. After :meth:`leave`."""
        now, since = asyncio.get_running_loop().time(), self.state.leaves_since or 0.0
        for connection in list(self.state.connections):
            rests = connection.rests_since() if isinstance(connection, HttpProtocol) else None
            if rests is not None and now - max(rests, since) > RESTING_SECONDS:
                connection.transport.close()
        return not self.state.connections and not self.state.tasks

    async def drain(self, seconds: float) -> int:
        """Finish what runs, take nothing new. Returns how many requests had to be cut after *seconds*."""
        for connection in list(self.state.connections):
            connection.shutdown()
        if self.state.tasks:
            await asyncio.wait(self.state.tasks, timeout=seconds)
        cut = list(self.state.tasks)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut, timeout=5)
        return len(cut)


async def listen(server: HttpServer, at: Listen, option: str, sockets: Sequence[socket.socket] = (), *,
                 serving: bool = True) -> list[asyncio.Server]:
    """*server* on *sockets* that are bound, else on *at*; not *serving*: the address is taken, and nothing accepted yet.
    Raises EnvironmentFailedError naming the *option* that says where."""
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.Protocol:
        return server.protocol({}, absolute=False)

    try:
        if sockets:
            return [await loop.create_server(protocol, sock=one, backlog=BACKLOG) for one in sockets]
        return [await loop.create_server(protocol, at.host, at.port, start_serving=serving)]
    except OSError as error:
        raise EnvironmentFailedError(f"cannot listen on {at}: {error.strerror or error}; "
                                     f"choose another with {option} HOST:PORT") from None
