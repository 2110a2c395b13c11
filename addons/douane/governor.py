"""The ASGI middleware: opens an Exchange, lets the chain admit the request, calls the inner app, feeds what it sends back
through the exchange, settles.

Law: there is no way past the exchange: what the door says is governed is answered by the inner app only after ``admit``
said yes, and what is refused is answered here in the provider's own shape. The client sees the end of an answer only
after its outcome is durable; where that fails, or the answer breaks, the connection is cut without a proper end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from douane.asgi import DISCONNECT, App, Departure, Message, Receive, Scope, Send
from douane.call import Call, Ended
from douane.chain import Chain
from douane.denied import denied_headers
from douane.errors import DENIALS, AuditUnavailableError, RefusedError, UpstreamError
from douane.exchange import Exchange
from douane.gate import Gate
from douane.intake import Arrival, open_call, read_call, unread
from douane.logs import where
from douane.providers.offlimits import is_off_limits
from douane.relay import Forward
from douane.session import Session
from douane.verdict import Deny

__all__ = ["AnswerCutError", "Door", "Governor"]

log = logging.getLogger("douane.governor")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class _ClientLeftError(Exception):
    """The client went before its request was whole."""


class _EndedHereError(Exception):
    """The call goes no further: nothing more can be held for its stream, or such calls were stopped meanwhile."""

    def __init__(self, denial: Deny) -> None:
        super().__init__(denial.reason)
        self.denial = denial


class AnswerCutError(Exception):
    """Raised to the ASGI server to end a begun answer without a proper end."""


type Door = Callable[[Chain, Scope], Arrival | None]
"""Whether a request is governed under the current chain; None: it is the inner app's alone."""


class Governor:
    """Pure ASGI middleware round *app*, under *gate*'s current chain."""

    def __init__(self, app: App, gate: Gate, door: Door) -> None:
        self.app = app
        self.gate = gate
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = self.door(self.gate.chain, scope) if scope["type"] in ("http", "websocket") else None
        if arrival is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._converse(Session(self.gate, arrival, scope, receive, send))
        else:
            await _Passage(self, arrival, scope, receive, send).run()

    async def _converse(self, session: Session) -> None:
        try:
            await session.run(self.app)
        except asyncio.CancelledError:
            await session.end("stopped")
            raise
        except Exception as error:  # noqa: BLE001 - the host's outermost guard: nothing unforeseen is a pass
            if not isinstance(error, RefusedError):
                log.error("a governed session failed: %s", where(error), extra={"douane_id": session.head.call.id})
            await session.fail(error)


