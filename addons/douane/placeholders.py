"""What stands in for a value that must not leave: ``<EMAIL_ADDRESS_k3v7q2ma>``.

Law: a placeholder is a keyed digest of the tenant and the exact value, so that the same value has the same one in every
turn of a conversation and provider prompt caches keep hitting, while nobody without the key can tell whose value it is
or make one up. The way back is kept with the exchange alone, never stored; forms that look like a placeholder and are
not of this exchange mean nothing.
"""

import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NoReturn

from douane.secrets import Originals

__all__ = ["DIGITS", "LOOKS_LIKE", "DataKey", "Minter"]

DIGITS = 8
"""Base32 characters (40 bits) of a placeholder; one that collides within a request gets as many again."""
LOOKS_LIKE = re.compile(r"<[A-Z][A-Z0-9_]{0,40}_[a-z2-7]{8,48}>")
"""Any text of a placeholder's form, ours or not."""

_TYPE = re.compile(r"[^A-Z0-9_]+")
_TENANTS = 10_000
"""Of whose placeholders' digests the beginning is kept."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]


@lru_cache(1024)
def _name(kind: str) -> str:
    """*kind* as it stands in a placeholder."""
    name = _TYPE.sub("_", kind.upper()).strip("_")[:40] or "VALUE"
    return name if name[0].isalpha() else "X_" + name[:38]


def _base32(digest: bytes, length: int) -> str:
    """The first *length* characters, a multiple of 8, of its base32 (RFC 4648) in small letters: a tenth of the time that
    :func:`base64.b32encode` takes, and a placeholder is made for each value of each call."""
    number = int.from_bytes(digest[:length * 5 // 8])
    if length == DIGITS:
        return _PAIRS[number >> 30] + _PAIRS[number >> 20 & 1023] + _PAIRS[number >> 10 & 1023] + _PAIRS[number & 1023]
    return "".join([_PAIRS[number >> bits & 1023] for bits in range(length * 5 - 10, -1, -10)])


def _measured(part: str) -> bytes:
    """*part* behind its length."""
    raw = part.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8) + raw


class DataKey:
    """The gateway's own key (``DATA/secret.key``). Without one (``douane check``) policies can be built and not asked."""

    __slots__ = ("_begun", "_key")

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._begun: dict[str, hmac.HMAC] = {}
        """By tenant: the digest of a placeholder, as far as all of that tenant's have it in common."""

    def give(self, key: bytes) -> None:
        self._key = key
        self._begun.clear()

    def digest(self, *parts: str) -> bytes:
        """HMAC-SHA256 over *parts*, of which none runs into the next. Raises RuntimeError without a key."""
        return hmac.digest(self._opened(), b"".join([_measured(part) for part in parts]), "sha256")

    def of_value(self, tenant: str, value: str) -> bytes:
        """``digest("placeholder", tenant, value)``, in a third of the time for who asks again and again."""
        begun = self._begun.get(tenant)
        if begun is None:
            begun = hmac.new(self._opened(), _measured("placeholder") + _measured(tenant), "sha256")
            if len(self._begun) < _TENANTS:
                self._begun[tenant] = begun
        made = begun.copy()
        made.update(_measured(value))
        return made.digest()

    def _opened(self) -> bytes:
        if self._key is None:
            raise RuntimeError("the data folder's key has not been opened")
        return self._key

    def __repr__(self) -> str:
        return "DataKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DataKey is not pickled")


class Minter:
    """The placeholders of one request of one *tenant*. *taken*: what an earlier policy has put into the request."""

    __slots__ = ("_key", "_made", "_tenant", "_values")

    def __init__(self, key: DataKey, tenant: str, taken: Mapping[str, str]) -> None:
        self._key = key
        self._tenant = tenant
        self._values: dict[str, str] = dict(taken)
        self._made: dict[tuple[str, str], str] = {}

    def placeholder(self, kind: str, value: str) -> str:
        """The one for *value* of type *kind*."""
        made = self._made.get((kind, value))
        if made is None:
            name, digest = _name(kind), self._key.of_value(self._tenant, value)
            for length in range(DIGITS, 49, DIGITS):
                made = f"<{name}_{_base32(digest, length)}>"
                if self._values.setdefault(made, value) == value:
                    break
            else:
                raise RuntimeError("two values of a request have the same digest")
            self._made[kind, value] = made
        return made

    def originals(self) -> Originals:
        """Placeholder → value, of all that were made and taken over."""
        return Originals(self._values)
