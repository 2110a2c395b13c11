"""uvicorn's WebSocket protocol, made strict: nothing it is sent, and nothing it is not read, makes it hold more.

Law: pings are answered only as fast as the answers are read; a message has a limit, and so has the number of its fragments.
No extension is agreed to, so that a message is as long as it is on the wire. Nothing of a session is logged here: a query may
hold a key.
"""

import logging
from typing import Any

from websockets.frames import Frame

from douane.hosts.served import WebSocketsSansIOProtocol

__all__ = ["MAX_MESSAGE", "WebSocketProtocol"]

MAX_MESSAGE = 32 * 1024 * 1024
"""Bytes of one message, whatever ``edge.max_body`` says."""
MOST_FRAGMENTS = 4096

_quiet = logging.getLogger("douane.websocket")
_quiet.setLevel(logging.WARNING)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Its app may answer a handshake as it answers any request."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = self.conn.logger = _quiet
        self.conn.debug = False

    async def run_asgi(self) -> None:
        self.scope["method"] = "GET"  # type: ignore[typeddict-unknown-key]
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        if message["type"].startswith("http.response."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await super().send(message)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) >= MOST_FRAGMENTS:
            self.conn.fail(1009, "too many fragments")
            self.handle_parser_exception()
        else:
            super().handle_cont(event)
