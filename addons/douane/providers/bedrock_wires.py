"""How Bedrock's bodies are read: converse, invoke of every model family, count-tokens, guardrails, agents.

Law 4 holds for ``invoke`` too, whose body is whatever the model takes: one grammar for all families, in which every string
is text but for the few that each family names. Formats: https://docs.aws.amazon.com/bedrock/latest/APIReference,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html, the recordings of ``shared/wire``.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from douane.call import Headers
from douane.providers import bedrock_usage as usage
from douane.providers.anthropic import MESSAGES
from douane.providers.base import Bound, Meter, Position, Role
from douane.providers.bedrock_streams import (
    AGENT_DELTAS,
    CONVERSE_DELTAS,
    INVOKE_DELTAS,
    AssembleAgent,
    AssembleConverse,
    AssembleInvoke,
)
from douane.providers.edit import Path, Place, rewrite_bytes
from douane.providers.framing import Framing
from douane.providers.walk import ANSWER_TOKENS, BLOBS, CAMEL, TOKENS, Grammar, walk
from douane.providers.wires import JsonWire, read_json

__all__ = ["AGENT", "ASYNC_INVOKE", "CONVERSE", "CONVERSE_STREAM", "COUNT", "ENDPOINT", "GUARDRAIL", "INVOKE", "INVOKE_STREAM",
           "OTHER"]

_NAMES = re.compile(r"[a-z][A-Za-z0-9_-]{0,63}")
"""Of members in answers: ``amazon-bedrock-trace``."""
_FREE = frozenset({"input", "json", "schema", "additionalModelRequestFields", "additionalModelResponseFields",
                   "requestMetadata", "promptVariables"})
_ENUMS = frozenset({"toolUseId", "guardrailIdentifier", "guardrailVersion", "streamProcessingMode", "latency"})
_BYTES = BLOBS | {"bytes", "redactedContent"}
_REASONING = frozenset({"reasoningText"})
_PARTS: dict[str, Role] = {"toolUse": "tool_call", "toolResult": "tool_result", "toolConfig": "schema",
                           "outputConfig": "schema"}
_TOP: dict[str, Role] = {
    "system": "system", "messages": "user", "promptVariables": "user", "requestMetadata": "metadata",
    "additionalModelRequestFields": "metadata", "inferenceConfig": "metadata", "guardrailConfig": "metadata"}

_CONVERSE = Grammar(top=_TOP | _PARTS, members=_PARTS, kinds={}, free=_FREE, sealed=_REASONING, tokens=TOKENS | _ENUMS,
                    blobs=_BYTES, fields=CAMEL)
_CONVERSE_ANSWER = Grammar(
    top={"output": "assistant", "trace": "metadata", "additionalModelResponseFields": "metadata"},
    members=_PARTS, kinds={}, free=_FREE, sealed=_REASONING, tokens=ANSWER_TOKENS | _ENUMS | {"stopReason"},
    blobs=_BYTES, fields=_NAMES)

_CLAUDE = MESSAGES.grammar
_INVOKE = Grammar(
    top=_TOP | _PARTS | {
        **dict.fromkeys(("prompt", "inputText", "message", "chat_history", "query", "texts", "documents", "inputs"), "user"),
        **dict.fromkeys(("preamble", "instruction"), "system"),
        **dict.fromkeys(("tools", "tool_choice", "response_format", "output_config"), "schema"),
        **dict.fromkeys(("metadata", "stop", "stop_sequences", "stopSequences", "textGenerationConfig", "parameters"),
                        "metadata"),
        "tool_results": "tool_result"},
    members=_PARTS | {"tool_calls": "tool_call", "function_call": "tool_call"},
    kinds=_CLAUDE.kinds,
    free=_FREE | _CLAUDE.free | {"arguments", "parameters", "parameter_definitions", "tool_results", "documents"},
    sealed=_CLAUDE.sealed | _REASONING,
    tokens=TOKENS | _ENUMS | {"anthropic_version", "schemaVersion", "taskType", "input_type", "truncate", "truncationMode",
                              "embeddingPurpose", "embedding_types", "embeddingTypes"},
    blobs=_BYTES, fields=CAMEL)
_INVOKE_ANSWER = Grammar(
    top=dict.fromkeys(("content", "output", "completion", "completions", "generation", "generations", "results", "outputs",
                       "choices", "text"), "assistant"),
    members=_PARTS | {"tool_calls": "tool_call", "function_call": "tool_call"},
    kinds=_CLAUDE.kinds, free=_CLAUDE.free | {"json", "arguments"}, sealed=_INVOKE.sealed,
    tokens=ANSWER_TOKENS | _ENUMS | {"stopReason", "completionReason", "response_type", "generation_id", "response_id",
                                     "embeddingType"},
    blobs=_BYTES, fields=_NAMES)

_AGENT = Grammar(
    top={"inputText": "user", "input": "user", "retrievalQuery": "user", "query": "user", "queries": "user", "content": "user",
         "sources": "tool_result", "instruction": "system", "sessionState": "user", "inputs": "user"},
    members={"functionResult": "tool_result", "apiResult": "tool_result", "actionGroups": "schema"},
    kinds={},
    free=frozenset({"sessionAttributes", "promptSessionAttributes", "jsonDocument", "metadata", "parameters", "properties"}),
    tokens=TOKENS | _ENUMS | {"sourceType", "knowledgeBaseId", "source", "outputScope", "agentId", "agentAliasId", "sessionId"},
    blobs=_BYTES, fields=CAMEL)
_AGENT_ANSWER = Grammar(
    top={"completion": "assistant", "output": "assistant", "outputs": "assistant", "citations": "tool_result",
         "retrievalResults": "tool_result"},
    members={}, kinds={}, free=_AGENT.free, tokens=ANSWER_TOKENS | _AGENT.tokens, blobs=_BYTES, fields=_NAMES)

_MOST: Path = ("inferenceConfig", "maxTokens")
_CONVERSE_BOUND = Bound((_MOST,), _MOST)
_INVOKE_BOUND = Bound(
    (*((name,) for name in ("max_tokens", "max_tokens_to_sample", "max_completion_tokens", "max_gen_len", "maxTokens")),
     _MOST, ("inferenceConfig", "max_new_tokens"), ("textGenerationConfig", "maxTokenCount"), ("parameters", "max_new_tokens")),
    choices=("num_generations",))
"""None is inserted: which member a body takes, only its model's family knows."""


