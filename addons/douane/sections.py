"""The sections of policy files that name people and keys.

Each reader takes what the files hold and gives frozen values; what is wrong goes to ``Problems`` and the rest is still
read, so that one look shows every mistake.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from douane.call import Credential, Principal
from douane.errors import ConfigError
from douane.governed import is_loopback
from douane.people import Held, Known, Network
from douane.providers.base import Provider
from douane.references import resolve
from douane.schema import INVALID, read, read_fields
from douane.secrets import Secret
from douane.source import Entry, Items, Node, Place, Problems, Table, suggest

__all__ = ["References", "Seen", "check_plain_http", "read_credentials", "read_principals"]

type Seen = dict[bytes, Place]
"""sha256 of a principal's key → where it stands."""

_NAME = re.compile(r"[^\s:/?#%\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class PrincipalSpec:
    """An entry of ``principals:``; the fields are its schema."""

    name: str
    team: str = ""
    org: str = ""
    key: str = ""
    cidr: str | tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CredentialSpec:
    """A key of ``credentials:`` for one team, one org, or both; the fields are its schema."""

    key: str
    team: str = ""
    org: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """Where ``env:`` and ``file:`` look."""

    environ: Mapping[str, str]
    folder: Path
    variables: set[str] = field(default_factory=set)
    """Names of the environment variables that were asked for."""

    def secret(self, reference: str, what: str, place: Place, problems: Problems) -> Secret | None:
        if reference.startswith("env:"):
            self.variables.add(reference.removeprefix("env:"))
        try:
            return resolve(reference, self.environ, self.folder)
        except ConfigError as error:
            problems.add(place, f"{what}: {error}")
            return None


def read_principals(items: tuple[Node, ...], references: References, problems: Problems) -> tuple[list[Known], Seen]:
    """Everybody whose entry has the right form, even where the key or a cidr is wrong; and where the keys stand."""
    known: list[Known] = []
    names: dict[str, Place] = {}
    keys: Seen = {}
    networks: dict[Network, Place] = {}
    for index, node in enumerate(items):
        spec = read_fields(node, PrincipalSpec, f"principals[{index}]", problems)
        if spec is INVALID or not isinstance(node, Table):
            continue
        what = f"principal {spec.name}"
        if not _NAME.fullmatch(spec.name):
            problems.add(node.place_of("name"), "principals: a name has 1 to 100 characters, no blanks, no : / ? # %")
            continue
        _once(names, spec.name, node.place_of("name"), f"{what}: the name is given twice", problems)
        digest = None
        if "key" in node.entries:
            secret = references.secret(spec.key, f"{what}.key", node.place_of("key"), problems)
            digest = secret.digest() if secret else None
        if digest:
            _once(keys, digest, node.place_of("key"), f"{what}.key: two principals have the same key", problems)
        cidrs = (spec.cidr,) if isinstance(spec.cidr, str) else spec.cidr
        found = tuple(net for cidr in cidrs if (net := _network(cidr, f"{what}.cidr", node.place_of("cidr"), problems)))
        for net in found:
            _once(networks, net, node.place_of("cidr"), f"{what}.cidr: {net} is given twice", problems)
        known.append(Known(Principal(spec.name, spec.team, spec.org), digest, found))
    return known, keys


def _once[K](seen: dict[K, Place], key: K, place: Place, text: str, problems: Problems) -> None:
    first = seen.setdefault(key, place)
    if first is not place:
        problems.add(place, f"{text}: first at {first}")


def _network(cidr: str, what: str, place: Place, problems: Problems) -> Network | None:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError:
        pass
    try:
        hint = f"; did you mean {ipaddress.ip_network(cidr, strict=False)}?"
    except ValueError:
        hint = ""
    problems.add(place, f"{what}: `{cidr[:60]}` is no network{hint}; allowed: such as 10.20.0.0/16, fd00::/8, 10.1.2.3")
    return None


def read_credentials(section: Mapping[str, Entry], providers: Mapping[str, Provider], keys: Seen,
                     references: References, problems: Problems) -> list[Held]:
    """A provider's credentials: one, or a list of them for teams and orgs. None may be a principal's key."""
    held: list[Held] = []
    for name, entry in section.items():
        provider = providers.get(name)
        if provider is None:
            problems.add(entry.place, f"credentials.{name}: there is no such provider{suggest(name, providers)}")
            continue
        given = entry.node.items if isinstance(entry.node, Items) else (entry.node,)
        owners: dict[tuple[str, str], Place] = {}
        for node in given:
            spec = read(node, str | CredentialSpec, f"credentials.{name}", problems)
            if spec is INVALID:
                continue
            if isinstance(spec, str):
                spec = CredentialSpec(spec)
            place = node.place_of("key") if isinstance(node, Table) else node.place
            _once(owners, (spec.team, spec.org), place,
                  f"credentials.{name}: two for the same team and org", problems)
            secret = references.secret(spec.key, f"credentials.{name}", place, problems)
            if secret and (of := keys.get(secret.digest())):
                problems.add(place, f"credentials.{name}: is also a principal's key ({of}): it must be another")
            elif secret:
                header, prefix = provider.credential
                held.append(Held(Credential(secret, header, prefix, name), spec.team, spec.org))
    return held


def check_plain_http(held: list[Held], section: Mapping[str, Entry], providers: Mapping[str, Provider],
                     problems: Problems) -> None:
    """A key goes over TLS, or nowhere but to this machine."""
    for name in sorted({one.credential.provider for one in held}):
        where = providers[name].target
        if where is not None and where.scheme == "http" and not is_loopback(where.host):
            problems.add(section[name].place, f"credentials.{name}: a key is not sent over plain http: give "
                                              f"providers.{name} an https upstream, or leave the key out")
