"""The Anthropic family: messages.

Format: https://docs.claude.com/en/api/messages, and the recordings of ``shared/wire``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from douane.call import Usage
from douane.providers.assemble import AssembleMessage
from douane.providers.assemble_more import AssembleCompletion
from douane.providers.base import Bound, Operation, Position, Provider, Role, Unseen
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.edit import Path
from douane.providers.forms import FormWire
from douane.providers.framing import Framing
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.room import anthropic_room
from douane.providers.walk import ANSWER_TOKENS, Grammar, walk
from douane.providers.wires import JsonWire

__all__ = ["ANTHROPIC", "COUNT_TOKENS", "MESSAGES", "AnthropicFamily", "anthropic"]

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
          404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
          504: "timeout_error"}
"""https://docs.claude.com/en/api/errors. Other statuses: ``invalid_request_error`` below 500, ``api_error`` above."""


@dataclass(frozen=True, slots=True)
class AnthropicFamily:
    """Denials as ``{"type": "error", "error": {"type", "message", "code"}, "request_id"}``.

    Anthropic has no ``code``: the denial's stands beside ``type``. ``budget_exceeded`` is 402 ``billing_error``."""

    room = staticmethod(anthropic_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        if code == "budget_exceeded":
            status = 402
        return status, _error(status, code, message, call_id)

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        return b"event: error\ndata: " + _error(500, code, message, call_id) + b"\n\n"


def _error(status: int, code: str, message: str, call_id: str) -> bytes:
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message, "code": code},
                         "request_id": call_id})


ANTHROPIC = AnthropicFamily()

_KINDS: dict[str, Role] = {
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), "tool_call"),
    **dict.fromkeys(("tool_result", "mcp_tool_result", "web_search_tool_result", "web_fetch_tool_result",
                     "code_execution_tool_result", "bash_code_execution_tool_result",
                     "text_editor_code_execution_tool_result", "tool_search_tool_result", "search_result"),
                    "tool_result"),
}

_GRAMMAR = Grammar(
    top={"system": "system", "messages": "user", "tools": "schema", "tool_choice": "schema", "mcp_servers": "schema",
         "output_format": "schema", "output_config": "schema", "metadata": "metadata", "stop_sequences": "metadata"},
    members={},
    kinds=_KINDS,
    free=frozenset({"input", "input_schema", "schema", "metadata", "input_examples"}),
    sealed=frozenset({"thinking"}))

_ANSWER = Grammar(
    top={"content": "assistant", "stop_sequence": "metadata"},
    members={},
    kinds=_KINDS,
    free=_GRAMMAR.free,
    sealed=_GRAMMAR.sealed,
    tokens=ANSWER_TOKENS)


def _note(seen: Seen, document: dict[str, Any]) -> None:
    """A message, ``message_start`` or ``message_delta``: counts are cumulative, so the later overwrites the earlier."""
    if document.get("type") in ("message_stop", "error"):
        seen.ended = True
    inner = document.get("message")
    body = inner if isinstance(inner, dict) else document
    usage = body.get("usage")
    if isinstance(usage, dict):
        seen.usage |= {name: value for name, value in usage.items() if value is not None}
        seen.done = seen.done or document.get("type") == "message_delta"
        tier = usage.get("speed")  # the price list knows `fast`; Anthropic's service_tier has no price of its own
        if isinstance(tier, str):
            seen.tier = tier
    model = body.get("model")
    if isinstance(model, str) and model:
        seen.model = model


def _usage(seen: Seen) -> Usage:
    """``input_tokens`` leaves the cache out; :class:`Usage` has it in."""
    usage = seen.usage
    if "input_tokens" not in usage:
        raise ValueError("usage.input_tokens is missing")
    cached, written = tokens(usage, "cache_read_input_tokens"), tokens(usage, "cache_creation_input_tokens")
    return Usage(tokens(usage, "input_tokens") + cached + written, tokens(usage, "output_tokens"),
                 cached_input=cached, cache_write=written,
                 cache_write_1h=tokens(usage, "cache_creation", "ephemeral_1h_input_tokens"),
                 reasoning=tokens(usage, "output_tokens_details", "thinking_tokens"),
                 web_searches=tokens(usage, "server_tool_use", "web_search_requests"))


MESSAGES = JsonWire(_GRAMMAR, Answers(_note, _usage, (b'"message_stop"', b'"error"')), _ANSWER, AssembleMessage,
                    bound=Bound((("max_tokens",),), ("max_tokens",)))
