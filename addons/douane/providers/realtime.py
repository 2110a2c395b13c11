"""OpenAI's WebSockets, as OpenAI, Azure and x.ai speak them: Realtime, and the Responses API a frame an event.

Formats: https://platform.openai.com/docs/api-reference/realtime-client-events, …/realtime-server-events,
https://platform.openai.com/docs/guides/websocket-mode, and the recordings of ``shared/wire``. x.ai tells the usage beside
the response, the others in it; Azure has the names of the beta (``response.text.delta``) too.
"""

import re
from typing import Any

from douane.call import Usage
from douane.providers.assemble import AssembleResponse
from douane.providers.base import Bound, Operation, Role
from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.dialogue import SOCKET, Dialogue, response_id
from douane.providers.meters import Answers, Seen, tokens
from douane.providers.walk import ANSWER_TOKENS, BLOBS, TOKENS, Grammar
from douane.providers.wires import JsonWire

__all__ = ["REALTIME", "socket_rows"]

_MEMBERS: dict[str, Role] = {"tools": "schema", "tool_choice": "schema", "metadata": "metadata", "instructions": "system",
                             "input": "user", "prompt": "user"}
_KINDS: dict[str, Role] = {"function_call": "tool_call", "function_call_output": "tool_result", "mcp_call": "tool_call",
                           "mcp_list_tools": "schema", "mcp_approval_request": "tool_call",
                           "mcp_approval_response": "tool_result", "function": "schema"}
_FREE = frozenset({"metadata", "parameters", "variables", "headers", "arguments"})
_NAMES = frozenset({"event_id", "previous_item_id", "voice", "response_id", "output_modalities", "language", "eagerness",
                    "input_audio_format", "output_audio_format", "conversation_id"})

_FRAMES = Grammar({}, _MEMBERS, _KINDS, _FREE, tokens=TOKENS | _NAMES, blobs=BLOBS | {"audio"})
_ANSWER = Grammar({"output": "assistant"}, _MEMBERS, _KINDS, _FREE, tokens=ANSWER_TOKENS | _NAMES,
                  blobs=BLOBS | {"audio", "delta"})


def _is_audio(kind: str) -> bool:
    return kind.endswith("audio.delta")


def _pieces(document: Any) -> list[Delta]:
    kind, text = _kind(document), document.get("delta") if isinstance(document, dict) else None
    if not kind.endswith(".delta") or _is_audio(kind) or not isinstance(text, str):
        return []
    channel = (*_item(document), str(document.get("content_index", 0)), kind)
    return [Delta(("delta",), channel, text, "arguments" in kind)]


def _ends(document: Any) -> list[Channel]:
    kind = _kind(document)
    if kind == "response.done":
        return [("response", response_id(document))]
    if kind.endswith((".done", ".completed", ".failed")):
        return [_item(document)]
    return []


def _kind(document: Any) -> str:
    kind = document.get("type") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else ""


def _item(document: dict[str, Any]) -> Channel:
    """x.ai leaves the index out at times: the item's id is what every frame has."""
    inner = document.get("item")
    named = inner.get("id") if isinstance(inner, dict) else document.get("item_id")
    return ("response", response_id(document), str(named))


class AssembleRealtime(AssembleResponse):
    """A response's frames into the ``realtime.response`` that the last of them holds; sound is left out."""

    __slots__ = ()

    def take(self, event: dict[str, Any]) -> bool:
        kind, response = _kind(event), event.get("response")
        if kind == "response.done" and isinstance(response, dict):
            self._whole = response if response.get("usage") else response | {"usage": event.get("usage")}
            return True
        return _is_audio(kind) or kind.endswith("audio.done") or super().take(event)


def _note(seen: Seen, document: dict[str, Any]) -> None:
    inner = document.get("response")
    if document.get("type") != "response.done" or not isinstance(inner, dict):
        return
    usage = inner.get("usage") or document.get("usage")
    if isinstance(usage, dict):
        seen.usage = usage
    seen.done = seen.ended = True


def _usage(seen: Seen) -> Usage:
    usage = seen.usage
    if "input_tokens" not in usage:
        raise ValueError("usage.input_tokens is missing")
    given = usage.get("input_token_details")
    cached = given.get("cached_tokens_details") if isinstance(given, dict) else None
    of_cached = cached if isinstance(cached, dict) else {}
    return Usage(tokens(usage, "input_tokens"), tokens(usage, "output_tokens"),
                 cached_input=tokens(usage, "input_token_details", "cached_tokens"),
                 reasoning=tokens(usage, "output_token_details", "reasoning_tokens"),
                 input_audio=tokens(usage, "input_token_details", "audio_tokens"),
                 cached_audio=tokens(of_cached, "audio_tokens"),
                 output_audio=tokens(usage, "output_token_details", "audio_tokens"),
                 input_image=tokens(usage, "input_token_details", "image_tokens"),
                 cached_image=tokens(of_cached, "image_tokens"))


REALTIME = JsonWire(_FRAMES, Answers(_note, _usage, (b"response.done",)), _ANSWER, AssembleRealtime, Deltas(_pieces, _ends),
                    bound=Bound((("response", "max_output_tokens"), ("response", "max_response_output_tokens")),
                                ("response", "max_output_tokens")))


def _model(document: Any) -> str:
    """Of ``session.update`` and ``response.create``, in the frame itself too: the first that is named."""
    if not isinstance(document, dict):
        return ""
    inside = [document.get("session"), document.get("response"), document]
    named = (one.get("model") for one in inside if isinstance(one, dict))
    return next((name for name in named if isinstance(name, str) and name), "")


def _listens(document: Any) -> bool | None:
    """Of ``session.created`` and ``session.updated``: whether a pause in the sound is answered."""
    session = document.get("session") if isinstance(document, dict) else None
    if not isinstance(session, dict):
        return None
    audio = session.get("audio")
    given = audio.get("input") if isinstance(audio, dict) else None
    inside = given if isinstance(given, dict) and "turn_detection" in given else session
    if "turn_detection" not in inside:
        return None
    turns = inside["turn_detection"]
    return isinstance(turns, dict) and turns.get("type") is not None and turns.get("create_response") is not False


_TALK = Dialogue(
    asks=frozenset({"response.create"}),
    media=frozenset({"input_audio_buffer.append"}),
    taken=frozenset({"input_audio_buffer.committed", "input_audio_buffer.speech_stopped"}),
    heard=frozenset({"conversation.item.input_audio_transcription.completed"}),
    sound=frozenset({"response.output_audio.delta", "response.audio.delta"}),
    model=_model, listens=_listens)
_EVENTS = Dialogue(
    asks=frozenset({"response.create"}), whole=True, error_ends=True, model=_model,
    ends=frozenset({"response.completed", "response.incomplete", "response.failed"}))


def socket_rows(base: str, responses: JsonWire) -> tuple[Operation, Operation]:
    """The rows below *base* (a pattern); *responses*: the wire of the Responses API, whose fields the frames have."""
    return (Operation("realtime", SOCKET, re.compile(f"{base}/realtime"), REALTIME, dialogue=_TALK),
            Operation("responses", SOCKET, re.compile(f"{base}/responses"), responses, dialogue=_EVENTS))
