"""The OpenAI family: chat completions and responses, as OpenAI and everyone who speaks its language do.

Formats: https://platform.openai.com/docs/api-reference, and the recordings of ``shared/wire``. A provider of this shape
is one call of :func:`openai_shaped`.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from douane.call import Target, Usage
from douane.providers.assemble import AssembleChat, AssembleResponse
from douane.providers.base import Bound, Family, Operation, Provider, Role
from douane.providers.framing import Framing
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.room import openai_room
from douane.providers.walk import ANSWER_TOKENS, BLOBS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["ABOUT", "CHAT", "CHAT_ANSWERS", "COMPLETIONS", "EMBEDDINGS", "FREE", "MODEL_ID", "OPENAI", "RESPONSES",
           "RESPONSE_ANSWERS", "RESPONSE_GRAMMAR", "SCHEMAS", "OpenAIFamily", "note_chat", "openai_error", "openai_shaped"]

MODEL_ID = "[A-Za-z0-9][A-Za-z0-9._:-]*(?:/[A-Za-z0-9][A-Za-z0-9._:-]*)?"
"""A model in a path. No percent sign and no dot segment: what we match must be what the provider routes by."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Other statuses: ``invalid_request_error`` below 500, ``server_error`` above."""


@dataclass(frozen=True, slots=True)
class OpenAIFamily:
    """Denials as ``{"error": {"message", "type", "param", "code"}}``.

    ``budget_exceeded`` is OpenAI's own 429 ``insufficient_quota``; every other ``code`` is the denial's."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        if code == "budget_exceeded":
            status = 429
        return status, orjson.dumps({"error": openai_error(status, code, message, call_id)})

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        """The nested form, for responses too: the SDK yields the flat ``{"type": "error"}`` as an event and goes on."""
        return b"data: " + orjson.dumps({"error": openai_error(500, code, message, call_id)}) + b"\n\n"


def openai_error(status: int, code: str, message: str, call_id: str) -> dict[str, str | None]:
    if code == "budget_exceeded":
        code = kind = "insufficient_quota"
    else:
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": code, "request_id": call_id}


OPENAI = OpenAIFamily()

SCHEMAS: dict[str, Role] = {"tools": "schema", "functions": "schema", "tool_choice": "schema"}
ABOUT: dict[str, Role] = {"metadata": "metadata", "user": "metadata", "safety_identifier": "metadata",
                           "prompt_cache_key": "metadata", "stop": "metadata"}
FREE = frozenset({"metadata", "parameters", "schema", "arguments", "variables", "headers", "logit_bias",
                   "input_schema", "output_schema"})

_CHAT = Grammar(
    top=SCHEMAS | ABOUT | {"response_format": "schema", "function_call": "schema", "prediction": "assistant",
                             "web_search_options": "metadata"},
    members=SCHEMAS | {"tool_calls": "tool_call", "function_call": "tool_call"},
    kinds={},
    free=FREE)

_CHAT_ANSWER = Grammar(
    top={"choices": "assistant"},
    members={"tool_calls": "tool_call", "function_call": "tool_call"},
    kinds={},
    free=FREE,
    sealed=frozenset({"reasoning.text"}),
    tokens=ANSWER_TOKENS)

_ITEMS: dict[str, Role] = {
    "reasoning": "assistant",
    "mcp_list_tools": "schema",
    **dict.fromkeys(("function_call", "custom_tool_call", "mcp_call", "mcp_approval_request", "computer_call",
                     "web_search_call", "file_search_call", "code_interpreter_call", "local_shell_call", "shell_call",
                     "apply_patch_call", "image_generation_call", "tool_search_call"), "tool_call"),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output", "mcp_approval_response", "computer_call_output",
                     "local_shell_call_output", "shell_call_output", "apply_patch_call_output", "tool_search_output"),
                    "tool_result"),
}

RESPONSE_GRAMMAR = Grammar(
    top=SCHEMAS | ABOUT | {"instructions": "system", "input": "user", "text": "schema", "prompt": "user"},
    members=SCHEMAS,
    kinds=_ITEMS,
    free=FREE)

_RESPONSES_ANSWER = Grammar(
    top=SCHEMAS | ABOUT | {"instructions": "system", "output": "assistant", "text": "schema", "prompt": "user"},
    members=SCHEMAS,
    kinds=_ITEMS,
    free=FREE,
    tokens=ANSWER_TOKENS,
    blobs=BLOBS | {"result"})  # of image_generation_call


def note_chat(seen: Seen, document: dict[str, Any]) -> None:
    _note(seen, document)
    if document.get("error"):
        seen.ended = True
    if seen.usage and not document.get("choices"):
        seen.done = True  # the extra chunk of `include_usage`: nothing but [DONE] follows


def _note_response(seen: Seen, document: dict[str, Any]) -> None:
    """A response, or an event that holds one: its usage is null until the last."""
    if document.get("type") in _LAST or document.get("error"):
        seen.ended = True
    inner = document.get("response")
    body = inner if isinstance(inner, dict) else document
    _note(seen, body)
    if isinstance(body.get("usage"), dict):
        seen.done = True
        output = body.get("output")
        seen.searches = sum(_searched(item) for item in output) if isinstance(output, list) else 0


def _note(seen: Seen, body: dict[str, Any]) -> None:
    usage = body.get("usage")
    if not isinstance(usage, dict) and isinstance(groq := body.get("x_groq"), dict):
        usage = groq.get("usage")  # Groq's streams, without being asked
    if isinstance(usage, dict):
        seen.usage = usage
        cost = usage.get("cost")  # OpenRouter's own price; with one's own key for the model it is only its fee
        if isinstance(cost, int | float) and cost >= 0 and not usage.get("is_byok"):
            seen.cost = float(cost)
    model = body.get("model")
    if isinstance(model, str) and model:
        seen.model = model
    tier = body.get("service_tier")
    if isinstance(tier, str):
        seen.tier = tier


_LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


def _searched(item: Any) -> bool:
    """A web search that is billed: opening a page and looking in it are not."""
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type", "search") == "search"


def _chat_usage(seen: Seen) -> Usage:
    usage = seen.usage
    if "prompt_tokens" not in usage:
        if "completion_tokens" not in usage and "total_tokens" in usage:  # embeddings, as Voyage tells them
            return Usage(tokens(usage, "total_tokens"))
        raise ValueError("usage.prompt_tokens is missing")
    cached = tokens(usage, "prompt_tokens_details", "cached_tokens") or tokens(usage, "prompt_token_details", "cached_tokens") \
        or tokens(usage, "prompt_cache_hit_tokens") or tokens(usage, "cached_tokens")
    return Usage(tokens(usage, "prompt_tokens"), tokens(usage, "completion_tokens"),
                 cached_input=cached, cache_write=tokens(usage, "prompt_tokens_details", "cache_write_tokens"),
                 reasoning=tokens(usage, "completion_tokens_details", "reasoning_tokens"),
                 input_audio=tokens(usage, "prompt_tokens_details", "audio_tokens"),
                 output_audio=tokens(usage, "completion_tokens_details", "audio_tokens"))


def _response_usage(seen: Seen) -> Usage:
    usage = seen.usage
    if "input_tokens" not in usage:
        raise ValueError("usage.input_tokens is missing")
    return Usage(tokens(usage, "input_tokens"), tokens(usage, "output_tokens"),
                 cached_input=tokens(usage, "input_tokens_details", "cached_tokens"),
                 cache_write=tokens(usage, "input_tokens_details", "cache_write_tokens"),
                 reasoning=tokens(usage, "output_tokens_details", "reasoning_tokens"), web_searches=seen.searches)


CHAT_ANSWERS = Answers(note_chat, _chat_usage, (b"[DONE]", b'"error"'))
RESPONSE_ANSWERS = Answers(_note_response, _response_usage, (
    b"response.completed", b"response.incomplete", b"response.failed", b"[DONE]", b'"error"'))
CHAT = JsonWire(_CHAT, CHAT_ANSWERS, _CHAT_ANSWER, AssembleChat, bound=Bound(
    (("max_completion_tokens",), ("max_tokens",)), ("max_completion_tokens",), ("n",)))
RESPONSES = JsonWire(RESPONSE_GRAMMAR, RESPONSE_ANSWERS, _RESPONSES_ANSWER, AssembleResponse, bound=Bound(
    (("max_output_tokens",),), ("max_output_tokens",)))
EMBEDDINGS = JsonWire(Grammar(ABOUT | {"input": "user"}, {}, {}, FREE, tokens=TOKENS | {"encoding_format"}), CHAT_ANSWERS,
                      Grammar({}, {}, {}, FREE, tokens=ANSWER_TOKENS, blobs=BLOBS | {"embedding"}))
COMPLETIONS = JsonWire(Grammar(ABOUT | {"prompt": "user", "suffix": "user"}, {}, {}, FREE), CHAT_ANSWERS, _CHAT_ANSWER,
                       AssembleChat, bound=Bound((("max_tokens",),), ("max_tokens",), ("n",), (("best_of",),), ("prompt",)))


def openai_shaped(name: str, hosts: tuple[str, ...], *, root: str = "/v1", prices: str = "", responses: bool = False,
                  target: Target | None = None, more: tuple[Operation, ...] = (), chat: JsonWire = CHAT,
                  family: Family = OPENAI, includes_usage: bool = False) -> Provider:
    """A provider that speaks OpenAI's language below *root* (a regular expression); *prices* is its id in the price list,
    *more* are rows that others have not."""
    operations = [Operation("chat", "POST", re.compile(f"{root}/chat/completions"), chat),
                  Operation("embeddings", "POST", re.compile(f"{root}/embeddings"), EMBEDDINGS),
                  Operation("completions", "POST", re.compile(f"{root}/completions"), COMPLETIONS),
                  Operation("models", "GET", re.compile(f"{root}/models(?:/{MODEL_ID})?"))]
    if responses:
        operations.append(Operation("responses", "POST", re.compile(f"{root}/responses"), RESPONSES))
    return Provider(name, family, hosts, target, (b"authorization", b"Bearer "),
                    (b"authorization", b"x-api-key", b"api-key"), (*more, *operations), prices, includes_usage=includes_usage)
