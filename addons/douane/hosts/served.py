"""Everything of uvicorn 0.54 that is not a documented interface and that we lean on, in one place; :mod:`internals` has
mitmproxy's. Apart, so that the parent of several workers serves its admin port without a proxy in its memory.

``tests/test_internals.py`` holds each of them against the installed version and fails loudly on another.

``HttpToolsProtocol(config, server_state, app_state)`` is an ``asyncio.Protocol`` that runs on any transport; ``app_state``
becomes ``scope["state"]``; ``RequestResponseCycle.disconnected`` and ``.keep_alive``; ``ServerState.connections`` and
``.tasks``. ``WebSocketsSansIOProtocol`` runs on the same transport after ``handle_websocket_upgrade``; ``conn``, ``frames``,
``read_paused``, ``handle_cont``, ``handle_parser_exception``.
"""

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

__all__ = ["Config", "HttpToolsProtocol", "ServerState", "WebSocketsSansIOProtocol"]
