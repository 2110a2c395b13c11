"""From a target to an open connection, or one clear line that says why not.

Law: **who is dialled is who was meant.** The target's pinned address is dialled where there is one, the certificate
is checked against the target's own name, and neither proxy nor CA variables of the environment are looked at.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass, field

from douane.call import Target
from douane.errors import UpstreamError
from douane.upstream.attached import Attached
from douane.upstream.connection import Connection
from douane.upstream.settings import Limits, Timeouts
from douane.upstream.tls import Contexts

__all__ = ["Dialer"]

_STAGGER = 0.25
"""Seconds until the next address is tried beside the last (RFC 8305 §5)."""
_MARGIN = 5.0
"""Seconds that asyncio's own time-out for TLS comes after ours, which gives the clearer error."""

type _Address = tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]


@dataclass(frozen=True, slots=True)
class Dialer:
    timeouts: Timeouts
    limits: Limits
    proxy: Target | None = None
    """Every target is then reached by CONNECT through it (``https``: over TLS to the proxy)."""
    _contexts: Contexts = field(default_factory=Contexts)

    async def __call__(self, target: Target) -> Connection:
        """An open connection to *target*. Raises UpstreamError: one line with what failed, where, and what to look
        at."""
        return await self.open(target, Connection(f"{target.host}:{target.port}", self.timeouts, self.limits))

    async def open[P: Attached](self, target: Target, protocol: P) -> P:
        """*protocol*, with an open connection to *target* under it. Raises UpstreamError."""
        name = f"{target.host}:{target.port}"
        try:
            async with asyncio.timeout(self.timeouts.connect):
                return await self._open(target, protocol)
        except TimeoutError:
            line = f"no connection to {name} within {self.timeouts.connect:g} s; check network and firewall"
            raise UpstreamError("upstream_timeout", line) from None
        except OSError as error:
            raise UpstreamError("upstream_error", _reason(error, name, target)) from None

    async def _open[P: Attached](self, target: Target, connection: P) -> P:
        raw = transport = await _plain(self.proxy or target)
        try:
            if self.proxy is not None:
                tunnel = _Tunnel(f"{self.proxy.host}:{self.proxy.port}", self.limits.max_head)
                transport = await self._secured(transport, tunnel, self.proxy)
                await tunnel.connect(transport, target)
            connection.attach(raw, transport)
            connection.attach(raw, await self._secured(transport, connection, target))
        except BaseException:
            raw.abort()
            raise
        return connection

    async def _secured(self, transport: asyncio.Transport, protocol: asyncio.Protocol,
                       target: Target) -> asyncio.Transport:
        """Give the silent *transport* to *protocol*, by way of TLS with *target* where its scheme says so."""
        if target.scheme == "http":
            transport.set_protocol(protocol)
            transport.resume_reading()
            return transport
        secure = await asyncio.get_running_loop().start_tls(
            transport, protocol, self._context(target), server_hostname=target.host,
            ssl_handshake_timeout=self.timeouts.connect + _MARGIN)
        if secure is None:
            raise ConnectionResetError("closed during the TLS handshake")
        return secure

    def _context(self, target: Target) -> ssl.SSLContext:
        try:
            return self._contexts.get(target.ca)
        except OSError as error:
            where = target.ca or "the system's trust store"
            line = f"cannot read the roots for {target.host} from {where}: {error.strerror or error}; check `ca:`"
            raise UpstreamError("upstream_error", line) from None


async def _plain(target: Target) -> asyncio.Transport:
    """A TCP connection that does not read yet."""
    sock = await _connect(await _addresses(target))
    transport, silent = await asyncio.get_running_loop().create_connection(_Silent, sock=sock)
    transport.pause_reading()
    if silent.broken:
        transport.abort()
        line = f"{target.host}:{target.port} does not wait for a request; check `upstream`"
        raise UpstreamError("upstream_error", line)
    return transport


