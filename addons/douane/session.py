"""The life of a WebSocket session, between an ASGI server and the app that calls the provider.

Laws: the handshake is judged as a call by its head, and each frame of the client's as a call's body is, by the same chain: what
is refused is not sent on, and the client is told with the provider's own ``error``. Each answer has a record of its own: the
intent is durable before the frame that asks for it leaves, the outcome before the client sees the answer's end. An answer
that nobody asked for (the provider heard a pause) is judged when it begins, and where it may not be, the session ends.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson

from douane.asgi import App, Message, Receive, Scope, Send
from douane.call import Call, Ended, Headers
from douane.echo import EchoMask
from douane.errors import DENIALS, AuditUnavailableError, RefusedError, UpstreamError, retryable
from douane.exchange import Exchange
from douane.gate import Gate, new_id
from douane.intake import Arrival, open_call, unread
from douane.policy import BodyFilter
from douane.providers.base import Operation
from douane.providers.dialogue import SOCKET, Dialogue, response_id, without_keys
from douane.providers.framing import MESSAGES_MEDIA
from douane.relay import Forward
from douane.relay_socket import MAX_MESSAGE
from douane.said import Said
from douane.secrets import NO_ORIGINALS
from douane.verdict import Deny

__all__ = ["MOST_TURNS", "Session"]

log = logging.getLogger("douane.session")

MOST_TURNS = 32
"""Answers that are asked for and have not ended."""
_END = b"\x1e"
_HTTP = "websocket.http.response"
"""The extension by which a server answers a handshake with more than 403."""
_OF_BODIES = (b"sec-websocket-", b"content-")
"""Headers of the handshake that say nothing of a frame."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_SOUND_BYTES = 1066
"""Of base64, for one token: 100 ms of the smallest format."""


