"""``providers:``: which hosts are governed, and where their calls go.

Law 3: a host has one provider, and a key goes over verified TLS only: plain http is for a provider of one's own
(``like:``) or for this machine, and never together with a credential unless it stays on this machine.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from douane.call import Target
from douane.errors import ConfigError
from douane.providers.base import Operation, Provider
from douane.providers.by_host import ANY, ByHost
from douane.schema import INVALID, read_fields
from douane.source import Entry, Problems, Table, suggest

__all__ = ["by_host", "certificates", "is_loopback", "read_providers", "target"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::(?P<port>[1-9][0-9]{{0,4}}))?")
_PATH = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*")


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """``providers: NAME:``; the fields are its schema. *hosts* of a built-in provider are added to its own."""

    upstream: str = ""
    ca: str = ""
    like: str = ""
    hosts: tuple[str, ...] = ()
    root: str = ""
    """What stands before the provider's paths on these hosts; several providers with roots of their own share a host."""
    includes_usage: bool = False
    """Its chat streams take ``stream_options.include_usage`` (vLLM, SGLang): then their usage is asked for."""


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def target(url: str) -> Target:
    """``https://host[:port][/path]`` → Target. Raises ConfigError, without the URL: it may hold a password."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        if not url.isascii() or not url.isprintable():  # urlsplit drops line breaks
            raise ValueError
    except ValueError:
        raise ConfigError("is no URL; allowed: https://HOST[:PORT][/PATH]") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("a URL here holds no user name or password")
    scheme = parts.scheme
    if scheme not in ("https", "http") or "?" in url or "#" in url or port == 0:
        raise ConfigError("allowed: https://HOST[:PORT][/PATH] or http://…, nothing after the path")
    if not _HOST.fullmatch(f"[{host}]" if ":" in host else host) or (":" in host and not _is_address(host)):
        raise ConfigError("the URL names no host; allowed: letters, digits, `-` and `.`, or an IP address")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or any(step in (".", "..") for step in path.split("/")):
        raise ConfigError("the URL's path has empty or dotted steps, or characters that must be percent-encoded")
    if scheme == "http":
        return Target("http", host, port or 80, base_path=path)
    return Target("https", host, port or 443, base_path=path)


def certificates(reference: str, folder: Path) -> str:
    """The path of a PEM file with root certificates; a relative one starts at *folder*. Raises ConfigError."""
    path = folder / reference
    try:
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ConfigError(f"{path} holds no PEM certificates") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return str(path.absolute())


def read_providers(section: Mapping[str, Entry], builtin: Mapping[str, Provider], folder: Path,
                   problems: Problems) -> dict[str, Provider]:
    """Name → provider: the built-in ones, overridden and added to."""
    providers = dict(builtin)
    for name, entry in section.items():
        what = f"providers.{name}"
        spec = read_fields(entry.node, ProviderSpec, what, problems)
        if spec is INVALID or not isinstance(entry.node, Table):
            continue
        reading = _Reading(what, entry.node, folder, problems)
        if not _NAME.fullmatch(name):
            problems.add(entry.place, f"{what}: a name is a small letter, then small letters, digits, `-` or `_`")
        elif name in builtin:
            if provider := reading.override(builtin[name], spec):
                providers[name] = provider
        elif provider := reading.addition(name, builtin, spec):
            providers[name] = provider
    return providers


def by_host(providers: Mapping[str, Provider], section: Mapping[str, Entry], problems: Problems) -> ByHost:
    """The governed hosts: not those of a provider that must be asked for, where no file names it.

    Two providers that claim one are a problem, but where each has another root there."""
    owners: dict[tuple[str, str], Provider] = {}
    watched = [one for one in providers.values() if not one.opt_in or one.name in section]
    for provider in watched:
        for host in provider.hosts:
            other = owners.setdefault((host, provider.root), provider)
            entry = section.get(provider.name) or section.get(other.name)
            if other is not provider and entry:
                problems.add(entry.place, f"providers.{provider.name}: the host {host}{provider.root} is {other.name}'s "
                                          f"already{_stands(section, other.name)}")
    return ByHost(watched)


def _stands(section: Mapping[str, Entry], name: str) -> str:
    return f" ({section[name].place})" if name in section else " (built in)"


@dataclass(frozen=True, slots=True)
class _Reading:
    """One entry of ``providers:``."""

    what: str
    table: Table
    folder: Path
    problems: Problems

    def override(self, provider: Provider, spec: ProviderSpec) -> Provider | None:
        if spec.like:
            self._wrong("like", f"{provider.name} is built in; give what you add another name")
            return None
        if spec.root:
            self._wrong("root", f"{provider.name} is built in; give what you add another name, and `like: {provider.name}`")
            return None
        hosts = self._hosts(spec.hosts)
        if not spec.upstream and spec.ca:
            self._wrong("ca", "needs an `upstream`, whose roots it holds")
            return None
        where = self._target(spec) if spec.upstream else provider.target
        if where is not None and where.scheme == "http" and not is_loopback(where.host):
            self._wrong("upstream", f"{provider.name} is reached over https; http is for this machine only")
            return None
        if hosts is None or (spec.upstream and where is None):
            return None
        return replace(provider, target=where, hosts=tuple(dict.fromkeys((*provider.hosts, *hosts))),
                       includes_usage=provider.includes_usage or spec.includes_usage)

    def addition(self, name: str, builtin: Mapping[str, Provider], spec: ProviderSpec) -> Provider | None:
        if not spec.like:
            self._wrong("like", f"is missing, and `{name}` is not built in{suggest(name, builtin)}")
            return None
        if spec.like not in builtin:
            self._wrong("like", f"there is no built-in provider `{spec.like}`{suggest(spec.like, builtin)}")
            return None
        if not spec.upstream:
            self._wrong("upstream", "is missing: it says whether calls go by https or http")
            return None
        if not spec.hosts:
            self._wrong("hosts", "is missing: the names by which apps call it, such as [llm.internal:8000]")
            return None
        hosts, where = self._hosts(spec.hosts), self._target(spec)
        root = self._try("root", lambda: _root(spec.root))
        if hosts is None or where is None or root is None:
            return None
        model = builtin[spec.like]
        return replace(model, name=name, hosts=hosts, target=where, prices="", root=root,
                       includes_usage=spec.includes_usage,
                       operations=tuple(map(_unversioned, model.operations)) if root else model.operations)

    def _wrong(self, key: str, text: str) -> None:
        self.problems.add(self.table.place_of(key), f"{self.what}.{key}: {text}")

    def _target(self, spec: ProviderSpec) -> Target | None:
        where = self._try("upstream", lambda: target(spec.upstream))
        if where is None or not spec.ca:
            return where
        if where.scheme == "http":
            self._wrong("ca", "is of no use with plain http")
            return None
        roots = self._try("ca", lambda: certificates(spec.ca, self.folder))
        return None if roots is None else replace(where, ca=roots)

    def _try[T](self, key: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ConfigError as error:
            self._wrong(key, str(error))
            return None

    def _hosts(self, given: tuple[str, ...]) -> tuple[str, ...] | None:
        """As ``Provider.hosts`` has them: lower case."""
        hosts = []
        place = self.table.place_of("hosts")
        before = len(self.problems)
        for host in given:
            if reason := _no_host(host.lower()):
                self.problems.add(place, f"{self.what}.hosts: {reason}")
            elif host.lower() in hosts:
                self.problems.add(place, f"{self.what}.hosts: {host} is given twice")
            hosts.append(host.lower())
        return None if len(self.problems) > before else tuple(hosts)


def _root(path: str) -> str:
    """Raises ConfigError."""
    root = path.rstrip("/")
    if not _PATH.fullmatch(root) or any(step in (".", "..") for step in root.split("/")):
        raise ConfigError("allowed: what stands before the provider's own paths, such as /router/v2/anthropic")
    return root


def _unversioned(row: Operation) -> Operation:
    """The row below a root: gateways put theirs before ``/v1`` or in place of it."""
    pattern = row.path.pattern
    return replace(row, path=re.compile(f"(?:/v1)?{pattern[3:]}")) if pattern.startswith(("/v1/", "/v1(")) else row


def _no_host(host: str) -> str:
    """Why *host* is no exact ``host`` or ``host:port``, and no ``*.suffix``; empty where it is."""
    if host.startswith(ANY):
        suffix = _HOST.fullmatch(host.removeprefix(ANY))
        if suffix is None or suffix["port"] or "." not in suffix[0] or suffix[0].rpartition(".")[2].isdigit():
            return (f"`{host[:80]}`: allowed: `*.` and a suffix of two labels at least, without a port, such as "
                    "*.openai.azure.com")
        return ""
    match = _HOST.fullmatch(host)
    if match is None or (host[0] == "[" and not _is_address(host[1 : host.index("]")])):
        return (f"`{host[:80]}` is no host; allowed: exact names such as llm.internal or llm.internal:8000, and suffixes "
                "such as *.openai.azure.com")
    port = match["port"]
    if port in ("80", "443"):
        return f"`{host}`: leave the default port out"
    return f"`{host}`: there is no such port" if port and int(port) > 65535 else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
