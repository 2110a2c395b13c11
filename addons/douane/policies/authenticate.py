"""``authenticate``: who calls.

Law: order is proxy token, SDK key, cidr; two that name different principals are refused; a presented proxy credential
that nobody owns is refused even where the address would do. A value that authenticated a principal leaves the call here,
so it never goes upstream. What nobody answers for is ``unknown``'s to decide.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal
from urllib.parse import unquote_to_bytes

from douane.call import Call, Caller, Headers, Principal
from douane.errors import ConfigError
from douane.policy import Directory, Setting, policy
from douane.providers.base import query_keys
from douane.verdict import Deny, Rewrite, Verdict

__all__ = ["AllowAs", "Authenticate", "Unrecognised", "recognise"]


@dataclass(frozen=True, slots=True)
class AllowAs:
    """``{allow-as: NAME}``: strangers are let in under this principal's name."""

    allow_as: str


class Unrecognised(Exception):  # noqa: N818 - an answer, not a failure of ours
    """What was presented is nobody's, or two people's."""


def recognise(directory: Directory, caller: Caller, presented: tuple[bytes, ...]) -> tuple[Principal | None, bytes]:
    """(principal or None, the value of *presented* that authenticated it or b"").

    *presented*: keys found where SDKs send one. Raises Unrecognised."""
    found: list[Principal] = []
    if caller.proxy_secret is not None:
        owner = directory.by_secret(caller.proxy_secret.digest())
        if owner is None:
            raise Unrecognised("the proxy credentials are not known here")
        named = directory.by_name(caller.proxy_user)
        if named is not None and named.name != owner.name:
            raise Unrecognised("the proxy user name and password belong to different principals")
        found.append(owner)
    used = b""
    for value in presented:
        owner = directory.by_secret(hashlib.sha256(value).digest())
        if owner is not None:
            found.append(owner)
            used = value
    if not found and (owner := directory.by_address(caller.address)):
        found.append(owner)
    if any(one.name != found[0].name for one in found[1:]):
        raise Unrecognised("the proxy credentials and the API key belong to different principals")
    return (found[0] if found else None), used


def presented_keys(headers: Headers, names: tuple[bytes, ...], query: str) -> tuple[bytes, ...]:
    """The keys in the headers called *names*, and in *query* (raw)."""
    return (*(bare_key(value) for name, value in headers if name in names), *query_keys(query))


def bare_key(value: bytes) -> bytes:
    """A key header's value without its ``Bearer``."""
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else value.strip()


@policy("authenticate")
@dataclass(frozen=True, slots=True)
class Authenticate:
    """Name the principal of each call, or refuse it with 401."""

    needs_body: ClassVar[bool] = False
    always: ClassVar[bool] = True

    unknown: Literal["deny"] | AllowAs = "deny"

    def bind(self, setting: Setting) -> "_Authenticate":
        stranger: Principal | None = None
        if isinstance(self.unknown, AllowAs):
            stranger = setting.directory.by_name(self.unknown.allow_as)
            if stranger is None:
                raise ConfigError(f"allow-as: no principal is called {self.unknown.allow_as!r}")
        return _Authenticate(setting.directory, setting.key_headers, stranger)


@dataclass(frozen=True, slots=True)
class _Authenticate:
    directory: Directory
    key_headers: Mapping[str, tuple[bytes, ...]]
    stranger: Principal | None

    async def admit(self, call: Call) -> Verdict:
        names = self.key_headers[call.provider]
        try:
            principal, used = recognise(self.directory, call.caller, presented_keys(call.headers, names, call.query))
        except Unrecognised as error:
            return Deny("unauthenticated", str(error))
        principal = principal or self.stranger
        if principal is None:
            return Deny("unauthenticated", "no principal is known for this caller: present its key as the proxy "
                                           "password or as the API key")
        secret = call.caller.proxy_secret
        spent = {used, secret.reveal().encode() if secret is not None else b""} - {b""}
        if spent:
            call = _without(call, spent)
        return Rewrite(call.by(on_behalf(principal, call.caller), call.headers))


def _without(call: Call, spent: set[bytes]) -> Call:
    """The call without the values by which its principal is known, under whatever name they were sent once more."""
    headers = tuple(h for h in call.headers if bare_key(h[1]) not in spent)
    query = call.query
    if any(unquote_to_bytes(part.partition("=")[2]) in spent for part in query.split("&")):
        query = "&".join(part for part in query.split("&") if unquote_to_bytes(part.partition("=")[2]) not in spent)
    return replace(call, headers=headers, query=query)


def on_behalf(principal: Principal, caller: Caller) -> Principal:
    """The principal with the end user, agent and tags that the app declared. A tag of ``run --tag`` stands: who started
    the app outranks the app."""
    if not (caller.user or caller.agent or caller.tags):
        return principal
    return replace(principal, user=caller.user, agent=caller.agent, tags={**caller.tags, **principal.tags})
