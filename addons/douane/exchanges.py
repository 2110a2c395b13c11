"""Recorded exchanges, read from files: JSON lines (one exchange a line) and HAR, as browsers and mitmproxy save it.

A line: ``{"request": {"method", "url", "headers", "body" | "body_base64"}, "response": {"status", "headers", "body" |
"body_base64"}}``; a WebSocket session has ``{"url", "frames": [{"dir": "sent" | "received", "data"}]}`` in their place. HAR:
http://www.softwareishard.com/blog/har-12-spec/.

Law: a file that is neither is refused with its name and line; nothing of it is guessed.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from douane.call import Headers
from douane.errors import ConfigError

__all__ = ["Recorded", "read_exchanges"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One exchange. Bodies as they travelled but for what the recorder undid (chunks always, codings often)."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""
    status: int = 0
    """0: there was no answer."""
    answer_headers: Headers = ()
    answer: bytes = b""
    stream: bool = False
    """The recorder said that the answer was a stream, for where no Content-Type tells which."""
    frames: tuple[tuple[bool, str], ...] | None = None
    """Of a WebSocket session: (sent by the client, text)."""


def read_exchanges(path: Path) -> Iterator[Recorded]:
    """Raises ConfigError (``file:line: …``) for what is neither form, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(4096).lstrip()
        if path.suffix == ".har" or (start.startswith(b"{") and b'"log"' in start[:200]):
            yield from _har(path)
        else:
            yield from _lines(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _lines(path: Path) -> Iterator[Recorded]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _of_line(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ConfigError(f"{path}:{number}: this is no exchange ({type(error).__name__}: {error}); allowed: one JSON "
                                  "object a line with request and response, or a HAR file") from None


def _of_line(one: Mapping[str, Any]) -> Recorded:
    if "request" not in one:
        frames = tuple((frame["dir"] == "sent", _text(frame.get("data"))) for frame in one["frames"])
        return Recorded("GET", str(one.get("url") or one.get("uri") or ""), stream=True, frames=frames)
    asked, said = one["request"], one.get("response") or {}
    return Recorded(str(asked["method"]).upper(), str(asked["url"]), _headers(asked.get("headers")), _body(asked),
                    int(said.get("status") or 0), _headers(said.get("headers")), _body(said), bool(one.get("stream")))


def _text(data: Any) -> str:
    return data if isinstance(data, str) else json.dumps(data)


def _body(side: Mapping[str, Any]) -> bytes:
    if side.get("body_base64"):
        return _decoded(side["body_base64"])
    body = side.get("body")
    if body is None:
        return b""
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else json.dumps(body).encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a body is no base64: {error}") from None


def _headers(given: Any) -> Headers:
    """A mapping, or HAR's list of names and values."""
    pairs = given.items() if isinstance(given, dict) else [(one["name"], one["value"]) for one in given or ()]
    return tuple((str(name).lower().encode("latin-1", "replace"), _value(one))
                 for name, value in pairs for one in (value if isinstance(value, list) else [value]))


def _value(value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


def _har(path: Path) -> Iterator[Recorded]:
    try:
        entries = json.loads(path.read_bytes())["log"]["entries"]
        for entry in entries:
            asked, said = entry["request"], entry["response"]
            posted, content = asked.get("postData") or {}, said.get("content") or {}
            text = content.get("text") or ""
            answer = _decoded(text) if content.get("encoding") == "base64" else text.encode()
            messages = entry.get("_webSocketMessages")
            frames = None if messages is None else tuple((one["type"] == "send", str(one["data"])) for one in messages)
            # a browser's HAR holds bodies decoded, whatever the headers say
            yield Recorded(asked["method"].upper(), asked["url"], _without_coding(asked["headers"]),
                           (posted.get("text") or "").encode(), max(0, int(said.get("status") or 0)),
                           _without_coding(said["headers"]), answer, frames=frames)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: this is no HAR file ({type(error).__name__}: {error})") from None


def _without_coding(headers: Any) -> Headers:
    return tuple(one for one in _headers(headers) if one[0] != b"content-encoding")
