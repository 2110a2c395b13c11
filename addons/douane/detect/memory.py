"""What was found in texts seen before, by keyed hash. Law: no text is kept, and no key that could be made again elsewhere."""

import os
from collections import OrderedDict
from hashlib import blake2b
from weakref import WeakValueDictionary

from douane.detect.values import Span, Wanted

__all__ = ["Memory", "shared"]


_TENANTS = 10_000
"""Whose beginning of a hash is kept."""


class Memory:
    """The spans of the *most* texts asked for last. The tenant is in the key: one learns nothing of what another has sent."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._secret = os.urandom(32)
        self._begun: dict[str, blake2b] = {}
        """By tenant: the hash as far as all its texts have it in common."""
        self._known: OrderedDict[bytes, tuple[Span, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def key(self, tenant: str, text: str) -> bytes:
        begun = self._begun.get(tenant)
        if begun is None:
            name = tenant.encode("utf-8", "surrogatepass")
            begun = blake2b(len(name).to_bytes(4) + name, digest_size=16, key=self._secret)
            if len(self._begun) < _TENANTS:
                self._begun[tenant] = begun
        made = begun.copy()
        made.update(text.encode("utf-8", "surrogatepass"))
        return made.digest()

    def get(self, key: bytes) -> tuple[Span, ...] | None:
        found = self._known.get(key)
        if found is not None:
            try:
                self._known.move_to_end(key)
            except KeyError:  # forgotten meanwhile, in another thread
                return found
        return found

    def put(self, key: bytes, spans: tuple[Span, ...]) -> None:
        self._known[key] = spans
        while len(self._known) > self._most:
            self._known.popitem(last=False)


_shared: WeakValueDictionary[tuple[Wanted, int], Memory] = WeakValueDictionary()


def shared(wanted: Wanted, most: int) -> Memory:
    """The one memory of all who look for the same, so that a reload forgets nothing and nobody asks twice."""
    memory = _shared.get((wanted, most))
    if memory is None:
        memory = _shared[wanted, most] = Memory(most)
    return memory
