"""OpenAI's own operations beside chat and responses: stored objects, media, files, batches, assistants.

Formats: https://platform.openai.com/docs/api-reference, and the recordings of ``shared/wire``, whose labels the rows have.
What belongs to an organisation (``/v1/organization/…``) is no row.
"""

import re
from collections.abc import Container
from dataclasses import replace
from typing import Any

from douane.call import Usage
from douane.providers.assemble import AssembleResponse
from douane.providers.assemble_more import AssembleRun, AssembleSaid
from douane.providers.base import Operation, Provider
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.deltas import ends as ends_of
from douane.providers.deltas import pieces as pieces_of
from douane.providers.edit import Path
from douane.providers.forms import FormWire
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.openai import (
    ABOUT,
    CHAT,
    CHAT_ANSWERS,
    COMPLETIONS,
    EMBEDDINGS,
    FREE,
    MODEL_ID,
    OPENAI,
    RESPONSE_ANSWERS,
    RESPONSE_GRAMMAR,
    RESPONSES,
    SCHEMAS,
)
from douane.providers.realtime import socket_rows
from douane.providers.walk import ANSWER_TOKENS, BLOBS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["batch_wire", "openai", "openai_rows"]

_ID = "[A-Za-z0-9_-]{1,256}"
_MORE_TOKENS = ANSWER_TOKENS | {"response_format", "size", "quality", "voice", "background", "moderation", "style", "language",
                               "encoding_format", "object", "purpose", "endpoint", "completion_window", "order", "anchor"}
_TEXTS = SCHEMAS | ABOUT | {"instructions": "system", "additional_instructions": "system", "description": "system",
                            "input": "user", "prompt": "user", "query": "user", "messages": "user",
                            "additional_messages": "user", "content": "user", "thread": "user", "items": "user",
                            "tool_outputs": "tool_result", "session": "system", "response_format": "schema"}
_GRAMMAR = Grammar(_TEXTS, SCHEMAS | {"messages": "user"}, {}, FREE | {"attributes"}, tokens=_MORE_TOKENS)
_ANSWER = Grammar(dict.fromkeys(("data", "text", "content", "segments", "words", "messages", "steps"), "assistant"),
                  {"tool_calls": "tool_call"}, {}, FREE, tokens=_MORE_TOKENS, blobs=BLOBS | {"audio", "delta", "result"})
_FIELDS = Grammar(_TEXTS | {"file": "user"}, {}, {}, FREE, tokens=TOKENS | {
    "purpose", "model", "response_format", "language", "stream", "size", "quality", "background", "n", "include",
    "temperature", "timestamp_granularities", "output_format", "input_fidelity", "moderation"})


def _media_usage(seen: Seen) -> Usage:
    """Of pictures and sound: by tokens, or by seconds. The members are ``…_details`` or ``…_detail``."""
    usage = seen.usage
    if usage.get("type") == "duration":
        seconds = usage.get("seconds")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise ValueError("usage.seconds is no number")
        return Usage(audio_seconds=float(seconds))
    if "input_tokens" not in usage:
        raise ValueError("usage.input_tokens is missing")
    of = "input_token_details" if "input_token_details" in usage else "input_tokens_details"
    out = "output_token_details" if "output_token_details" in usage else "output_tokens_details"
    return Usage(tokens(usage, "input_tokens"), tokens(usage, "output_tokens"), input_audio=tokens(usage, of, "audio_tokens"),
                 input_image=tokens(usage, of, "image_tokens"), cached_input=tokens(usage, of, "cached_tokens"),
                 output_image=tokens(usage, out, "image_tokens"), output_audio=tokens(usage, out, "audio_tokens"))


def _note_media(seen: Seen, document: dict[str, Any]) -> None:
    usage = document.get("usage")
    if isinstance(usage, dict):
        seen.usage = usage
    kind = document.get("type")
    if document.get("error") or (isinstance(kind, str) and kind.endswith((".done", ".completed"))):
        seen.ended = seen.done = True


