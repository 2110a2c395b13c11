"""The turns of a WebSocket session: what the client says is judged, what the provider says is restored and told apart.

Laws: each frame of the client's is judged as a call's body is, by the whole chain: what is refused is not sent on, and the
client is told with the provider's own ``error``. Nothing leaves before the log has it: each answer has a record of its own,
whose intent is durable before the frame that asks for it leaves, the outcome before the client sees the answer's end; a frame
that asks for nothing is in an event ``said`` before it leaves. An answer that nobody asked for (the provider heard a pause) is
judged when it begins, and where it may not be, the session ends.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from douane.call import Call, Ended, Principal
from douane.errors import DENIALS, AuditUnavailableError, RefusedError, UpstreamError
from douane.exchange import Exchange
from douane.gate import Gate, new_id
from douane.policy import BodyFilter
from douane.providers.base import Operation, Provider, Wire
from douane.providers.dialogue import SOCKET, Dialogue, response_id
from douane.providers.framing import MESSAGES_MEDIA
from douane.said import Said
from douane.secrets import NO_ORIGINALS
from douane.verdict import Deny

__all__ = ["MOST_TURNS", "Turns", "told"]

log = logging.getLogger("douane.session")

MOST_TURNS = 32
"""Answers that are asked for and have not ended."""
_END = b"\x1e"
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


class Turns:
    """What is said in one session, from both sides. *came*: the handshake as it came; *say*: a message to the client."""

    def __init__(self, gate: Gate, provider: Provider, row: Operation | None, came: Call,
                 say: Callable[[str], Awaitable[None]]) -> None:
        self._gate, self._provider, self._row, self._came, self._say = gate, provider, row, came, say
        self.talk = (row.dialogue if row is not None else None) or Dialogue(frozenset())
        self._wire = row.wire if row is not None else None
        self.filters: Sequence[BodyFilter] = ()
        self.principal: Principal = came.principal
        self.model = ""
        self._asking: Exchange | None = None
        """Judges what is said until the next frame that asks."""
        self._turns: list[_Turn] = []
        self._said = Said()
        self._originals = NO_ORIGINALS
        self._context = 0
        self._listens = True
        self._sounding = False
        """Whether the log has it that sound goes out."""

    @property
    def waiting(self) -> bool:
        """Whether an answer is under way."""
        return any(not turn.may_be for turn in self._turns)

    async def end(self, ended: Ended) -> None:
        """Write the outcome of everything that is open; one that cannot be written keeps none of the others from theirs."""
        turns, self._turns = self._turns, []
        begun: Ended = "upstream_error" if ended == "complete" else ended
        for turn in turns:
            with contextlib.suppress(AuditUnavailableError):
                await turn.exchange.finish("complete" if turn.may_be else begun)
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.call = replace(asking.call, body=self._said.take(), document=None)
            with contextlib.suppress(AuditUnavailableError):
                await asking.finish(ended)

    # -- what the client says ------------------------------------------------------------------------------------

    async def judged(self, frame: bytes) -> bytes | None:
        """The frame as it goes upstream; None where it does not, and the client has been told."""
        wire, talk, exchange = self._wire, self.talk, self._asking or self._open()
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
            model = talk.model(document) or self.model
            denial = await exchange.judge_frame(self._frame(exchange, frame, document, model), asks=asks)
        except RefusedError as error:
            denial = Deny(error.code, error.reason)
            exchange.call = replace(exchange.call, body=frame if error.code != "too_large" else b"", document=None)
            exchange.refuse("governor", denial)
        sent = exchange.call.body
        if denial is None:
            denial = await self._agreed(exchange, sound=sound, asks=asks, event_id=event_id)
        if denial is None and (not sound or await self._may_be_answered()):
            denial = None if asks else await self._noted(exchange, sent, sound=sound)
            if denial is None:
                return sent
        elif denial is None:
            return None
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
            if isinstance(call.document, dict) and _text(call.document, "type") not in self.talk.asks:
                self.model = self.talk.model(call.document) or self.model
        new = len(call.originals) != len(self._originals)
        self._originals = call.originals
        if new or asks:
            exchange.call = replace(call, document=self._said.documents(last=self.talk.whole))
            rest = self._rest()
            denial = self._renew(exchange)
            for message in rest:
                await self._say(message)
            if denial is not None:
                return denial
        return await self._ask(exchange, event_id) if asks else None

    async def _noted(self, exchange: Exchange, sent: bytes, *, sound: bool) -> Deny | None:
        """A frame that asks for nothing, into the log before it leaves. Of sound, once a turn, that there is some."""
        if sound and self._sounding:
            return None
        try:
            await exchange.note_said(b"" if sound else sent)
        except AuditUnavailableError as error:
            denial = Deny(error.code, error.reason)
            exchange.refuse("audit", denial)
            return denial
        self._sounding = self._sounding or sound
        return None

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
        self._asking, self._sounding = None, False
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
                       principal=self.principal, model=self.model)
        return Exchange(self._gate, self._provider, self._row, call)

    def _frame(self, exchange: Exchange, frame: bytes, document: Any, model: str) -> Call:
        """One frame as a call: from what came with the handshake, so that each policy sees it anew."""
        return replace(self._came, id=exchange.call.id, at=exchange.call.at, method=SOCKET, session=self._came.id, stream=True,
                       model=model, body=frame, document=document, originals=self._originals, context=self._context)

    async def _tell(self, denial: Deny, call_id: str, event_id: str) -> None:
        """The provider's own error, as an event."""
        status, body = told(self._provider, self._row, denial, call_id)
        error = orjson.loads(body)
        event = {"type": "error", "event_id": f"event_{call_id}", "status": status,
                 "error": {**error.get("error", error), "event_id": event_id or None}}
        log.info("refused", extra={"douane_id": call_id, "code": denial.code})
        await self._say(orjson.dumps(event).decode())

    # -- what the provider says ----------------------------------------------------------------------------------

    async def answered(self, frame: bytes) -> list[str]:
        """The messages that the client gets for one of the provider's."""
        if _END in frame:
            raise UpstreamError("upstream_error", "the provider sent a message that is no JSON")
        document, talk = _parsed(frame), self.talk
        kind = _text(document, "type")
        said = talk.listens(document)
        self._listens = self._listens if said is None else said
        self.model = self.model or talk.model(document)
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
        self._sounding = False
        if turn.may_be:
            turn.exchange.forward()
        turn.exchange.start(200, ((b"content-type", MESSAGES_MEDIA),))
        return turn

    async def _unasked(self, *, sound: bool) -> "_Turn | Deny":
        """An answer that the client has not asked for in so many words: that *sound* may get, or that has begun by itself.
        Where it may not be, the client has been told."""
        exchange = self._open()
        denial = await exchange.judge_frame(self._frame(exchange, b"{}", {}, self.model), asks=True)
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
        elif self.talk.error_ends:
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
        self.filters = filters
        return None

    def _through(self, frame: bytes) -> list[str]:
        stream = frame + _END
        for one in self.filters:
            stream = one.feed(stream)
        return _messages(stream)

    def _rest(self) -> list[str]:
        """What the filters hold back."""
        stream = b""
        for one in self.filters:
            stream = one.feed(stream) + one.close() if stream else one.close()
        return _messages(stream)


def _messages(stream: bytes) -> list[str]:
    return [one.decode() for one in stream.split(_END) if one]


def _read(wire: Wire | None, frame: bytes) -> Any:
    """Raises RefusedError."""
    try:
        return None if wire is None else wire.read(frame, b"")
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


def told(provider: Provider, row: Operation | None, denial: Deny, call_id: str) -> tuple[int, bytes]:
    """The HTTP status and the JSON of a denial, as the provider would say it."""
    family = (row.family if row is not None else None) or provider.family
    return family.error(DENIALS[denial.code], denial.code, denial.reason, call_id)
