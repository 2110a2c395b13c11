"""Providers that speak OpenAI's language, as data; and three whose own bodies are simple enough to be read by it.

To add one is a line: its name, its hosts, what stands before ``/chat/completions`` (a regular expression) and its id in the
price list. Where its denials, its usage or its operations are others, that is a row or a family beside it.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import orjson

from douane.call import Usage
from douane.providers.anthropic import ANTHROPIC, MESSAGES
from douane.providers.assemble_more import AssembleCompletion, AssembleResults
from douane.providers.base import Bound, Operation, Provider, Role
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.deltas import ends as ends_of
from douane.providers.deltas import pieces as pieces_of
from douane.providers.framing import Framing
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.openai import CHAT, CHAT_ANSWERS, COMPLETIONS, EMBEDDINGS, FREE, RESPONSES, openai_error, openai_shaped
from douane.providers.openai_more import FREE_TEXT, openai_rows
from douane.providers.realtime import socket_rows
from douane.providers.room import openai_room
from douane.providers.walk import ANSWER_TOKENS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["MISTRAL", "MistralFamily", "shaped"]


@dataclass(frozen=True, slots=True)
class MistralFamily:
    """Denials as ``{"object": "error", "message", "type", "param", "code"}``."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        if code == "budget_exceeded":
            status = 429
        return status, orjson.dumps({"object": "error", **openai_error(status, code, message, call_id)})

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        return b"data: " + orjson.dumps({"object": "error", "error": openai_error(500, code, message, call_id)}) + b"\n\n"


MISTRAL = MistralFamily()

_CHAT = replace(CHAT, bound=replace(CHAT.bound, insert=("max_tokens",)))
"""With the older name of the bound, which all of them take."""
_PATH = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MEDIA = ("images/generations", "audio/speech", "audio/transcriptions", "audio/translations", "moderations")
_RESPONSES = {"groq", "openrouter", "huggingface", "xai", "deepseek", "perplexity", "fireworks"}
_GRPC = Operation("grpc_chat", "POST", re.compile(r"/xai_api\.[A-Za-z]+/[A-Za-z]+"),
                  refused="gRPC is not read here: use x.ai's HTTP API, which speaks OpenAI's language")
_OPT_IN = {"snowflake"}
"""Whose hosts serve databases too: governed where policy files name it."""
_USAGE = {"groq", "openrouter", "xai", "deepseek", "together", "cerebras", "fireworks", "snowflake"}

_HUGGING_FACE = " ".join(("router.huggingface.co", *(f"*.{region}.endpoints.huggingface.cloud" for region in (
    "us-east-1.aws", "us-east-2.aws", "us-west-2.aws", "eu-west-1.aws", "us-east4.gcp", "eastus.azure"))))

_TABLE: tuple[tuple[str, str, str, str], ...] = (
    ("groq", "api.groq.com", "/openai/v1", "groq"),
    ("openrouter", "openrouter.ai", "/api/v1", "openrouter"),
    ("huggingface", _HUGGING_FACE, "(?:/[a-z0-9-]{1,40})?/v1", "huggingface"),
    ("xai", "api.x.ai", "/v1", "x-ai"),
    ("deepseek", "api.deepseek.com", "(?:/v1|/beta)?", "deepseek"),
    ("together", "api.together.xyz api.together.ai", "/v1", "together"),
    ("cerebras", "api.cerebras.ai", "/v1", "cerebras"),
    ("zai", "api.z.ai", "/api/(?:coding/)?paas/v4", "zai"),
    ("crusoe", "api.inference.crusoecloud.com", "/v1", ""),
    ("heroku", "us.inference.heroku.com eu.inference.heroku.com", "/v1", ""),
    ("snowflake", "*.snowflakecomputing.com", "/api/v2/cortex/v1", ""),
    ("writer", "api.writer.com", "/v1", ""),
    ("voyage", "api.voyageai.com", "/v1", "voyageai"),
    ("fireworks", "api.fireworks.ai", "/inference/v1", "fireworks"),
    ("perplexity", "api.perplexity.ai", "(?:/v1)?", "perplexity"),
)
"""Name, hosts, root, id in the price list."""


def _note_pages(seen: Seen, document: dict[str, Any]) -> None:
    usage = document.get("usage_info")
    seen.usage = usage if isinstance(usage, dict) else {}
    seen.model = str(document.get("model") or "")


_OCR = JsonWire(Grammar({"document": "user", "document_annotation_prompt": "system"}, {}, {}, FREE),
                Answers(_note_pages, lambda seen: Usage(pages=tokens(seen.usage, "pages_processed")), ()),
                Grammar({"pages": "assistant"}, {}, {}, FREE, tokens=ANSWER_TOKENS))


def _value_pieces(document: Any) -> list[Delta]:
    """Writer's legacy completions: ``{"value"}``."""
    text = document.get("value") if isinstance(document, dict) else None
    return [Delta(("value",), ("value",), text)] if isinstance(text, str) and text else pieces_of(document)


_WRITTEN = replace(COMPLETIONS, assembler=AssembleCompletion, deltas=Deltas(_value_pieces, ends_of))


