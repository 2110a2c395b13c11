"""What was found in texts seen before, by keyed hash. Law: no text is kept, and no key that could be made again elsewhere."""

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from itertools import batched, chain
from typing import Any
from weakref import WeakValueDictionary

from douane.detect.values import Span, Wanted

__all__ = ["Keys", "Memory", "shared"]


_TENANTS = 10_000
"""Whose beginning of a hash is kept."""
_TEXTS = 4096
"""Of one call, whose keys are kept while it lasts."""
_secret = secrets.token_bytes(32)
_KEY = 16
"""Bytes of a key."""
_begun: dict[str, Any] = {}
"""By tenant: the hash as far as all its texts have it in common. SHA-256, which processors know: half of BLAKE2's time. That a
hash can be gone on from by who has it is no harm here, where none leaves the process."""


class Keys(dict[str, bytes]):
    """Text → key, of one call's texts: each is hashed once, whoever asks. It goes with the call. The tenant is in the key: one
    learns nothing of what another has sent."""

    __slots__ = ("_begun", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self._begun = _of(tenant)

    def __missing__(self, text: str) -> bytes:
        made = self._begun.copy()
        made.update(text.encode("utf-8", "surrogatepass"))
        key: bytes = made.digest()[:_KEY]
        if len(self) < _TEXTS:
            self[text] = key
        return key


def _of(tenant: str) -> Any:
    begun = _begun.get(tenant)
    if begun is None:
        name = tenant.encode("utf-8", "surrogatepass")
        begun = sha256(_secret + len(name).to_bytes(4) + name)
        if len(_begun) < _TENANTS:
            _begun[tenant] = begun
    return begun


type _Flat = tuple[str | int | float, ...]
"""Type, start, end and score of each span, one after the other. Python's collector of garbage lets go of a tuple of such, and
walks each object that stays: a full memory of spans held the event loop for 20 ms, again and again."""
_PARTS = len(Span._fields)
_span: Callable[[tuple[str | int | float, ...]], Span] = partial(tuple.__new__, Span)


class Memory:
    """The spans of the texts asked for last: of *most* at most, and of half as many at least. Two dictionaries and not one list
    in order of use: what is asked for again and again, as most is, costs one look."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._young: dict[bytes, _Flat] = {}
        self._old: dict[bytes, _Flat] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> tuple[Span, ...] | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None)
            if found is None:
                return None
            self._put(key, found)
        return tuple(map(_span, batched(found, _PARTS))) if found else ()

    def put(self, key: bytes, spans: Iterable[Span]) -> None:
        self._put(key, tuple(chain.from_iterable(spans)))

    def _put(self, key: bytes, flat: _Flat) -> None:
        if len(self._young) >= self._half:
            self._young, self._old = {}, self._young
        self._young[key] = flat


_shared: WeakValueDictionary[tuple[Wanted, int], Memory] = WeakValueDictionary()


def shared(wanted: Wanted, most: int) -> Memory:
    """The one memory of all who look for the same, so that a reload forgets nothing and nobody asks twice."""
    memory = _shared.get((wanted, most))
    if memory is None:
        memory = _shared[wanted, most] = Memory(most)
    return memory
