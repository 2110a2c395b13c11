"""The relay's WebSocket: an ASGI session in, a provider's session out, messages both ways.

Laws: what one side does not take is not read from the other. Whoever ends, the other side is told with the same code,
where it is one that can be sent; a provider that breaks off without a word is told as 1011.
"""

import asyncio
from typing import Any

from douane.asgi import Message, Receive, Scope, Send
from douane.call import Credential, Target
from douane.errors import UpstreamError
from douane.upstream.pool import Pool
from douane.upstream.websocket import Closed, WebSocket

__all__ = ["MAX_MESSAGE", "converse"]

MAX_MESSAGE = "douane.max_message"
"""In ``scope["state"]``: bytes of one message of the provider."""
_SILENT = {1005: 1000, 1006: 1001, 1012: 1001, 1015: 1001}
"""Codes that say how a client went, and cannot or should not be said to a provider."""


async def converse(pool: Pool, target: Target, credential: Credential | None, scope: Scope, receive: Receive,
                   send: Send) -> None:
    """Raises UpstreamError where there is no session, ValueError for what cannot be sent."""
    await receive()  # websocket.connect
    path: bytes = target.base_path.encode() + scope["raw_path"]
    if scope["query_string"]:
        path += b"?" + scope["query_string"]
    headers: list[tuple[bytes, bytes]] = list(scope["headers"])
    if credential is not None:
        headers.append((credential.header, credential.prefix + credential.secret.reveal().encode()))
    upstream, answer = await pool.websocket(target, path, headers, list(scope["subprotocols"]), scope["state"][MAX_MESSAGE])
    try:
        if answer.status != 101:
            await send({"type": "websocket.http.response.start", "status": answer.status, "headers": list(answer.headers)})
            await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})
            return
        await send({"type": "websocket.accept", "subprotocol": answer.subprotocol, "headers": list(answer.headers)})
        await _both(upstream, receive, send)
    finally:
        upstream.abort()


async def _both(upstream: WebSocket, receive: Receive, send: Send) -> None:
    """Until one side has ended, and the other been told. Raises what either raises."""
    ways = {asyncio.ensure_future(_up(upstream, receive)), asyncio.ensure_future(_down(upstream, send))}
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
    for way in done:
        way.result()


async def _up(upstream: WebSocket, receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "websocket.disconnect":
            code: Any = message.get("code", 1000)
            await upstream.close(_SILENT.get(code, code), message.get("reason") or "")
            return
        await upstream.send(message["text"])


async def _down(upstream: WebSocket, send: Send) -> None:
    while True:
        message = await upstream.receive()
        if isinstance(message, Closed):
            silent = message.code in (1005, 1006, 1015)
            code = (1000 if message.code == 1005 else 1011) if silent else message.code
            reason = "the provider broke off" if message.code == 1006 else message.reason
            await send({"type": "websocket.close", "code": code, "reason": reason})
            return
        if isinstance(message, bytes):
            raise UpstreamError("upstream_error", f"{upstream.name} sent a binary message, which is not read here")
        await send({"type": "websocket.send", "text": message})
