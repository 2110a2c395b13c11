"""A request as it came, and an answer as it is to go: the two ends of a script.

Law: nothing is tidied. A request stands in its :class:`Seen` as it came, well-formed or not, and an answer goes out as
it was written, wrong lengths included: what a gateway does with a bad peer can only be tested with one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

__all__ = ["Answer", "Ending", "Header", "Raw", "Reply", "Script", "Seen", "Step", "Talk", "read_body", "read_head"]

type Header = tuple[bytes, bytes]
type Step = bytes | float
"""Bytes to send, or seconds to wait."""
type Ending = Literal["open", "answered", "cut", "client_gone", "malformed"]


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as it arrived. *sent* and *ended* follow its answer, and are final once *ended* is not ``open``."""

    connection: int
    """From 1."""
    sni: str = ""
    number: int = 0
    """From 1, over all connections, in the order of :attr:`at`."""
    at: float = 0.0
    """Seconds since the epoch, when its head was complete or had failed."""
    head: bytes = b""
    """The bytes from the request line to the empty line. All there is where no head could be read."""
    method: str = ""
    target: str = ""
    """Raw path and query. Empty, like *method*, where the head was malformed or broke off."""
    headers: tuple[Header, ...] = ()
    """In wire order, names in the case they came in."""
    body: bytes = b""
    """Without the framing; as far as it came where it broke off."""
    trailers: tuple[Header, ...] = ()
    sent: int = 0
    """Bytes of the answer written, head and framing included."""
    ended: Ending = "open"
    """``answered``: written whole. ``cut``: by the script. ``client_gone``: the peer closed first. ``malformed``: no
    request could be read."""

    def header(self, name: str) -> str:
        """The first value under *name* in any case, or the empty string."""
        wanted = name.lower().encode("ascii")
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), "")

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP/1.1 answer. *body*: bytes go with a Content-Length; steps go chunked, each its own chunk.

    Headers named Content-Length or Transfer-Encoding replace the framing's own; steps then go unframed.
    """

    status: int = 200
    reason: str = ""
    """Empty: the one IANA gives."""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Sequence[Step] = b""
    delay: float = 0.0
    """Seconds before the head."""
    cut_after: int | None = None
    """Close after so many bytes of the answer, the head included."""
    ragged: bool = False
    """Cut without TLS's own end (close_notify), as a crash or a middlebox does. For answers below 64 KB."""

    def steps(self, method: str) -> list[Step]:
        """The answer to a request of *method*, as bytes and pauses."""
        named = {name.lower() for name, _ in self.headers}
        framed = bool(named & {"content-length", "transfer-encoding"})
        bodiless = method == "HEAD" or self.status in {204, 304} or self.status < 200
        lines = [f"HTTP/1.1 {self.status} {self.reason or _phrase(self.status)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        whole = self.body if isinstance(self.body, bytes) else None
        if not framed and whole is not None and self.status not in {204, 304}:
            lines.append(f"content-length: {len(whole)}")
        elif not framed and whole is None:
            lines.append("transfer-encoding: chunked")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        first: list[Step] = [self.delay] if self.delay else []
        if bodiless:
            return [*first, head]
        if isinstance(self.body, bytes):
            return [*first, head + self.body]
        if framed:
            return [*first, head, *self.body]
        return [*first, head, *(_chunk(step) for step in self.body), b"0\r\n\r\n"]


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes as they are, and pauses between them: 1xx, trailers, wrong lengths, anything."""

    steps: Sequence[Step]
    keep: bool = False
    """Whether the connection takes another request afterwards."""


type Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""The script takes the connection itself; it is closed afterwards, and ``Seen.sent`` is not counted."""
type Answer = Reply | Raw | Talk
type Script = Callable[[Seen], Answer]


async def read_head(reader: asyncio.StreamReader, seen: Seen) -> None:
    """Fill in the head. Raises ValueError for what is no HTTP/1 head, ``asyncio.IncompleteReadError`` (its *partial*
    kept in ``seen.head``) and ``asyncio.LimitOverrunError`` as the reader does."""
    try:
        seen.head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as broken:
        seen.head = broken.partial
        raise
    line, *fields = seen.head[:-4].split(b"\r\n")
    method, target, version = line.decode("latin-1").split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"unknown version {version!r}")
    seen.headers = _fields(fields)
    seen.method, seen.target = method, target


async def read_body(reader: asyncio.StreamReader, seen: Seen) -> None:
    """Fill in body and trailers, as far as they come. Raises like :func:`read_head`."""
    try:
        if "chunked" in seen.header("transfer-encoding").lower():
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                seen.body += await reader.readexactly(size)
                await reader.readexactly(2)
            lines = []
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                lines.append(line[:-2])
            seen.trailers = _fields(lines)
        elif length := seen.header("content-length"):
            seen.body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as broken:
        seen.body += broken.partial
        raise


def _fields(lines: Sequence[bytes]) -> tuple[Header, ...]:
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise ValueError(f"a header line without a colon: {line!r}")
        fields.append((name, value.strip(b" \t")))
    return tuple(fields)


def _chunk(step: Step) -> Step:
    return b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
