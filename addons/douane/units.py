"""Values that policy files spell in their own way: sizes such as ``32MB``.

A field says so in its type, ``limit: Annotated[int, Spelled(parse, "32MB")]``; the loader finds the parser there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

__all__ = ["Bytes", "Spelled", "parse_bytes"]


@dataclass(frozen=True, slots=True)
class Spelled:
    """*parse*: text → value, ValueError where it is wrong; *example*: what a right one looks like."""

    parse: Callable[[str], Any]
    example: str


_SIZE = re.compile(r"([0-9]{1,12}) ?([KMG]?)i?B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def parse_bytes(text: str) -> int:
    """``512KB``, ``32MB``, ``1GiB``, ``1048576`` → bytes. KB is 1024 bytes, with or without the ``i``, as in nginx and
    haproxy. Raises ValueError for anything else and for nothing at all."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * 1024 ** _POWERS[match[2].lower()] if match else 0
    if size < 1:
        raise ValueError("a size is a whole number above 0, with B, KB, MB or GB")
    return size


Bytes = Annotated[int, Spelled(parse_bytes, "32MB")]
