"""The forward proxy on mitmproxy: our mode, its listener, and the addon with the only hooks there are.

Law: nothing is dialled here but a tunnel that was approved, at an address that was checked after resolution; providers are
dialled by the relay.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL

from douane.edge import is_loopback
from douane.hosts.internals import AsyncioServerInstance, Context, ProxyMode, layer, server_hooks, tls
from douane.hosts.layers import Doorkeeper, Doorway, Vetoed
from douane.hosts.reach import AddressRefusedError, resolve
from douane.hosts.slots import BACKLOG
from douane.hosts.transport import DouaneHandler

__all__ = ["DouaneAddon", "DouaneInstance", "DouaneMode"]

log = logging.getLogger("douane.edge")


class DouaneMode(ProxyMode):
    """mitmproxy mode ``douane``: an HTTP proxy whose first layer is ours."""

    description = "Douane"
    transport_protocol = "tcp"

    def __post_init__(self) -> None:
        if self.data:
            raise ValueError("the mode takes no argument")


class DouaneInstance(AsyncioServerInstance[DouaneMode]):
    """The listener. ``keeper`` is set before it starts."""

    keeper: Doorkeeper
    sockets: Sequence[socket.socket] = ()
    """Where to listen, in place of the options' host and port: bound already."""

    def make_top_layer(self, context: Context) -> layer.Layer:
        raise RuntimeError("the handler makes the top layer")

    async def listen(self, host: str, port: int) -> list[Any]:
        if not self.sockets:
            return await super().listen(host, port)
        return [await asyncio.start_server(self.handle_stream, sock=one, backlog=BACKLOG) for one in self.sockets]

    async def handle_stream(self, reader: Any, writer: Any = None) -> None:
        from mitmproxy import ctx

        handler = DouaneHandler(ctx.master, reader, writer, ctx.options, self.mode)
        handler.layer = Doorway(handler.layer.context, handler, self.keeper)
        with self.manager.register_connection(handler.client.id, handler):
            await handler.handle_client()


class DouaneAddon:
    """The mitmproxy addon: the only hooks there are."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper

    def tls_start_client(self, data: tls.TlsData) -> None:
        host = data.context.server.address[0] if data.context.server.address else ""
        data.ssl_conn = SSL.Connection(self._keeper.context(host.partition(":")[0]))
        data.ssl_conn.set_accept_state()

    def tls_failed_client(self, data: tls.TlsData) -> None:
        host = data.context.server.address[0] if data.context.server.address else "?"
        log.warning("the TLS handshake of a client failed: does it trust our CA (certs/ca.pem)?",
                    extra={"host": host, "client": data.context.client.peername[0]})

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Resolve, check, pin, and only then lift the veto that :class:`DouaneHandler` set."""
        if data.server.address is None:
            return
        host, port = data.server.address[:2]
        local = is_loopback(data.client.peername[0] if data.client.peername else "")
        try:
            address = await resolve(host, port, local_client=local, listeners=self._keeper.listeners())
        except AddressRefusedError as error:
            data.server.error = Vetoed(error)
            return
        except OSError as error:
            data.server.error = str(error)
            return
        data.server.address = (address, port)
        data.server.error = None
