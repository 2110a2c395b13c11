"""The format of Google's ``interactions``: requests, answers, streams, usage.

A step is a message, a thought or a call of a tool. What a thought holds is the model's own, and goes back as it came. Formats:
https://ai.google.dev/api/interactions-api, google-genai's own types, the recordings of ``shared/wire``.
"""

from typing import Any

from douane.call import Usage
from douane.providers.assemble import lengthen
from douane.providers.base import Bound, Role
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.edit import Path
from douane.providers.gemini import modalities
from douane.providers.merge import JsonText, Rows, later, merge, rows_of
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.walk import ANSWER_TOKENS, TOKENS, Grammar

__all__ = ["BOUND", "INTERACTION", "INTERACTIONS", "INTERACTION_ANSWERS", "INTERACTION_DELTAS", "AssembleInteraction"]

_CALLS = ("function_call", "code_execution_call", "url_context_call", "google_search_call", "mcp_server_tool_call",
          "file_search_call", "google_maps_call")
_KINDS: dict[str, Role] = {
    "user_input": "user", "model_output": "assistant", "thought": "assistant",
    **dict.fromkeys(_CALLS, "tool_call"),
    **dict.fromkeys((f"{name.removesuffix('_call')}_result" for name in _CALLS), "tool_result"),
}
_FREE = frozenset({"arguments", "result", "parameters", "schema", "response_format", "labels", "headers"})
_TOKENS = TOKENS | {"agent", "resolution", "thinking_level", "thinking_summaries", "response_mime_type", "response_modalities",
                    "previous_interaction_id", "call_id", "language", "environment", "webhook_id"}

INTERACTIONS = Grammar(
    top={"input": "user", "system_instruction": "system", "tools": "schema", "response_format": "schema",
         "generation_config": "metadata", "agent_config": "metadata", "labels": "metadata"},
    members={"tools": "schema"},
    kinds=_KINDS,
    free=_FREE,
    sealed=frozenset({"thought"}),
    tokens=_TOKENS)

INTERACTION = Grammar(
    top={"steps": "assistant", "outputs": "assistant", "input": "user", "system_instruction": "system", "tools": "schema",
         "response_format": "schema"},
    members={"tools": "schema"},
    kinds=_KINDS,
    free=_FREE,
    sealed=frozenset({"thought"}),
    tokens=_TOKENS | ANSWER_TOKENS | {"created", "updated", "event_type", "event_id", "interaction_id", "modality"})
"""An answer."""

BOUND = Bound(stated=(("generation_config", "max_output_tokens"),), insert=("generation_config", "max_output_tokens"))

# -- streams -----------------------------------------------------------------------------------------------------------

_THOUGHTS = frozenset({"thought", "thought_summary", "thought_signature"})


def _step(document: Any) -> tuple[str, str]:
    """Of an event's type: what it is of (``step``; ``content`` in older versions), and what becomes of that."""
    kind = document.get("event_type") if isinstance(document, dict) else None
    of, _, what = kind.rpartition(".") if isinstance(kind, str) else ("", "", "")
    return of, what


