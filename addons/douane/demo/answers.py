"""Ready scripts for the local provider: the providers' own behaviour, and recorded exchanges played again.

Law: a script is a function of the request; what it cannot answer it says aloud, with a status no client
takes for success.
"""

import base64
import gzip
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import brotli  # type: ignore[import-untyped]
import orjson
import zstandard

from douane.demo import anthropic, openai
from douane.demo.wire import Answer, Reply, Script, Seen

__all__ = ["CODINGS", "default_script", "replay"]

CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0), "deflate": zlib.compress, "br": brotli.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data)}
"""Content codings by name: the bytes of one whole body."""
_FRAMING = {"transfer-encoding", "content-length", "content-encoding", "connection"}


def default_script(*, pause: float = 0.0) -> Script:
    """OpenAI or Anthropic, told apart by name, path and headers. *pause*: seconds between two events of a stream."""

    def script(seen: Seen) -> Answer:
        named = "api.anthropic.com" in (seen.sni, seen.header("host").partition(":")[0])
        own = bool(seen.header("anthropic-version")) or seen.path.startswith("/v1/messages")
        answer = anthropic.answer if named or own else openai.answer
        return answer(seen, _document(seen.body), pause)

    return script


def replay(records: Iterable[Mapping[str, Any]], *, coding: str = "", chunk: int = 0) -> Script:
    """Recorded exchanges (the lines of ``shared/wire``, those with ``request``) by method, path with query, and body.

    Of equal requests the answers come in the records' order, each once; what was not recorded, or is used up, gets 599.
    *coding*: a name of :data:`CODINGS` in which each body is sent. *chunk*: bytes a chunk where the body goes chunked,
    as recorded streams always do; 0 sends it as one."""
    answers: dict[tuple[str, str, bytes], deque[Reply]] = defaultdict(deque)
    for record in records:
        asked = record["request"]
        url = urlsplit(asked["url"])
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        answers[asked["method"], target, _body(asked)].append(_recorded(record, coding, chunk))

    def script(seen: Seen) -> Answer:
        waiting = answers.get((seen.method, seen.target, seen.body))
        if waiting:
            return waiting.popleft()
        return Reply(status=599, reason="Not Recorded", body=f"no record of {seen.method} {seen.target}".encode())

    return script


def _recorded(record: Mapping[str, Any], coding: str, chunk: int) -> Reply:
    told = record["response"]
    body = _body(told)
    kept = [(name, value) for name, value in told["headers"].items() if name.lower() not in _FRAMING]
    if coding and body:
        body = CODINGS[coding](body)
        kept.append(("content-encoding", coding))
    chunked = record.get("stream") or "chunked" in told["headers"].get("transfer-encoding", "")
    if not chunked or not body:
        return Reply(status=told["status"], headers=kept, body=body)
    size = chunk or len(body)
    return Reply(status=told["status"], headers=kept,
                 body=[body[start:start + size] for start in range(0, len(body), size)])


def _body(message: Mapping[str, Any]) -> bytes:
    if "body_base64" in message:
        return base64.b64decode(message["body_base64"])
    return (message.get("body") or "").encode("utf-8", "surrogatepass")


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