def _note_watson(seen: Seen, document: dict[str, Any]) -> None:
    """The answer, or a piece: the counts grow, and the input is told in the first."""
    results = document.get("results")
    for one in results if isinstance(results, list) else ():
        if isinstance(one, dict):
            seen.usage |= {name: one[name] for name in ("generated_token_count", "input_token_count") if one.get(name)}
            seen.done = seen.done or one.get("stop_reason") not in (None, "not_finished")
    seen.model = str(document.get("model_id") or seen.model)


def _watson_usage(seen: Seen) -> Usage:
    return Usage(tokens(seen.usage, "input_token_count"), tokens(seen.usage, "generated_token_count"))


def _watson_pieces(document: Any) -> list[Delta]:
    results = document.get("results") if isinstance(document, dict) else None
    return [Delta(("results", at, "generated_text"), ("result", at), one["generated_text"])
            for at, one in enumerate(results if isinstance(results, list) else ())
            if isinstance(one, dict) and isinstance(one.get("generated_text"), str) and one["generated_text"]]


def _watson_ends(document: Any) -> list[Channel]:
    results = document.get("results") if isinstance(document, dict) else None
    return [("result", at) for at, one in enumerate(results if isinstance(results, list) else ())
            if isinstance(one, dict) and one.get("stop_reason") not in (None, "not_finished")]


_WATSON = JsonWire(
    Grammar({"input": "user", "messages": "user", "inputs": "user"}, {}, {}, FREE, tokens=TOKENS | {"model_id", "project_id"}),
    Answers(_note_watson, _watson_usage, (b'"stop_reason"',)),
    Grammar({"results": "assistant", "choices": "assistant"}, {}, {}, FREE, tokens=ANSWER_TOKENS | {"model_id"}),
    AssembleResults, Deltas(_watson_pieces, _watson_ends), named="model_id",
    bound=Bound((("parameters", "max_new_tokens"),), ("parameters", "max_new_tokens")))
_RANKED: dict[str, Role] = {"query": "user", "documents": "tool_result"}
_ANY = replace(FREE_TEXT, answers=Answers(lambda seen, document: None, CHAT_ANSWERS.usage, ()))
"""Billed by the second or by the machine: nothing of it is told."""


def _row(name: str, path: str, wire: JsonWire | None, method: str = "POST") -> Operation:
    return Operation(name, method, re.compile(path), wire)


def _more(name: str, root: str) -> tuple[Operation, ...]:
    """Rows that only this one has."""
    if name == "writer":
        return _row("chat", "/v1/chat", _CHAT), _row("completions", "/v1/completions", _WRITTEN)
    if name == "huggingface":
        return (_row("other", "/", _ANY),)
    if name == "voyage":
        return (_row("rerank", "/v1/rerank", replace(EMBEDDINGS, grammar=Grammar(_RANKED, {}, {}, FREE))),
                _row("embeddings", "/v1/multimodalembeddings", EMBEDDINGS))
    if name in ("deepseek", "zai"):
        path = {"deepseek": "/anthropic/v1/messages", "zai": "/api/anthropic/v1/messages"}[name]
        return (replace(_row("messages", path, MESSAGES), family=ANTHROPIC),)
    if name in ("groq", "together", "xai", "fireworks"):
        rows = openai_rows(root, ("images", "audio", "moderations"))
        return (_GRPC, *rows, *socket_rows(root, RESPONSES)) if name == "xai" else rows
    return ()


def _mistral() -> Provider:
    own = (_row("fim", "/v1/fim/completions", replace(COMPLETIONS, answer=CHAT.answer)),
           _row("chat", "/v1/agents/completions", _CHAT), _row("ocr", "/v1/ocr", _OCR),
           *openai_rows("/v1", ("audio", "files", "moderations")))
    return openai_shaped("mistral", ("api.mistral.ai", "codestral.mistral.ai"), prices="mistral", more=own, chat=_CHAT,
                         family=MISTRAL)


def _replicate() -> Provider:
    model = f"/v1/models/{_PATH}/{_PATH}"
    rows = (_row("models", f"{model}(?:/versions(?:/{_PATH})?)?", None, "GET"),
            _row("other", f"/v1/predictions(?:/{_PATH}/cancel)?|{model}(?:/versions/{_PATH})?/predictions", _ANY),
            _row("other", f"/v1/predictions(?:/{_PATH})?", FREE_TEXT, "GET"))
    return replace(openai_shaped("replicate", ("api.replicate.com",), prices="replicate"), operations=rows)


def _watsonx() -> Provider:
    hosts = tuple(f"{region}.ml.cloud.ibm.com" for region in ["us-south", "eu-de", "eu-gb", "jp-tok", "au-syd", "ca-tor"])
    rows = (_row("other", "/ml/v1(?:-beta)?/(?:generation/text|text/generation)(?:_stream)?", _WATSON),
            _row("chat", "/ml/v1/text/chat(?:_stream)?", replace(CHAT, named="model_id")),
            _row("other", f"/ml/v1(?:-beta)?/foundation_model_specs|/ml/v4/instances/{_PATH}", None, "GET"))
    return replace(openai_shaped("watsonx", hosts), operations=rows)


def shaped() -> tuple[Provider, ...]:
    plain = (openai_shaped(name, tuple(hosts.split()), root=root, prices=prices, responses=name in _RESPONSES, chat=_CHAT,
                           more=_more(name, root), includes_usage=name in _USAGE)
             for name, hosts, root, prices in _TABLE)
    return (*(replace(one, opt_in=one.name in _OPT_IN) for one in plain), _mistral(), _replicate(), _watsonx())
