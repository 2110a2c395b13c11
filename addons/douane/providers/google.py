"""The Gemini API (``generativelanguage.googleapis.com``), and how Google says no.

The model stands in the path, and what is done with it behind a colon. Formats: https://ai.google.dev/api, errors:
https://cloud.google.com/apis/design/errors, and the recordings of ``shared/wire``.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from douane.providers.base import Operation, Position, Provider, Wire
from douane.providers.edit import Place
from douane.providers.framing import Framing
from douane.providers.gemini import BOUND, GEMINI, GEMINI_ANSWER, GEMINI_ANSWERS, GEMINI_DELTAS, PREDICT_ANSWERS, AssembleGemini
from douane.providers.interactions import BOUND as INTERACTION_BOUND
from douane.providers.interactions import (
    INTERACTION,
    INTERACTION_ANSWERS,
    INTERACTION_DELTAS,
    INTERACTIONS,
    AssembleInteraction,
)
from douane.providers.openai import CHAT, EMBEDDINGS, OPENAI
from douane.providers.room import openai_room
from douane.providers.wires import JsonWire, read_json

__all__ = ["CACHES", "COUNT", "EMBED", "GENERATE", "GOOGLE", "INTERACT", "NAME", "POLL", "PREDICT", "SEGMENT", "STREAM",
           "UPLOAD", "GoogleFamily", "google", "rows"]

_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
           429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
"""https://cloud.google.com/apis/design/errors#handling_errors. Others: INVALID_ARGUMENT below 500, INTERNAL above."""


@dataclass(frozen=True, slots=True)
class GoogleFamily:
    """Denials as ``{"error": {"code", "message", "status", "details"}}``.

    Google's ``code`` is the HTTP status; the denial's is the ``reason`` of the ``ErrorInfo`` among the details."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        return status, _error(status, code, message, call_id)

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        """The SDK raises for the first form; of interactions it gives every event to the app, this one too."""
        if operation == "interactions":
            told = {"event_type": "error", "error": {"code": code, "message": message}}
            return b"event: error\ndata: " + orjson.dumps(told) + b"\n\n"
        return b"data: " + _error(500, code, message, call_id) + b"\r\n\r\n"


def _error(status: int, code: str, message: str, call_id: str) -> bytes:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "douane",
            "metadata": {"id": call_id}}
    return orjson.dumps({"error": {
        "code": status, "message": message, "status": _STATUS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"),
        "details": [info]}})


GOOGLE = GoogleFamily()

GENERATE = JsonWire(GEMINI, GEMINI_ANSWERS, GEMINI_ANSWER, deltas=GEMINI_DELTAS, bound=BOUND)
STREAM = replace(GENERATE, assembler=AssembleGemini, array=True)
COUNT = JsonWire(GEMINI, None, GEMINI_ANSWER)
EMBED = JsonWire(GEMINI, GEMINI_ANSWERS, GEMINI_ANSWER)
CACHES = JsonWire(GEMINI, GEMINI_ANSWERS, GEMINI_ANSWER)
PREDICT = JsonWire(GEMINI, PREDICT_ANSWERS, GEMINI_ANSWER)
INTERACT = JsonWire(INTERACTIONS, INTERACTION_ANSWERS, INTERACTION, AssembleInteraction, INTERACTION_DELTAS,
                    bound=INTERACTION_BOUND)
POLL = replace(INTERACT, answers=None)
"""Of an interaction that is there already: asking for it is not billed."""


@dataclass(frozen=True, slots=True)
class UploadWire(JsonWire):
    """A file that is sent, or what is said of it before (JSON). Text is one position; other bytes stand as ``data``, in which
    nothing can be searched."""

    def read(self, body: bytes, content_type: bytes) -> Any:
        try:
            return read_json(body)
        except ValueError:
            pass
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = "\0"
        return {"data": base64.b64encode(body).decode()} if "\0" in text else text

    def rewrite(self, body: bytes, content_type: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any]:
        if not changes:
            return body, document
        if not isinstance(document, str):
            # named, as slots make another class of this one
            return JsonWire.rewrite(self, body, content_type, document, changes)
        if changes.keys() - {((), False)}:
            raise ValueError("a place to be rewritten is not in the text")
        text = changes.get(((), False), document)
        return text.encode(), text

    def walk(self, document: Any) -> Iterator[Position]:
        if isinstance(document, str):
            return iter([Position((), "user", document)] if document else [])
        return JsonWire.walk(self, document)


UPLOAD = UploadWire(GEMINI, None, GEMINI_ANSWER, media=(b"application/json", b"application/octet-stream", b"text/plain"))

# -- paths -------------------------------------------------------------------------------------------------------------

SEGMENT = "[A-Za-z0-9][A-Za-z0-9._@~-]*"
"""One step of a path. No percent sign and no dots alone: what we match must be what Google routes by."""
NAME = f"{SEGMENT}(?:%40{SEGMENT})?"
"""A model's, whose version may follow an ``@``."""
_V = "/(?:v1|v1beta|v1alpha)"
_MODEL = f"{_V}/(?:models/(?!.*/)|(?=tunedModels/|dynamic/))(?P<model>(?:tunedModels/|dynamic/)?{NAME})"


