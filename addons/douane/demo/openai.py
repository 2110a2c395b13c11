"""OpenAI's side of the wire: chat completions, responses, models. Shapes as in the recordings of ``shared/wire``."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from douane.demo.echo import CREATED, Said, ident, json_reply, pieces, stream_reply, tokens
from douane.demo.wire import Reply, Seen

__all__ = ["MODELS", "answer"]

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5-mini")
type Doc = dict[str, Any]


def answer(seen: Seen, document: Any, pause: float) -> Reply:
    """The answer to one request. *document* is its JSON value; None where there is none."""
    bearer = seen.header("authorization")
    if not bearer.lower().startswith("bearer ") or not bearer[7:].strip():
        return _error(seen, 401, "You didn't provide an API key. You need to provide your API key in an Authorization "
                                 "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).", None)
    if seen.method == "GET" and seen.path == "/v1/models":
        return json_reply(200, {"object": "list", "data": [_model(name) for name in MODELS]}, _headers(seen))
    if seen.method == "GET" and seen.path.startswith("/v1/models/"):
        name = seen.path.removeprefix("/v1/models/")
        return (json_reply(200, _model(name), _headers(seen)) if name in MODELS
                else _error(seen, 404, f"The model '{name}' does not exist", "model_not_found"))
    if seen.method != "POST" or seen.path not in {"/v1/chat/completions", "/v1/responses"}:
        return _error(seen, 404, f"Invalid URL ({seen.method} {seen.path})", None)
    if not isinstance(document, dict):
        return _error(seen, 400, "We could not parse the JSON body of your request.", None)
    if not isinstance(document.get("model"), str):
        return _error(seen, 400, "you must provide a model parameter", None)
    if seen.path == "/v1/responses":
        return _responses(seen, document, pause)
    if not isinstance(document.get("messages"), list) or not document["messages"]:
        return _error(seen, 400, "Missing required parameter: 'messages'.", "missing_required_parameter")
    return _chat(seen, document, pause)


def _headers(seen: Seen) -> list[tuple[str, str]]:
    return [("x-request-id", ident("req_", seen)), ("openai-processing-ms", "12"), ("openai-version", "2020-10-01")]


def _error(seen: Seen, status: int, message: str, code: str | None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json_reply(status, {"error": error}, _headers(seen))


def _model(name: str) -> Doc:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "system"}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _tool(document: Doc) -> tuple[str, Any]:
    """Name and parameters of the first function offered, in either endpoint's shape."""
    if document.get("tool_choice") != "none":
        for tool in document.get("tools") or ():
            function = tool.get("function", tool) if isinstance(tool, dict) else {}
            if isinstance(function.get("name"), str):
                return function["name"], function.get("parameters")
    return "", None


