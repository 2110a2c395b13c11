"""One-run tokens: what ``douane run`` may ask for, and the making of them. Only the sha256 of a token is kept or passed on."""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from douane.errors import ConfigError

__all__ = ["Named", "asked", "new_token", "owner"]


class Named(Protocol):
    """As :class:`~douane.call.Principal` is."""

    @property
    def name(self) -> str: ...


class _Directory(Protocol):
    def by_name(self, name: str) -> Named | None: ...
    def by_address(self, address: str) -> Named | None: ...


def asked(request: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """(principal or None, tags) of an ``issue``. Raises ConfigError."""
    name, tags = request.get("principal") or None, request.get("tags") or {}
    if not isinstance(name, str | None) or not isinstance(tags, dict) or not all(isinstance(v, str) for v in tags.values()):
        raise ConfigError("principal must be a string, tags must map strings to strings")
    return name, tags


def owner(directory: _Directory, name: str | None) -> str:
    """Whose the token is: *name*, which must be known, else whoever calls from loopback. Raises ConfigError."""
    if name is None:
        known = directory.by_address("127.0.0.1")
        if known is None:
            raise ConfigError("say who calls: --as PRINCIPAL (the policy files give loopback callers no name)")
        return known.name
    if directory.by_name(name) is None:
        raise ConfigError(f"no principal is called {name!r} in the policy files")
    return name


def new_token() -> tuple[str, bytes]:
    """A token, and the digest by which it is known."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).digest()