def rows(model: str) -> list[Operation]:
    """What is done with a model, the path of which is *model*."""
    verbs: tuple[tuple[str, str, Wire], ...] = (
        ("generate_content", "generateContent", GENERATE),
        ("generate_content", "streamGenerateContent", STREAM),
        ("count_tokens", "(?:countTokens|computeTokens)", COUNT),
        ("embeddings", "(?:embedContent|batchEmbedContents|asyncBatchEmbedContent)", EMBED),
        ("predict", "(?:predict|predictLongRunning)", PREDICT))
    return [Operation(name, "POST", re.compile(f"{model}:{verb}"), wire) for name, verb, wire in verbs]


def _stored(name: str, path: str, wire: Wire | None) -> list[Operation]:
    """Objects that lie at the provider: made and changed with a body, listed, read and deleted without."""
    one = re.compile(f"{path}/{SEGMENT}")
    return [Operation(name, "POST", re.compile(path), wire), Operation(name, "GET", re.compile(f"{path}(?:/{SEGMENT})?")),
            Operation(name, "PATCH", one, wire), Operation(name, "DELETE", one)]


_STORE = f"{_V}/fileSearchStores/{SEGMENT}"
_OPERATIONS = (
    *rows(_MODEL),
    Operation("models", "GET", re.compile(f"{_V}/(?:models|tunedModels)(?:/{SEGMENT})?")),
    *_stored("caches", f"{_V}/cachedContents", CACHES),
    Operation("interactions", "POST", re.compile(f"{_V}/interactions"), INTERACT),
    Operation("interactions", "GET", re.compile(f"{_V}/interactions/{SEGMENT}"), POLL),
    Operation("interactions", "POST", re.compile(f"{_V}/interactions/{SEGMENT}/cancel"), POLL),
    Operation("interactions", "DELETE", re.compile(f"{_V}/interactions/{SEGMENT}")),
    Operation("chat", "POST", re.compile(f"{_V}/openai/chat/completions"), CHAT, OPENAI),
    Operation("embeddings", "POST", re.compile(f"{_V}/openai/embeddings"), EMBEDDINGS, OPENAI),
    Operation("models", "GET", re.compile(f"{_V}/openai/models(?:/(?:models/)?{SEGMENT})?"), family=OPENAI),
    Operation("files", "POST", re.compile(f"/upload{_V}/files"), UPLOAD),
    Operation("files", "GET", re.compile(f"{_V}/files(?:/{SEGMENT})?")),
    Operation("files", "DELETE", re.compile(f"{_V}/files/{SEGMENT}")),
    *_stored("other", f"{_V}/fileSearchStores", COUNT),
    Operation("other", "POST", re.compile(f"/upload{_STORE}:uploadToFileSearchStore"), UPLOAD),
    Operation("other", "POST", re.compile(f"{_STORE}:importFile"), COUNT),
    Operation("other", "GET", re.compile(f"{_STORE}(?:/upload)?/operations/{SEGMENT}")),
    Operation("other", "GET", re.compile(f"{_STORE}/documents(?:/{SEGMENT})?")),
    Operation("other", "DELETE", re.compile(f"{_STORE}/documents/{SEGMENT}")),
    Operation("other", "GET", re.compile(f"{_V}/{SEGMENT}/{SEGMENT}/operations(?:/{SEGMENT})?")),
)


def google() -> Provider:
    return Provider("google", GOOGLE, ("generativelanguage.googleapis.com",), None, (b"x-goog-api-key", b""),
                    (b"x-goog-api-key", b"authorization"), _OPERATIONS, prices="google")
