"""One connection to a provider: one exchange at a time, and the only place where its fate is decided.

Law: **idle means clean.** A connection goes back to its owner only when the request was written whole, the answer was
framed whole and nothing followed it; every other end, a cancelled caller's too, closes the socket at once.

Built on asyncio's Protocol and one future a call: no task and no timer per call. A call that is cancelled, timed out
or cut ends in :meth:`Connection.abort`, which is idempotent.
"""

import asyncio
import select
import ssl
import sys
import time
from collections.abc import AsyncIterable, Callable
from enum import Enum
from typing import Protocol

from douane.errors import UpstreamError
from douane.upstream.answer import Answer
from douane.upstream.attached import Attached
from douane.upstream.reader import MalformedError, Reader
from douane.upstream.settings import Limits, Timeouts

__all__ = ["Connection", "Owner", "StaleError"]

JOINED = 64 * 1024
"""Bytes of body up to which head and body go out in one write; larger ones follow in pieces of this size."""
FRESH = 0.02
"""Seconds for which a connection that was just given back is taken to be as it was."""


class StaleError(UpstreamError):
    """A kept connection was closed by the peer before the first byte of an answer: a request with nothing lost but
    perhaps processed. The pool decides whether it may be sent again."""


class Owner(Protocol):
    """Whoever gave the connection out."""

    def freed(self, connection: "Connection") -> None: ...
    def lost(self, connection: "Connection") -> None: ...


class _Phase(Enum):
    IDLE = 0
    HEAD = 1  # a request is under way, its answer's head not complete
    BODY = 2
    CLOSED = 3


