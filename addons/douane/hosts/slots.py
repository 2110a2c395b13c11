"""The sockets that workers share a port by.

Law: a place's sockets outlive its workers. The parent binds them and never accepts; a worker listens on those it was handed,
and whoever succeeds it finds the queue of connections as it stands. So none is refused or reset while a worker is replaced.
"""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from douane.errors import EnvironmentFailedError
from douane.places import Listen

__all__ = ["BACKLOG", "Slot", "open_slots"]

SPREADS = sys.platform == "linux"
"""Whether the kernel spreads connections over the sockets of one port; elsewhere all workers accept from one."""

BACKLOG = 1024
"""Connections that may wait while a worker is replaced."""

type Sockets = tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A worker's place, from 1: bound sockets, one an address of the port."""

    number: int
    proxy: Sockets
    http: Sockets

    @property
    def sockets(self) -> Sockets:
        return self.proxy + self.http


def open_slots(proxy: Listen, http: Listen, count: int) -> tuple[Slot, ...]:
    """Raises EnvironmentFailedError where an address cannot be had."""
    ports = [_bind(proxy, "--proxy", count), _bind(http, "--http", count)]
    return tuple(Slot(number + 1, *(sockets[number] for sockets in ports)) for number in range(count))


def _bind(at: Listen, option: str, count: int) -> list[Sockets]:
    """*count* times the sockets of one port."""
    try:
        found = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        first = _alone(addresses)
        port = first[0].getsockname()[1]
        if not SPREADS:
            return [first] * count
        for one in first:  # it has shown that nobody else is here, who would be given a part of the connections
            one.close()
        return [tuple(_socket(family, (address[0], port, *address[2:]), shared=True) for family, address in addresses)
                for _ in range(count)]
    except OSError as error:
        raise EnvironmentFailedError(f"cannot listen on {at}: {error.strerror or error}; "
                                     f"choose another with {option} HOST:PORT") from None


def _alone(addresses: Sequence[tuple[int, tuple[object, ...]]]) -> Sockets:
    """One socket an address, all on one port. Raises OSError where anybody has that."""
    made: list[socket.socket] = []
    try:
        for family, address in addresses:
            port = made[0].getsockname()[1] if made else address[1]
            made.append(_socket(family, (address[0], port, *address[2:]), shared=False))
    except OSError:
        for one in made:
            one.close()
        raise
    return tuple(made)


def _socket(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
