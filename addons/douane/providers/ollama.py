"""The Ollama family: its own operations, and OpenAI's below ``/v1``.

Format: https://docs.ollama.com/api, and the recordings of ``shared/wire``. A chat streams unless it says ``"stream": false``;
a stream is NDJSON, and its last line has the counts. It runs on a machine of one's own and costs nothing. What changes the
server itself (pull, push, create, copy, delete) is in no row: ``unknown_operations`` decides.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from douane.call import Target, Usage
from douane.providers.base import Bound, Operation, Provider, Role
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.framing import SSE, Framing
from douane.providers.merge import Rows, later, merge, plain
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.openai import OPENAI
from douane.providers.openai_more import openai_rows
from douane.providers.room import openai_room
from douane.providers.walk import ANSWER_TOKENS, BLOBS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["OLLAMA", "AssembleOllama", "OllamaFamily", "ollama"]


@dataclass(frozen=True, slots=True)
class OllamaFamily:
    """Denials as ``{"error": TEXT, "code"}``, in a stream a line of that: the client raises ResponseError for both."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        return status, orjson.dumps({"error": message, "code": code, "request_id": call_id})

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        line = orjson.dumps({"error": message, "code": code, "request_id": call_id})
        return b"data: " + line + b"\n\n" if framing is SSE else line + b"\n"


OLLAMA = OllamaFamily()

_TOP: Mapping[str, Role] = {
    "messages": "user", "prompt": "user", "suffix": "user", "input": "user", "system": "system", "template": "system",
    "tools": "schema", "format": "schema", "options": "metadata"}
_FREE = frozenset({"parameters", "arguments", "options", "properties"})

_GRAMMAR = Grammar(
    top=_TOP,
    members={"tool_calls": "tool_call", "format": "schema"},
    kinds={},
    free=_FREE,
    tokens=TOKENS | {"keep_alive", "think"},
    blobs=BLOBS | {"images"})

_ANSWER = Grammar(
    top={"message": "assistant", "response": "assistant", "thinking": "assistant"},
    members={"tool_calls": "tool_call"},
    kinds={},
    free=_FREE,
    tokens=ANSWER_TOKENS | {"created_at", "done_reason"},
    blobs=BLOBS | {"images", "image"})

_TEXTS = (("message", "content"), ("message", "thinking"), ("response",), ("thinking",))


def _pieces(document: Any) -> list[Delta]:
    """None in a line with tool calls: these are whole, and so is what stands beside them."""
    if not isinstance(document, dict) or _calls(document):
        return []
    found = []
    for path in _TEXTS:
        owner = document if len(path) == 1 else document.get("message")
        text = owner.get(path[-1]) if isinstance(owner, dict) else None
        if isinstance(text, str) and text:
            found.append(Delta(path, path, text))
    return found


def _calls(document: dict[str, Any]) -> bool:
    message = document.get("message")
    return isinstance(message, dict) and bool(message.get("tool_calls"))


def _ends(document: Any) -> list[Channel]:
    if not isinstance(document, dict) or document.get("done") is True or document.get("error") or _calls(document):
        return [()]
    return []


class AssembleOllama:
    """The lines of a stream into the answer without one."""

    __slots__ = ("_calls", "_message", "_texts", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._texts: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._calls = Rows("calls")

    def take(self, event: dict[str, Any]) -> bool:
        if "done" not in event:
            return False
        message = event.pop("message", None)
        if isinstance(message, dict):
            calls = message.pop("tool_calls", None)
            self._calls.extend(calls if isinstance(calls, list) else [])
            merge(self._message, message)
        elif message is not None:
            event["message"] = message
        merge(self._texts, {name: event.pop(name) for name in ("response", "thinking") if isinstance(event.get(name), str)})
        later(self._top, event)
        return True

    def document(self) -> dict[str, Any]:
        whole = self._top | self._texts
        if self._message or len(self._calls):
            whole["message"] = self._message | ({"tool_calls": self._calls} if len(self._calls) else {})
        document: dict[str, Any] = plain(whole)
        return document


def _note(seen: Seen, document: dict[str, Any]) -> None:
    model = document.get("model")
    if isinstance(model, str) and model:
        seen.model = model
    if document.get("done") is True or document.get("error"):
        seen.ended = seen.done = True
    if "eval_count" in document or "prompt_eval_count" in document:
        seen.usage = document


def _usage(seen: Seen) -> Usage:
    """Without ``prompt_eval_count`` the prompt was in the cache, and nothing of it was read."""
    return Usage(tokens(seen.usage, "prompt_eval_count"), tokens(seen.usage, "eval_count"))


@dataclass(frozen=True, slots=True)
class OllamaWire(JsonWire):
    def stream(self, document: Any) -> bool:
        """Unless it says no; ``null`` says nothing."""
        return isinstance(document, dict) and document.get("stream") is not False


_ANSWERS = Answers(_note, _usage, (b'"done":true',))
_STREAMED = OllamaWire(_GRAMMAR, _ANSWERS, _ANSWER, AssembleOllama, Deltas(_pieces, _ends),
                       bound=Bound(stated=(("options", "num_predict"),), insert=("options", "num_predict")))
_EMBED = JsonWire(_GRAMMAR, _ANSWERS, _ANSWER)
_SHOW = JsonWire(_GRAMMAR, None, _ANSWER)


_OPENAI = frozenset({"chat", "completions", "embeddings", "models", "responses"})


def _rows() -> tuple[Operation, ...]:
    return (
        Operation("ollama_chat", "POST", re.compile("/api/chat"), _STREAMED),
        Operation("ollama_generate", "POST", re.compile("/api/generate"), _STREAMED),
        Operation("embeddings", "POST", re.compile("/api/embed(?:dings)?"), _EMBED),
        Operation("models", "GET", re.compile("/api/(?:tags|ps|version)")),
        Operation("models", "POST", re.compile("/api/show"), _SHOW),
        *(replace(row, family=OPENAI) for row in openai_rows("/v1", _OPENAI)))


def ollama() -> Provider:
    """On this machine, over plain http; elsewhere by ``providers:``."""
    return Provider("ollama", OLLAMA, ("localhost:11434", "127.0.0.1:11434"), Target("http", "127.0.0.1", 11434),
                    (b"authorization", b"Bearer "), (b"authorization",), _rows(), free=True)
