"""Anthropic's side of the wire: messages, count_tokens, models. Shapes as in the recordings of ``shared/wire``."""

from collections.abc import Iterator
from typing import Any

import orjson

from douane.demo.echo import Said, ident, json_reply, pieces, stream_reply, tokens
from douane.demo.wire import Reply, Seen

__all__ = ["MODELS", "answer"]

MODELS = ("claude-opus-5", "claude-sonnet-5", "claude-haiku-4-5")
_MADE = "2025-06-15T15:06:40Z"
type Doc = dict[str, Any]


def answer(seen: Seen, document: Any, pause: float) -> Reply:
    """The answer to one request. *document* is its JSON value; None where there is none."""
    if not seen.header("x-api-key") and not seen.header("authorization"):
        return _error(seen, 401, "authentication_error", "x-api-key header is required")
    if not seen.header("anthropic-version"):
        return _error(seen, 400, "invalid_request_error", "anthropic-version: header is required")
    if seen.method == "GET" and seen.path == "/v1/models":
        listed = {"data": [_model(name) for name in MODELS], "has_more": False, "first_id": MODELS[0],
                  "last_id": MODELS[-1]}
        return json_reply(200, listed, _headers(seen))
    if seen.method == "GET" and seen.path.startswith("/v1/models/"):
        name = seen.path.removeprefix("/v1/models/")
        return (json_reply(200, _model(name), _headers(seen)) if name in MODELS
                else _error(seen, 404, "not_found_error", f"model: {name}"))
    if seen.method != "POST" or seen.path not in {"/v1/messages", "/v1/messages/count_tokens"}:
        return _error(seen, 404, "not_found_error", "Not found")
    if not isinstance(document, dict):
        return _error(seen, 400, "invalid_request_error", "The request body is not valid JSON")
    counting = seen.path == "/v1/messages/count_tokens"
    for field in ("model", "messages") if counting else ("model", "messages", "max_tokens"):
        if not document.get(field):
            return _error(seen, 400, "invalid_request_error", f"{field}: Field required")
    if counting:
        return json_reply(200, {"input_tokens": _asked(document)}, _headers(seen))
    return _messages(seen, document, pause)


def _headers(seen: Seen) -> list[tuple[str, str]]:
    return [("request-id", ident("req_", seen)), ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000")]


def _error(seen: Seen, status: int, kind: str, message: str) -> Reply:
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": ident("req_", seen)}
    return json_reply(status, error, _headers(seen))


def _model(name: str) -> Doc:
    return {"type": "model", "id": name, "display_name": name.replace("-", " ").title(), "created_at": _MADE}


def _asked(document: Doc) -> int:
    counted = sum(tokens(document.get(field)) for field in ("system", "messages", "tools"))
    return counted + 3 * len(document["messages"])


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(_text(block.get("text", block.get("content"))) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""


def _said(document: Doc) -> Said:
    content = document["messages"][-1].get("content")
    results = isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content)
    choice = document.get("tool_choice") or {}
    offered = () if choice.get("type") == "none" else document.get("tools") or ()
    tool = next((tool for tool in offered if isinstance(tool, dict) and "input_schema" in tool), {})
    return Said.to(_text(content), from_tool=results, tool=tool.get("name", ""), schema=tool.get("input_schema"))


def _messages(seen: Seen, document: Doc, pause: float) -> Reply:
    said = _said(document)
    usage = {"input_tokens": _asked(document), "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
             "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
             "output_tokens": said.tokens, "service_tier": "standard"}
    block: Doc = ({"type": "tool_use", "id": ident("toolu_", seen), "name": said.tool, "input": said.arguments}
                  if said.tool else {"type": "text", "text": said.text})
    whole = {"model": document["model"], "id": ident("msg_", seen), "type": "message", "role": "assistant",
             "content": [block], "stop_reason": "tool_use" if said.tool else "end_turn", "stop_sequence": None,
             "usage": usage}
    if document.get("stream"):
        return stream_reply([_event(event) for event in _events(whole, block, said)], _headers(seen), pause)
    return json_reply(200, whole, _headers(seen))


def _events(whole: Doc, block: Doc, said: Said) -> Iterator[Doc]:
    usage = whole["usage"]
    begun = whole | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    empty: Doc = {"input": {}} if said.tool else {"text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block | empty}
    yield {"type": "ping"}
    for piece in pieces(said.json if said.tool else said.text):
        delta = ({"type": "input_json_delta", "partial_json": piece} if said.tool
                 else {"type": "text_delta", "text": piece})
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {name: usage[name] for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
                                            "output_tokens")}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
           "usage": ended}
    yield {"type": "message_stop"}


def _event(value: Doc) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), orjson.dumps(value))