def _chat(seen: Seen, document: Doc, pause: float) -> Reply:
    last = document["messages"][-1]
    tool, schema = _tool(document)
    said = Said.to(_text(last.get("content")), from_tool=last.get("role") == "tool", tool=tool, schema=schema)
    asked = tokens(document["messages"]) + tokens(document.get("tools")) + 3 * len(document["messages"])
    usage = {"prompt_tokens": asked, "completion_tokens": said.tokens, "total_tokens": asked + said.tokens,
             "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
             "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                           "rejected_prediction_tokens": 0}}
    base = {"id": ident("chatcmpl-", seen), "created": CREATED, "model": document["model"],
            "service_tier": "default", "system_fingerprint": "fp_d0ua9e"}
    call = {"id": ident("call_", seen), "type": "function", "function": {"name": said.tool, "arguments": said.json}}
    finish = "tool_calls" if said.tool else "stop"
    if document.get("stream"):
        options = document.get("stream_options") or {}
        counted = usage if options.get("include_usage") else None
        return stream_reply([*_chat_events(base, said, call, finish, counted)], _headers(seen), pause)
    message: Doc = {"role": "assistant", "content": None if said.tool else said.text, "refusal": None,
                    "annotations": []}
    if said.tool:
        message["tool_calls"] = [call]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return json_reply(200, base | {"object": "chat.completion", "choices": [choice], "usage": usage}, _headers(seen))


def _chat_events(base: Doc, said: Said, call: Doc, finish: str, usage: Doc | None) -> Iterator[bytes]:
    nothing = {"usage": None} if usage else {}

    def event(choices: list[Doc], **more: Any) -> bytes:
        return _data(base | {"object": "chat.completion.chunk", "choices": choices} | nothing | more)

    def delta(delta: Doc, finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    if said.tool:
        yield delta({"role": "assistant", "content": None, "refusal": None, "tool_calls": [
            {"index": 0, **call, "function": {"name": said.tool, "arguments": ""}}]})
        for piece in pieces(said.json):
            yield delta({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        yield delta({"role": "assistant", "content": "", "refusal": None})
        for piece in pieces(said.text):
            yield delta({"content": piece})
    yield delta({}, finish)
    if usage:
        yield event([], usage=usage)
    yield b"data: [DONE]\n\n"


def _responses(seen: Seen, document: Doc, pause: float) -> Reply:
    asked = document.get("input")
    last = asked[-1] if isinstance(asked, list) and asked else {"content": asked}
    from_tool = last.get("type") == "function_call_output"
    tool, schema = _tool(document)
    said = Said.to(_text(last.get("output" if from_tool else "content")), from_tool=from_tool, tool=tool, schema=schema)
    counted = tokens(asked) + tokens(document.get("instructions")) + tokens(document.get("tools")) + 3
    usage = {"input_tokens": counted, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": said.tokens,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": counted + said.tokens}
    whole = {"id": ident("resp_", seen), "object": "response", "created_at": CREATED, "status": "completed",
             "background": False, "error": None, "incomplete_details": None,
             "instructions": document.get("instructions"), "max_output_tokens": document.get("max_output_tokens"),
             "model": document["model"], "output": [_item(seen, said, "completed")], "parallel_tool_calls": True,
             "previous_response_id": document.get("previous_response_id"), "reasoning": {"effort": None,
             "summary": None}, "service_tier": "default", "store": document.get("store", True), "temperature": 1.0,
             "text": {"format": {"type": "text"}}, "tool_choice": document.get("tool_choice", "auto"),
             "tools": document.get("tools", []), "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": None,
             "metadata": document.get("metadata") or {}}
    if not document.get("stream"):
        return json_reply(200, whole, _headers(seen))
    events = [_event({**event, "sequence_number": number}) for number, event in
              enumerate(_response_events(whole, _item(seen, said, "in_progress"), said))]
    return stream_reply(events, _headers(seen), pause)


def _item(seen: Seen, said: Said, status: str) -> Doc:
    """An item of the output; while it is in progress, nothing is in it yet."""
    done = status == "completed"
    if said.tool:
        return {"id": ident("fc_", seen), "type": "function_call", "status": status, "call_id": ident("call_", seen),
                "name": said.tool, "arguments": said.json if done else ""}
    return {"id": ident("msg_", seen), "type": "message", "status": status, "role": "assistant",
            "content": [_part(said.text)] if done else []}


def _part(text: str) -> Doc:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _response_events(whole: Doc, item: Doc, said: Said) -> Iterator[Mapping[str, Any]]:
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": item["id"], "output_index": 0}
    inside = place | {"content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    if said.tool:
        for piece in pieces(said.json):
            yield {"type": "response.function_call_arguments.delta", "delta": piece} | place
        yield {"type": "response.function_call_arguments.done", "arguments": said.json, "name": said.tool} | place
    else:
        yield {"type": "response.content_part.added", "part": _part("")} | inside
        for piece in pieces(said.text):
            yield {"type": "response.output_text.delta", "delta": piece, "logprobs": []} | inside
        yield {"type": "response.output_text.done", "text": said.text, "logprobs": []} | inside
        yield {"type": "response.content_part.done", "part": _part(said.text)} | inside
    yield {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]}
    yield {"type": "response.completed", "response": whole}


def _data(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    return b"event: %b\n" % value["type"].encode() + _data(value)