@dataclass(slots=True)
class _Turn:
    """An answer that was asked for."""

    exchange: Exchange
    event_id: str = ""
    """Of the frame that asked."""
    sound: bool = False
    """By sound, which may be answered or not."""
    response: str = ""
    """The answer's id, from its beginning."""

    @property
    def may_be(self) -> bool:
        """Nothing has been heard in the sound yet: it costs nothing."""
        return self.sound and not self.exchange.forwarded


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
        self._filters: Sequence[BodyFilter] = ()
        self._asking: Exchange | None = None
        """Judges what is said until the next frame that asks."""
        self._turns: list[_Turn] = []
        self._said = Said()
        self._originals = NO_ORIGINALS
        self._context = 0
        self._listens = True
        self._model = ""
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
        await app(scope, self._from_client, self._to_client)
        await self.end(self._ended)

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
        self._model = self._talk.asked_for(head.call.query)
        denial = await head.admit(head.call.with_body(b"", None, self._model, True))
        credential = head.call.credential
        if denial is None and credential is not None:
            self._filters = (EchoMask(credential.secret.reveal()),)
            if any(name == "call_id" for name, _ in parse_qsl(head.call.query, keep_blank_values=True)):
                return self._refused("edge", "operation_not_allowed", "a call by WebRTC is not joined with a shared key: it is "
                                                                      "not known here who made it")
        return denial

    @property
    def _talk(self) -> Dialogue:
        return self._inspected.dialogue or Dialogue(frozenset())

    @property
    def _inspected(self) -> Operation:
        if self._row is None:
            raise RuntimeError("a session that is not read")
        return self._row

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
        status, body = self._error(denial, self._came.id)
        headers = [(b"content-type", b"application/json"), (b"x-douane-id", self._came.id.encode()),
                   (b"x-douane-code", denial.code.encode())]
        if not retryable(denial.code):
            headers.append((b"x-should-retry", b"false"))
        await self._send({"type": f"{_HTTP}.start", "status": status, "headers": headers})
        await self._send({"type": f"{_HTTP}.body", "body": body, "more_body": False})

    def _error(self, denial: Deny, call_id: str) -> tuple[int, bytes]:
        family = (self._row.family if self._row is not None else None) or self._arrival.provider.family
        return family.error(DENIALS[denial.code], denial.code, denial.reason, call_id)

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
        turns, self._turns = self._turns, []
        begun: Ended = "upstream_error" if ended == "complete" else ended
        for turn in turns:
            with contextlib.suppress(AuditUnavailableError):
                await turn.exchange.finish("complete" if turn.may_be else begun)
        asking, self._asking = self._asking, None
        for rest in (asking, self.head):
            if rest is not None:
                if rest is asking:
                    rest.call = replace(rest.call, body=self._said.take(), document=None)
                with contextlib.suppress(AuditUnavailableError):
                    await rest.finish(ended)

    # -- what the client says ------------------------------------------------------------------------------------

    async def _from_client(self) -> Message:
        """``receive`` of the inner app."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._over = True
                code = message.get("code", 1005)
                quiet = not any(not turn.may_be for turn in self._turns) and code != 1006
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
            passed = await self._judged(text.encode())
            if passed is not None:
                return {"type": "websocket.receive", "text": passed.decode()}

    async def _judged(self, frame: bytes) -> bytes | None:
        """The frame as it goes upstream; None where it does not, and the client has been told."""
        wire, talk, exchange = self._inspected.wire, self._talk, self._asking or self._open()
        self._asking = exchange
        event_id = ""
        try:
            if len(frame) > exchange.chain.edge.max_body:
                raise RefusedError("too_large", f"a message is over the limit of {exchange.chain.edge.max_body} bytes")
            document = _read(wire, frame)
            kind = _text(document, "type")
            event_id = _text(document, "event_id")
            sound = kind in talk.media
            asks = kind in talk.asks
            if len(self._turns) >= MOST_TURNS and asks:
                raise RefusedError("rate_limited", f"{MOST_TURNS} answers are under way in this session")
            model = talk.model(document) or self._model
            denial = await exchange.judge_frame(self._frame(exchange, frame, document, model), asks=asks)
        except RefusedError as error:
            denial = Deny(error.code, error.reason)
            exchange.call = replace(exchange.call, body=frame if error.code != "too_large" else b"", document=None)
            exchange.refuse("governor", denial)
        sent = exchange.call.body
        if denial is None:
            denial = await self._agreed(exchange, sound=sound, asks=asks, event_id=event_id)
        if denial is None:
            return sent if not sound or await self._may_be_answered() else None
        self._asking = None
        await exchange.finish("denied")
        await self._tell(denial, exchange.call.id, event_id)
        return None

    async def _agreed(self, exchange: Exchange, *, sound: bool, asks: bool, event_id: str) -> Deny | None:
        """The chain has let a frame on: take it in, and where it *asks*, begin the turn."""
        call = exchange.call
        frame = call.body
        if sound:
            self._said.add_sound(len(frame))
            self._context += len(frame) // _SOUND_BYTES
        else:
            self._said.add(frame, call.document)
            self._context += len(frame) // 3
            if isinstance(call.document, dict) and _text(call.document, "type") not in self._talk.asks:
                self._model = self._talk.model(call.document) or self._model
        new = len(call.originals) != len(self._originals)
        self._originals = call.originals
        if new or asks:
            exchange.call = replace(call, document=self._said.documents())
            rest = self._rest()
            denial = self._renew(exchange)
            for message in rest:
                await self._send({"type": "websocket.send", "text": message})
            if denial is not None:
                return denial
        return await self._ask(exchange, event_id) if asks else None

    async def _may_be_answered(self) -> bool:
        """Whether sound may go on: a pause in it may be answered, so that there must be room for an answer before."""
        if not self._listens or any(turn.sound and not turn.response for turn in self._turns):
            return True
        return isinstance(await self._unasked(sound=True), _Turn)

    async def _ask(self, exchange: Exchange, event_id: str) -> Deny | None:
        for turn in [one for one in self._turns if one.may_be]:  # what was said so far is asked for in so many words
            self._turns.remove(turn)
            await turn.exchange.finish("complete")
        exchange.call = replace(exchange.call, body=self._said.take(), document=None)
        self._asking = None
        try:
            await exchange.intend()
        except AuditUnavailableError as error:
            denial = Deny(error.code, error.reason)
            exchange.refuse("audit", denial)
            return denial
        exchange.forward()
        self._turns.append(_Turn(exchange, event_id))
        return None

    def _open(self) -> Exchange:
        """For what is said from now on, under the chain that is current now."""
        at = self._gate.clock()
        call = replace(self._came, id=new_id(at), at=at, method=SOCKET, session=self._came.id, stream=True,
                       principal=self.head.call.principal, model=self._model)
        return Exchange(self._gate, self._arrival.provider, self._inspected, call)

    def _frame(self, exchange: Exchange, frame: bytes, document: Any, model: str) -> Call:
        """One frame as a call: from what came with the handshake, so that each policy sees it anew."""
        return replace(self._came, id=exchange.call.id, at=exchange.call.at, method=SOCKET, session=self._came.id, stream=True,
                       model=model, body=frame, document=document, originals=self._originals, context=self._context)

    async def _tell(self, denial: Deny, call_id: str, event_id: str) -> None:
        """The provider's own error, as an event."""
        status, body = self._error(denial, call_id)
        error = orjson.loads(body)
        told = {"type": "error", "event_id": f"event_{call_id}", "status": status,
                "error": {**error.get("error", error), "event_id": event_id or None}}
        log.info("refused", extra={"douane_id": call_id, "code": denial.code})
        await self._send({"type": "websocket.send", "text": orjson.dumps(told).decode()})

    # -- what the provider says ----------------------------------------------------------------------------------

    async def _to_client(self, message: Message) -> None:
        """``send`` of the inner app."""
        kind = message["type"]
        if kind == "websocket.send":
            for text in await self._answered(message["text"].encode()):
                if not self._over:
                    await self._send({"type": kind, "text": text})
        elif kind == "websocket.accept":
            self._accepted = True
            passed = self.head.start(101, _request_ids(message.get("headers", ())))
            await self._send({"type": kind, "subprotocol": message.get("subprotocol"), "headers": list(passed)})
        elif kind == "websocket.close":
            if not self._over:  # else it is the answer to the client's own closing
                waiting = any(not turn.may_be for turn in self._turns)
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

    async def _answered(self, frame: bytes) -> list[str]:
        """The messages that the client gets for one of the provider's."""
        if _END in frame:
            raise UpstreamError("upstream_error", "the provider sent a message that is no JSON")
        document, talk = _parsed(frame), self._talk
        kind = _text(document, "type")
        said = talk.listens(document)
        self._listens = self._listens if said is None else said
        self._model = self._model or talk.model(document)
        if kind in talk.sound:
            return self._through(frame)
        turn = await self._begun(document, frame) if kind == talk.begins else self._turn_of(kind, document)
        if kind in talk.taken:
            for one in self._turns:
                if one.may_be:
                    one.exchange.forward()
        elif kind in talk.heard:
            self._said.hear(frame)
        if kind == "error":
            await self._failed(document, frame, turn)
        elif turn is not None:
            turn.exchange.feed(frame + _END)
            if kind in talk.ends:
                await self._done(turn)
        return self._through(frame)

    async def _begun(self, document: Any, frame: bytes) -> _Turn:
        waiting = [turn for turn in self._turns if not turn.response]
        found = next((one for one in waiting if not one.sound), None) or next(iter(waiting), None)
        turn = found or await self._unasked(sound=False)
        if isinstance(turn, Deny):
            raise RefusedError(turn.code, turn.reason)
        turn.response = response_id(document) or "unnamed"
        if turn.may_be:
            turn.exchange.forward()
        turn.exchange.start(200, ((b"content-type", MESSAGES_MEDIA),))
        return turn

    async def _unasked(self, *, sound: bool) -> "_Turn | Deny":
        """An answer that the client has not asked for in so many words: that *sound* may get, or that has begun by itself.
        Where it may not be, the client has been told."""
        exchange = self._open()
        denial = await exchange.judge_frame(self._frame(exchange, b"{}", {}, self._model), asks=True)
        exchange.call = replace(exchange.call, body=self._said.take(), document=None)
        if not sound:
            exchange.forward()
        if denial is not None:
            await exchange.finish("denied" if sound else "cut")
            await self._tell(denial, exchange.call.id, "")
            return denial
        await exchange.intend()
        turn = _Turn(exchange, sound=sound)
        self._turns.append(turn)
        return turn

    def _turn_of(self, kind: str, document: Any) -> _Turn | None:
        named = response_id(document)
        begun = [turn for turn in self._turns if turn.response]
        if named:
            return next((turn for turn in begun if turn.response == named), None)
        return begun[-1] if begun and kind.startswith("response.") else None

    async def _failed(self, document: Any, frame: bytes, turn: _Turn | None) -> None:
        """The provider's ``error``: whether it is the answer to what was asked."""
        error = document.get("error") if isinstance(document, dict) else None
        about = _text(error, "event_id")
        waiting = [one for one in self._turns if not one.response and not one.sound]
        refused = next((one for one in waiting if not about or one.event_id == about), None)
        if refused is not None:
            status = document.get("status")
            refused.exchange.start(status if isinstance(status, int) and status >= 400 else 400, ())
            refused.exchange.feed(frame)
            await self._done(refused)
        elif self._talk.error_ends:
            begun = next((one for one in self._turns if one.response), None)
            if begun is not None:
                begun.exchange.feed(frame + _END)
                await self._done(begun)

    async def _done(self, turn: _Turn) -> None:
        turn.exchange.close()
        usage = turn.exchange.usage
        if usage is not None:
            self._context = usage.input + usage.output
        self._turns.remove(turn)
        await turn.exchange.finish("complete")

    # -- filters -------------------------------------------------------------------------------------------------

    def _renew(self, exchange: Exchange) -> Deny | None:
        """Filters that know what *exchange* has put in."""
        filters = exchange.session_filters()
        if isinstance(filters, Deny):
            return filters
        for one in filters:
            one.headers(((b"content-type", MESSAGES_MEDIA),))
        self._filters = filters
        return None

    def _through(self, frame: bytes) -> list[str]:
        stream = frame + _END
        for one in self._filters:
            stream = one.feed(stream)
        return _messages(stream)

    def _rest(self) -> list[str]:
        """What the filters hold back."""
        stream = b""
        for one in self._filters:
            stream = one.feed(stream) + one.close() if stream else one.close()
        return _messages(stream)


def _messages(stream: bytes) -> list[str]:
    return [one.decode() for one in stream.split(_END) if one]


def _read(wire: Any, frame: bytes) -> Any:
    """Raises RefusedError."""
    try:
        return wire.read(frame, b"")
    except ValueError:
        raise RefusedError("bad_request", "the message is no JSON, or names a member twice") from None


def _parsed(frame: bytes) -> Any:
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None


def _text(document: Any, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""


def _request_ids(headers: Headers) -> Headers:
    """Of a handshake's answer: what the record names the session by."""
    return tuple(one for one in headers if one[0] in (b"x-request-id", b"request-id"))