def _note_run(seen: Seen, document: dict[str, Any]) -> None:
    """A run's usage; its steps tell parts of it."""
    if document.get("object") != "thread.run":
        return
    usage, model = document.get("usage"), document.get("model")
    if isinstance(usage, dict):
        seen.usage, seen.done = usage, True
    if isinstance(model, str):
        seen.model = model


def _note_nothing(seen: Seen, document: dict[str, Any]) -> None:
    """What was asked for is not done yet."""


MEDIA_ANSWERS = Answers(_note_media, _media_usage, (b".done", b".completed", b'"error"'))
RUN_ANSWERS = Answers(_note_run, CHAT_ANSWERS.usage, (b"[DONE]", b'"error"'))
LATER = Answers(_note_nothing, CHAT_ANSWERS.usage, ())
"""Billed, but not told in this answer."""


def _run_pieces(document: Any) -> list[Delta]:
    """``thread.message.delta`` and ``thread.run.step.delta``: texts by message, part and call."""
    if not isinstance(document, dict) or document.get("object") not in ("thread.message.delta", "thread.run.step.delta"):
        return pieces_of(document)
    found: list[Delta] = []
    tasks: list[tuple[Path, Channel, Any]] = [(("delta",), ("run", str(document.get("id"))), document.get("delta"))]
    while tasks:
        path, channel, value = tasks.pop()
        if isinstance(value, dict):
            if value.get("type") in ("file_citation", "file_path"):
                continue  # whole, and within a text
            tasks.extend(((*path, name), (*channel, name), one) for name, one in value.items()
                         if name not in ("id", "type", "role", "object", "index"))
        elif isinstance(value, list):
            for at, one in enumerate(value):
                index = one.get("index") if isinstance(one, dict) else None
                tasks.append(((*path, at), (*channel, index if isinstance(index, int) else at), one))
        elif isinstance(value, str) and value:
            found.append(Delta(path, channel, value, path[-1] == "arguments"))
    return found


def _run_ends(document: Any) -> list[Channel]:
    if isinstance(document, dict) and document.get("object") in ("thread.message", "thread.run.step"):
        return [("run", str(document.get("id")))] if document.get("status") not in ("in_progress", "queued") else []
    if isinstance(document, dict) and document.get("object") == "thread.run":
        return [()] if document.get("status") not in ("queued", "in_progress") else []
    return ends_of(document)


def _said_pieces(document: Any) -> list[Delta]:
    """``transcript.text.delta``: one text."""
    if not isinstance(document, dict) or document.get("type") != "transcript.text.delta":
        return []
    text = document.get("delta")
    return [Delta(("delta",), ("transcript",), text)] if isinstance(text, str) and text else []


def _said_ends(document: Any) -> list[Channel]:
    if not isinstance(document, dict) or document.get("error"):
        return [()]
    kind = document.get("type")
    return [()] if isinstance(kind, str) and kind.endswith((".done", ".completed")) else []


def batch_wire(line: Any) -> JsonWire | None:
    """How the ``body`` of a batch's line is read, by the path that it names."""
    url, body = line.get("url"), line.get("body")
    if not isinstance(url, str) or not isinstance(body, dict):
        return None
    return next((wire for end, wire in _BATCHED if url.endswith(end)), FREE_TEXT)


