"""A request as a :class:`~douane.call.Call`: first by its head, then with its body.

Law: what cannot be read is refused here (``bad_request``, ``unsupported_coding``, ``too_large``); it is never passed on
unread. ``x-douane-*`` headers say on whose behalf an app calls; they are taken from the call, as ``proxy-*`` is.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from douane.asgi import Scope
from douane.call import Call, Caller, Headers, Target
from douane.coding import coding_of, decode
from douane.edge import split_authority
from douane.errors import RefusedError
from douane.frozen import made_fast
from douane.gate import new_id
from douane.providers.base import Operation, Provider
from douane.providers.by_host import ANY

__all__ = ["Arrival", "home_of", "open_call", "read_call", "target_of", "unread"]

_FOR_US_ALONE = frozenset({b"proxy-authorization", b"proxy-connection"})
_OURS = b"x-douane-"
_NOT_PASSED = (_OURS, b"proxy-")
_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})
"""By which Google's servers, and some others, take a request for one of another method."""
_QUOTED = re.compile(r'"[^"]*"')


@made_fast
@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that a door found to be governed."""

    provider: Provider
    host: str
    """As the app named it: lower case, no default port."""
    path: str
    """Raw path below the provider's root."""
    caller: Caller
    target: Target
    refused: RefusedError | None = None
    """Set where the door itself refuses (names that do not agree)."""


def open_call(at: float, arrival: Arrival, operation: Operation | None, scope: Scope) -> Call:
    """What the head of a request says. *at*: seconds since the epoch."""
    headers, caller = _headers(scope["headers"], arrival.caller)
    return Call(
        id=new_id(at), at=at, provider=arrival.provider.name,
        operation="unknown" if operation is None else operation.name,
        method=scope["method"], host=arrival.host, path=arrival.path,
        query=scope["query_string"].decode("latin-1"), headers=headers, caller=caller)


def _headers(raw: Any, caller: Caller) -> tuple[Headers, Caller]:
    """The headers that may go upstream, and the caller with what ``x-douane-*`` declared."""
    for name, _ in raw:
        if name.startswith(_NOT_PASSED):
            break
    else:
        return tuple(raw), caller
    headers, user, agent = [], "", ""
    tags: dict[str, str] = {}
    for name, value in raw:
        if name in _FOR_US_ALONE:
            continue
        if name.startswith(_OURS):
            said = value.decode("latin-1")[:200]
            if name == b"x-douane-user":
                user = said
            elif name == b"x-douane-agent":
                agent = said
            elif name.startswith(b"x-douane-tag-") and len(tags) < 20:
                tags[name[13:].decode("latin-1")[:50]] = said
            continue
        headers.append((name, value))
    if user or agent or tags:
        caller = replace(caller, user=user, agent=agent, tags=tags)
    return tuple(headers), caller


def unread(call: Call) -> str | None:
    """Why a call is of a kind that nothing here reads, whatever its path says; None where it is not."""
    for name, value in call.headers:
        if name == b"content-type" and value.strip().lower().startswith(b"application/grpc"):
            return "gRPC is not inspected here: use the provider's REST API (in Google's SDKs, transport=\"rest\")"
        if name in _OVERRIDES:
            return f"the header {name.decode()} would make this another call than the one that is inspected"
    return None


def read_call(call: Call, operation: Operation | None, body: bytes, limit: int) -> Call:
    """*call* with its body, and what path and body say. Raises RefusedError for what cannot be read."""
    if operation is None:
        return call.with_body(body, None, "", False)
    if not body or operation.wire is None:
        return call.with_body(body, None, operation.model_of(call.path, None), False)
    text = decode(body, coding_of(call.headers), limit)
    wire = operation.wire
    try:
        document = wire.read(text, call.header(b"content-type") or b"")
    except ValueError as error:
        where = _QUOTED.sub("…", str(error))  # the message quotes keys, which may hold anything
        raise RefusedError("bad_request", f"the request body cannot be read: {where}") from None
    return call.with_body(body, document, operation.model_of(call.path, document), wire.stream(document))


def target_of(provider: Provider, host: str, ca: str) -> Target:
    """Where a call for *host* (as in ``Provider.hosts``) is sent: https, but where the policy files name another place.
    *ca*: the roots for providers without their own."""
    if provider.target is not None:
        return provider.target
    return _direct(host, ca)


def home_of(provider: Provider) -> tuple[str, RefusedError | None]:
    """The host of a call that names none (a reverse proxy's, a service's), and why there is none: where the customers'
    names are all that a provider has, the policy files must say which."""
    host = next((host for host in provider.hosts if not host.startswith(ANY)), "")
    if host:
        return host, None
    host = provider.hosts[0].removeprefix(ANY)
    if provider.target is not None:
        return host, None
    return host, RefusedError("host_not_allowed", f"{provider.name} has no host of its own: the policy files must say "
                                                  f"`providers: {provider.name}: {{upstream: https://NAME.{host}}}`")


@lru_cache(256)
def _direct(host: str, ca: str) -> Target:
    name, port = split_authority(host, 443)
    return Target("https", name, port, ca=ca)
