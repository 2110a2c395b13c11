"""From a host's name to an address that may be dialled.

Law: what is checked is what is dialled: the address is pinned, and no name is resolved a second time.
"""

import asyncio
import socket

from douane.edge import refused_address

__all__ = ["DIAL_SECONDS", "AddressRefusedError", "resolve"]

DIAL_SECONDS = 15.0


class AddressRefusedError(OSError):
    """A name stands for addresses that nobody may dial through this gateway."""


async def resolve(host: str, port: int, *, local_client: bool, listeners: list[tuple[str, int]]) -> str:
    """The IP address to dial. Raises AddressRefusedError where none may be, OSError where there is none."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        raise OSError(f"{host} cannot be resolved") from None
    why = "it has no address"
    for *_, (address, *_rest) in found:
        refusal = refused_address(str(address), port, local_client=local_client, listeners=listeners)
        if refusal is None:
            return str(address)
        why = refusal
    raise AddressRefusedError(f"{host} must not be reached through this gateway: {why}")
