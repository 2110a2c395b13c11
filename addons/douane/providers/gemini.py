"""The format of ``generateContent``, in the Gemini API and in Vertex AI: requests, answers, streams, usage.

Members may be written in camelCase or in snake_case, and both are read. What the model thought (``thought: true``) and the
signatures of its thoughts go back as they came. Formats: https://ai.google.dev/api/generate-content,
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference, the recordings of ``shared/wire``.
"""

from typing import Any

from douane.call import Usage
from douane.providers.assemble import lengthen
from douane.providers.base import Bound, Role
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.edit import Path
from douane.providers.merge import Rows, later, merge
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.walk import ANSWER_TOKENS, BLOBS, CAMEL, TOKENS, Grammar

__all__ = ["BOUND", "GEMINI", "GEMINI_ANSWER", "GEMINI_ANSWERS", "GEMINI_DELTAS", "PREDICT_ANSWERS", "AssembleGemini", "both",
           "modalities"]


def both(*names: str) -> frozenset[str]:
    """*names*, which are in camelCase, and the same in snake_case."""
    return frozenset(names) | {"".join(f"_{char.lower()}" if char.isupper() else char for char in name) for name in names}


def _roles(role: Role, *names: str) -> dict[str, Role]:
    return dict.fromkeys(both(*names), role)


_SCHEMAS = _roles("schema", "tools", "toolConfig", "responseSchema", "responseJsonSchema", "functionDeclarations",
                  "processingOptions")
_PARTS = (_roles("tool_call", "functionCall", "toolCall", "executableCode")
          | _roles("tool_result", "functionResponse", "toolResponse", "codeExecutionResult"))
_INSIDE = (_PARTS | _SCHEMAS | _roles("system", "systemInstruction")
           | _roles("metadata", "stopSequences", "labels", "displayName", "customMetadata", "modelArmorConfig"))
_FREE = both("args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels",
             "schema")
_TOKENS = TOKENS | both(
    "mimeType", "cachedContent", "responseMimeType", "responseModalities", "mediaResolution", "thinkingLevel", "taskType",
    "category", "threshold", "method", "language", "outcome", "toolType", "voiceName", "languageCode", "serviceTier",
    "aspectRatio", "imageSize", "personGeneration", "behavior", "scheduling", "environment")
_BLOBS = BLOBS | both("thoughtSignature", "bytesBase64Encoded")
_THOUGHT = frozenset({"thought"})

GEMINI = Grammar(
    top=_INSIDE | _roles("user", "contents", "content", "requests", "instances", "instance", "batch", "generateContentRequest")
    | _roles("metadata", "generationConfig", "safetySettings"),
    members=_INSIDE,
    kinds={},
    free=_FREE,
    tokens=_TOKENS,
    blobs=_BLOBS,
    fields=CAMEL,
    inner=_THOUGHT)
"""Requests of every method of a model; cached contents too."""

GEMINI_ANSWER = Grammar(
    top={"candidates": "assistant", "promptFeedback": "metadata"},
    members=_PARTS | _roles("tool_result", "groundingMetadata", "citationMetadata", "urlContextMetadata"),
    kinds={},
    free=_FREE,
    tokens=_TOKENS | ANSWER_TOKENS | both(
        "finishReason", "blockReason", "modelVersion", "responseId", "createTime", "updateTime", "expireTime", "modality",
        "trafficType", "probability", "severity", "urlRetrievalStatus", "domain"),
    blobs=_BLOBS,
    fields=CAMEL,
    inner=_THOUGHT)

_MOST = both("maxOutputTokens")
BOUND = Bound(
    stated=tuple((config, name) for config in sorted(both("generationConfig")) for name in sorted(_MOST)),
    insert=("generationConfig", "maxOutputTokens"),
    choices=("generationConfig", "candidateCount"),
    tries=tuple((config, name) for config in sorted(both("generationConfig")) for name in sorted(both("candidateCount"))))

# -- streams -----------------------------------------------------------------------------------------------------------

_SIGNATURES = both("thoughtSignature")
_ONLY_TEXT = frozenset({"text", "thought"})


def _candidates(document: Any) -> list[tuple[int, int, dict[str, Any]]]:
    """(place in the frame, index, candidate)."""
    rows = document.get("candidates") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        return []
    return [(at, _index(row, at), row) for at, row in enumerate(rows) if isinstance(row, dict)]


def _index(row: dict[str, Any], otherwise: int) -> int:
    index = row.get("index")
    return index if type(index) is int else otherwise


def _parts(candidate: dict[str, Any]) -> list[Any]:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return parts if isinstance(parts, list) else []


def _pieces(document: Any) -> list[Delta]:
    """The texts of parts, and what a function's arguments are sent of piece by piece (``partialArgs``)."""
    found = []
    for at, index, candidate in _candidates(document):
        for number, part in enumerate(_parts(candidate)):
            if not isinstance(part, dict) or part.get("thought"):
                continue
            path: Path = ("candidates", at, "content", "parts", number)
            if isinstance(part.get("text"), str) and part["text"]:
                found.append(Delta((*path, "text"), ("candidate", index, "text"), part["text"]))
            found += [Delta((*path, "functionCall", "partialArgs", place, "stringValue"), channel, text)
                      for place, channel, text, _ in _partial(index, part)]
    return found


