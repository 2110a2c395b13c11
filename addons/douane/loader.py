"""Policy files → everything a gateway runs on: the chain, the people, the keys, the prices.

Law 8: what comes out is new, whole and immutable. Law 9: nothing in YAML runs: names lead to registered policies,
built-in providers and typed fields, nowhere else. Every mistake of every file is reported at once, ``file:line: what is
wrong, what is allowed``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from douane import governed, sections
from douane.alerts import Channel
from douane.call import Call, Target
from douane.chain import AuditRules, Chain, Entry
from douane.conditions import compile_condition
from douane.detect.own_keys import OwnKeys
from douane.edge import EdgeRules, canonical_host
from douane.errors import ConfigError
from douane.folder import Document, read_folder
from douane.histories.base import Shelf
from douane.objects.base import Register
from douane.objects.law import Ownership
from douane.people import People, Tokens, Vaulted
from douane.placeholders import DataKey
from douane.policy import Setting, Wires, registry, traits
from douane.pricerules import Rules, read_prices
from douane.providers.base import Provider, Wire
from douane.providers.google import GoogleFamily
from douane.providers.table import builtin
from douane.schema import read, read_fields
from douane.secrets import passwords
from douane.sections import LedgerRules
from douane.source import Items, Node, Place, Problems, Table, kind, suggest
from douane.units import Bytes, Spelled

__all__ = ["Loaded", "ledger_rules", "load", "tls_names"]

_BESIDE = ("when", "mode", "on_error")
_LATER_LEVELS = ("full",)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the policy files of one folder come to."""

    chain: Chain
    directory: People
    credentials: Vaulted
    providers: Mapping[str, Provider]
    """By name; ``chain.providers`` has them by host."""
    prices: Rules
    upstream_proxy: Target | None
    """The proxy by which providers are reached."""
    ca: str
    """Path of a PEM file with the roots trusted for providers without their own; empty for the system's."""
    has_principals: bool
    """Whether anybody who calls from beyond loopback could be known: by a key, or by a cidr that is not loopback."""
    credential_providers: frozenset[str]
    """Names of the providers for which a credential is configured."""
    ledger: LedgerRules
    alerts: tuple[Channel, ...]
    """Whom budgets tell."""
    secret_variables: frozenset[str]
    """Names of the environment variables that hold keys: no app that we start may inherit them."""
    own_keys: OwnKeys
    """What must stand in no record."""


def load(folder: Path, *, environ: Mapping[str, str] = os.environ, tokens: Tokens | None = None,
         providers: Mapping[str, Provider] | None = None,
         data_key: DataKey | None = None, shelf: Shelf | None = None, register: Register | None = None,
         files: Mapping[str, bytes] | None = None) -> Loaded:
    """Read the ``*.yaml`` of *folder*. *tokens*: the one-run tokens that outlast a reload. *providers*: in place of the
    built-in table. *data_key*: the gateway's own, once it is open (nothing is opened here); *shelf*: the store of histories,
    *register*: that of objects, likewise. *files*: a snapshot of *folder* in place of what lies there now.

    Raises ConfigError with a line for every mistake."""
    problems = Problems()
    document = read_folder(folder, problems, files)
    references = sections.References(environ, folder)
    providers = builtin() if providers is None else providers
    table = governed.read_providers(document.named["providers"], providers, folder, problems)
    hosts = governed.by_host(table, document.named["providers"], problems)
    tiers = sections.read_tiers(document.named["tiers"], problems)
    known, keys = sections.read_principals(tuple(document.principals), references, problems, tiers)
    everybody_read = len(known) == len(document.principals)
    held = sections.read_credentials(document.named["credentials"], table, keys, references, problems)
    sections.check_plain_http(held, document.named["credentials"], table, problems)
    ledger = sections.read_ledger(document.single.get("ledger"), references, problems)
    alerts = sections.read_alerts(document.single.get("alerts"), references, problems)
    people, vault = People(known, Tokens() if tokens is None else tokens), Vaulted(held)
    secrets = (*vault.secrets(), *(one for channel in alerts for one in channel.secrets),
               *(() if ledger.url is None else passwords(ledger.url)))
    setting = Setting(people, vault, MappingProxyType({name: one.key_headers for name, one in table.items()}),
                      _wires(table), data_key or DataKey(), shelf or Shelf(), tiers, secrets, str(folder))
    edge, audit, observe = _rules(document, problems)
    entries = _Entries(setting if everybody_read else None, observe, problems).read(document, folder)
    prices = read_prices(document.named["prices"], table.keys(), problems)
    prices = prices.and_free(name for name, one in table.items() if one.free)
    proxy, roots = _proxy(document, problems), _roots(document, folder, problems)
    problems.raise_any()
    laws = _laws(table, Register() if register is None else register)
    chain = Chain(document.revision(), entries, edge, hosts, audit, document.files, roots, laws)
    return Loaded(chain, people, vault, MappingProxyType(table), prices, proxy, roots, people.beyond_loopback,
                  vault.providers, ledger, alerts, frozenset(references.variables), OwnKeys(secrets, people))


