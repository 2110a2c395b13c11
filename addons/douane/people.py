"""Who is known, and what a provider gets.

Law 7: a principal's key is kept as its sha256 only; a provider's key is a :class:`Secret` inside a Credential. What is
built here never changes; one-run tokens, which come and go, live in :class:`Tokens` and outlast a reload.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from douane.call import Credential, Principal
from douane.secrets import Secret

__all__ = ["Held", "Known", "Network", "People", "Tokens", "Vaulted"]

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Known:
    """A principal, and by what it is known."""

    principal: Principal
    digest: bytes | None = field(default=None, repr=False)
    """sha256 of its key."""
    networks: tuple[Network, ...] = ()


class Tokens:
    """One-run tokens by digest: issued by ``douane run``, revoked when its command ends. For one event loop."""

    def __init__(self) -> None:
        self._issued: dict[bytes, tuple[str, Mapping[str, str]]] = {}

    def issue(self, name: str, digest: bytes, tags: Mapping[str, str]) -> None:
        """Let whoever holds the token of this sha256 call as the principal *name*, with *tags*."""
        self._issued[digest] = (name, MappingProxyType(dict(tags)))

    def revoke(self, digest: bytes) -> None:
        self._issued.pop(digest, None)

    def find(self, digest: bytes) -> tuple[str, Mapping[str, str]] | None:
        return self._issued.get(digest)

    def __bool__(self) -> bool:
        return bool(self._issued)


REMEMBERED = 4096
"""Addresses whose principal is remembered, so that a caller is not looked up again for each call."""


class People:
    """A Directory. Names, digests and networks of *known* are distinct: the reader of policy files sees to it."""

    def __init__(self, known: Iterable[Known], tokens: Tokens) -> None:
        known = tuple(known)
        self._tokens = tokens
        self._by_name = {one.principal.name: one.principal for one in known}
        self._by_digest = {one.digest: one.principal for one in known if one.digest is not None}
        self._by_network = _by_network(known)
        self._addresses: dict[str, Principal | None] = {}
        self.beyond_loopback = any(one.digest is not None or not all(net.is_loopback for net in one.networks)
                                   for one in known)
        """Whether anybody who calls from another machine could be known."""

    def by_secret(self, digest: bytes) -> Principal | None:
        """By key, else by one-run token: None where the token's principal is gone."""
        if principal := self._by_digest.get(digest):
            return principal
        if issued := self._tokens.find(digest):
            name, tags = issued
            owner = self._by_name.get(name)
            return replace(owner, tags=tags) if owner else None
        return None

    def has_secrets(self) -> bool:
        return bool(self._by_digest or self._tokens)

    def by_address(self, address: str) -> Principal | None:
        if address in self._addresses:
            return self._addresses[address]
        if len(self._addresses) >= REMEMBERED:
            self._addresses.clear()
        found = self._addresses[address] = self._of_network(address)
        return found

    def _of_network(self, address: str) -> Principal | None:
        """By the longest prefix; an IPv4 address written as IPv6 (``::ffff:10.0.0.1``) counts as IPv4."""
        try:
            at = ipaddress.ip_address(address)
        except ValueError:
            return None
        if isinstance(at, ipaddress.IPv6Address) and at.ipv4_mapped:
            at = at.ipv4_mapped
        number = int(at)
        for shift, principals in self._by_network[at.version]:
            if principal := principals.get(number >> shift):
                return principal
        return None

    def by_name(self, name: str) -> Principal | None:
        return self._by_name.get(name)


def _by_network(known: Iterable[Known]) -> dict[int, list[tuple[int, dict[int, Principal]]]]:
    """IP version → (bits to drop, what is left of the address → principal), longest prefix first."""
    tables: dict[int, dict[int, dict[int, Principal]]] = {4: defaultdict(dict), 6: defaultdict(dict)}
    for one in known:
        for net in one.networks:
            shift = net.max_prefixlen - net.prefixlen
            tables[net.version][shift][int(net.network_address) >> shift] = one.principal
    return {version: sorted(table.items(), key=lambda row: row[0]) for version, table in tables.items()}


@dataclass(frozen=True, slots=True)
class Held:
    """A credential, and whose it is: everybody's where team and org are empty."""

    credential: Credential
    team: str = ""
    org: str = ""


class Vaulted:
    """Credentials. No two of *held* are for the same provider, team and org."""

    def __init__(self, held: Iterable[Held]) -> None:
        self._held = {(one.credential.provider, one.team, one.org): one.credential for one in held}
        self.providers = frozenset(provider for provider, _, _ in self._held)
        """Names of the providers for which there is any."""

    def secrets(self) -> tuple[Secret, ...]:
        """Of all of them: what must be seen nowhere."""
        each = (one.signer.secrets() if one.signer else (one.secret,) for one in self._held.values())
        return tuple(dict.fromkeys(secret for secrets in each for secret in secrets))

    def find(self, provider: str, principal: Principal) -> Credential | None:
        """The narrowest: team and org, team, org, everybody."""
        team, org = principal.team, principal.org
        for key in ((provider, team, org), (provider, team, ""), (provider, "", org), (provider, "", "")):
            if credential := self._held.get(key):
                return credential
        return None
