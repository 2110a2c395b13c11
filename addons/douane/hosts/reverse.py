"""The HTTP port: ``/PROVIDER/…`` is a call to that provider; ``/healthz``, ``/readyz``; nothing else.

Law: the first path segment alone names the provider, the rest is the provider's own raw path. What a browser was led to
send is refused: a Host that is a foreign name (DNS rebinding), a foreign ``Origin``, ``Sec-Fetch-Site: cross-site``, a JSON
operation without a JSON content type (a form needs no consent to cross sites). Beyond loopback only known principals call.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from douane.asgi import App, Receive, Scope, Send, plain_answer
from douane.call import Caller, Headers
from douane.chain import Chain
from douane.edge import split_authority
from douane.errors import RefusedError
from douane.governor import Door
from douane.intake import Arrival, home_of, target_of
from douane.policies.authenticate import Unrecognised, presented_keys, recognise
from douane.policy import Directory
from douane.providers.base import Provider

__all__ = ["Fence", "ReverseApp", "browser_refusal", "reverse_door"]


@dataclass(frozen=True, slots=True)
class Fence:
    """What the door holds against a request before the chain sees it."""

    name: str
    """The host the port was bound to."""
    strangers: bool
    """Whether callers may be unknown: on loopback only."""
    directory: Callable[[], Directory]


def reverse_door(fence: Fence) -> Door:
    """The HTTP port's :data:`~douane.governor.Door`."""

    def door(chain: Chain, scope: Scope) -> Arrival | None:
        prefix, slash, rest = scope["raw_path"].decode("ascii")[1:].partition("/")
        provider = chain.providers.named(prefix)
        if provider is None:
            return None
        path = slash + rest or "/"
        host, homeless = home_of(provider)
        client = scope.get("client")
        caller = Caller(client[0] if client else "")
        refused = browser_refusal(scope["headers"], fence.name) or _form(provider, scope, path) or homeless
        if refused is None and not fence.strangers:
            refused = _stranger(fence.directory(), provider, caller, scope)
        return Arrival(provider, host, path, caller, target_of(provider, host, chain.ca), refused)

    return door


def browser_refusal(headers: Headers, bound: str) -> RefusedError | None:
    """Why a request is not one that an app here makes. An address in Host is no rebinding: no name was resolved."""
    authority = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    try:
        host, _ = split_authority(authority, 80)
    except ValueError:
        return RefusedError("host_not_allowed", "the Host header is no host name")
    is_address = ":" in host or host.replace(".", "").isdigit()
    if host not in ("localhost", bound.lower()) and not is_address:
        return RefusedError("host_not_allowed", "the Host header is not a name of this port: use its address or localhost")
    if any(name == b"sec-fetch-site" and value == b"cross-site" for name, value in headers):
        return RefusedError("host_not_allowed", "a browser sent this for another site")
    here = f"http://{authority.lower()}".encode("latin-1")
    if any(name == b"origin" and value.lower() != here for name, value in headers):
        return RefusedError("host_not_allowed", "the Origin is another site")
    return None


def _form(provider: Provider, scope: Scope, path: str) -> RefusedError | None:
    operation = provider.operation(scope["method"], path)
    if operation is None or operation.wire is None or scope["method"] in ("GET", "DELETE"):
        return None
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    media = kind.partition(b";")[0].strip().lower()
    taken = operation.wire.media
    if media in taken or (media.endswith(b"+json") and b"application/json" in taken):
        return None
    return RefusedError("bad_request", f"the Content-Type must be {b' or '.join(taken).decode()}")


def _stranger(directory: Directory, provider: Provider, caller: Caller, scope: Scope) -> RefusedError | None:
    try:
        query = scope["query_string"].decode("latin-1")
        principal, _ = recognise(directory, caller, presented_keys(tuple(scope["headers"]), provider.key_headers, query))
    except Unrecognised as error:
        return RefusedError("unauthenticated", str(error))
    if principal is None:
        return RefusedError("unauthenticated", "present a principal's key as the API key")
    return None


class ReverseApp:
    """The governor's inner app on the HTTP port: *relay* for calls that were admitted, health, 404 for the rest."""

    def __init__(self, relay: App, bound: str, problems: Callable[[], list[str]]) -> None:
        self._relay = relay
        self._bound = bound
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "forward" in scope["state"]:
            await self._relay(scope, receive, send)
            return
        refused = browser_refusal(scope["headers"], self._bound)
        if refused is not None:
            await plain_answer(send, 403, f"Douane: {refused.reason}.\n")
        elif scope["method"] in ("GET", "HEAD") and scope["raw_path"] == b"/healthz":
            await plain_answer(send, 200, "ok\n")
        elif scope["method"] in ("GET", "HEAD") and scope["raw_path"] == b"/readyz":
            found = self._problems()
            await plain_answer(send, 503 if found else 200, json.dumps({"ready": not found, "problems": found}) + "\n")
        else:
            await plain_answer(send, 404, "Douane: no such provider here; write /PROVIDER/…, for example /openai/v1.\n")