@dataclass(frozen=True, slots=True)
class _Wire(JsonWire):
    """The path asks for the stream and names the model; the answer's headers may tell the usage."""

    streams: bool = False

    def stream(self, document: Any) -> bool:
        return self.streams

    def model(self, document: Any) -> str:
        """Of ``async-invoke``, the one whose body has it."""
        value = document.get("modelId") if isinstance(document, dict) else None
        return value if isinstance(value, str) else ""

    def meter(self, framing: Framing | None, headers: Headers = ()) -> Meter:
        body = JsonWire.meter(self, framing, headers)
        told = usage.of_headers(headers) if self.answers is not None else None
        return body if told is None else usage.HeadMeter(body, told)


_CONVERSED: Path = ("input", "converse")
_INVOKED: Path = ("input", "invokeModel", "body")


@dataclass(frozen=True, slots=True)
class _CountWire(_Wire):
    """``count-tokens``: the body of another call inside, that of invoke in base64; the document has it decoded."""

    def read(self, body: bytes, content_type: bytes) -> Any:
        document = read_json(body)
        coded = _at(document, _INVOKED)
        if coded is None:
            return document
        if not isinstance(coded, str):
            raise ValueError("input.invokeModel.body is no base64")
        return _with(document, _INVOKED, read_json(base64.b64decode(coded, validate=True)))

    def rewrite(self, body: bytes, content_type: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any]:
        depth = len(_INVOKED)
        inside = {(path[depth:], key): new for (path, key), new in changes.items() if path[:depth] == _INVOKED}
        rest = {place: new for place, new in changes.items() if place[0][:depth] != _INVOKED}
        if inside:
            coded = rewrite_bytes(base64.b64decode(_at(read_json(body), _INVOKED)), inside)
            rest[_INVOKED, False] = base64.b64encode(coded).decode()
        body = rewrite_bytes(body, rest)
        return body, self.read(body, content_type)

    def walk(self, document: Any) -> Iterator[Position]:
        for path, grammar in ((_CONVERSED, _CONVERSE), (_INVOKED, _INVOKE)):
            part = _at(document, path)
            if part is not None:
                yield from (one._replace(path=(*path, *one.path)) for one in walk(grammar, part))
                document = _with(document, path, None)
        yield from walk(self.grammar, document)


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document.get(step) if isinstance(document, dict) else None
    return document


def _with(document: Any, path: Path, value: Any) -> Any:
    """A copy of *document* with *value* at *path*, which is there."""
    return {**document, path[0]: _with(document[path[0]], path[1:], value)} if path else value


CONVERSE = _Wire(_CONVERSE, usage.CONVERSE, _CONVERSE_ANSWER, bound=_CONVERSE_BOUND)
CONVERSE_STREAM = _Wire(_CONVERSE, usage.CONVERSE, _CONVERSE_ANSWER, AssembleConverse, CONVERSE_DELTAS,
                        bound=_CONVERSE_BOUND, streams=True)
INVOKE = _Wire(_INVOKE, usage.INVOKE, _INVOKE_ANSWER, bound=_INVOKE_BOUND)
INVOKE_STREAM = _Wire(_INVOKE, usage.INVOKE, _INVOKE_ANSWER, AssembleInvoke, INVOKE_DELTAS, bound=_INVOKE_BOUND, streams=True)
ASYNC_INVOKE = _Wire(_INVOKE, usage.UNTOLD, _INVOKE_ANSWER)
"""Its answer lies in the caller's own bucket: nothing here tells what it cost."""
COUNT = _CountWire(Grammar({}, {}, {}, frozenset(), fields=CAMEL), None)
GUARDRAIL = _Wire(_AGENT, usage.UNTOLD, _AGENT_ANSWER)
AGENT = _Wire(_AGENT, usage.AGENT, _AGENT_ANSWER, AssembleAgent, AGENT_DELTAS, streams=True)
OTHER = _Wire(_AGENT, usage.UNTOLD, _AGENT_ANSWER, AssembleAgent, AGENT_DELTAS)
ENDPOINT = _Wire(_INVOKE, usage.INVOKE, _INVOKE_ANSWER, bound=_INVOKE_BOUND)
"""A SageMaker endpoint: any model's JSON. A body of another form is refused, for it cannot be read."""
