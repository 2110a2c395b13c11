"""What answers say of stored objects: what was made is noted, and a list holds what is the caller's.

Law: :class:`Noting` changes no byte. :class:`Listed` lets nothing pass that it cannot read as a list.
"""

import asyncio
from collections.abc import Callable, Collection, Container, Iterator
from typing import Any

import jiter
import orjson

from douane.call import Headers
from douane.errors import RefusedError
from douane.providers.framing import Splitter, framing_of
from douane.providers.objects import of_resource

__all__ = ["LONGEST", "Listed", "Noting"]

LONGEST = 32 * 1024 * 1024
"""Bytes of an answer that must be whole before it can be read."""
_MARKS = (b"file_id", b"thread_id", b"container", b'"conversation', b'"item"', b'"output"')
"""One of these is in any event that tells of an object other than the answer itself."""


class Noting:
    """A BodyFilter. *read*: an answer's document, or an event's → the names that it tells. *note* begins to save them."""

    __slots__ = ("_found", "_json", "_note", "_read", "_saving", "_splitter", "lost")

    rewrites = False

    def __init__(self, read: Callable[[Any], Iterator[str]],
                 note: Callable[[Collection[str]], "asyncio.Future[None]"]) -> None:
        self._read = read
        self._note = note
        self._json: bytearray | None = None
        self._splitter: Splitter | None = None
        self._found: set[str] = set()
        self._saving: list[asyncio.Future[None]] = []
        self.lost = False
        """The answer was too long."""

    def headers(self, headers: Headers) -> Headers:
        kind = next((value.lower() for name, value in headers if name == b"content-type"), b"")
        framing = framing_of(kind)
        if framing is not None:
            self._splitter = framing.splitter()
        elif b"json" in kind or not kind:
            self._json = bytearray()
        return headers

    def feed(self, chunk: bytes) -> bytes:
        if self._splitter is not None:
            for frame in self._splitter.feed(chunk):
                self._event(frame.data)
        elif self._json is not None:
            if len(self._json) + len(chunk) > LONGEST:
                self._json, self.lost = None, True
            else:
                self._json += chunk
        return chunk

    def close(self) -> bytes:
        for frame in self._splitter.close() if self._splitter is not None else ():
            self._event(frame.data)
        return b""

    def saved(self) -> list["asyncio.Future[None]"]:
        """What is being saved; a document's names are only now, when its status is known."""
        if self._json:
            self._look(bytes(self._json))
            self._json = None
        return self._saving

    def _event(self, data: bytes) -> None:
        if data and (not self._found or any(mark in data for mark in _MARKS)):
            self._look(data)

    def _look(self, data: bytes) -> None:
        try:
            document = jiter.from_json(data, cache_mode="keys")
        except ValueError:
            return
        new = set(self._read(document)) - self._found
        if new:
            self._found |= new
            self._saving.append(self._note(new))


class Listed:
    """A BodyFilter for the list of a *collection*: what is not in *held* leaves it. Raises RefusedError."""

    __slots__ = ("_body", "_collection", "_held")

    rewrites = True

    def __init__(self, collection: str, held: Container[str]) -> None:
        self._collection = collection
        self._held = held
        self._body = bytearray()

    def headers(self, headers: Headers) -> Headers:
        return headers

    def feed(self, chunk: bytes) -> bytes:
        if len(self._body) + len(chunk) > LONGEST:
            raise RefusedError("too_large", "the list is too long to be parted among those who share the key")
        self._body += chunk
        return b""

    def close(self) -> bytes:
        body = bytes(self._body)
        try:
            document = orjson.loads(body)
        except ValueError:
            raise RefusedError("operation_not_allowed", "the list cannot be read, and it may hold what others made") from None
        if isinstance(document, list):
            own: Any = self._own(document)
            return body if len(own) == len(document) else orjson.dumps(own)
        if isinstance(document, dict):
            kept = self._page(document)
            return body if kept == document else orjson.dumps(kept)
        raise RefusedError("operation_not_allowed", "the list is none that is read here")

    def _page(self, page: dict[str, Any]) -> dict[str, Any]:
        """The page with the caller's own; of its other members those stay that tell nothing of what others have."""
        if isinstance(page.get("error"), dict):
            return page if not any(isinstance(one, list) for one in page.values()) else {"error": page["error"]}
        kept: dict[str, Any] = {}
        left: list[Any] = []
        for name, value in page.items():
            if isinstance(value, list):
                left = self._own(value)
                kept[name] = left
            elif isinstance(value, dict):
                continue
            else:
                kept[name] = value
        names = [one.get("id") for one in left]
        told = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None,
                "total": len(left), "total_count": len(left)}
        return {name: told.get(name, value) if name in told else value for name, value in kept.items()}

    def _own(self, items: list[Any]) -> list[Any]:
        return [one for one in items if isinstance(one, dict) and self._is_own(one)]

    def _is_own(self, item: dict[str, Any]) -> bool:
        if f"{self._collection}/{item.get('id')}" in self._held:
            return True
        return any(name in self._held for name in of_resource(item.get("name")))
