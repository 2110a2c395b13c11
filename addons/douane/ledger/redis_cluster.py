"""A cluster of Redis': each request goes to the node that has its slot.

Law: all keys of a request have one hash tag, hence one node. Where the slots are is asked again, one question at a time, when a
node says that a slot has moved or a node is lost; a request waits for the answer within its own time. A slot on its way from
one node to another refuses its calls until it has arrived.
"""

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol

from douane.ledger.redis_keys import Command
from douane.ledger.redis_line import Wish
from douane.ledger.redis_link import CONNECT_SECONDS, Link, UnreachableError, fail
from douane.ledger.redis_where import Node, Place, slot_of

__all__ = ["Cluster", "Route", "single"]

_PAUSE_SECONDS = 0.5
_PROBE: Command = ("PING",)
_TRIES = 5
"""How often a request may be sent on."""


class Route(Protocol):
    """What a ledger sends its requests on."""

    @property
    def failure(self) -> str:
        """Why the last request failed; empty after one that did not."""
        ...

    def put(self, wish: Wish) -> None:
        """Send it; on the loop."""
        ...

    def close(self) -> None:
        """On any thread, or after the loop has ended."""
        ...


def single(place: Place, probe: Command) -> Link:
    """One server, or the primary that Sentinel knows."""
    return Link(str(place), partial(place.dial, None, probe), _stays, _nothing)


class Cluster:
    """A :class:`Route`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._slots: Mapping[int, Node] = {}
        self._links: dict[Node, Link] = {}
        self._waiting: list[Wish] = []
        self._learning: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def failure(self) -> str:
        return self._failure or next((link.failure for link in self._links.values() if link.failure), "")

    def put(self, wish: Wish) -> None:
        node = self._slots.get(slot_of(wish.key))
        if node is not None:
            self._link(node).put(wish)
            return
        self._waiting.append(wish)
        self._learn()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        if self._learning is not None and self._learning.get_loop().is_running():
            self._learning.get_loop().call_soon_threadsafe(self._learning.cancel)

    def _link(self, node: Node) -> Link:
        if node not in self._links:
            host, port = node
            self._links[node] = Link(f"{host}:{port}", partial(self._place.dial, node, _PROBE), self._moved, self._learn)
        return self._links[node]

    def _moved(self, wish: Wish) -> bool:
        wish.hops += 1
        if wish.hops > _TRIES:
            wish.hops = 0
            return False
        self._waiting.append(wish)
        self._learn()
        return True

    def _learn(self) -> None:
        if self._learning is None or self._learning.done() or self._learning.get_loop() is not asyncio.get_running_loop():
            self._learning = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._slots = await self._place.slots(list(self._links))
                break
            except TimeoutError:
                self._failure = f"{self._place}: does not answer"
            except (OSError, UnreachableError) as error:
                self._failure = f"{self._place}: {error}"
            waiting, self._waiting = self._waiting, []
            for wish in waiting:
                fail(wish, "cannot be reached")
                if wish.owed:
                    self._waiting.append(wish)
            await asyncio.sleep(_PAUSE_SECONDS)
        self._failure = ""
        waiting, self._waiting = self._waiting, []
        for wish in (*self._strays(), *waiting):
            if wish.owed or not wish.future.done():
                self.put(wish)

    def _strays(self) -> Iterator[Wish]:
        """What waits for nodes that have no slot any more, which are let go."""
        homes = set(self._slots.values())
        for node in [node for node in self._links if node not in homes]:
            link = self._links.pop(node)
            yield from link.rest()
            link.close()


def _stays(_: Wish) -> bool:
    return False


def _nothing() -> None:
    pass



