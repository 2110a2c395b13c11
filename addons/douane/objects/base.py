"""Where it is kept who made which stored object.

Law: what cannot be read raises, and whoever asks is refused then; an object that was never noted is nobody's.
"""

import asyncio
from collections.abc import Collection, Container
from dataclasses import dataclass
from typing import Protocol

from douane.errors import DouaneError

__all__ = ["Holder", "Objects", "ObjectsUnavailableError", "Register"]


class ObjectsUnavailableError(DouaneError):
    """The store is locked, broken, full, closed or too slow."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose objects: a tenant's, at one provider."""

    provider: str
    tenant: str


class Objects(Protocol):
    """*names*: ``collection/id``, as in ``providers/objects.py``."""

    async def missing(self, holder: Holder, names: Collection[str]) -> int:
        """How many of *names* are not *holder*'s. Raises ObjectsUnavailableError."""
        ...

    async def all_of(self, holder: Holder) -> Container[str]:
        """The names that *holder* has. Raises ObjectsUnavailableError."""
        ...

    def add(self, holder: Holder, names: Collection[str], at: float) -> "asyncio.Future[None]":
        """Note that *holder* made *names*. Begins at once; done when it is durable."""
        ...

    def remove(self, holder: Holder, names: Collection[str]) -> "asyncio.Future[None]": ...


class Register:
    """Where the law finds the store, once it is open."""

    __slots__ = ("_objects",)

    def __init__(self) -> None:
        self._objects: Objects | None = None

    def give(self, objects: Objects) -> None:
        self._objects = objects

    @property
    def objects(self) -> Objects:
        """Raises ObjectsUnavailableError."""
        if self._objects is None:
            raise ObjectsUnavailableError("no store of objects is open")
        return self._objects