class _Silent(asyncio.Protocol):
    """Between TCP and the protocol to come, which may start only if nothing has happened."""

    broken = False

    def data_received(self, data: bytes) -> None:
        self.broken = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel, and steps aside: reading stops until the next protocol is in place."""

    _transport: asyncio.Transport

    def __init__(self, name: str, max_head: int) -> None:
        self._name = name
        self._max_head = max_head
        self._got = b""
        self._done: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()

    async def connect(self, transport: asyncio.Transport, target: Target) -> None:
        host = target.address or target.host
        authority = f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"
        self._transport = transport
        transport.write(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode("ascii"))
        refusal = await self._done
        if refusal is not None:
            raise refusal

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, rest = self._got.partition(b"\r\n\r\n")
        status = head[:13].split(b" ")
        if not end and len(head) <= self._max_head:
            return
        if rest or not end or len(status) < 2 or not head.startswith(b"HTTP/1.") or not status[1].isdigit():
            self._end("does not answer CONNECT in HTTP/1.1")
        elif status[1].startswith(b"2"):
            self._transport.pause_reading()
            self._end("")
        else:
            self._end(f"refuses CONNECT with status {status[1].decode('ascii')}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("closed the connection before a tunnel was made")

    def _end(self, flaw: str) -> None:
        if not self._done.done():
            line = f"the upstream proxy {self._name} {flaw}; check `upstream_proxy`"
            self._done.set_result(UpstreamError("upstream_error", line) if flaw else None)


async def _addresses(target: Target) -> list[_Address]:
    """Where to dial, families alternating as the resolver ranks them. A pinned address is not resolved."""
    host = target.address or target.host
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, target.port, type=socket.SOCK_STREAM, flags=numeric)
        addresses: list[_Address] = [(family, where) for family, _, _, _, where in found]
    except socket.gaierror:
        if target.address:
            raise
        addresses = await _resolve(host, target.port)
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    mixed = [address for pair in zip(first, other, strict=False) for address in pair]
    shorter = min(len(first), len(other))
    return mixed + first[shorter:] + other[shorter:]


async def _resolve(host: str, port: int) -> list[_Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


async def _connect(addresses: list[_Address]) -> socket.socket:
    """The first connection that is made (RFC 8305; uvloop's ``create_connection`` has no happy eyeballs). Raises the
    OSError of the first that failed when none is."""
    if len(addresses) == 1:
        return await _connect_one(addresses[0])
    loop = asyncio.get_running_loop()
    waiting = list(addresses)
    tasks: list[asyncio.Task[socket.socket]] = []
    running: set[asyncio.Task[socket.socket]] = set()
    winner: socket.socket | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                tasks.append(loop.create_task(_connect_one(waiting.pop(0))))
                running.add(tasks[-1])
            done, running = await asyncio.wait(running, timeout=_STAGGER if waiting else None,
                                               return_when=asyncio.FIRST_COMPLETED)
            winner = next((task.result() for task in done if task.exception() is None), None)
    finally:
        for task in tasks:
            task.cancel()
            task.add_done_callback(lambda ended: _close_loser(ended, winner))
    if winner is None:
        raise tasks[0].exception() or OSError("no address to connect to")
    return winner


def _close_loser(task: "asyncio.Task[socket.socket]", winner: socket.socket | None) -> None:
    if not task.cancelled() and task.exception() is None and task.result() is not winner:
        task.result().close()


async def _connect_one(address: _Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A model may think for minutes; without probes a NAT on the way forgets the connection (the SDKs set the same).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), 60)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: OSError, name: str, target: Target) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {target.host} cannot be resolved ({error.strerror}); check `upstream` and this machine's DNS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {name} is refused: {error.verify_message}; check `upstream` and `ca:`"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with {name} ({error.reason or 'the handshake failed'}); check that it speaks TLS 1.2 or later"
    if isinstance(error, ConnectionRefusedError):
        return f"{name} refuses connections; check `upstream` and that the provider is running"
    return f"no connection to {name} ({error.strerror or type(error).__name__}); check network and `upstream`"
