"""The shape of what we know about a provider.

Law: provider and operation come from the destination (host, method, path), never from the body. A path no row matches
is no operation, and ``unknown_operations`` decides.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import unquote, unquote_plus, unquote_to_bytes

from douane.call import Headers, Target, Usage
from douane.frozen import made_fast
from douane.providers.deltas import Deltas
from douane.providers.dialogue import Dialogue
from douane.providers.edit import Path, Place
from douane.providers.framing import Framing
from douane.providers.room import Room

__all__ = ["KEY_QUERIES", "Bound", "Family", "Meter", "Operation", "Position", "Provider", "Reading", "Role", "Unseen",
           "UnseenKind", "Wire", "query_keys"]

KEY_QUERIES = frozenset({"key", "api_key", "api-key", "access_token", "oauth_token", "x-amz-algorithm", "x-amz-credential",
                         "x-amz-date", "x-amz-expires", "x-amz-security-token", "x-amz-signature", "x-amz-signedheaders"})
"""Names of query values in which some provider takes a key, lower case."""


def query_keys(query: str) -> tuple[bytes, ...]:
    """The keys in a raw query."""
    parts = (part.partition("=") for part in query.split("&")) if query else ()
    return tuple(unquote_to_bytes(value) for name, _, value in parts if unquote_plus(name).lower() in KEY_QUERIES)


type Role = Literal["system", "user", "assistant", "tool_call", "tool_result", "schema", "metadata", "unknown"]


class Position(NamedTuple):
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


type UnseenKind = Literal["image", "audio", "video", "document", "file", "tokens", "encrypted", "binary", "url",
                         "hosted_tool", "mcp"]


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something in a body that holds no text to search: media, a reference to a stored object, token ids; or that leads
    elsewhere: the address of what the provider fetches, a tool or an MCP server that it uses (*name*: the host or the type, as
    the request has it: for rules, not for records)."""

    path: Path
    kind: UnseenKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a request says how much it may be answered, in tokens: the paths of members that state it, the one that is put in
    where none does (None: the format has none), and the number of answers that each may be so long."""

    stated: tuple[Path, ...] = ()
    insert: Path | None = None
    choices: Path | None = None
    tries: tuple[Path, ...] = ()
    """Other members that number the answers that are made: ``best_of``, another spelling. The greatest counts."""
    each: Path | None = None
    """Where a list has each of its elements answered: the prompts of legacy completions."""


@made_fast
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
    json: bool = field(default=False, compare=False)
    """The answer was read as one JSON document."""


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

    @property
    def deltas(self) -> Deltas:
        """Where the frames of its streams hold pieces of one text."""
        ...

    @property
    def array(self) -> bool:
        """Whether an answer that is JSON is a list that comes in pieces, an element a frame."""
        ...

    @property
    def bound(self) -> Bound: ...
    @property
    def media(self) -> tuple[bytes, ...]:
        """Media types of its requests."""
        ...

    def read(self, body: bytes, content_type: bytes) -> Any:
        """The request's document: a JSON value, or what stands for it (the parts of a form). Raises ValueError."""
        ...

    def rewrite(self, body: bytes, content_type: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any]:
        """*body*, which reads as *document*, with other strings at these places, and what it reads as then; every other byte
        stays. Raises ValueError for a place that is not there."""
        ...

    def unseen(self, document: Any) -> Iterator[Unseen]:
        """What of a request body cannot be searched, and what leads elsewhere."""
        ...

    def model(self, document: Any) -> str: ...
    def stream(self, document: Any) -> bool: ...
    def walk(self, document: Any) -> Iterator[Position]:
        """Every text position of a request body (law 4: the one walk)."""
        ...

    def answered(self, document: Any) -> Iterator[Position]:
        """Every text position of an answer, an error too: JSON as it came, or as :meth:`assembled` gives it."""
        ...

    def assembled(self, stream: bytes, framing: Framing) -> Any | None:
        """The JSON that the provider would have answered with, had it not streamed: of the decoded bytes of a stream, whole
        or broken off anywhere. None where no event of it could be read. Never raises.

        Beside the format's own members it may have ``error`` (a failure told in the stream) and ``events`` (events that
        have no place in it, as they came)."""
        ...

    def meter(self, framing: Framing | None, headers: Headers) -> Meter:
        """For an answer: the frames of a stream, or (None) one document. *headers*: the answer's; some tell the usage there."""
        ...


class Family(Protocol):
    """What providers of one shape have in common: how they say no."""

    def room(self, room: Room, at: float) -> Headers:
        """The headers of a call that met a limit of ours."""
        ...

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        """(HTTP status, JSON body) of a denial with the *code* of ``errors.DENIALS``, such that the SDK raises its own
        exception. The status may differ from *status* where the family has its own (``budget_exceeded``)."""
        ...

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        """The bytes of the frame that makes the SDK raise in a stream that has begun."""
        ...


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a provider's table."""

    name: str
    method: str
    path: re.Pattern[str]
    """Matched whole against the raw path below the provider's root. A group ``model`` in it is the model."""
    wire: Wire | None = None
    """None: neither body nor answer holds text (a list of models)."""
    family: Family | None = None
    """How this row says no, where that is not as the provider's others do."""
    refused: str = ""
    """Why no such call is let on, whatever the rules say: known, and in no form that is read."""
    dialogue: Dialogue | None = None
    """Of a WebSocket: what its frames do; *wire* reads each of them."""
    model_in_path: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_in_path", "model" in self.path.groupindex)

    def model_of(self, path: str, document: Any) -> str:
        """The model that a call asks for: of its path (decoded), where that names one, else of its body."""
        if self.model_in_path:
            found = self.path.fullmatch(path)
            if found is not None and found["model"]:
                return unquote(found["model"])
        return "" if self.wire is None or document is None else self.wire.model(document)


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    family: Family
    hosts: tuple[str, ...]
    """Names the app may use: lower case, ``host`` for the scheme's default port, else ``host:port``; or ``*.suffix`` for
    every name of one label more (the customer's own)."""
    target: Target | None
    """Where calls go in place of the host that was asked for; None: to that host."""
    credential: tuple[bytes, bytes]
    """Header and prefix by which a configured key is sent: ``(b"authorization", b"Bearer ")``."""
    key_headers: tuple[bytes, ...]
    """Every header in which this provider's SDKs may send a key, lower case."""
    operations: tuple[Operation, ...]
    prices: str = ""
    """The provider's id in the price list (genai-prices); empty: only ``prices:`` of the policy files."""
    opt_in: bool = False
    """Governed only where policy files name it (``providers: {NAME: {}}``): its hosts serve much else."""
    root: str = ""
    """What stands before its paths on its hosts, where it shares them with others: ``/router/v2/anthropic``."""
    free: bool = False
    """A server of one's own: what ``prices:`` does not name costs nothing."""
    signs: bool = False
    """It takes requests that are signed with AWS keys."""
    includes_usage: bool = False
    """Its chat streams tell their usage where ``stream_options.include_usage`` asks for it, and it takes that member."""

    def operation(self, method: str, path: str) -> Operation | None:
        """The row for *method* and raw *path*. HEAD and OPTIONS have no rows."""
        for row in self.operations:
            if row.method == method and row.path.fullmatch(path):
                return row
        return None

