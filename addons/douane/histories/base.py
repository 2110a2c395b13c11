"""What is kept of a history that lies with a provider, and where policies find it.

Law: nothing here is guessed. A history that was never kept, or kept too long ago, is empty; one that cannot be read raises,
for an answer without its values, and a next turn that can never have them, is a loss nobody would see.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from douane.errors import DouaneError
from douane.secrets import NO_ORIGINALS, Originals

__all__ = ["ANSWER_SECONDS", "NOTHING", "Histories", "History", "HistoryTooLargeError", "HistoryUnavailableError", "Name",
           "Shelf", "durable", "unwatched"]

ANSWER_SECONDS = 1.0
"""What a store may take to answer."""
_AROUND = 16
"""Bytes of the brackets around values and hosts."""


class HistoryUnavailableError(DouaneError):
    """The store is locked, broken, full, closed or too slow; or what it holds is not what was written."""

    exit_code = 3


class HistoryTooLargeError(DouaneError):
    """A history grew over the bound: its oldest values were left out."""


@dataclass(frozen=True, slots=True)
class Name:
    """Whose history: *id* is the provider's own name of a response or a conversation. Another tenant's is another name."""

    provider: str
    tenant: str
    id: str


@dataclass(frozen=True, slots=True)
class History:
    """What the requests of a history put in, oldest first, and the hosts they held; those of answers are not in it."""

    originals: Originals = NO_ORIGINALS
    hosts: frozenset[str] = field(default=frozenset(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.originals)

    def joined(self, later: "History") -> "History":
        """Both. A placeholder that stands for two values (they met in two turns at once) stands for neither."""
        if not self or not later:
            return self or later
        one, other = self.originals, later.originals
        clash = {name for name in one.keys() & other.keys() if one[name] != other[name]}
        both = {name: value for name, value in (*one.items(), *other.items()) if name not in clash}
        return History(Originals(both), self.hosts | later.hosts)

    def within(self, limit: int) -> "History":
        """The newest values that take up to *limit* bytes when written. Of that the hosts may take a quarter: all or none."""
        taken = sum(len(json.dumps(host)) + 1 for host in self.hosts)
        hosts = self.hosts if taken <= limit // 4 else frozenset[str]()
        room = limit - (taken if hosts else 0) - _AROUND
        kept: dict[str, str] = {}
        for name, value in reversed([*self.originals.items()]):
            room -= len(json.dumps(name)) + len(json.dumps(value)) + 2
            if room < 0:
                break
            kept[name] = value
        return History(Originals(dict(reversed(kept.items()))), hosts)


NOTHING = History()


class Histories(Protocol):
    async def load(self, names: Sequence[Name]) -> History:
        """All that is kept under *names*; empty where there is nothing. Raises HistoryUnavailableError."""
        ...

    def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
        """Add *history* to what is kept under each of *names*, until *expires_at* (seconds since the epoch).

        Begins at once and raises nothing itself; the future is done when it is durable. That raises HistoryUnavailableError
        (what was to be saved is tried again, as long as this process lives) or HistoryTooLargeError (the newest values are
        kept). Call :func:`durable` to wait for it."""
        ...


class _Closed:
    async def load(self, names: Sequence[Name]) -> History:
        raise HistoryUnavailableError("no store of histories is open")

    def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
        future = unwatched(asyncio.get_running_loop())
        future.set_exception(HistoryUnavailableError("no store of histories is open"))
        return future


def unwatched(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
    """A future that may be left alone, whatever comes of it."""
    future: asyncio.Future[Any] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def durable(saving: "asyncio.Future[None]") -> None:
    """Wait for what ``save`` gave. Raises what it raises; after ``ANSWER_SECONDS`` it is written all the same, if it can be."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.shield(saving)
    except TimeoutError:
        raise HistoryUnavailableError(f"the store of histories did not answer within {ANSWER_SECONDS:g} s") from None


class Shelf:
    """Where policies find the store once it is open; they are bound before, and outlive no reload."""

    __slots__ = ("histories",)

    def __init__(self) -> None:
        self.histories: Histories = _Closed()
