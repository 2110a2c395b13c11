"""The proxy port: mitmproxy embedded, with the addons that are needed and no others, its options held fast."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from douane.errors import EnvironmentFailedError
from douane.hosts.internals import MITMPROXY_SERIES, MITMPROXY_VERSION, Master, Options, Proxyserver
from douane.hosts.layers import Doorkeeper
from douane.hosts.mitm import DouaneAddon, DouaneInstance, DouaneMode
from douane.places import Listen

__all__ = ["REQUIRED_OPTIONS", "ProxyListener"]

TUNNEL_IDLE_SECONDS = 3600
"""A tunnel without a byte for this long is closed; ours is not to cut what only rests."""
REQUIRED_OPTIONS = MappingProxyType({
    "rawtcp": False,
    "http2": False,
    "http3": False,
    "websocket": False,
    "connection_strategy": "lazy",
    "ssl_insecure": False,
    "validate_inbound_headers": True,
    "upstream_cert": False,
    "stream_large_bodies": None,
    "ignore_hosts": [],
    "allow_hosts": [],
    "mode": ["douane"],
})
"""What must be in force while we listen. Most of it has no part in our layers; it is held all the same, so that no
other layer of mitmproxy, should one ever be reached, is a way round the chain."""


class ProxyListener:
    """``start`` listens, ``stop`` accepts no more, ``finish`` ends mitmproxy."""

    def __init__(self, at: Listen, keeper: Doorkeeper, sockets: Sequence[socket.socket] = ()) -> None:
        """*sockets*: bound already, to listen on in place of *at*."""
        self._at = at
        self._sockets = sockets
        self._keeper = keeper
        self._master: Master | None = None
        self._instance: DouaneInstance | None = None

    async def start(self) -> None:
        """Raises EnvironmentFailedError: a port that is taken, another mitmproxy, an option that drifted."""
        if not MITMPROXY_VERSION.startswith(MITMPROXY_SERIES):
            raise EnvironmentFailedError(f"mitmproxy {MITMPROXY_VERSION} is installed, {MITMPROXY_SERIES}x is needed: "
                                         "install from the lock file (./run.sh does)")
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        options = Options(listen_host=self._at.host, listen_port=self._at.port, tcp_timeout=TUNNEL_IDLE_SECONDS)
        self._master = Master(options, event_loop=asyncio.get_running_loop())
        root.handlers[:], root.level = handlers, level  # mitmproxy would hear every record of the process at DEBUG
        server = Proxyserver()
        self._master.addons.add(server, DouaneAddon(self._keeper))
        options.update(**REQUIRED_OPTIONS)
        check_options(options)
        options.changed.connect(self._on_change)
        self._instance = DouaneInstance(DouaneMode.parse("douane"), server)
        self._instance.keeper = self._keeper
        self._instance.sockets = self._sockets
        try:
            await self._instance.start()
        except OSError as error:
            raise EnvironmentFailedError(f"cannot listen on {self._at}: the port is taken or the address is not ours "
                                         f"(errno {error.errno}); choose another with --proxy HOST:PORT") from None
        await self._master.running()

    def addresses(self) -> list[tuple[str, int]]:
        return [] if self._instance is None else [(str(a[0]), int(a[1])) for a in self._instance.listen_addrs]

    def has_left(self) -> bool:
        """Whether no client is connected, in a tunnel or before it."""
        return self._instance is None or not self._instance.manager.connections

    async def stop(self) -> None:
        if self._instance is not None and self._instance.is_running:
            await self._instance.stop()

    async def finish(self) -> None:
        if self._master is None or self._instance is None:
            return
        for handler in list(self._instance.manager.connections.values()):
            if handler.client in handler.transports:
                handler.close_connection(handler.client)
        await self._master.done()

    def _on_change(self, updated: set[str]) -> None:
        """An option changed while we listen: nobody has a reason to."""
        if self._master is not None:
            check_options(self._master.options)


def check_options(options: Any) -> None:
    """Raises EnvironmentFailedError where an option is not as required."""
    drifted = [f"{name}={getattr(options, name)!r}" for name, value in REQUIRED_OPTIONS.items()
               if getattr(options, name) != value]
    if drifted:
        raise EnvironmentFailedError("mitmproxy's options are not as they must be: " + ", ".join(drifted))
