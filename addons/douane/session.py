"""The life of a WebSocket session, between an ASGI server and the app that calls the provider.

Laws: nothing is sent to the provider before the chain has said yes to the handshake, which is a call without a body. What is
said then goes through ``turns.py``. The session's own record ends last, and however it ends.
"""

import asyncio
import contextlib
import logging
from urllib.parse import parse_qsl

from douane.asgi import App, Message, Receive, Scope, Send
from douane.call import Call, Ended, Headers
from douane.denied import denied_headers
from douane.echo import EchoMask
from douane.errors import AuditUnavailableError, RefusedError, UpstreamError
from douane.exchange import Exchange
from douane.gate import Gate
from douane.intake import Arrival, open_call, unread
from douane.providers.dialogue import SOCKET, without_keys
from douane.relay import Forward
from douane.relay_socket import MAX_MESSAGE
from douane.turns import Turns, told
from douane.verdict import Deny

__all__ = ["Session"]

log = logging.getLogger("douane.session")

_HTTP = "websocket.http.response"
"""The extension by which a server answers a handshake with more than 403."""
_OF_BODIES = (b"sec-websocket-", b"content-")
"""Headers of the handshake that say nothing of a frame."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class Session:
    """One governed WebSocket. *scope* is of type ``websocket``."""

    def __init__(self, gate: Gate, arrival: Arrival, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate, self._arrival, self._scope, self._receive, self._send = gate, arrival, scope, receive, send
        provider = arrival.provider
        self._row = provider.operation(SOCKET, arrival.path)
        self._subprotocols, key = without_keys(list(scope.get("subprotocols") or ()))
        headers = [one for one in scope["headers"] if not one[0].startswith(_OF_BODIES)]
        if key and not any(name in provider.key_headers for name, _ in headers):
            headers.append((provider.credential[0], provider.credential[1] + key.encode("latin-1")))
        self._came: Call = open_call(gate.clock(), arrival, self._row, {**scope, "headers": headers, "method": "GET"})
        self.head = Exchange(gate, provider, self._row, self._came)
        self._accepted = False
        self._over = False
        self._ended: Ended = "complete"
        self._talking = Turns(gate, provider, self._row, self._came, self._say)
        self._task: asyncio.Task[None] | None = None
        self._stop: Deny | None = None
        """Why it must not run on."""
        self._refusal: Message = {}
        """The head of the provider's own refusal."""

    # -- the handshake -------------------------------------------------------------------------------------------

    async def run(self, app: App) -> None:
        """Raises what :meth:`fail` is for."""
        denial = await self._admit()
        if denial is not None:
            await self._refuse(denial, "denied")
            return
        call, state = self.head.call, self._scope.get("state", {})
        forward = Forward(self._arrival.target, call.credential, call.host)
        scope = {**self._scope, "headers": list(call.headers), "raw_path": call.path.encode("latin-1"),
                 "query_string": call.query.encode("latin-1"), "subprotocols": self._subprotocols,
                 "state": {**state, "forward": forward, MAX_MESSAGE: self.head.chain.edge.max_body}}
        stopped = self.head.stopped()  # again: its intent was made durable since it was judged
        if stopped is not None:
            await self._refuse(stopped, "denied")
            return
        self._task = asyncio.current_task()
        self._gate.stops.entered(call, self.stop)
        try:
            await app(scope, self._from_client, self._to_client)
        except asyncio.CancelledError:
            if self._stop is None or self._task is None:
                raise
            self._task.uncancel()
            raise RefusedError(self._stop.code, self._stop.reason) from None
        finally:
            self._gate.stops.left(self.stop)
        await self.end(self._ended)

    def stop(self, denial: Deny) -> None:
        """End it where it is, with *denial*."""
        if not self._over and self._task is not None and self._stop is None:
            self._stop = denial
            self._task.cancel()

    async def _admit(self) -> Deny | None:
        head, arrival = self.head, self._arrival
        if arrival.refused is not None:
            return self._refused("door", arrival.refused.code, arrival.refused.reason)
        denial = await head.screen()
        if denial is not None:
            return denial
        why = unread(head.call)
        if why is None and (self._row is None or self._row.dialogue is None or self._row.wire is None):
            why = f"{head.call.path[:100]} is not a WebSocket that is inspected here"
        if why is not None:
            return self._refused("edge", "operation_not_allowed", why)
        self._talking.model = self._talking.talk.asked_for(head.call.query)
        denial = await head.admit(head.call.with_body(b"", None, self._talking.model, True))
        self._talking.principal, credential = head.call.principal, head.call.credential
        if denial is None and credential is not None:
            self._talking.filters = (EchoMask(credential.secret.reveal()),)
            if any(name == "call_id" for name, _ in parse_qsl(head.call.query, keep_blank_values=True)):
                return self._refused("edge", "operation_not_allowed", "a call by WebRTC is not joined with a shared key: it is "
                                                                      "not known here who made it")
        return denial

    def _refused(self, by: str, code: str, reason: str) -> Deny:
        denial = Deny(code, reason)
        self.head.refuse(by, denial)
        return denial

    async def _refuse(self, denial: Deny, ended: Ended) -> None:
        """Answer the handshake with the denial, once that is recorded."""
        self._over = True
        if not self.head.done:
            try:
                await self.head.finish(ended)
            except AuditUnavailableError as error:
                denial = Deny(error.code, error.reason)
        log.info("refused", extra={"douane_id": self._came.id, "code": denial.code})
        if _HTTP not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": 1008, "reason": denial.code})
            return
        status, body = told(self._arrival.provider, self._row, denial, self._came.id)
        family = (self._row.family if self._row is not None else None) or self._arrival.provider.family
        headers = denied_headers(denial, family, self._came.id, self._gate.clock())
        await self._send({"type": f"{_HTTP}.start", "status": status, "headers": headers})
        await self._send({"type": f"{_HTTP}.body", "body": body, "more_body": False})

    # -- the end -------------------------------------------------------------------------------------------------

    async def fail(self, error: Exception) -> None:
        """What broke the session: tell the client, write every outcome."""
        ended: Ended = "cut"
        if isinstance(error, UpstreamError):
            ended = "upstream_timeout" if error.code == "upstream_timeout" else "upstream_error"
        denial = Deny(error.code, error.reason) if isinstance(error, RefusedError) else \
            Deny("policy_error", f"the gateway failed ({type(error).__name__})")
        self.head.refuse("relay" if isinstance(error, UpstreamError) else "governor", denial)
        if self._over:
            await self.end(ended)
        elif self._accepted:
            self._over = True
            await self.end(ended)
            await self._send({"type": "websocket.close", "code": 1011, "reason": denial.code})
        else:
            await self._refuse(denial, ended)
            await self.end(ended)

    async def end(self, ended: Ended) -> None:
        """Write the outcome of everything that is open; one that cannot be written keeps none of the others from theirs."""
        await self._talking.end(ended)
        with contextlib.suppress(AuditUnavailableError):
            await self.head.finish(ended)

    async def _say(self, text: str) -> None:
        if not self._over:
            await self._send({"type": "websocket.send", "text": text})

    # -- what the client says ------------------------------------------------------------------------------------

    async def _from_client(self) -> Message:
        """``receive`` of the inner app."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._over = True
                code = message.get("code", 1005)
                quiet = not self._talking.waiting and code != 1006
                self._ended = "stopped" if code == 1012 else "complete" if quiet else "client_disconnected"
                return message
            if message["type"] != "websocket.receive":
                return message
            text = message.get("text")
            if text is None:
                self._over = True
                await self._send({"type": "websocket.close", "code": 1003, "reason": "binary messages are not inspected here"})
                self._ended = "cut"
                return {"type": "websocket.disconnect", "code": 1003}
            passed = await self._talking.judged(text.encode())
            if passed is not None:
                return {"type": "websocket.receive", "text": passed.decode()}

    # -- what the provider says ----------------------------------------------------------------------------------

    async def _to_client(self, message: Message) -> None:
        """``send`` of the inner app."""
        kind = message["type"]
        if kind == "websocket.send":
            for text in await self._talking.answered(message["text"].encode()):
                if not self._over:
                    await self._send({"type": kind, "text": text})
        elif kind == "websocket.accept":
            self._accepted = True
            passed = self.head.start(101, _request_ids(message.get("headers", ())))
            await self._send({"type": kind, "subprotocol": message.get("subprotocol"), "headers": list(passed)})
        elif kind == "websocket.close":
            if not self._over:  # else it is the answer to the client's own closing
                waiting = self._talking.waiting
                self._ended = "upstream_error" if waiting or message.get("code", 1000) not in (1000, 1001) else "complete"
            await self.end(self._ended)
            if not self._over:
                self._over = True
                await self._send(message)
        else:
            await self._handshake_refused(message)

    async def _handshake_refused(self, message: Message) -> None:
        if message["type"] == f"{_HTTP}.start":
            self.head.forward()
            kept = tuple(one for one in message["headers"] if one[0] not in _FRAMING)
            self._refusal = {**message, "headers": list(self.head.start(message["status"], kept))}
            return
        body = self.head.feed(message["body"]) + self.head.close()
        self._over = True
        await self.head.finish("complete")
        if _HTTP in (self._scope.get("extensions") or {}):
            await self._send(self._refusal)
            await self._send({**message, "body": body})
        else:
            await self._send({"type": "websocket.close", "code": 1008, "reason": "the provider refused"})

def _request_ids(headers: Headers) -> Headers:
    """Of a handshake's answer: what the record names the session by."""
    return tuple(one for one in headers if one[0] in (b"x-request-id", b"request-id"))
