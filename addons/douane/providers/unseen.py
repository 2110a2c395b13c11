"""What of a request body cannot be searched, and what leads elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

from douane.providers.base import Unseen
from douane.providers.edit import Path

__all__ = ["unseen"]

_BLOB = re.compile(r"(?:data:[^,\s]{0,200},)?[A-Za-z0-9+/_=\r\n-]{256,}")


def unseen(document: Any) -> Iterator[Unseen]:
    """In the order of the document. Iterative: depth costs no stack."""
    tasks: list[tuple[Path, Any]] = [((), document)]
    while tasks:
        path, value = tasks.pop()
        if isinstance(value, str):
            if len(value) >= 256 and _BLOB.fullmatch(value):
                yield Unseen(path, "binary")
        elif isinstance(value, dict):
            tasks.extend(reversed([((*path, key), item) for key, item in value.items()]))
        elif isinstance(value, list):
            tasks.extend(((*path, at), value[at]) for at in range(len(value) - 1, -1, -1))
