"""The ASGI app that calls the provider.

Law 3: a key is written here, at the last moment, and only for the target that ``Forward`` names, over verified TLS (plain
http is for a provider that was configured so). No redirect is followed, no variable of the environment is read.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from douane.asgi import Message, Receive, Scope, Send
from douane.call import Credential, Outgoing, Signer, Target
from douane.errors import UpstreamError
from douane.relay_socket import converse
from douane.upstream.pool import Pool

__all__ = ["Forward", "Relay"]


@dataclass(frozen=True, slots=True)
class Forward:
    """Where one request goes and with which key: ``scope["state"]["forward"]``."""

    target: Target
    credential: Credential | None = None
    asked: str = ""
    """The host that the app named: what a signature's region is told by."""


class Relay:
    """Sends the request of the scope to its ``Forward``; streams the answer back as it comes.

    Raises UpstreamError before the first ``send`` where there is no answer, after it where the answer broke off."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forward: Forward = scope["state"]["forward"]
        if scope["type"] == "websocket":
            await converse(self._pool, forward.target, forward.credential, scope, receive, send)
            return
        path: bytes = forward.target.base_path.encode() + scope["raw_path"]
        if scope["query_string"]:
            path += b"?" + scope["query_string"]
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        body = await _body(receive)
        secret = forward.credential
        if secret is not None and secret.signer is not None:
            body = await _whole(body)
            headers = _signed(secret.signer, forward, scope["method"], path, headers, body)
        elif secret is not None:
            headers = [*headers, (secret.header, secret.prefix + secret.secret.reveal().encode())]
        answer = await self._pool.request(forward.target, scope["method"].encode(), path, headers, body)
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            while chunk := await answer.read():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            answer.close()


def _signed(signer: Signer, forward: Forward, method: str, path: bytes, headers: list[tuple[bytes, bytes]],
            body: bytes) -> list[tuple[bytes, bytes]]:
    request = Outgoing(method, forward.asked, forward.target.authority, path.decode("latin-1"), tuple(headers), body)
    try:
        return list(signer.sign(request))
    except ValueError as error:
        raise UpstreamError("upstream_error", f"the request could not be signed: {error}") from None


async def _whole(body: bytes | AsyncIterator[bytes]) -> bytes:
    """A signature covers the body: it must be there before."""
    return body if isinstance(body, bytes) else b"".join([piece async for piece in body])


async def _body(receive: Receive) -> bytes | AsyncIterator[bytes]:
    """The request's body: bytes where it is whole at once, else its pieces as they come."""
    first = await receive()
    if not first.get("more_body", False):
        return bytes(first.get("body", b""))
    return _pieces(first, receive)


async def _pieces(message: Message, receive: Receive) -> AsyncIterator[bytes]:
    while True:
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client left before its request was whole")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return
        message = await receive()
