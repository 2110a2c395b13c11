"""The door's decisions, pure: which hosts are governed, which are tunnelled, which addresses may be dialled.

Law 3: names are compared as exact, canonical names; a suffix stands for one label more. A governed name on a port that
is not its own is refused, not tunnelled. A tunnel gives a client nothing that it could not reach itself; our own
listeners and the clouds' metadata services are reachable through no tunnel.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from douane.providers.base import Provider
from douane.providers.by_host import ByHost

__all__ = ["EdgeRules", "Govern", "Refuse", "Tunnel", "canonical_host", "decide", "refused_address", "split_authority"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_LABEL = re.compile("[a-z0-9_-]{1,63}")

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(map(ipaddress.ip_address, (
    "169.254.169.254",  # AWS, Azure, Google, most others
    "169.254.170.2",  # AWS container credentials (ECS)
    "169.254.170.23",  # AWS container credentials (EKS)
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "168.63.129.16",  # Azure's wire server
    "fd00:ec2::254",  # AWS over IPv6
    "fd00:ec2::23",  # AWS container credentials (EKS) over IPv6
    "fd20:ce::254",  # Google over IPv6
)))


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """``edge:`` in a policy file; the fields are its schema."""

    unknown_hosts: Literal["tunnel", "deny"] = "tunnel"
    unknown_operations: Literal["deny", "allow"] = "deny"
    unparsed_ai_hosts: Literal["deny", "tunnel"] = "deny"
    uninspectable: Literal["allow", "deny"] = "allow"
    """Images, audio, PDF, files, token ids, remote addresses; recorded either way."""
    max_body: int = 32 * 1024 * 1024
    """Bytes, of a request body both as sent and decoded, and of an answer that must be held whole. YAML: ``32MB``."""
    tunnel: tuple[str, ...] = ()
    """Hosts that would be governed, and are tunnelled instead: for clients whose language is not read here (gRPC)."""


@dataclass(frozen=True, slots=True)
class Govern:
    provider: Provider
    host: str


@dataclass(frozen=True, slots=True)
class Tunnel:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Refuse:
    code: str
    reason: str


type Decision = Govern | Tunnel | Refuse


def canonical_host(name: str) -> str:
    """Lower case, without a trailing dot or brackets. Raises ValueError for what is no host name or address."""
    host = name.strip().lower().removesuffix(".")
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1]))
    # No empty label: `name..` would lose one dot here and its last one in the resolver, and be dialled ungoverned.
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("not a host name")
    return host


def split_authority(authority: str, default_port: int) -> tuple[str, int]:
    """``HOST[:PORT]`` → (canonical host, port). Raises ValueError."""
    if authority.startswith("["):
        name, bracket, rest = authority.partition("]")
        name += bracket
        if rest and not rest.startswith(":"):
            raise ValueError("not an authority")
        port = rest[1:]
    else:
        name, _, port = authority.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("not a port")
    return canonical_host(name), int(port) if port else default_port


def host_key(host: str, port: int, default_port: int = 443) -> str:
    """The name under which a provider's table holds it: no default port."""
    return host if port == default_port else f"{host}:{port}"


def decide(host: str, port: int, scheme: Literal["http", "https"], providers: ByHost, rules: EdgeRules,
           unparsed: Callable[[str], str | None]) -> Decision:
    """What becomes of a connection to canonical *host* and *port*. *unparsed*: host → why a known AI host is not read;
    None for the others."""
    key = host_key(host, port, 443 if scheme == "https" else 80)
    provider = providers.get(key)
    if provider is not None and scheme == "https" and host in rules.tunnel:
        return Tunnel(host, port)
    if provider is not None:
        if scheme == "http" and provider.target is None:  # its key would travel in the clear
            return Refuse("host_not_allowed", f"{host} is called over https only")
        return Govern(provider, key)
    if host in providers:
        return Refuse("host_not_allowed", f"{host} is governed, but not on port {port}")
    why = unparsed(host)
    if why is not None:
        if rules.unparsed_ai_hosts == "deny":
            return Refuse("host_not_allowed", f"{host} is a known AI host whose format is not read: {why} "
                                              "(edge: unparsed_ai_hosts: tunnel lets it pass uninspected)")
        return Tunnel(host, port)
    if rules.unknown_hosts == "deny":
        return Refuse("host_not_allowed", f"{host} is not a governed host (edge: unknown_hosts: deny)")
    return Tunnel(host, port)


def _plain(address: str) -> Address:
    """The address that is meant: an IPv4 one may be wrapped, as mapped or for NAT64."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip


def is_loopback(address: str) -> bool:
    """Whether *address* (an IP, perhaps IPv4-mapped) is this machine's own; an empty one is a Unix socket's."""
    return not address or _plain(address).is_loopback


def refused_address(address: str, port: int, *, local_client: bool, listeners: Iterable[tuple[str, int]]) -> str | None:
    """Why a resolved *address* must not be dialled for a client, or None.

    *local_client*: the client is on the loopback. *listeners*: (IP, port) of every socket we listen on."""
    ip = _plain(address)
    if ip in METADATA:
        return "it is a cloud metadata address"
    if ip.is_multicast or (ip.is_link_local and not local_client):
        return "it is a link-local or multicast address"
    for bound, at in listeners:
        ours = _plain(bound)
        everywhere = ours.is_unspecified
        here = (ip.is_loopback or ip.is_unspecified) and (everywhere or ours.is_loopback)
        if port == at and (ip == ours or here or (everywhere and not ip.is_global)):
            return "it is this gateway itself"
    if ip.is_unspecified or ip.is_loopback:
        return None if local_client else "it is a loopback address"
    if not local_client and (not ip.is_global or ip in _SIX_TO_FOUR):  # Pythons differ in what they call 6to4
        return "it is a private address"
    return None
