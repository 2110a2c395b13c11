"""The shape of what we know about a provider.

Law: provider and operation come from the destination (host, method, path), never from the body. A path no row matches
is no operation, and ``unknown_operations`` decides.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from douane.call import Target, Usage

__all__ = ["Family", "Meter", "Operation", "Position", "Provider", "Reading", "Role", "Wire"]

type Role = Literal["system", "user", "assistant", "tool_call", "tool_result", "schema", "metadata", "unknown"]


@dataclass(frozen=True, slots=True)
class Position:
    """One text in a body. *path* is where it stands: object keys and array indexes from the root.

    The keys of objects that the caller makes up (metadata, tool input, schemas) are text too: such a position has *key*
    true, and its text is the last element of its path. JSON inside a string (tool arguments) is one position."""

    path: tuple[str | int, ...]
    role: Role
    text: str
    key: bool = False
    """The text is the name of a member, not its value."""
    sealed: bool = False
    """The provider signed it (thinking with its signature): never rewritten; a finding in it can only be refused."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer said of itself."""

    usage: Usage | None = None
    model: str = ""
    cost_usd: float | None = None
    """Where the provider itself names the price (OpenRouter's ``usage.cost``); 0 for an operation it does not bill."""
    partial: bool = False
    """The stream had not come to its end: ``usage`` is a floor, not the sum."""
    tier: str = ""
    """The service tier that the answer names (``flex``, ``priority`` …): it decides the price."""


class Meter(Protocol):
    """Reads one answer as its decoded bytes come, however they are cut; keeps what it needs and no more."""

    @property
    def ended(self) -> bool:
        """Whether a stream's own end marker has been fed (``data: [DONE]``, ``message_stop``, ``response.completed``):
        what an app takes for the end of the answer, whatever HTTP says. Always False for JSON."""
        ...

    def feed(self, chunk: bytes) -> None: ...
    def reading(self) -> Reading:
        """What is known so far; after the last chunk, all of it."""
        ...


class Wire(Protocol):
    """How one operation's bodies are read."""

    def model(self, document: Any) -> str: ...
    def stream(self, document: Any) -> bool: ...
    def walk(self, document: Any) -> Iterator[Position]:
        """Every text position of a request body (law 4: the one walk)."""
        ...

    def meter(self, *, stream: bool) -> Meter:
        """For an answer: JSON, or a stream where *stream*."""
        ...


class Family(Protocol):
    """What providers of one shape have in common: how they say no."""

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        """(HTTP status, JSON body) of a denial with the *code* of ``errors.DENIALS``, such that the SDK raises its own
        exception. The status may differ from *status* where the family has its own (``budget_exceeded``)."""
        ...

    def error_event(self, operation: str, code: str, message: str, call_id: str) -> bytes:
        """The bytes of the event that makes the SDK raise in a stream that has begun."""
        ...


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a provider's table."""

    name: str
    method: str
    path: re.Pattern[str]
    """Matched whole against the raw path below the provider's root."""
    wire: Wire | None = None
    """None: neither body nor answer holds text (a list of models)."""


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    family: Family
    hosts: tuple[str, ...]
    """Exact names the app may use: lower case, ``host`` for the scheme's default port, else ``host:port``."""
    target: Target | None
    """Where calls go in place of the host that was asked for; None: to that host."""
    credential: tuple[bytes, bytes]
    """Header and prefix by which a configured key is sent: ``(b"authorization", b"Bearer ")``."""
    key_headers: tuple[bytes, ...]
    """Every header in which this provider's SDKs may send a key, lower case."""
    operations: tuple[Operation, ...]
    prices: str = ""
    """The provider's id in the price list (genai-prices); empty: only ``prices:`` of the policy files."""

    def operation(self, method: str, path: str) -> Operation | None:
        """The row for *method* and raw *path*. HEAD and OPTIONS have no rows."""
        for row in self.operations:
            if row.method == method and row.path.fullmatch(path):
                return row
        return None


type ByHost = Mapping[str, Provider]
"""Host as in ``Provider.hosts`` → provider."""
