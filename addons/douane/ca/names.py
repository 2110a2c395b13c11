"""Which names the CA may speak for.

Law: a leaf is made for a governed name only: one listed exactly, or one strictly below a listed suffix. What the
intermediate's constraint can say is coarser (RFC 5280, 4.2.1.10: a dNSName constraint covers the name *and everything
below it*, and has no way to say "this name only"), so both hold: the constraint against a stolen key, this set against
ourselves.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from douane.errors import ConfigError

__all__ = ["Names"]

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+$){_LABEL}")


@dataclass(frozen=True, slots=True)
class Names:
    """The governed names: lower case, without port or trailing dot."""

    exact: frozenset[str]
    suffixes: frozenset[str]
    """Without the leading dot: ``openai.azure.com`` stands for every name below it, not for itself."""

    @classmethod
    def of(cls, hosts: Iterable[str]) -> "Names":
        """From ``host``, ``host:port``, ``*.suffix`` or ``.suffix``.

        IP literals and ``localhost`` are left out: local providers speak plain http, and no leaf is made for them.
        Raises ConfigError for what is no DNS name (an international name must come in its ``xn--`` form)."""
        exact: set[str] = set()
        suffixes: set[str] = set()
        for host in hosts:
            name = _canonical(host)
            if _is_local(name):
                continue
            bare = name.removeprefix("*").removeprefix(".")
            if not _NAME.fullmatch(bare) or len(bare) > 253:
                raise ConfigError(f"certificates: {host!r} is not a DNS name (host, host:port or *.suffix)")
            if bare == name:
                exact.add(bare)
            elif "." in bare:
                suffixes.add(bare)
            else:
                raise ConfigError(f"certificates: the suffix {host!r} is too wide; it needs two labels at least")
        return cls(frozenset(exact), frozenset(suffixes))

    @property
    def bases(self) -> frozenset[str]:
        """The dNSName constraints that permit these names, and no narrower ones exist."""
        return self.exact | self.suffixes

    def __contains__(self, host: str) -> bool:
        return host in self.exact or any(above in self.suffixes for above in _above(host))

    def covered_by(self, permitted: frozenset[str]) -> bool:
        """Whether constraints of these *permitted* bases let every one of our names pass."""
        return all(base in permitted or any(above in permitted for above in _above(base)) for base in self.bases)


def _canonical(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    bare = name if colon and port.isdecimal() and ":" not in name.partition("]")[0].lstrip("[") else host.lower()
    return bare.removesuffix(".")


def _is_local(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.partition("]")[0].lstrip("["))
    except ValueError:
        return False
    return True


def _above(host: str) -> Iterable[str]:
    """``a.b.c`` → ``b.c``, ``c``."""
    rest = host.partition(".")[2]
    while rest:
        yield rest
        rest = rest.partition(".")[2]