def _partial(index: int, part: dict[str, Any]) -> list[tuple[int, Channel, str, bool]]:
    """(place, channel, text, whether more of it comes) of each piece of an argument."""
    call = part.get("functionCall")
    rows = call.get("partialArgs") if isinstance(call, dict) else None
    if not isinstance(rows, list):
        return []
    channel = ("candidate", index, "argument")
    return [(place, (*channel, str(row.get("jsonPath"))), row["stringValue"], bool(row.get("willContinue")))
            for place, row in enumerate(rows) if isinstance(row, dict) and isinstance(row.get("stringValue"), str)]


def _ends(document: Any) -> list[Channel]:
    """A text ends where another kind of part follows it, at the signature of its thoughts and with its candidate."""
    if not isinstance(document, dict) or document.get("error"):
        return [()]
    found: list[Channel] = []
    for _, index, candidate in _candidates(document):
        if candidate.get("finishReason"):
            found.append(("candidate", index))
            continue
        parts = [part for part in _parts(candidate) if isinstance(part, dict)]
        if any(not part.keys() <= _ONLY_TEXT for part in parts):
            found.append(("candidate", index, "text"))
        found += [channel for part in parts for _, channel, _, more in _partial(index, part) if not more]
    return found


def _thoughts(document: Any) -> list[Path]:
    """Where the model's own thinking stands, in a frame or in an answer."""
    answers = [((at,), one) for at, one in enumerate(document)] if isinstance(document, list) else [((), document)]
    return [(*before, "candidates", at, "content", "parts", number)
            for before, answer in answers for at, _, candidate in _candidates(answer)
            for number, part in enumerate(_parts(candidate)) if isinstance(part, dict) and part.get("thought")]


GEMINI_DELTAS = Deltas(_pieces, _ends, _thoughts)