FREE_TEXT = JsonWire(_GRAMMAR, None, _ANSWER)
_SAID = Deltas(_said_pieces, _said_ends)
_BATCHED = (("/chat/completions", CHAT), ("/responses", RESPONSES), ("/embeddings", EMBEDDINGS), ("/completions", COMPLETIONS))
_ITEM = JsonWire(RESPONSE_GRAMMAR, replace(RESPONSE_ANSWERS, billed=False), RESPONSES.answer, AssembleResponse)
_COMPACT = replace(RESPONSES, assembler=None)
_COUNT = JsonWire(RESPONSE_GRAMMAR, None)
_CONVERSATION = JsonWire(replace(RESPONSE_GRAMMAR, top={**RESPONSE_GRAMMAR.top, "items": "user"}), None, RESPONSES.answer)
_IMAGE = JsonWire(_GRAMMAR, MEDIA_ANSWERS, _ANSWER, AssembleSaid, _SAID)
_IMAGE_FORM = FormWire(_FIELDS, MEDIA_ANSWERS, _ANSWER, AssembleSaid, _SAID)
_SOUND_FORM = FormWire(_FIELDS, MEDIA_ANSWERS, _ANSWER, AssembleSaid, _SAID)
_BATCH_FORM = FormWire(_FIELDS, None, _ANSWER, line=batch_wire, batches=True)
_LATER = JsonWire(_GRAMMAR, LATER, _ANSWER)
_RUN_DELTAS = Deltas(_run_pieces, _run_ends)
_RUN = JsonWire(_GRAMMAR, RUN_ANSWERS, _ANSWER, AssembleRun, _RUN_DELTAS, bound=replace(
    CHAT.bound, stated=(("max_completion_tokens",),), choices=None))
_STORED_RUN = replace(_RUN, answers=replace(RUN_ANSWERS, billed=False))

