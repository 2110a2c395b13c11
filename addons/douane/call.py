"""What moves through the house: frozen values, no I/O.

A *call* is what was asked; its life is the :class:`~douane.chain.Exchange`. Policies get a ``Call`` and answer with a
verdict; a policy that changes something answers with a changed copy (:func:`dataclasses.replace`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from douane.frozen import made_fast
from douane.secrets import NO_ORIGINALS, Originals, Secret

__all__ = ["ANONYMOUS", "Call", "Caller", "Credential", "Ended", "Finding", "Headers", "Outcome", "Outgoing", "Principal",
           "Signer", "Target", "Usage", "Walked"]

type Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields in wire order, names in lower case."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and on whose behalf: ``user``, ``agent`` and ``tags`` are what the app says of itself."""

    name: str
    team: str = ""
    org: str = ""
    user: str = ""
    agent: str = ""
    tags: Mapping[str, str] = _NOTHING
    tier: str = ""
    """Whose limits hold for it, of those in ``tiers``."""

    @property
    def tenant(self) -> str:
        """Whose data this is: the org, else the principal itself."""
        return self.org or self.name


ANONYMOUS = Principal("")
"""Before ``authenticate`` has spoken."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What stands at the door, before anybody believed it."""

    address: str
    """IP address of the peer; empty where the host cannot say."""
    proxy_user: str = ""
    proxy_secret: Secret | None = None
    """Name and password of ``Proxy-Authorization: Basic``."""
    user: str = ""
    agent: str = ""
    tags: Mapping[str, str] = _NOTHING
    """What ``x-douane-user``, ``-agent`` and ``-tag-NAME`` declared; those headers are in no ``Call``."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call is sent: this decides dial, Host, SNI and the certificate's name."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    ca: str = ""
    """Path of a PEM file with the only roots trusted for this target; empty for the system's."""
    base_path: str = ""
    """Prefix of every path, without a trailing slash."""
    address: str = ""
    """IP address to dial, already checked, where the host must not be resolved again."""

    @property
    def authority(self) -> str:
        """The Host header: no default port, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


class Signer(Protocol):
    """What signs requests instead of sending a key (AWS)."""

    def sign(self, request: "Outgoing") -> Headers:
        """The headers of *request*, with the signature over just what is sent, and with nothing of another one. Raises
        ValueError where it cannot be signed."""
        ...

    def secrets(self) -> tuple[Secret, ...]:
        """What it signs with, and nobody may see."""
        ...


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as the relay is about to send it."""

    method: str
    asked: str
    """The host that the app named."""
    authority: str
    """The Host header that goes out."""
    path: str
    """Raw, with the query."""
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider's key, bound to the provider it was configured for; the relay writes it at the last moment."""

    secret: Secret
    """What of it an answer could echo: the key, or what a *signer* sends."""
    header: bytes
    prefix: bytes = b""
    provider: str = ""
    signer: Signer | None = field(default=None, repr=False)
    """Where there is one, *header* is not written: it signs."""


@made_fast
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. ``input`` is all of them: ``cached_input`` and ``cache_write`` are part of it, as ``reasoning`` is of
    ``output`` (the convention of genai-prices; Anthropic's own ``input_tokens`` leaves the cache out)."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    """The part of ``cache_write`` kept for an hour, which Anthropic bills at another price."""
    reasoning: int = 0
    web_searches: int = 0
    file_searches: int = 0
    input_audio: int = 0
    """Part of ``input``, as ``input_image`` is; ``cached_audio`` is part of this and of ``cached_input``."""
    cached_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    cached_image: int = 0
    output_image: int = 0
    audio_seconds: float = 0
    """No tokens, here and below: transcription by the length of the sound, speech by the characters it reads, pages that
    are recognised."""
    characters: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a policy saw. Names type, count and place, never the value."""

    policy: str
    type: str
    count: int = 1
    where: tuple[str, ...] = ()
    """JSON paths; array indexes and known field names, no keys that the user made up."""


class Walked:
    """What one policy has found out of a document, so that the next need not (``policy.positions``,
    ``reading.py``). Positions and texts are of one document: a rewritten body has another."""

    __slots__ = ("document", "keys", "positions", "texts")

    def __init__(self) -> None:
        self.document: Any = None
        self.positions: tuple[Any, ...] = ()
        self.texts: tuple[Any, ...] | None = None
        self.keys: Any = None


@made_fast
@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, as policies see it."""

    id: str
    at: float
    """Seconds since the epoch."""
    provider: str
    operation: str
    """A label of ``shared/wire`` (chat, responses, messages …); ``unknown`` where the table has no row."""
    method: str
    host: str
    """As the app named it: lower case, no default port."""
    path: str
    """Raw, still percent-encoded, without the query."""
    query: str
    headers: Headers
    caller: Caller
    principal: Principal = ANONYMOUS
    model: str = ""
    stream: bool = False
    body: bytes = field(default=b"", repr=False)
    """As it goes upstream: the app's own bytes, in their content coding, unless a policy rewrote them."""
    document: Any = field(default=None, repr=False)
    """The JSON value of the body, decoded; None where there is none or the head alone has been read."""
    credential: Credential | None = None
    originals: Originals = field(default=NO_ORIGINALS, repr=False)
    """What the placeholders in the body stand for, where the answer gets the values back: here, and not in a policy's own
    store, so that it is gone with the exchange however that ends."""
    session: str = ""
    """The id of the handshake's record, where this is a turn of a WebSocket session."""
    context: int = 0
    """Tokens, estimated, that the provider holds of this session and that count as input again."""
    walked: Walked = field(default_factory=Walked, repr=False, compare=False)
    """What was found out of ``document``, for who asks next."""

    def with_body(self, body: bytes, document: Any, model: str, stream: bool) -> "Call":
        """The call once its body has been read. Spelled out: :func:`dataclasses.replace` takes three times as long, and
        every call comes this way."""
        return Call(self.id, self.at, self.provider, self.operation, self.method, self.host, self.path, self.query,
                    self.headers, self.caller, self.principal, model, stream, body, document, self.credential,
                    self.originals, self.session, self.context)

    def by(self, principal: Principal, headers: Headers) -> "Call":
        """The call once its principal is known; spelled out as :meth:`with_body` is."""
        return Call(self.id, self.at, self.provider, self.operation, self.method, self.host, self.path, self.query,
                    headers, self.caller, principal, self.model, self.stream, self.body, self.document, self.credential,
                    self.originals, self.session, self.context)

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (*name* in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


type Ended = Literal["complete", "denied", "client_disconnected", "upstream_error", "upstream_timeout", "cut", "stopped"]
"""How an exchange ended. ``denied``: before anything went upstream. ``cut``: we ended it after that."""


@made_fast
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call; what ``settle`` gets."""

    ended: Ended
    status: int = 0
    """The provider's status; 0 where it never answered."""
    usage: Usage | None = None
    estimated: bool = False
    cost_usd: float | None = None
    """None: nothing is known of the price."""
    model: str = ""
    """The model the answer names, where it names one."""
    upstream_request_id: str = ""
    counted: bool = False
    """The usage is estimated, and nothing can have been billed that was not seen."""
    told: bool = False
    """The answer told its whole usage: where the outcome is estimated all the same, its price is."""