class AssembleGemini:
    """Chunks of ``GenerateContentResponse`` into one."""

    __slots__ = ("_candidates", "_parts", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._candidates = Rows("candidates")
        self._parts: dict[int, list[Any]] = {}

    def take(self, event: dict[str, Any]) -> bool:
        candidates, usage = event.pop("candidates", None), event.pop("usageMetadata", None)
        later(self._top, event)
        if usage is not None and (type(usage) is not dict or usage.keys() & _COUNTS or "usageMetadata" not in self._top):
            self._top["usageMetadata"] = usage
        rows = candidates if type(candidates) is list else [] if candidates is None else [candidates]
        for place, candidate in enumerate(rows):
            if type(candidate) is dict:
                self._candidate(_index(candidate, place), candidate)
            else:
                self._candidates.put(place, candidate)
        return True

    def _candidate(self, index: int, candidate: dict[str, Any]) -> None:
        held = self._candidates.at(index)
        content = candidate.get("content")
        if type(content) is dict:
            del candidate["content"]
            parts = content.pop("parts", None)
            later(held, {"content": content})
            mine = self._parts.setdefault(index, [])
            for part in parts if type(parts) is list else [] if parts is None else [parts]:
                _put(mine, part)
        for name, value in candidate.items():
            if name != "safetyRatings" and type(value) is dict and type(held.get(name)) is dict:
                lengthen(held[name], value)
            else:
                later(held, {name: value})

    def document(self) -> dict[str, Any]:
        for index, parts in self._parts.items():
            held = self._candidates.at(index)
            for call in (part.get("functionCall") for part in parts if type(part) is dict):
                if type(call) is dict and type(call.get("partialArgs")) is list:
                    call["partialArgs"] = Rows("partialArgs", call["partialArgs"])
            content = held.get("content")
            held["content"] = {"parts": Rows("parts", parts)} | (content if type(content) is dict else {})
        return ({"candidates": self._candidates} if len(self._candidates) else {}) | self._top


def _put(parts: list[Any], part: Any) -> None:
    """A text goes on in the next part of its kind, the arguments of a call in the next that says so."""
    last = parts[-1] if parts else None
    if type(last) is not dict or type(part) is not dict:
        parts.append(part)
    elif (last.keys() <= _ONLY_TEXT and "text" in last and part.keys() <= _ONLY_TEXT | _SIGNATURES
          and bool(last.get("thought")) is bool(part.get("thought"))):
        merge(last, part)
    elif _continues(last.get("functionCall"), part.get("functionCall")):
        _go_on(last["functionCall"], part["functionCall"])
    else:
        parts.append(part)


def _continues(before: Any, call: Any) -> bool:
    return type(before) is dict and before.get("willContinue") is True and type(call) is dict and "name" not in call


def _go_on(held: dict[str, Any], call: dict[str, Any]) -> None:
    """Put to a call what comes of its arguments: the pieces of one value are joined."""
    rows, more = held.setdefault("partialArgs", []), call.pop("partialArgs", None)
    if type(rows) is not list:
        held["partialArgs"] = rows = [rows]
    for row in more if type(more) is list else [] if more is None else [more]:
        last = rows[-1] if rows else None
        if (type(last) is dict and type(row) is dict and last.get("willContinue") is True
                and last.get("jsonPath") == row.get("jsonPath") and type(row.get("stringValue")) is str):
            last["willContinue"] = row.get("willContinue", False)
            merge(last, {"stringValue": row["stringValue"]})
        else:
            rows.append(row)
    held["willContinue"] = call.pop("willContinue", False)
    later(held, call)


# -- usage -------------------------------------------------------------------------------------------------------------

_COUNTS = frozenset({"promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"})
_NAMES = {1: "TEXT", 2: "IMAGE", 3: "VIDEO", 4: "AUDIO", 5: "DOCUMENT"}
"""A modality is a number where the SDK asks for ``enum-encoding=int``."""
_TIERS = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
_PER_PROMPT = ("gemini-1", "gemini-2")
"""Models of which a prompt with searches is billed as one, however many there were; of the later, each search is."""


def _note(seen: Seen, document: dict[str, Any]) -> None:
    """An answer or a chunk of one. The last counts are those of the whole; some chunks of Vertex AI have none."""
    usage = document.get("usageMetadata")
    if isinstance(usage, dict):
        if usage.keys() & _COUNTS:
            seen.usage = usage
        tier = usage.get("serviceTier") or _TIERS.get(str(usage.get("trafficType")))
        seen.tier = tier if isinstance(tier, str) else seen.tier
    model = document.get("modelVersion") or document.get("model")
    if isinstance(model, str) and model:
        seen.model = model.removeprefix("models/")
    candidates = _candidates(document)
    seen.searches = max(seen.searches, sum(_searches(candidate, seen.model) for _, _, candidate in candidates))
    if any(candidate.get("finishReason") for _, _, candidate in candidates) or document.get("promptFeedback"):
        seen.done = True


def _searches(candidate: dict[str, Any], model: str) -> int:
    grounding = candidate.get("groundingMetadata")
    queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
    made = sum(1 for query in queries if query) if isinstance(queries, list) else 0
    return min(made, 1) if model.startswith(_PER_PROMPT) else made


def modalities(rows: Any, count: str) -> dict[str, int]:
    """Tokens by modality (``TEXT``, ``IMAGE``, ``AUDIO`` …), of a list of details whose member *count* holds them."""
    found: dict[str, int] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            kind = row.get("modality")
            name = _NAMES.get(kind, "") if isinstance(kind, int) else str(kind).upper()
            found[name] = found.get(name, 0) + tokens(row, count)
    return found


def _usage(seen: Seen) -> Usage:
    """``promptTokenCount`` has the cached ones in it; what a hosted tool put in and the thoughts are counted apart. A count
    of zero is left out; of a cached content and of some embeddings there is the sum alone."""
    usage = seen.usage
    hosting, making, reasoning = (tokens(usage, name) for name in (
        "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"))
    giving = tokens(usage, "promptTokenCount") or max(0, tokens(usage, "totalTokenCount") - hosting - making - reasoning)
    given, hosted, cached, made = (modalities(usage.get(name), "tokenCount") for name in (
        "promptTokensDetails", "toolUsePromptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails"))
    return Usage(
        giving + hosting, making + reasoning, cached_input=tokens(usage, "cachedContentTokenCount"), reasoning=reasoning,
        web_searches=seen.searches,
        input_audio=given.get("AUDIO", 0) + hosted.get("AUDIO", 0), cached_audio=cached.get("AUDIO", 0),
        output_audio=made.get("AUDIO", 0), input_image=_seen(given) + _seen(hosted), cached_image=_seen(cached),
        output_image=_seen(made))


def _seen(counts: dict[str, int]) -> int:
    """Pages of a document are billed as images are."""
    return counts.get("IMAGE", 0) + counts.get("DOCUMENT", 0)


def _note_prediction(seen: Seen, document: dict[str, Any]) -> None:
    """Of Vertex AI's ``predict``: embeddings tell the tokens of each text."""
    rows = document.get("predictions")
    for row in rows if isinstance(rows, list) else ():
        values = row.get("embeddings") if isinstance(row, dict) else None
        statistics = values.get("statistics") if isinstance(values, dict) else None
        if isinstance(statistics, dict) and "token_count" in statistics:
            seen.usage["token_count"] = seen.usage.get("token_count", 0) + tokens({"n": int(statistics["token_count"])}, "n")


GEMINI_ANSWERS = Answers(_note, _usage, (b'"usageMetadata"', b'"finishReason"', b'"error"'))
PREDICT_ANSWERS = Answers(_note_prediction, lambda seen: Usage(tokens(seen.usage, "token_count")), ())
