"""Values nobody may see by accident.

Law: a ``Secret`` shows itself only through :meth:`Secret.reveal`. ``repr``, ``str``, formatting, pickling and JSON give a
mask or fail, so that a log line, a traceback or a record cannot carry one.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import NoReturn
from urllib.parse import unquote, urlsplit

__all__ = ["NO_ORIGINALS", "Originals", "Secret", "passwords"]


class Secret:
    """A secret text. Equality is constant-time; hashing is by digest, never by value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Call it where the value is used, and keep the result out of any lasting place."""
        return self._value

    def digest(self) -> bytes:
        """sha256 of the value, 32 bytes: what look-up tables hold instead of it."""
        return hashlib.sha256(self._value.encode()).digest()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.digest(), other.digest())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def passwords(url: Secret) -> tuple[Secret, ...]:
    """What of a URL is nobody's business but its owner's: its password, as it stands there and as it is meant."""
    try:
        given = urlsplit(url.reveal()).password or ""
    except ValueError:
        return (url,)
    return tuple(Secret(one) for one in dict.fromkeys((given, unquote(given))) if one)


class Originals(Mapping[str, str]):
    """Placeholder → the value it stands for, of one exchange: kept with the call, gone with it."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, placeholder: str) -> str:
        return self._values[placeholder]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values))

    def __repr__(self) -> str:
        return f"Originals({len(self)})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("Originals are not pickled")


NO_ORIGINALS = Originals({})