def ledger_rules(folder: Path, *, environ: Mapping[str, str] = os.environ) -> LedgerRules:
    """``ledger:`` alone, for whoever needs no more of the policies. Raises ConfigError."""
    problems = Problems()
    document = read_folder(folder, problems)
    found = sections.read_ledger(document.single.get("ledger"), sections.References(environ, folder), problems)
    problems.raise_any()
    return found


def _laws(table: Mapping[str, Provider], register: Register) -> tuple[Entry, ...]:
    google = frozenset(name for name, provider in table.items() if isinstance(provider.family, GoogleFamily))
    law = Ownership(register, google)
    return (Entry("objects", law, traits(Ownership)),)


def _wires(table: Mapping[str, Provider]) -> Wires:
    def of(call: Call) -> Wire | None:
        row = table[call.provider].operation(call.method, call.path) if call.provider in table else None
        return None if row is None else row.wire
    return of


def tls_names(loaded: Loaded) -> list[str]:
    """The governed host names for which leaves are signed: those on the https port."""
    return sorted({key.partition(":")[0] for key in loaded.chain.providers})


_HostName = Annotated[str, Spelled(canonical_host, "api.x.ai")]


def _rules(document: Document, problems: Problems) -> tuple[EdgeRules, AuditRules, bool]:
    """``edge``, ``audit``, and whether ``mode`` is observe."""
    edge: Any = EdgeRules()
    if entry := document.single.get("edge"):
        edge = read_fields(entry.node, EdgeRules, "edge", problems, {"max_body": Bytes, "tunnel": tuple[_HostName, ...]})
    audit: Any = AuditRules()
    if (entry := document.single.get("audit")) and _audit_is_known(entry.node, problems):
        audit = read_fields(entry.node, AuditRules, "audit", problems)
    mode = "enforce"
    if entry := document.single.get("mode"):
        mode = read(entry.node, Literal["enforce", "observe"], "mode", problems)
    return edge, audit, mode == "observe"


def _audit_is_known(node: Node, problems: Problems) -> bool:
    """Refuses what the design names and this version has not, rather than taking it for a slip of the pen."""
    if not isinstance(node, Table):
        return True
    before = len(problems)
    level = node.entries.get("level")
    if level and getattr(level.node, "value", None) in _LATER_LEVELS:
        problems.add(level.place, "audit.level: sealed originals are not kept in this version; allowed: metadata, redacted")
    if retention := node.entries.get("retention"):
        problems.add(retention.place, "audit.retention: records are kept for good in this version; take the line out")
    return len(problems) == before


def _proxy(document: Document, problems: Problems) -> Target | None:
    entry = document.single.get("upstream_proxy")
    url = read(entry.node, str, "upstream_proxy", problems) if entry else None
    if entry is None or not isinstance(url, str):
        return None
    try:
        proxy = governed.target(url)
    except ConfigError as error:
        problems.add(entry.place, f"upstream_proxy: {error}")
        return None
    if proxy.base_path:
        problems.add(entry.place, "upstream_proxy: a proxy has no path; allowed: http://HOST:PORT, https://HOST:PORT")
    return proxy


