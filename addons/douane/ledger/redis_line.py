"""One connection to one Redis server, on which the requests of many calls travel.

Law: answers come in the order of the requests, so a request is known by its place in line, and the line ends with the first
byte that does not fit. It keeps no request back and repeats none: who opened it does.

redis-py's asyncio client takes 84 µs of CPU a command, and its pool a connection for each that waits. Here are hiredis' packer
and reader, which it uses itself, on a plain asyncio Protocol: 4 µs.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

from douane.ledger.redis_keys import Command, Script

__all__ = ["Line", "Wish", "code_of"]

_IDLE_SECONDS = 30
"""After which the kernel asks whether the peer is still there."""


@dataclass(slots=True, eq=False)
class Wish:
    """One request."""

    command: Command
    future: "asyncio.Future[Any]"
    script: Script | None = None
    """*command* is its keys and arguments."""
    repeat: Command | None = None
    """What to send where a connection was lost and the first may have been done; None: nothing."""
    owed: bool = False
    """It is done sometime, whoever waits."""
    then: "Callable[[Wish, Any], None] | None" = None
    """Gets the answer, in place of *future*; None for one that will never be asked again."""
    sent: bool = False
    hops: int = 0
    """How often another node was said to have it."""
    whole: bool = False
    """The server does not know the script: send its text."""

    @property
    def key(self) -> str:
        return str(self.command[1])

    def packed(self) -> bytes:
        if self.script is None:
            return _pack(self.command)
        return _pack((("EVAL", self.script.source) if self.whole else ("EVALSHA", self.script.sha)) + self.command)


_pack: Callable[[tuple[str | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # whose stub says one item


def code_of(error: Exception) -> str:
    """``OOM``, ``READONLY`` …: the first word of what the server says."""
    return str(error).partition(" ")[0]


class Line(asyncio.Protocol):
    """:meth:`greet` first; then set *answered*, which gets each wish with its answer (an hiredis.ReplyError is one)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.flying: deque[Wish] = deque()
        """Sent, not answered."""
        self.lost: asyncio.Future[None] = loop.create_future()
        self.answered: Callable[[Wish, Any], None] = _result
        self.writable = True
        """False: the kernel takes no more for now."""
        self.ready: Callable[[], None] = _nothing
        """Called when something was heard, or the line is writable again."""
        self._loop = loop
        self._heard = 0.0
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None

    @property
    def silence(self) -> float:
        """Seconds for which an answer has been due and nothing was heard."""
        return self._loop.time() - self._heard if self.flying else 0.0

    def send(self, wishes: Sequence[Wish]) -> None:
        if self._transport is None or self.lost.done():
            raise ConnectionResetError("the connection is lost")
        if not self.flying:
            self._heard = self._loop.time()
        self.flying.extend(wishes)
        self._transport.write(b"".join([wish.packed() for wish in wishes]))

    async def greet(self, commands: Sequence[Command]) -> Sequence[Any]:
        """The answers to *commands*. Raises OSError where the line is lost."""
        wishes = [Wish(command, self._loop.create_future()) for command in commands]
        self.send(wishes)
        await asyncio.wait([self.lost, wishes[-1].future], return_when=asyncio.FIRST_COMPLETED)
        if not wishes[-1].future.done():
            raise ConnectionResetError("the connection was closed")
        return [wish.future.result() for wish in wishes]

    def abort(self) -> None:
        """Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        given = transport.get_extra_info("socket")
        if given is not None and given.family in (socket.AF_INET, socket.AF_INET6):
            given.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                given.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, flying = self._reader, self.flying
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                self.answered(flying.popleft(), answer)
        except (hiredis.HiredisError, IndexError):  # no Redis, or an answer that nobody asked for
            self.abort()
            return
        self.ready()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.ready()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


def _result(wish: Wish, answer: Any) -> None:
    if not wish.future.done():
        wish.future.set_result(answer)


def _nothing() -> None:
    pass
