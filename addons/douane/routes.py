"""Which paths of somebody's own service are calls, and of which provider.

Law: judged is the path by which the app routes, decoded and below its root, and never a spelling of it. What the app could
take for a governed path, with other slashes, dots or percent signs, is governed too: it is an unknown operation then, and
never passes as a known one that nobody read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from douane.asgi import Scope
from douane.errors import ConfigError, RefusedError
from douane.providers.base import Operation, Provider
from douane.providers.table import builtin

__all__ = ["Place", "Routes", "below_root"]

_CLAIMED = ("openai", "anthropic")
"""Of the built-in providers, those whose paths are taken without a route; the others' are too like anybody's own."""
_SAFE = "/:@!$&'()*+,;=~"
"""Beside letters, digits, ``-._``: what a path holds as it is (RFC 3986 §3.3)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a governed request goes, in the provider's own terms."""

    provider: Provider
    path: str
    """The provider's own path, raw."""
    refused: RefusedError | None = None
    """Set where the app could take the path for an operation that its spelling is not."""


@dataclass(frozen=True, slots=True)
class _Route:
    key: str
    """Without a trailing slash: empty for the whole app."""
    provider: Provider
    own: str
    """Where the key names one call: the provider's own path, its end. Empty: the provider's paths stand below the key."""

    def below(self, path: str) -> str | None:
        """The provider's own path of *path*; None where it is another's."""
        if self.own:
            return self.own if path == self.key else None
        if path == self.key or path.startswith(f"{self.key}/"):
            return path[len(self.key):] or "/"
        return None


@dataclass(frozen=True, slots=True)
class Routes:
    """``routes`` of one service, and behind it the providers' own tables, in their order."""

    given: tuple[_Route, ...]
    """The longest key first."""
    providers: tuple[Provider, ...]
    """Without servers of one's own: ``/api/chat`` is many a service's own path, so those are named in ``routes``."""

    @classmethod
    def of(cls, given: Mapping[str, str], providers: Mapping[str, Provider]) -> "Routes":
        """*given*: path → name. *providers*: by name, as the policy files have them. Raises ConfigError."""
        routes = [_route(key, name, providers) for key, name in given.items()]
        keys = [route.key for route in routes]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"routes: {twice!r} is given twice")
        return cls(tuple(sorted(routes, key=lambda route: -len(route.key))),
                   tuple(one for one in providers.values() if not one.free and (
                       one.name in _CLAIMED or one.name not in builtin())))

    def find(self, method: str, path: str, raw: str, *, unknown_pass: bool) -> Place | None:
        """The call that a request for *path* (decoded) is; None where it is the app's alone. *raw*: the same path as the
        client spelled it. *unknown_pass*: whether unknown operations may go on unread."""
        owned = self._owned(path)
        found = owned or self._owned(tidy(path))
        if found is None:
            return None
        provider, own = found
        spelled = raw if owned is None else _spelled(path, own, raw)
        refused = None
        if unknown_pass and provider.operation(method, tidy(own)) is not provider.operation(method, spelled):
            refused = RefusedError("operation_not_allowed", "the path is another spelling of an operation: use its own")
        return Place(provider, spelled, refused)

    def _owned(self, path: str) -> tuple[Provider, str] | None:
        for route in self.given:
            own = route.below(path)
            if own is not None:
                return route.provider, own
        for provider in self.providers:
            if _has(provider.operations, path):
                return provider, path
        return None


def below_root(scope: Scope) -> tuple[str, str]:
    """(decoded path, the same as the client spelled it) below ``root_path``, as frameworks route.

    Servers may leave ``raw_path`` out, and what stands outside us may have changed ``path`` alone: then what we write for
    it is its spelling."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    if not raw or unquote(raw) != path:
        raw = quote(path, safe=_SAFE)
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root):] or "/"
        raw = raw[len(root):] or "/" if raw.startswith(root) else quote(path, safe=_SAFE)
    return path, raw


def tidy(path: str) -> str:
    """*path* without doubled and trailing slashes and dot steps, as some servers and frameworks read it."""
    steps: list[str] = []
    for step in path.split("/"):
        if step == "..":
            del steps[-1:]
        elif step not in ("", "."):
            steps.append(step)
    return "/" + "/".join(steps)


def _spelled(path: str, own: str, raw: str) -> str:
    """*own*, the end of *path*, as the client spelled it."""
    if raw == path:
        return own
    before = len(path) - len(own)
    if raw[:before] == path[:before] and unquote(raw[before:]) == own:
        return raw[before:]
    return quote(own, safe=_SAFE)


def _route(key: str, name: str, providers: Mapping[str, Provider]) -> _Route:
    path = key.rstrip("/")
    if not key.startswith("/") or tidy(path) != (path or "/") or quote(path, safe=_SAFE) != path:
        raise ConfigError(f"routes: {key!r} is no path; allowed: /, /llm, /llm/v1/chat/completions: plain characters, no "
                          "doubled slashes, no dot steps")
    if name not in providers:
        raise ConfigError(f"routes: {key!r}: there is no provider `{name}`; allowed: {', '.join(providers)}")
    provider = providers[name]
    ends = (path[at:] for at, character in enumerate(path) if character == "/")
    own = next((end for end in ends if _has(provider.operations, end)), "")
    if not own and path and any(row.path.pattern.startswith((f"{path}/", f"{path}(")) for row in provider.operations):
        raise ConfigError(f"routes: {key!r}: {name}'s own paths begin so, and are governed without being named; name what "
                          "stands before them ('/' for the whole app), or one of them")
    return _Route(path, provider, own)


def _has(operations: Iterable[Operation], path: str) -> bool:
    return any(row.path.fullmatch(path) for row in operations)