class _Passage:
    """One request on its way through. Holds what the steps share."""

    __slots__ = ("_stop", "app", "arrival", "body_read", "exchange", "head", "held", "left", "receive", "remaining", "scope",
                 "send", "started", "task")

    def __init__(self, governor: Governor, arrival: Arrival, scope: Scope, receive: Receive, send: Send) -> None:
        self.app, self.arrival, self.scope, self.receive, self.send = governor.app, arrival, scope, receive, send
        operation = arrival.provider.operation(scope["method"], arrival.path)
        call = open_call(governor.gate.clock(), arrival, operation, scope)
        self.exchange = Exchange(governor.gate, arrival.provider, operation, call)
        self.head: Message | None = None
        """The answer's head, from when it came."""
        self.started = False
        """Whether the client has got a status line."""
        self.remaining: int | None = None
        """Bytes that the provider's Content-Length still promises; None where there is none."""
        self.held = b""
        """The last of a compressed stream, until its coding has ended too."""
        self.left = False
        """Whether the client has gone."""
        self.body_read = False
        self._stop: Deny | None = None
        """Why it must not run on."""
        self.task = asyncio.current_task()

    async def run(self) -> None:
        ended: Ended = "denied"
        try:
            denial = await self._admit()
            if denial is None:
                await self._forward()
                if not self.exchange.done:
                    denial, ended = self._failed(UpstreamError("upstream_error", "the inner app gave no whole answer"))
        except _ClientLeftError:
            await self._close_book("client_disconnected")
            return
        except asyncio.CancelledError:
            if self._stop is not None and self.task is not None and not self.left:
                self.task.uncancel()
                self.exchange.refuse("stop", self._stop)
                await self._deny(self._stop, "cut")
                return
            if not self.left:  # the server stops
                self._refuse("governor", "stopped", "the gateway stopped")
                await self._close_book("stopped")
                raise
            if self.task is not None:
                self.task.uncancel()
            await self._close_book("client_disconnected")
            return
        except Exception as error:  # noqa: BLE001 - the host's outermost guard: nothing unforeseen is a pass
            denial, ended = self._failed(error)
        if denial is not None:
            await self._deny(denial, ended)

    def _failed(self, error: Exception) -> tuple[Deny, Ended]:
        """What becomes of a call that broke: the denial, and how the exchange ended."""
        if isinstance(error, UpstreamError):
            ended: Ended = "upstream_timeout" if error.code == "upstream_timeout" else "upstream_error"
            return self._refuse("relay", error.code, error.reason), ended
        ended = "cut" if self.exchange.forwarded else "denied"
        if isinstance(error, _EndedHereError):
            return error.denial, ended
        if isinstance(error, RefusedError):
            by = "audit" if isinstance(error, AuditUnavailableError) else "governor"
            return self._refuse(by, error.code, error.reason), ended
        log.error("a governed request failed: %s", where(error), extra={"douane_id": self.exchange.call.id})
        return self._refuse("governor", "policy_error", f"the gateway failed ({type(error).__name__})"), ended

    # -- in ------------------------------------------------------------------------------------------------------

    async def _admit(self) -> Deny | None:
        exchange, arrival = self.exchange, self.arrival
        if arrival.refused is not None:
            return self._refuse("door", arrival.refused.code, arrival.refused.reason)
        denial = await exchange.screen()
        if denial is not None:
            return denial
        edge = exchange.chain.edge
        if (why := unread(exchange.call)) is not None:
            return self._refuse("edge", "operation_not_allowed", why)
        if is_off_limits(arrival.provider, exchange.call.path):
            return self._refuse("edge", "operation_not_allowed",
                                "a provider's organisation and admin endpoints are reached by nobody through this gateway")
        if exchange.operation is not None and exchange.operation.refused:
            return self._refuse("edge", "operation_not_allowed", exchange.operation.refused)
        if exchange.operation is None and edge.unknown_operations == "deny":
            return self._refuse("edge", "operation_not_allowed",
                                f"{exchange.call.method} {exchange.call.path[:100]} is not an operation that is inspected here")
        body = await self._body(edge.max_body)
        self.body_read = True
        try:
            call = read_call(exchange.call, exchange.operation, body, edge.max_body)
        except RefusedError:
            exchange.call = exchange.call.with_body(body, None, "", False)  # the log keeps what was refused
            raise
        return await exchange.admit(call)

    def _refuse(self, by: str, code: str, reason: str) -> Deny:
        denial = Deny(code, reason)
        self.exchange.refuse(by, denial)
        return denial

    async def _body(self, limit: int) -> bytes:
        """The whole request body as sent. Raises RefusedError over *limit* bytes, _ClientLeftError."""
        declared = self.exchange.call.header(b"content-length")
        if declared is not None and int(declared) > limit:
            raise _too_large(limit)
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False) and len(body) <= limit:
            return body
        parts: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await self.receive()
        raise _ClientLeftError

    # -- out -----------------------------------------------------------------------------------------------------

    async def _forward(self) -> None:
        """Call the inner app with the call as the chain made it; watch for a client that leaves meanwhile."""
        exchange = self.exchange
        call = exchange.call
        headers = list(call.headers)
        if exchange.wants_identity:
            headers = [h for h in headers if h[0] != b"accept-encoding"] + [(b"accept-encoding", b"identity")]
        scope = {**self.scope, "headers": headers, "raw_path": call.path.encode("latin-1"),
                 "query_string": call.query.encode("latin-1"),
                 "state": {**self.scope.get("state", {}), "forward": Forward(self.arrival.target, call.credential, call.host)}}
        departure: Departure | None = self.scope.get("extensions", _NOTHING).get(DISCONNECT)
        if departure is not None and departure.gone:  # while it was judged
            raise _ClientLeftError
        stopped = exchange.stopped()  # again: it was judged before its intent was durable, and nobody could end it since
        if stopped is not None:
            raise _EndedHereError(stopped)
        exchange.forward()
        exchange.gate.stops.entered(call, self.stop)
        try:
            await self._call(scope, call, departure)
        finally:
            exchange.gate.stops.left(self.stop)

    async def _call(self, scope: Scope, call: Call, departure: Departure | None) -> None:
        if departure is None:
            watcher = asyncio.ensure_future(self._watch())
            try:
                await self.app(scope, _replay(call.body, lambda: asyncio.shield(watcher)), self._passed_back)
            finally:
                watcher.cancel()
        else:
            departure.tell = self._left
            try:
                await self.app(scope, _replay(call.body, self._watch), self._passed_back)
            finally:
                departure.tell = None

    def stop(self, denial: Deny) -> None:
        """End it where it is, with *denial*."""
        if not self.exchange.done and self.task is not None and self._stop is None:
            self._stop = denial
            self.task.cancel()

    def _left(self) -> None:
        if not self.exchange.done and self.task is not None:
            self.left = True
            self.task.cancel()

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._left()

    async def _passed_back(self, message: Message) -> None:
        """``send`` of the inner app. The head of an answer whose length is known waits for its first bytes: they leave
        together, and until then a failure can still be told properly."""
        exchange = self.exchange
        if message["type"] == "http.response.start":
            headers = exchange.start(message["status"], tuple(message["headers"]))
            self.head = {"type": "http.response.start", "status": message["status"], "headers": list(headers)}
            self.remaining = exchange.promised
            if self.remaining is None:
                await self._send_head()
            return
        if message["type"] != "http.response.body" or exchange.done:
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        out = exchange.feed(body) if body else b""
        if self.remaining is not None:
            self.remaining -= len(body)
        ended = not more or self.remaining == 0 or exchange.ended_by_itself
        if self.held or (exchange.ending and not ended):
            out = self.held + out
            self.held = b"" if ended else out
            if not ended:
                return
        if ended:
            out += exchange.close()
            await exchange.finish("complete")
        if out or ended:
            await self._send_head()
            await exchange.leaving(self.send({"type": "http.response.body", "body": out, "more_body": not ended}))
        if not ended and exchange.short and (denial := await exchange.hold_more()) is not None:
            raise _EndedHereError(denial)

    async def _send_head(self) -> None:
        if not self.started and self.head is not None:
            self.started = True
            await self.send(self.head)

    # -- refusals ------------------------------------------------------------------------------------------------

    async def _deny(self, denial: Deny, ended: Ended) -> None:
        """Answer with the denial, after its outcome is durable; a begun stream gets the provider's error event. Raises
        AnswerCutError where the answer has begun and cannot be ended properly."""
        recorded = not self.exchange.done  # a second outcome must not follow one that may have landed
        if recorded:
            try:
                await self.exchange.finish(ended)
            except AuditUnavailableError as error:
                denial, recorded = Deny(error.code, error.reason), False
        operation, call = self.exchange.operation, self.exchange.call
        family = (operation.family if operation is not None else None) or self.arrival.provider.family
        log.info("refused", extra={"douane_id": call.id, "code": denial.code, "provider": call.provider,
                                   "operation": call.operation, "principal": call.principal.name})
        if self.started:
            framing = self.exchange.takes
            if not recorded or framing is None:
                raise AnswerCutError
            event = family.error_event(call.operation, denial.code, denial.reason, call.id, framing)
            await self.send({"type": "http.response.body", "body": event, "more_body": False})
            return
        status, body = family.error(DENIALS[denial.code], denial.code, denial.reason, call.id)
        headers = [*denied_headers(denial, family, call.id, self.exchange.gate.clock()),
                   (b"content-length", str(len(body)).encode())]
        if (not self.body_read and self.scope.get("http_version", "1.1") < "2"
                and any(name == b"expect" for name, _ in self.scope["headers"])):
            headers.append((b"connection", b"close"))  # whether its body still comes, only the client knows
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def _close_book(self, ended: Ended) -> None:
        """The outcome of an answer nobody waits for any more."""
        with contextlib.suppress(AuditUnavailableError):
            await self.exchange.finish(ended)


def _too_large(limit: int) -> RefusedError:
    return RefusedError("too_large", f"the request body is over the limit of {limit} bytes")


def _replay(body: bytes, gone: Callable[[], Awaitable[None]]) -> Receive:
    """``receive`` for the inner app: the whole body once, then the client's leaving."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone()
        return {"type": "http.disconnect"}

    return receive
