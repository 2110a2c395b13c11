"""What a dialler gives an open connection to."""

import asyncio
from abc import abstractmethod

__all__ = ["Attached"]


class Attached(asyncio.Protocol):
    """A protocol that is told what it is to write to and to close."""

    __slots__ = ()

    @abstractmethod
    def attach(self, raw: asyncio.Transport, transport: asyncio.Transport) -> None:
        """Send and close by *transport*, which is *raw* or TLS above it. Reading is paused on *raw*."""
