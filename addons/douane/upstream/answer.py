"""What the caller of the pool holds: status, headers, and the body as it comes.

The answer owns what has arrived; its connection may have gone back to the pool, or be lost, before the last piece is
read.
"""

import asyncio
from typing import Protocol

from douane.errors import UpstreamError

__all__ = ["HIGH_WATER", "Answer"]

HIGH_WATER = 64 * 1024
"""Bytes held unread at which the connection stops reading. One read more (at most 256 KB) may already be on its way."""


class Source(Protocol):
    """The connection an answer still comes from."""

    def resume(self) -> None: ...
    def abort(self) -> None: ...


class Answer:
    """One answer. ``headers`` have names in lower case and no hop-by-hop fields; ``content-length`` is there when it
    is true.

    For one reader. Whoever does not read to the end calls :meth:`close`."""

    __slots__ = ("_ended", "_error", "_pieces", "_size", "_source", "_waiter", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], source: Source) -> None:
        self.status = status
        self.headers = headers
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The next piece of the body, dechunked and still content-coded; ``b""`` at its end.

        Raises UpstreamError, once what did arrive has been read, when the answer was cut, timed out or closed.
        Cancelled: the connection is closed."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._wait()
        pieces = self._pieces
        self._pieces = []
        self._size = 0
        if self._source is not None:
            self._source.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """No more is wanted: what has not arrived is not waited for, its connection is closed at once. Idempotent."""
        source, self._source = self._source, None
        if source is not None:
            self._pieces = []
            self._stop(UpstreamError("upstream_error", "the answer was closed before its end"))
            source.abort()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    # What the connection calls.

    def feed(self, pieces: list[bytes]) -> bool:
        """Take *pieces*; whether the caller is slow enough for reading to stop."""
        self._pieces = self._pieces + pieces if self._pieces else pieces
        self._size += sum(map(len, pieces))
        self._wake()
        return self._size >= HIGH_WATER

    def end(self) -> None:
        """The body is whole."""
        self._ended = True
        self._source = None
        self._wake()

    def fail(self, error: BaseException) -> None:
        """No more will come; *error* follows what has arrived."""
        self._source = None
        self._stop(error)

    def _stop(self, error: BaseException) -> None:
        if not self._ended:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