def _index(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if type(index) is int else 0


def _pieces(document: Any) -> list[Delta]:
    delta = document.get("delta") if _step(document)[1] == "delta" else None
    if not isinstance(delta, dict) or _is_thought(delta):
        return []
    for member, kind in (("text", "text"), ("arguments", "arguments_delta")):
        if delta.get("type") == kind and isinstance(delta.get(member), str) and delta[member]:
            return [Delta(("delta", member), ("step", _index(document), member), delta[member], member == "arguments")]
    return []


def _ends(document: Any) -> list[Channel]:
    of, what = _step(document)
    if not isinstance(document, dict) or document.get("error") or (of == "interaction" and what in ("completed", "complete")):
        return [()]
    return [("step", _index(document))] if what == "stop" else []


def _thoughts(document: Any) -> list[Path]:
    """Where thoughts stand: in an answer, and in every kind of event."""
    if not isinstance(document, dict):
        return []
    found: list[Path] = [(name,) for name in ("step", "delta", "content") if _is_thought(document.get(name))]
    inside = document.get("interaction")
    for before, one in (((), document), (("interaction",), inside if isinstance(inside, dict) else {})):
        for name in ("steps", "outputs", "input"):
            rows = one.get(name)
            if isinstance(rows, list):
                found += [(*before, name, at) for at, row in enumerate(rows) if _is_thought(row)]
    return found


def _is_thought(value: Any) -> bool:
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind in _THOUGHTS


INTERACTION_DELTAS = Deltas(_pieces, _ends, _thoughts)


class AssembleInteraction:
    """The events into an interaction: ``steps``, or ``outputs`` as older versions have them."""

    __slots__ = ("_steps", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._steps = {of: Rows(name) for of, name in _LISTS.items()}

    def take(self, event: dict[str, Any]) -> bool:
        of, what = _step(event)
        interaction, delta = event.get("interaction"), event.get("delta")
        if of == "interaction":
            if type(interaction) is dict:
                later(self._top, interaction)
            elif what == "status_update":
                later(self._top, {"status": event.get("status")})
            return type(interaction) is dict or what == "status_update"
        if of not in self._steps:
            return False
        if what == "delta" and type(delta) is dict:
            held = self._steps[of].at(_index(event))
            if of == "content":
                merge(held, delta)
            else:
                _grow(held, delta)
            return True
        begun = event.get(of)
        if what == "start" and type(begun) is dict:
            if type(begun.get("content")) is list:
                begun["content"] = Rows("content", begun["content"])
            self._steps[of].put(_index(event), begun)
            return True
        return what == "stop"

    def document(self) -> dict[str, Any]:
        for of, rows in self._steps.items():
            if len(rows) and not self._top.get(_LISTS[of]):
                self._top[_LISTS[of]] = rows
        return self._top


_LISTS = {"step": "steps", "content": "outputs"}
"""What an event's type begins with → the list in the interaction."""


def _grow(step: dict[str, Any], delta: dict[str, Any]) -> None:
    """Put to a step what comes of it."""
    kind = delta.pop("type", None)
    if kind == "text" and type(delta.get("text")) is str:
        rows_of(step, "content").extend([{"type": "text", **delta}])
    elif kind == "arguments_delta" and type(delta.get("arguments")) is str:
        if type(step.get("arguments")) is not JsonText:
            step["arguments"] = JsonText()
        step["arguments"].append(delta["arguments"])
    elif kind == "thought_summary" and "content" in delta:
        rows_of(step, "summary").extend([delta["content"]])
    elif kind in ("image", "audio", "document", "video"):
        rows_of(step, "content").extend([{"type": kind, **delta}])
    elif kind == "text_annotation_delta":
        lengthen(step, {"annotations": delta.get("annotations")})
    elif kind == "thought_signature":
        later(step, delta)
    else:
        later(step, {"type": step.get("type") or kind} | delta)


# -- usage -------------------------------------------------------------------------------------------------------------


def _note(seen: Seen, document: dict[str, Any]) -> None:
    """An interaction, or an event: the last tells the sums."""
    inner = document.get("interaction")
    body = inner if isinstance(inner, dict) else document
    about = document.get("metadata")
    for usage in (about.get("usage") if isinstance(about, dict) else None, body.get("usage")):
        if isinstance(usage, dict):
            seen.usage = usage
    model = body.get("model")
    if isinstance(model, str) and model:
        seen.model = model.removeprefix("models/")
    tier = body.get("service_tier")
    seen.tier = tier if isinstance(tier, str) else seen.tier
    of, what = _step(document)
    if of == "interaction" and what in ("completed", "complete"):
        seen.done = True


def _usage(seen: Seen) -> Usage:
    usage = seen.usage
    if "total_input_tokens" not in usage:
        raise ValueError("usage.total_input_tokens is missing")
    reasoning = tokens(usage, "total_thought_tokens")
    given, made, cached, hosted = (modalities(usage.get(f"{name}_tokens_by_modality"), "tokens")
                                   for name in ("input", "output", "cached", "tool_use"))
    counts = usage.get("grounding_tool_count")
    searches = sum(tokens(row, "count") for row in (counts if isinstance(counts, list) else ())
                   if isinstance(row, dict) and row.get("type") == "google_search")
    return Usage(
        tokens(usage, "total_input_tokens") + tokens(usage, "total_tool_use_tokens"),
        tokens(usage, "total_output_tokens") + reasoning, cached_input=tokens(usage, "total_cached_tokens"),
        reasoning=reasoning, web_searches=searches, input_audio=given.get("AUDIO", 0) + hosted.get("AUDIO", 0),
        cached_audio=cached.get("AUDIO", 0), output_audio=made.get("AUDIO", 0),
        input_image=given.get("IMAGE", 0) + given.get("DOCUMENT", 0) + hosted.get("IMAGE", 0) + hosted.get("DOCUMENT", 0),
        cached_image=cached.get("IMAGE", 0) + cached.get("DOCUMENT", 0), output_image=made.get("IMAGE", 0))


INTERACTION_ANSWERS = Answers(_note, _usage, (b"interaction.completed", b"interaction.complete", b"[DONE]", b'"error"'))
