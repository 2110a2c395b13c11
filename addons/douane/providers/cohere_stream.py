"""Cohere's streams: where their events hold pieces of a text, and the answer that they amount to.

Version 2 (server-sent events): ``content-delta``, ``tool-plan-delta``, ``tool-call-delta`` with pieces of a JSON text, each
with the index of what it continues; ``message-end``. Version 1 (NDJSON or events): ``text-generation``,
``tool-calls-chunk``, and a ``stream-end`` that has the whole answer. https://docs.cohere.com/docs/streaming
"""

from typing import Any

from douane.providers.deltas import Channel, Delta, Deltas
from douane.providers.edit import Path
from douane.providers.merge import Rows, later, merge, plain

__all__ = ["DELTAS", "AssembleCohere"]


def _inside(value: Any, *steps: str) -> Any:
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _index(document: dict[str, Any]) -> int:
    value = document.get("index")
    return value if isinstance(value, int) else 0


def _piece(document: Any, path: Path, channel: Channel, *, arguments: bool = False) -> list[Delta]:
    text = _inside(document, *map(str, path))
    return [Delta(path, channel, text, arguments)] if isinstance(text, str) and text else []


_ARGUMENTS = ("delta", "message", "tool_calls", "function", "arguments")
_CONTENT = ("delta", "message", "content")


def _pieces(document: Any) -> list[Delta]:
    if not isinstance(document, dict) or document.get("is_finished") is True:
        return []
    at = _index(document)
    match document.get("type", document.get("event_type")):
        case "content-start" | "content-delta":
            return [found for name in ("text", "thinking")
                    for found in _piece(document, (*_CONTENT, name), ("content", at, name))]
        case "tool-plan-delta":
            return _piece(document, ("delta", "message", "tool_plan"), ("plan",))
        case "tool-call-delta":
            return _piece(document, _ARGUMENTS, ("call", at), arguments=True)
        case "tool-calls-chunk":
            call = document.get("tool_call_delta")
            at = _index(call) if isinstance(call, dict) else 0
            return [*_piece(document, ("text",), ("plan",)),
                    *_piece(document, ("tool_call_delta", "parameters"), ("call", at), arguments=True)]
        case "text-generation" | None if "is_finished" in document:
            return _piece(document, ("text",), ("text", at))
    return []


def _ends(document: Any) -> list[Channel]:
    if not isinstance(document, dict) or document.get("is_finished") is True:
        return [()]
    match document.get("type", document.get("event_type")):
        case "content-end":
            return [("content", _index(document))]
        case "tool-call-start":
            return [("plan",)]
        case "tool-call-end":
            return [("call", _index(document))]
        case "tool-calls-generation":
            return [("plan",), ("call",)]
        case "message-end":
            return [()]
    return []


DELTAS = Deltas(_pieces, _ends)


class AssembleCohere:
    """The events of either version into the answer without a stream."""

    __slots__ = ("_calls", "_cited", "_content", "_message", "_texts", "_top", "_whole")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._content = Rows("blocks")
        self._calls = Rows("calls")
        self._cited = Rows("citations")
        self._texts: dict[str, Any] = {}
        """Of version 1."""
        self._whole: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> bool:
        if "is_finished" in event:
            return self._first_version(event)
        message = _inside(event, "delta", "message")
        at = _index(event)
        match event.get("type"):
            case "message-start" if isinstance(message, dict):
                self._top["id"] = event.get("id")
                later(self._message, message)
            case "content-start" | "content-delta" if isinstance(_inside(message, "content"), dict):
                merge(self._content.at(at), message["content"])
            case "tool-plan-delta" if isinstance(message, dict):
                merge(self._message, message)
            case "tool-call-start" | "tool-call-delta" if isinstance(_inside(message, "tool_calls"), dict):
                merge(self._calls.at(at), message["tool_calls"])
            case "citation-start" if isinstance(_inside(message, "citations"), dict):
                self._cited.set(at, message["citations"])
            case "message-end" if isinstance(event.get("delta"), dict):
                later(self._top, event["delta"])
            case _:
                return False
        return True

    def _first_version(self, event: dict[str, Any]) -> bool:
        finished = event.pop("is_finished") is True
        kind = event.pop("event_type", None)
        whole = event.get("response")
        if finished and isinstance(whole, dict):
            self._whole = whole
            later(self._top, {name: value for name, value in event.items() if name != "response"})
        elif kind in ("text-generation", None) and isinstance(event.get("text"), str):
            merge(self._texts, {"text": event["text"]})
        elif kind == "tool-calls-chunk" and isinstance(event.get("tool_call_delta"), dict):
            call = event["tool_call_delta"]
            merge(self._calls.at(_index(call)), {name: value for name, value in call.items() if name != "index"})
        else:
            later(self._top, event)
        return True

    def document(self) -> dict[str, Any]:
        if self._whole or self._texts:
            before = self._top | self._texts | ({"tool_calls": self._calls.plain()} if len(self._calls) else {})
            return (self._top | self._whole) if self._whole else before
        parts = {"content": self._content, "tool_calls": self._calls, "citations": self._cited}
        message = {name: value for name, value in self._message.items() if value or name == "content"}
        message |= {name: rows.plain() for name, rows in parts.items() if len(rows)}
        return self._top | {"message": plain(message)} if message else self._top
