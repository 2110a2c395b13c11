"""What a policy is, and the registry of them.

A policy is one file in ``policies/`` and one line of YAML. Its class is a frozen dataclass whose fields are the YAML
schema; it implements any of the three protocols below. ``bind`` is where it takes what it needs of the house.

>>> @policy("max_messages")
... @dataclass(frozen=True, slots=True)
... class MaxMessages:
...     '''Refuse calls with more than *limit* messages.'''
...     limit: int
...     async def admit(self, call: Call) -> Verdict: ...
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

from douane.call import Call, Credential, Headers, Outcome, Principal
from douane.histories.base import Shelf
from douane.placeholders import DataKey
from douane.providers.base import Position, Wire
from douane.secrets import Secret
from douane.tiers import Tier
from douane.verdict import Verdict

__all__ = ["Admits", "BodyFilter", "Credentials", "Directory", "Filters", "Setting", "Settles", "Traits", "Wires",
           "policy", "positions", "registry", "traits"]


@runtime_checkable
class Admits(Protocol):
    async def admit(self, call: Call) -> Verdict: ...


class BodyFilter(Protocol):
    """Reads, and may change, the decoded bytes of one answer. ``feed`` may hold back a tail; ``close`` gives the rest.

    Law 5: however the answer is cut into chunks, the concatenation of what comes out is the same."""

    rewrites: bool
    """True where changes are expected (restore), so that the answer must travel uncompressed."""

    def headers(self, headers: Headers) -> Headers: ...
    def feed(self, chunk: bytes) -> bytes: ...
    def close(self) -> bytes: ...


@runtime_checkable
class Filters(Protocol):
    def filter(self, call: Call) -> BodyFilter | None:
        """A filter for the answer to *call* (the call as it goes upstream), or None."""
        ...


@runtime_checkable
class Settles(Protocol):
    async def settle(self, call: Call, outcome: Outcome) -> None: ...


class Directory(Protocol):
    """Who is known. Look-ups are by digest; nothing here holds a key in the clear."""

    def by_secret(self, digest: bytes) -> Principal | None:
        """By the sha256 of an issued key or a one-run token."""
        ...

    def has_secrets(self) -> bool:
        """Whether anybody could be found so."""
        ...

    def by_address(self, address: str) -> Principal | None: ...
    def by_name(self, name: str) -> Principal | None: ...


class Credentials(Protocol):
    """The providers' keys."""

    def find(self, provider: str, principal: Principal) -> Credential | None:
        """The one for the principal's team or org first, then the provider's common one."""
        ...


type Wires = Callable[[Call], Wire | None]
"""By a call's provider, method and path; None: its bodies hold no text. Rows of one name may be read in different ways."""


def positions(call: Call, wire: Wire) -> tuple[Position, ...]:
    """The texts of *call*, whose row is read by *wire*: walked once for all policies. No policy changes a document where it
    stands: a rewritten call has another."""
    walked = call.walked
    if walked.document is not call.document:
        walked.positions, walked.document, walked.texts = tuple(wire.walk(call.document)), call.document, None
    return walked.positions


@dataclass(frozen=True, slots=True)
class Setting:
    """What the loader gives a policy that has a ``bind(setting)``."""

    directory: Directory
    credentials: Credentials
    key_headers: Mapping[str, tuple[bytes, ...]]
    """Provider name → headers in which its SDKs send a key (lower case)."""
    wires: "Wires" = lambda _: None
    """How the bodies of a call are read."""
    data_key: DataKey = field(default_factory=DataKey)
    """The gateway's own key; empty where no gateway runs (``douane check``)."""
    shelf: Shelf = field(default_factory=Shelf)
    """The store of histories that providers keep, once it is open."""
    tiers: Mapping[str, Tier] = MappingProxyType({})
    """Named sets of limits, by name."""
    secrets: tuple[Secret, ...] = ()
    """Every key that a provider gets from here, and what else opens something of ours, to be known where it turns up."""
    folder: str = ""
    """Where relative paths begin: the folder of the policy files."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the chain must know of a policy class, said as ``ClassVar[bool]`` of these names."""

    needs_body: bool = True
    """False: it may be asked when only the head of the request has been read."""
    always: bool = False
    """True: acts in observe mode too (authentication, key swap)."""
    per_answer: bool = False
    """True: holds or counts what an answer costs; of a session's frames it judges those that ask for one."""

    names: ClassVar[tuple[str, ...]] = ("needs_body", "always", "per_answer")


def traits(cls: type) -> Traits:
    return Traits(**{name: getattr(cls, name) for name in Traits.names if isinstance(getattr(cls, name, None), bool)})


_registry: dict[str, type] = {}


def policy[T: type](name: str) -> Callable[[T], T]:
    """Register a policy class under the name that policy files use.

    Raises TypeError where it is no dataclass, has none of the protocols' methods, or the name is taken."""

    def register(cls: T) -> T:
        if not is_dataclass(cls):
            raise TypeError(f"policy {name}: {cls.__qualname__} must be a dataclass")
        if not any(hasattr(cls, method) for method in ("bind", "admit", "filter", "settle")):
            raise TypeError(f"policy {name}: {cls.__qualname__} has none of bind, admit, filter, settle")
        if _registry.setdefault(name, cls) is not cls:
            raise TypeError(f"policy {name} is registered twice")
        return cls

    return register


def registry() -> Mapping[str, type[Any]]:
    """Name → class of every policy, found by importing each module of ``douane.policies``."""
    package = importlib.import_module("douane.policies")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"douane.policies.{module.name}")
    return dict(_registry)
