"""What Bedrock's answers say of their tokens: in bodies, in event streams, in headers.

Law: counts are cumulative, so the later overwrites the earlier; Bedrock's own metrics, which it bills by, come last. Its
``inputTokens`` leave the cache out, as Anthropic's do; :class:`Usage` has it in. Formats: notes/wire.md §1, and
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from douane.call import Headers, Usage
from douane.providers.base import Meter, Reading
from douane.providers.meters import Answers, Seen, tokens

__all__ = ["AGENT", "CONVERSE", "INVOKE", "UNTOLD", "HeadMeter", "of_headers"]

_NAMES: Mapping[str, str] = {
    "inputTokens": "input", "inputTokenCount": "input", "input_tokens": "input", "inputTextTokenCount": "input",
    "prompt_token_count": "input",
    "outputTokens": "output", "outputTokenCount": "output", "output_tokens": "output", "totalOutputTextTokenCount": "output",
    "generation_token_count": "output",
    "cacheReadInputTokens": "cached", "cacheReadInputTokenCount": "cached", "cache_read_input_tokens": "cached",
    "cacheWriteInputTokens": "written", "cacheWriteInputTokenCount": "written", "cache_creation_input_tokens": "written",
}
"""The formats' names for a count → ours."""
_METRICS = "amazon-bedrock-invocationMetrics"
_HEADER = b"x-amzn-bedrock-"
_HEADERS = {b"input-token-count": "input", b"output-token-count": "output", b"cache-read-input-token-count": "cached",
            b"cache-write-input-token-count": "written"}


def _take(seen: Seen, counts: Any) -> None:
    """The counts in *counts*, under our names."""
    if not isinstance(counts, dict):
        return
    for name, value in counts.items():
        if name in _NAMES and value is not None:
            seen.usage[_NAMES[name]] = _whole(value)
    if "prompt_tokens" in counts:  # of models that speak OpenAI's language
        details = counts.get("prompt_tokens_details")
        seen.usage |= {"whole_input": counts["prompt_tokens"], "output": counts.get("completion_tokens"),
                       "cached": details.get("cached_tokens") if isinstance(details, dict) else None}
    details = counts.get("cacheDetails")
    if isinstance(details, list):
        hours = [one.get("inputTokens") for one in details if isinstance(one, dict) and one.get("ttl") == "1h"]
        seen.usage["written_1h"] = sum(one for one in hours if isinstance(one, int))
    creation = counts.get("cache_creation")
    if isinstance(creation, dict):
        seen.usage["written_1h"] = creation.get("ephemeral_1h_input_tokens")
    searches = counts.get("server_tool_use")
    if isinstance(searches, dict):
        seen.usage["searches"] = searches.get("web_search_requests")


def _whole(value: Any) -> Any:
    """Titan writes ``28.0``."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _note_converse(seen: Seen, document: dict[str, Any]) -> None:
    usage = document.get("usage")
    if isinstance(usage, dict):
        _take(seen, usage)
        seen.done = seen.ended = True
        trace = document.get("trace")
        router = trace.get("promptRouter") if isinstance(trace, dict) else None
        routed = router.get("invokedModelId") if isinstance(router, dict) else None
        if isinstance(routed, str):
            seen.model = routed  # a prompt router's choice decides the price


def _note_invoke(seen: Seen, document: dict[str, Any]) -> None:
    """A whole answer or a chunk of any model family; told apart by their members."""
    model = document.get("model")
    for name in ("message", "metadata"):
        inner = document.get(name)
        if isinstance(inner, dict):
            _take(seen, inner.get("usage"))
            model = inner.get("model", model)
    _take(seen, document.get("usage"))
    _take(seen, document)
    results = document.get("results")
    if isinstance(results, list) and "inputTextTokenCount" in document:  # Titan
        counts = [_whole(one.get("tokenCount")) for one in results if isinstance(one, dict)]
        seen.usage["output"] = sum(one for one in counts if isinstance(one, int))
    seen.done = seen.done or "totalOutputTextTokenCount" in document  # a guardrail's answer has no metrics
    if isinstance(document.get(_METRICS), dict):
        _take(seen, document[_METRICS])
        seen.done = seen.ended = True
    if isinstance(model, str):
        seen.model = model


def _note_agent(seen: Seen, document: dict[str, Any]) -> None:
    """Each traced call of a model tells its own; together they are the agent's."""
    tasks: list[Any] = [document.get("trace")]
    while tasks:
        value = tasks.pop()
        if isinstance(value, list):
            tasks += value
        elif isinstance(value, dict):
            usage = value.get("usage")
            if isinstance(usage, dict):
                for name in ("inputTokens", "outputTokens"):
                    count = usage.get(name)
                    seen.usage[_NAMES[name]] = seen.usage.get(_NAMES[name], 0) + (count if isinstance(count, int) else 0)
            tasks += [item for item in value.values() if isinstance(item, dict | list)]


def _note_nothing(seen: Seen, document: dict[str, Any]) -> None:
    """Billed by what the answer does not tell in tokens."""


def _usage(seen: Seen) -> Usage:
    usage = seen.usage
    cached, written = tokens(usage, "cached"), tokens(usage, "written")
    if "input" in usage:
        given = tokens(usage, "input") + cached + written
    elif "whole_input" in usage:
        given = tokens(usage, "whole_input")
    else:
        raise ValueError("the answer names no input tokens")
    return Usage(given, tokens(usage, "output"), cached_input=cached,
                 cache_write=written, cache_write_1h=min(tokens(usage, "written_1h"), written),
                 web_searches=tokens(usage, "searches"))


CONVERSE = Answers(_note_converse, _usage, ())
INVOKE = Answers(_note_invoke, _usage, ())
AGENT = Answers(_note_agent, _usage, ())
UNTOLD = Answers(_note_nothing, _usage, ())


def of_headers(headers: Headers) -> Usage | None:
    """What ``x-amzn-bedrock-…-token-count`` say; None where they do not."""
    found = {_HEADERS[name[len(_HEADER):]]: int(value) for name, value in headers
             if name.startswith(_HEADER) and name[len(_HEADER):] in _HEADERS and value.isdigit() and len(value) < 12}
    return _usage(Seen(usage=found)) if "input" in found else None


@dataclass(frozen=True, slots=True)
class HeadMeter:
    """The body's own usage, else the one of the answer's headers."""

    body: Meter
    head: Usage

    @property
    def ended(self) -> bool:
        return self.body.ended

    def feed(self, chunk: bytes) -> None:
        self.body.feed(chunk)

    def reading(self) -> Reading:
        reading = self.body.reading()
        return reading if reading.usage is not None else replace(reading, usage=self.head)