COUNT_TOKENS = JsonWire(_GRAMMAR, None)


def _note_complete(seen: Seen, document: dict[str, Any]) -> None:
    """Its answers tell no usage."""
    model = document.get("model")
    seen.model = model if isinstance(model, str) and model else seen.model
    if document.get("stop_reason") or document.get("error"):
        seen.ended = True


def _complete_pieces(document: Any) -> list[Delta]:
    text = document.get("completion") if isinstance(document, dict) and document.get("type") == "completion" else None
    return [Delta(("completion",), ("completion",), text)] if isinstance(text, str) and text else []


def _complete_ends(document: Any) -> list[Channel]:
    return [()] if not isinstance(document, dict) or document.get("stop_reason") or document.get("error") else []


COMPLETE = JsonWire(
    Grammar({"prompt": "user", "metadata": "metadata", "stop_sequences": "metadata"}, {}, {}, frozenset({"metadata"})),
    Answers(_note_complete, _usage, (b'"stop_reason":', b'"error"')),
    Grammar({"completion": "assistant", "stop": "metadata"}, {}, {}, frozenset(), tokens=ANSWER_TOKENS | {"log_id"}),
    AssembleCompletion, Deltas(_complete_pieces, _complete_ends),
    bound=Bound((("max_tokens_to_sample",),), ("max_tokens_to_sample",)))


@dataclass(frozen=True, slots=True)
class BatchWire(JsonWire):
    """``requests[].params`` are bodies of ``messages``."""

    def _params(self, document: Any) -> Iterator[tuple[Path, Any]]:
        requests = document.get("requests") if isinstance(document, dict) else None
        for at, one in enumerate(requests if isinstance(requests, list) else ()):
            if isinstance(one, dict) and "params" in one:
                yield ("requests", at, "params"), one["params"]

    def walk(self, document: Any) -> Iterator[Position]:
        inner = dict(self._params(document))
        for path, params in inner.items():
            yield from (one._replace(path=(*path, *one.path)) for one in MESSAGES.walk(params))
        yield from (one for one in walk(self.grammar, document) if one.path[:3] not in inner or len(one.path) == 3)

    def unseen(self, document: Any) -> Iterator[Unseen]:
        for path, params in self._params(document):
            yield from (Unseen((*path, *one.path), one.kind, one.name) for one in MESSAGES.unseen(params))


_FREE = JsonWire(_GRAMMAR, None, Grammar({"data": "assistant", "result": "assistant"}, {}, _KINDS, _GRAMMAR.free, frozenset({
    "thinking"}), ANSWER_TOKENS))
_BATCH = BatchWire(_GRAMMAR, Answers(lambda seen, document: None, _usage, ()), _FREE.answer)
_FILE = FormWire(Grammar({"file": "user"}, {}, {}, frozenset()), None, _FREE.answer)
_ID = "[A-Za-z0-9_-]{1,256}"


def anthropic() -> Provider:
    return Provider(
        "anthropic", ANTHROPIC, ("api.anthropic.com",), None, (b"x-api-key", b""), (b"x-api-key", b"authorization"),
        (Operation("messages", "POST", re.compile("/v1/messages"), MESSAGES),
         Operation("count_tokens", "POST", re.compile("/v1/messages/count_tokens"), COUNT_TOKENS),
         Operation("models", "GET", re.compile("/v1/models(?:/[A-Za-z0-9][A-Za-z0-9._:-]*)?")),
         Operation("complete", "POST", re.compile("/v1/complete"), COMPLETE),
         Operation("batches", "POST", re.compile("/v1/messages/batches"), _BATCH),
         Operation("batches", "POST", re.compile(f"/v1/messages/batches/{_ID}/cancel"), _FREE),
         Operation("batches", "GET", re.compile(f"/v1/messages/batches(?:/{_ID}(?:/results)?)?"), _FREE),
         Operation("batches", "DELETE", re.compile(f"/v1/messages/batches/{_ID}"), _FREE),
         Operation("files", "POST", re.compile("/v1/files"), _FILE),
         Operation("files", "GET", re.compile(f"/v1/files(?:/{_ID}(?:/content)?)?"), _FREE),
         Operation("files", "DELETE", re.compile(f"/v1/files/{_ID}"), _FREE)),
        prices="anthropic")
