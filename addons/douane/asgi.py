"""The ASGI vocabulary, the one word we add to it, and the shortest answer in it."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["DISCONNECT", "App", "Departure", "Message", "Receive", "Scope", "Send", "plain_answer"]

type Scope = MutableMapping[str, Any]
type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type App = Callable[[Scope, Receive, Send], Awaitable[None]]

DISCONNECT = "douane.disconnect"
"""The ASGI extension by which a server of ours tells at once that the client has left. Others are asked by a task that
waits in ``receive``, which costs more than all else the governor does."""


class Departure:
    """What stands under :data:`DISCONNECT` in ``scope["extensions"]``: one for a connection."""

    __slots__ = ("gone", "tell")

    def __init__(self) -> None:
        self.gone = False
        self.tell: Callable[[], None] | None = None
        """Called, if set, when the connection is lost."""


async def plain_answer(send: Send, status: int, text: str) -> None:
    """A short answer for a person or a proxy client."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()),
               (b"connection", b"close")]
    if status == 407:
        headers.append((b"proxy-authenticate", b'Basic realm="douane"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