class Connection(Attached):
    """*name* is ``host:port`` as messages say it. The owner comes with :meth:`adopt`, once the connection is made."""

    __slots__ = ("_answer", "_deadline", "_full", "_given_back", "_heard", "_limits", "_loop", "_lost", "_owner",
                 "_paused", "_phase", "_polled", "_raw", "_reader", "_room", "_sender", "_sent", "_timeouts",
                 "_timer", "_transport", "_used", "_waiter", "name")

    _raw: asyncio.Transport
    _transport: asyncio.Transport

    def __init__(self, name: str, timeouts: Timeouts, limits: Limits) -> None:
        self.name = name
        self._timeouts = timeouts
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(limits.max_head)
        self._phase = _Phase.IDLE
        self._lost = False
        self._heard = False
        self._used = False
        self._sent = True
        self._full = False
        self._paused = False
        self._owner: Owner | None = None
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[Answer | BaseException] | None = None
        self._room: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._given_back = 0.0
        self._polled: Callable[[float], list[tuple[int, int]]] | None = None

    # The owner's side.

    def adopt(self, owner: Owner) -> bool:
        """From now on *owner* hears of this connection; False when it has been lost already."""
        self._owner = owner
        return not self._lost

    def clean(self) -> bool:
        """Whether a request may go out on it. Asks the kernel too, what the peer sent or closed may not have been read
        yet; but not where the connection has been idle for no longer than a turn of a busy loop: no server gives up a
        connection that soon, and the question costs a twentieth of a call's CPU."""
        if self._phase is not _Phase.IDLE or self._polled is None:
            return self._phase is _Phase.IDLE
        return time.monotonic() - self._given_back < FRESH or not self._polled(0)

    async def exchange(self, method: bytes, head: bytes, body: bytes | AsyncIterable[bytes]) -> Answer:
        """Send a request on a clean connection; its answer, as soon as the head is there. Raises UpstreamError
        (StaleError) and whatever *body* raises; cancelled, it closes the connection."""
        if self._phase is not _Phase.IDLE:
            raise UpstreamError("upstream_error", f"{self.name} closed the connection as soon as it was made")
        self._reader.expect(method)
        self._phase = _Phase.HEAD
        self._heard = False
        waiter = self._waiter = self._loop.create_future()
        self._arm(self._timeouts.first_byte)
        if isinstance(body, bytes) and len(body) <= JOINED:
            self._transport.write(head + body if body else head)
        else:
            self._sent = False
            self._sender = self._loop.create_task(self._send(head, body))
            self._sender.add_done_callback(self._sender_ended)
        try:
            result = await waiter
        except BaseException:
            self._unwanted(waiter)
            raise
        if isinstance(result, Answer):
            return result
        raise result

    def _unwanted(self, waiter: "asyncio.Future[Answer | BaseException]") -> None:
        """The caller is gone. What it would have got may be complete, its connection another call's by now: ask the
        answer."""
        result = None if waiter.cancelled() or not waiter.done() else waiter.result()
        if isinstance(result, Answer):
            result.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever is under way. Idempotent."""
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        if self._sender is not None:
            self._sender.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    def fail(self, error: BaseException) -> None:
        """End what is under way with *error*, and the connection."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(error)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(error)
        self.abort()

    def resume(self) -> None:
        """The caller has read what there was."""
        if self._paused:
            self._paused = False
            self._arm(self._timeouts.idle)
            self._raw.resume_reading()

    # Sending what does not go out in one write.

    async def _send(self, head: bytes, body: bytes | AsyncIterable[bytes]) -> None:
        if isinstance(body, bytes):
            self._transport.write(head + body[:JOINED])
            for start in range(JOINED, len(body), JOINED):
                await self._drained()
                self._transport.write(body[start:start + JOINED])
        else:
            async for piece in body:
                if piece:  # an empty chunk would be the last
                    self._transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece))
                    head = b""
                    await self._drained()
            self._transport.write(head + b"0\r\n\r\n")
        self._arm(self._timeouts.first_byte)
        self._sent = True

    async def _drained(self) -> None:
        self._arm(self._timeouts.first_byte)
        if self._full:
            self._room = self._loop.create_future()
            await self._room

    def _sender_ended(self, task: "asyncio.Task[None]") -> None:
        self._sender = None
        error: BaseException | None
        if task.cancelled():
            error = UpstreamError("upstream_error", f"the body of the request to {self.name} was cancelled")
        else:
            error = task.exception()
        if error is not None and self._phase is _Phase.HEAD:  # else we ended it ourselves
            self.fail(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # Receiving.

    def attach(self, raw: asyncio.Transport, transport: asyncio.Transport) -> None:
        """Send and close by *transport*, which is *raw* or TLS above it. Reading is stopped on the socket's own
        transport: paused higher up, asyncio and uvloop both lose what was not yet decrypted when the peer closes."""
        self._raw = raw
        self._transport = transport
        if self._polled is None and sys.platform != "win32":
            poller = select.poll()
            poller.register(raw.get_extra_info("socket").fileno(), select.POLLIN)
            self._polled = poller.poll

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is not _Phase.HEAD and phase is not _Phase.BODY:
            self.abort()  # nobody asked
            return
        self._heard = True
        reader = self._reader
        flaw = ""
        try:
            reader.feed(data)
        except MalformedError as error:
            flaw = str(error)
        if phase is _Phase.HEAD and reader.status and not self._begin():
            return
        slow = False
        if reader.pieces and self._answer is not None:
            slow = self._answer.feed(reader.pieces)
            reader.pieces = []
        if flaw:
            self.fail(UpstreamError("upstream_error", f"{self.name} does not answer in HTTP/1.1: {flaw}"))
        elif reader.complete:
            self._finish()
        elif self._phase is _Phase.BODY:
            self._arm(self._timeouts.idle)
            if slow and not self._paused:
                self._paused = True
                self._raw.pause_reading()

    def _begin(self) -> bool:
        """The head is there: hand it over, and stop sending. False when nobody waits for it any more."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return False
        self._phase = _Phase.BODY
        if self._sender is not None:
            self._sender.cancel()
        self._answer = Answer(self._reader.status, self._reader.headers, self)
        waiter.set_result(self._answer)
        return True

    def _finish(self) -> None:
        """The answer is whole."""
        answer, self._answer = self._answer, None
        self.resume()
        if answer is not None:
            answer.end()
        if self._reader.reusable and self._sent and not self._transport.get_write_buffer_size():
            self._phase = _Phase.IDLE
            self._given_back = time.monotonic()  # the loop's own clock stands still while a turn lasts
            self._used = True
            self._arm(self._limits.keep_alive)
            if self._owner is not None:
                self._owner.freed(self)
        else:
            self.abort()

    def eof_received(self) -> None:
        """The peer ended its side."""
        if self._phase is _Phase.BODY and self._reader.eof() and self._in_order():
            self._finish()
        else:
            self._cut("")

    def _in_order(self) -> bool:
        """Over TLS a bare FIN, which anybody on the way can send, is a cut. asyncio (unlike uvloop) tells us of it as
        of a close_notify; the TLS object knows: it reads nothing after the one, and waits for more after the
        other."""
        secure: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        try:
            return secure is None or not secure.read(1)
        except ssl.SSLError:
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut(f" ({exc.strerror})" if isinstance(exc, OSError) and exc.strerror else "")
        self._lost = True
        if self._owner is not None:
            self._owner.lost(self)

    def _cut(self, why: str) -> None:
        if self._phase is _Phase.IDLE or self._phase is _Phase.CLOSED:
            self.abort()
        elif self._phase is _Phase.BODY:
            self.fail(UpstreamError("upstream_error", f"{self.name} broke off its answer{why}"))
        elif self._heard:
            self.fail(UpstreamError("upstream_error", f"{self.name} broke off in the head of its answer{why}"))
        elif self._used:
            line = f"{self.name} closed a kept connection before answering{why}"
            doubt = "it is not known whether the call was processed, so it was not sent again"
            self.fail(StaleError("upstream_error", f"{line}; {doubt}"))
        else:
            self.fail(UpstreamError("upstream_error", f"{self.name} closed the connection without an answer{why}"))

    # Time: one timer a connection, moved only when it would come too late.

    def _arm(self, seconds: float) -> None:
        self._deadline = deadline = self._loop.time() + seconds
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._paused:
            self._deadline = now + self._timeouts.idle
        if now < self._deadline:
            # Never further off than an idle connection may live, so that going idle seldom has to move the timer.
            self._timer = self._loop.call_at(min(self._deadline, now + self._limits.keep_alive), self._tick)
        elif self._phase is _Phase.HEAD:
            limit = self._timeouts.first_byte
            self.fail(UpstreamError("upstream_timeout", f"{self.name} did not answer within {limit:g} s"))
        elif self._phase is _Phase.BODY:
            limit = self._timeouts.idle
            self.fail(UpstreamError("upstream_timeout", f"{self.name} fell silent for {limit:g} s in its answer"))
        else:
            self.abort()