_THREAD = f"/threads/{_ID}"
_TABLE: tuple[tuple[str, str, str, JsonWire | None], ...] = (
    ("chat", "POST", "/chat/completions", CHAT),
    ("responses", "POST", "/responses", RESPONSES),
    ("embeddings", "POST", "/embeddings", EMBEDDINGS),
    ("models", "GET", f"/models(?:/{MODEL_ID})?", None),
    ("responses", "POST", "/responses/compact", _COMPACT),
    ("responses", "POST", "/responses/input_tokens", _COUNT),
    ("responses_item", "GET", f"/responses/(?!compact|input_tokens){_ID}(?:/input_items)?", _ITEM),
    ("responses_item", "DELETE", f"/responses/(?!compact|input_tokens){_ID}", _ITEM),
    ("responses_item", "POST", f"/responses/{_ID}/cancel", _ITEM),
    ("conversations", "POST", f"/conversations(?:/{_ID}(?:/items)?)?", _CONVERSATION),
    ("conversations", "GET", f"/conversations/{_ID}(?:/items(?:/{_ID})?)?", _CONVERSATION),
    ("conversations", "DELETE", f"/conversations/{_ID}(?:/items/{_ID})?", _CONVERSATION),
    ("completions", "POST", "/completions", COMPLETIONS),
    ("images", "POST", "/images/generations", _IMAGE),
    ("images", "POST", "/images/(?:edits|variations)", _IMAGE_FORM),
    ("audio", "POST", "/audio/speech", _IMAGE),
    ("audio", "POST", "/audio/(?:transcriptions|translations)", _SOUND_FORM),
    ("moderations", "POST", "/moderations", FREE_TEXT),
    ("files", "POST", "/files", _BATCH_FORM),
    ("files", "GET", f"/files(?:/{_ID}(?:/content)?)?", FREE_TEXT),
    ("files", "DELETE", f"/files/{_ID}", FREE_TEXT),
    ("uploads", "POST", f"/uploads(?:/{_ID}/(?:complete|cancel))?", FREE_TEXT),
    ("uploads", "POST", f"/uploads/{_ID}/parts", _BATCH_FORM),
    ("batches", "POST", "/batches", _LATER),
    ("batches", "POST", f"/batches/{_ID}/cancel", FREE_TEXT),
    ("batches", "GET", f"/batches(?:/{_ID})?", FREE_TEXT),
    ("files", "POST", f"/vector_stores/{_ID}/files(?:/{_ID})?", FREE_TEXT),
    ("files", "GET", f"/vector_stores/{_ID}/files(?:/{_ID}(?:/content)?)?", FREE_TEXT),
    ("files", "DELETE", f"/vector_stores/{_ID}/files/{_ID}", FREE_TEXT),
    ("vector_stores", "POST", f"/vector_stores(?:/{_ID}(?:/search|/file_batches(?:/{_ID}/cancel)?)?)?", FREE_TEXT),
    ("vector_stores", "GET", f"/vector_stores(?:/{_ID}(?:/file_batches/{_ID}(?:/files)?)?)?", FREE_TEXT),
    ("vector_stores", "DELETE", f"/vector_stores/{_ID}", FREE_TEXT),
    ("assistants", "POST", f"/assistants(?:/{_ID})?", FREE_TEXT),
    ("assistants", "GET", f"/assistants(?:/{_ID})?", FREE_TEXT),
    ("assistants", "DELETE", f"/assistants/{_ID}", FREE_TEXT),
    ("assistants", "POST", f"/threads/runs|{_THREAD}/runs|{_THREAD}/runs/{_ID}/submit_tool_outputs", _RUN),
    ("assistants", "POST", f"/threads|/threads/(?!runs){_ID}(?:/messages(?:/{_ID})?|/runs/{_ID}(?:/cancel)?)?", FREE_TEXT),
    ("assistants", "GET", f"{_THREAD}(?:/messages(?:/{_ID})?|/runs(?:/{_ID}(?:/steps(?:/{_ID})?)?)?)?", _STORED_RUN),
    ("assistants", "DELETE", f"{_THREAD}(?:/messages/{_ID})?", FREE_TEXT),
    ("realtime", "POST", "/realtime/(?:client_secrets|sessions|transcription_sessions)", FREE_TEXT),
    ("realtime", "POST", "/realtime/calls", FormWire(_FIELDS, LATER, _ANSWER)),
    ("other", "GET", f"/chat/completions(?:/{_ID}(?:/messages)?)?", FREE_TEXT),
    ("other", "POST", f"/chat/completions/{_ID}", FREE_TEXT),
    ("other", "DELETE", f"/chat/completions/{_ID}", FREE_TEXT),
    ("other", "POST", "/fine_tuning/jobs", _LATER),
    ("other", "POST", f"/fine_tuning/jobs/{_ID}/(?:cancel|pause|resume)", FREE_TEXT),
    ("other", "GET", f"/fine_tuning/jobs(?:/{_ID}(?:/events|/checkpoints)?)?", FREE_TEXT),
    ("other", "POST", "/containers", _LATER),
    ("other", "POST", f"/containers/{_ID}/files", _BATCH_FORM),
    ("other", "GET", f"/containers(?:/{_ID}(?:/files(?:/{_ID}(?:/content)?)?)?)?", FREE_TEXT),
    ("other", "DELETE", f"/containers/{_ID}(?:/files/{_ID})?", FREE_TEXT),
    ("other", "POST", f"/evals(?:/{_ID})?|/evals/{_ID}/runs/{_ID}", FREE_TEXT),
    ("other", "POST", f"/evals/{_ID}/runs", _LATER),
    ("other", "GET", f"/evals(?:/{_ID}(?:/runs(?:/{_ID}(?:/output_items(?:/{_ID})?)?)?)?)?", FREE_TEXT),
    ("other", "DELETE", f"/evals/{_ID}(?:/runs/{_ID})?", FREE_TEXT),
    ("other", "POST", "/traces/ingest", FREE_TEXT),
)
"""Label, method, path below the root, how it is read; what is called most stands first."""


def openai_rows(root: str, names: Container[str] | None = None) -> tuple[Operation, ...]:
    """The operations below *root*, a regular expression. *names*: only these; to compile the others takes its time."""
    rows = (Operation(name, method, re.compile(f"{root}(?:{path})"), wire) for name, method, path, wire in _TABLE
            if names is None or name in names)
    return (*rows, *(row for row in socket_rows(root, RESPONSES) if names is None or row.name in names))


def openai() -> Provider:
    return Provider("openai", OPENAI, ("api.openai.com", "eu.api.openai.com", "us.api.openai.com"), None,
                    (b"authorization", b"Bearer "), (b"authorization", b"api-key"), openai_rows("/v1"), "openai",
                    includes_usage=True)
