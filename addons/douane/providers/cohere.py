"""The Cohere family: chat of both versions, embeddings, rerank, and the older operations.

Formats: https://docs.cohere.com/reference, and the recordings of ``shared/wire``. Cohere bills ``billed_units``; where an
answer has none, ``tokens`` are what it says. Search units of a rerank are counted as searches.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from douane.call import Usage
from douane.providers.base import Bound, Operation, Provider, Role
from douane.providers.cohere_stream import DELTAS, AssembleCohere
from douane.providers.framing import NDJSON, Framing
from douane.providers.meters import Answers, Seen
from douane.providers.openai import CHAT, OPENAI
from douane.providers.room import openai_room
from douane.providers.walk import ANSWER_TOKENS, BLOBS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["COHERE", "CohereFamily", "cohere"]


@dataclass(frozen=True, slots=True)
class CohereFamily:
    """Denials as ``{"message", "id", "code"}``; the SDK raises by status. It tries 429 again whatever the headers say, so
    ``budget_exceeded`` is 402.

    In a stream, an end with ``finish_reason: ERROR``, as Cohere itself has it: the SDK yields it, as it raises for
    nothing there."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        if code == "budget_exceeded":
            status = 402
        return status, orjson.dumps({"message": message, "id": call_id, "code": code})

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        told = {"finish_reason": "ERROR", "error": message, "code": code}
        if framing is NDJSON:
            return orjson.dumps({"is_finished": True, "event_type": "stream-end", **told, "response": {}}) + b"\n"
        return b"event: message-end\ndata: " + orjson.dumps({"type": "message-end", "id": call_id, "delta": told}) + b"\n\n"


COHERE = CohereFamily()

_CHAT_TOP: dict[str, Role] = {
    "message": "user", "messages": "user", "chat_history": "user", "preamble": "system", "documents": "user", "tools": "schema",
    "tool_results": "tool_result", "response_format": "schema", "stop_sequences": "metadata", "connectors": "schema"}
_INPUT: dict[str, Role] = dict.fromkeys(
    ("query", "texts", "inputs", "prompt", "text", "examples", "additional_command"), "user")

_GRAMMAR = Grammar(
    top=_CHAT_TOP | _INPUT,
    members={"tool_calls": "tool_call", "tool_results": "tool_result", "tool_plan": "assistant"},
    kinds={},
    free=frozenset({"documents", "parameters", "parameter_definitions", "json_schema", "schema", "outputs", "data", "options"}),
    tokens=TOKENS | {"input_type", "embedding_types", "truncate", "safety_mode", "citation_quality", "prompt_truncation",
                     "return_likelihoods", "tool_choice", "conversation_id", "generation_id", "response_id", "length",
                     "extractiveness", "preset"},
    blobs=BLOBS | {"images", "image"})

_ANSWER = Grammar(
    top={"text": "assistant", "message": "assistant", "chat_history": "user", "generations": "assistant",
         "citations": "assistant", "tool_calls": "tool_call", "search_queries": "assistant", "documents": "tool_result",
         "texts": "user", "prompt": "user", "summary": "assistant", "results": "tool_result"},
    members={"tool_calls": "tool_call", "sources": "tool_result"},
    kinds={},
    free=frozenset({"parameters", "tool_output", "document", "outputs"}),
    tokens=ANSWER_TOKENS | {"response_id", "generation_id", "conversation_id", "response_type", "version", "event_type",
                            "code"},
    blobs=BLOBS | {"base64"})


def _note(seen: Seen, document: dict[str, Any]) -> None:
    """A whole answer; ``message-end``; v1's ``stream-end``, which has a whole answer in it. None of them names the model."""
    if document.get("type") == "message-end" or document.get("is_finished") is True:
        seen.ended = seen.done = True
        inner = document.get("delta", document.get("response"))
        document = inner if isinstance(inner, dict) else document
    for name in ("usage", "meta"):
        told = document.get(name)
        if isinstance(told, dict):
            seen.usage = told


def _usage(seen: Seen) -> Usage:
    """Nothing that is billed by another unit (classifications) has a price, so that is no usage either."""
    billed = seen.usage.get("billed_units") or seen.usage.get("tokens")
    if not isinstance(billed, dict) or not billed.keys() & {"input_tokens", "output_tokens", "search_units"}:
        raise ValueError("nothing is billed that we know")
    images = _count(billed, "image_tokens")
    return Usage(_count(billed, "input_tokens") + images, _count(billed, "output_tokens"), input_image=images,
                 web_searches=_count(billed, "search_units"))


def _count(billed: dict[str, Any], name: str) -> int:
    """Cohere's counts are JSON numbers that may have a fraction's dot: ``5.0``."""
    value = billed.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise ValueError(f"{name} is no count")
    return int(value)


_ANSWERS = Answers(_note, _usage, (b'"message-end"', b'"stream-end"', b"[DONE]"))
_BOUND = Bound(stated=(("max_tokens",),), insert=("max_tokens",))
_WIRE = JsonWire(_GRAMMAR, _ANSWERS, _ANSWER)
_CHAT = JsonWire(_GRAMMAR, _ANSWERS, _ANSWER, AssembleCohere, DELTAS, bound=_BOUND)
_GENERATE = JsonWire(_GRAMMAR, _ANSWERS, _ANSWER, AssembleCohere, DELTAS,
                     bound=Bound(stated=(("max_tokens",),), insert=("max_tokens",), choices=("num_generations",)))
_UNBILLED = JsonWire(_GRAMMAR, None, _ANSWER)


def _post(name: str, path: str, wire: JsonWire) -> Operation:
    return Operation(name, "POST", re.compile(path), wire)


_OPERATIONS = (
    _post("chat", "/v[12]/chat", _CHAT), _post("embeddings", "/v[12]/embed", _WIRE), _post("rerank", "/v[12]/rerank", _WIRE),
    _post("completions", "/v1/generate", _GENERATE), _post("classify", "/v1/classify", _WIRE),
    _post("summarize", "/v1/summarize", _WIRE), _post("tokenize", "/v1/tokenize", _UNBILLED),
    _post("detokenize", "/v1/detokenize", _UNBILLED),
    Operation("models", "GET", re.compile("/v1/models(?:/[A-Za-z0-9][A-Za-z0-9._:-]*)?")),
    Operation("chat", "POST", re.compile("/compatibility/v1/chat/completions"), CHAT, OPENAI))


def cohere() -> Provider:
    return Provider("cohere", COHERE, ("api.cohere.com", "api.cohere.ai"), None, (b"authorization", b"Bearer "),
                    (b"authorization",), _OPERATIONS, prices="cohere")