def _roots(document: Document, folder: Path, problems: Problems) -> str:
    entry = document.single.get("ca")
    reference = read(entry.node, str, "ca", problems) if entry else None
    if entry is None or not isinstance(reference, str):
        return ""
    try:
        return governed.certificates(reference, folder)
    except ConfigError as error:
        problems.add(entry.place, f"ca: {error}")
        return ""


class _Entries:
    """``chain:`` → entries. *setting* is None where the principals could not be read: policies are not bound then."""

    def __init__(self, setting: Setting | None, observe: bool, problems: Problems) -> None:
        self._setting = setting
        self._observe = observe
        self._problems = problems
        self._policies = registry()

    def read(self, document: Document, folder: Path) -> tuple[Entry, ...]:
        chain = document.single.get("chain")
        if chain is None:
            place = Place(document.files[-1], 1) if document.files else Place(str(folder), 1)
            self._problems.add(place, "no file has a `chain`: nothing says who may call")
            return ()
        if not isinstance(chain.node, Items):
            self._problems.add(chain.place, f"chain: {kind(chain.node)} is not allowed here; allowed: a list")
            return ()
        names = [self._name(node) for node in chain.node.items]
        if not names or names[0] != "authenticate":
            place = chain.node.items[0].place if names else chain.place
            self._problems.add(place, "chain: `authenticate` comes first: what follows acts on who calls")
        entries = [self._entry(node, name) for node, name in zip(chain.node.items, names, strict=True) if name]
        return tuple(entry for entry in entries if entry is not None)

    def _name(self, node: Node) -> str:
        """The policy of an entry; empty where there is not exactly one that we know."""
        if not isinstance(node, Table):
            self._problems.add(node.place, f"chain: {kind(node)} is not allowed here; allowed: `POLICY: {{…}}`")
            return ""
        names = [key for key in node.entries if key not in _BESIDE]
        for name in names:
            if name not in self._policies:
                hint = suggest(name, [*sorted(self._policies), *_BESIDE])
                self._problems.add(node.place_of(name), f"chain: there is no policy `{name}`{hint}")
        if len(names) != 1:
            self._problems.add(node.place, f"chain: an entry holds one policy; this one holds {len(names)}")
        return names[0] if len(names) == 1 and names[0] in self._policies else ""

    def _entry(self, node: Node, name: str) -> Entry | None:
        if not isinstance(node, Table):
            return None
        problems, before = self._problems, len(self._problems)
        cls = self._policies[name]
        policy = read_fields(node.entries[name].node, cls, name, problems)
        mode = self._beside(node, name, "mode", Literal["enforce", "observe"])
        on_error = self._beside(node, name, "on_error", Literal["deny", "allow"])
        text = self._beside(node, name, "when", str)
        always = traits(cls).always
        if always and mode == "observe":
            problems.add(node.place_of("mode"), f"{name}.mode: it acts in observe mode too; allowed: enforce")
        if name == "authenticate":
            self._check_authenticate(node, text, on_error)
        when = None
        if isinstance(text, str):
            try:
                when = compile_condition(text)
            except ConfigError as error:
                problems.add(node.place_of("when"), f"{name}.when: {error}")
        if len(problems) > before or self._setting is None:
            return None
        place = node.place_of(name)
        bound = self._bind(policy, name, place)
        observe = mode == "observe" or (mode is None and self._observe)
        return Entry(name, bound, traits(cls), when, observe and not always, on_error or "deny", str(place))

    def _beside(self, node: Table, name: str, key: str, hint: Any) -> Any:
        """A value beside the policy, or None."""
        entry = node.entries.get(key)
        return read(entry.node, hint, f"{name}.{key}", self._problems) if entry else None

    def _check_authenticate(self, node: Table, when: Any, on_error: Any) -> None:
        """A caller that was never asked who it is would share everybody's credentials."""
        if when is not None:
            self._problems.add(node.place_of("when"), "authenticate.when: every call is authenticated; take it out")
        if on_error == "allow":
            self._problems.add(node.place_of("on_error"), "authenticate.on_error: allowed: deny")

    def _bind(self, policy: Any, name: str, place: Place) -> Any:
        if not hasattr(policy, "bind"):
            return policy
        try:
            return policy.bind(self._setting)
        except (ConfigError, ValueError) as error:
            self._problems.add(place, f"{name}: {error}")
            return policy
