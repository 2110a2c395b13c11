"""The sections of policy files that name people and keys.

Each reader takes what the files hold and gives frozen values; what is wrong goes to ``Problems`` and the rest is still
read, so that one look shows every mistake.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from douane.alerts import Channel, Mail, Slack, Webhook
from douane.call import Credential, Principal
from douane.errors import ConfigError
from douane.governed import is_loopback
from douane.people import Held, Known, Network
from douane.providers.awshosts import scope_of
from douane.providers.base import Provider
from douane.references import resolve
from douane.schema import INVALID, read, read_fields
from douane.secrets import Secret
from douane.source import Entry, Items, Node, Place, Problems, Table, suggest
from douane.tiers import STANDARD, Tier

__all__ = ["LedgerRules", "References", "Seen", "check_plain_http", "read_alerts", "read_credentials", "read_ledger",
           "read_principals", "read_tiers"]

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
    tier: str = ""


@dataclass(frozen=True, slots=True)
class CredentialSpec:
    """A key of ``credentials:`` for one team, one org, or both; or, where requests are signed (AWS), the keys for that. The
    fields are its schema."""

    key: str = ""
    team: str = ""
    org: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    region: str = ""
    """For hosts that tell none."""


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


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """Where the ledger is kept: in a file of the data folder, or (*redis*: its URL) on a server that gateways share. The
    fields are the schema of ``ledger:`` where it is a mapping."""

    redis: str = ""
    url: Secret | None = field(default=None, init=False)
    """What *redis* leads to: it may hold a password."""


def read_ledger(entry: Entry | None, references: References, problems: Problems) -> LedgerRules:
    """``sqlite``, or ``{redis: env:REDIS_URL}``."""
    given = LedgerRules() if entry is None else read(entry.node, Literal["sqlite"] | LedgerRules, "ledger", problems)
    if entry is None or not isinstance(given, LedgerRules):
        return LedgerRules()
    url = references.secret(given.redis, "ledger.redis", entry.place, problems) if given.redis else None
    if not given.redis:
        problems.add(entry.place, "ledger: allowed: sqlite, or {redis: env:REDIS_URL}")
    elif url is not None and not url.reveal().startswith(("redis://", "rediss://", "redis+sentinel://", "unix://")):
        problems.add(entry.place, "ledger.redis: no URL of a Redis server; allowed: redis://, rediss:// (TLS), unix://, "
                                  "redis+sentinel://HOST:PORT,HOST:PORT/MASTER")
    object.__setattr__(given, "url", url)
    return given


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """An entry of ``alerts:``: a webhook (signed where *secret* is given), a Slack webhook, or e-mail; the fields are its
    schema."""

    webhook: str = ""
    secret: str = ""
    slack: str = ""
    email: str | tuple[str, ...] = ()
    smtp: str = ""
    sender: str = ""


def read_alerts(entry: Entry | None, references: References, problems: Problems) -> tuple[Channel, ...]:
    """Whom budgets tell."""
    if entry is None:
        return ()
    specs = read(entry.node, tuple[AlertSpec, ...], "alerts", problems)
    nodes = entry.node.items if isinstance(entry.node, Items) else ()
    found = [] if specs is INVALID else [_channel(f"alerts[{index}]", spec, node.place, references, problems)
                                         for index, (spec, node) in enumerate(zip(specs, nodes, strict=True))]
    return tuple(one for one in found if one is not None)


def _channel(what: str, spec: AlertSpec, place: Place, references: References, problems: Problems) -> Channel | None:
    kinds = [name for name in ("webhook", "slack", "email") if getattr(spec, name)]
    if len(kinds) != 1:
        problems.add(place, f"{what}: one of webhook, slack, email")
        return None
    if kinds[0] == "email":
        to = (spec.email,) if isinstance(spec.email, str) else spec.email
        smtp = _url(f"{what}.smtp", spec.smtp, ("smtp", "smtps"), place, references, problems)
        for address in (*to, spec.sender):
            if not _ADDRESS.fullmatch(address):
                problems.add(place, f"{what}: `{address[:60]}` is no e-mail address (email: to whom, sender: from whom)")
                return None
        return None if smtp is None else Mail(smtp, spec.sender, to)
    url = _url(f"{what}.{kinds[0]}", getattr(spec, kinds[0]), ("https", "http"), place, references, problems)
    if kinds[0] == "slack":
        return None if url is None else Slack(url)
    secret = references.secret(spec.secret, f"{what}.secret", place, problems) if spec.secret else None
    return None if url is None else Webhook(url, secret)


_ADDRESS = re.compile(r"[^@\s,;<>]{1,64}@[^@\s,;<>]{1,255}")


def _url(what: str, given: str, schemes: tuple[str, ...], place: Place, references: References,
         problems: Problems) -> Secret | None:
    """An address in the clear, or one that a reference leads to. Plain HTTP goes to this machine only."""
    literal = given.startswith(tuple(f"{scheme}://" for scheme in schemes))
    url = Secret(given) if literal else references.secret(given, what, place, problems)
    if url is None:
        return None
    try:
        found = urlsplit(url.reveal())
    except ValueError:  # brackets with no address in them
        found = urlsplit("")
    if found.scheme not in schemes or not found.hostname or (found.scheme == "http" and not is_loopback(found.hostname)):
        problems.add(place, f"{what}: allowed: {', '.join(f'{scheme}://…' for scheme in schemes)}, or env: or file: with one; "
                            "http:// to this machine only")
        return None
    return url


def read_tiers(section: Mapping[str, Entry], problems: Problems) -> Mapping[str, Tier]:
    found = {name: read_fields(entry.node, Tier, f"tiers.{name}", problems) for name, entry in section.items()}
    return MappingProxyType({name: tier for name, tier in found.items() if tier is not INVALID})


def read_principals(items: tuple[Node, ...], references: References, problems: Problems,
                    tiers: Mapping[str, Tier] = MappingProxyType({})) -> tuple[list[Known], Seen]:
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
        tier = spec.tier or (STANDARD if tiers else "")
        if tier and tier not in tiers:
            missing = f"there is no tier `{tier}`{suggest(tier, tiers)}" if spec.tier else \
                f"`tier` is missing, and no tier is called {STANDARD}"
            problems.add(node.place_of("tier") if spec.tier else node.place, f"{what}: {missing}")
        known.append(Known(Principal(spec.name, spec.team, spec.org, tier=tier), digest, found))
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
            _once(owners, (spec.team, spec.org), node.place_of("key") if isinstance(node, Table) else node.place,
                  f"credentials.{name}: two for the same team and org", problems)
            credential = _Keys(name, provider, node, keys, references, problems).credential(spec)
            if credential is not None:
                held.append(Held(credential, spec.team, spec.org))
    return held


@dataclass(frozen=True, slots=True)
class _Keys:
    """One entry of ``credentials:``."""

    name: str
    provider: Provider
    node: Node
    principals: Seen
    references: References
    problems: Problems

    def credential(self, spec: CredentialSpec) -> Credential | None:
        signing = [one for one in _SIGNING if getattr(spec, one)]
        if signing and not self.provider.signs:
            return self._none(signing[0], f"{self.name} takes no AWS keys; allowed: key, team, org")
        if signing and spec.key:
            return self._none("key", "a key or AWS keys, not both")
        if signing:
            return self._signer(spec)
        if not spec.key:
            aws = " (or access_key and secret_key)" if self.provider.signs else ""
            return self._none("key", f"`key` is missing: text{aws}")
        secret = self._secret("key", spec.key)
        header, prefix = self.provider.credential
        return Credential(secret, header, prefix, self.name) if secret else None

    def _signer(self, spec: CredentialSpec) -> Credential | None:
        for name in ("access_key", "secret_key"):
            if not getattr(spec, name):
                return self._none(name, f"`{name}` is missing: text")
        if spec.region and not _AWS_REGION.fullmatch(spec.region):
            return self._none("region", f"`{spec.region[:40]}` is no region; allowed: such as us-east-1")
        access, secret = self._secret("access_key", spec.access_key), self._secret("secret_key", spec.secret_key)
        token = self._secret("session_token", spec.session_token) if spec.session_token else None
        if access is None or secret is None or (spec.session_token and token is None):
            return None
        target = self.provider.target
        untold = next((host for host in self.provider.hosts if not scope_of(host)[1]), "")
        if untold and not spec.region and not (target is not None and scope_of(target.host)[1]):
            return self._none("region", f"`region` is missing, and the host {untold} tells none")
        from douane.signing import AwsKeys  # botocore: 0.4 s, for who needs it
        header, prefix = self.provider.credential
        return Credential(token or secret, header, prefix, self.name, AwsKeys(access, secret, token, spec.region))

    def _secret(self, key: str, reference: str) -> Secret | None:
        place = self._place(key)
        what = f"credentials.{self.name}" + ("" if key == "key" else f".{key}")
        secret = self.references.secret(reference, what, place, self.problems)
        if secret and (of := self.principals.get(secret.digest())):
            self.problems.add(place, f"{what}: is also a principal's key ({of}): it must be another")
            return None
        return secret

    def _place(self, key: str) -> Place:
        return self.node.place_of(key) if isinstance(self.node, Table) else self.node.place

    def _none(self, key: str, text: str) -> Credential | None:
        self.problems.add(self._place(key), f"credentials.{self.name}: {text}")
        return None


_SIGNING = ("access_key", "secret_key", "session_token", "region")
_AWS_REGION = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d+")


def check_plain_http(held: list[Held], section: Mapping[str, Entry], providers: Mapping[str, Provider],
                     problems: Problems) -> None:
    """A key goes over TLS, or nowhere but to this machine."""
    for name in sorted({one.credential.provider for one in held}):
        where = providers[name].target
        if where is not None and where.scheme == "http" and not is_loopback(where.host):
            problems.add(section[name].place, f"credentials.{name}: a key is not sent over plain http: give "
                                              f"providers.{name} an https upstream, or leave the key out")
