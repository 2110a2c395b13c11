"""Bedrock's event streams: where their events hold pieces of a text, and what a stream amounts to.

Law: pieces belong together by the content block or the index that the event names. Signed reasoning has no pieces here:
its signature comes after its text. The kind of an event stands in its frame's headers; its members tell it as well.
Formats: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html, notes/wire.md §1, the
recordings of ``shared/wire``.
"""

from dataclasses import replace
from typing import Any

from douane.providers.assemble import AssembleChat, AssembleMessage, Assembler
from douane.providers.deltas import COMMON, Channel, Delta, Deltas
from douane.providers.edit import Path
from douane.providers.merge import JsonText, Rows, later, merge

__all__ = ["AGENT_DELTAS", "CONVERSE_DELTAS", "INVOKE_DELTAS", "AssembleAgent", "AssembleConverse", "AssembleInvoke"]

_TEXTS = ("outputText", "generation", "completion", "text")
"""Members that hold the text in the chunks of Titan, Llama, Claude 2 and Cohere."""
_OVER = ("completionReason", "stop_reason", "finish_reason", "stopReason")
_METRICS = "amazon-bedrock-invocationMetrics"


def _converse_pieces(document: Any) -> list[Delta]:
    return _block_pieces(document, ()) if isinstance(document, dict) else []


def _block_pieces(event: dict[str, Any], path: Path) -> list[Delta]:
    delta = event.get("delta")
    if not isinstance(delta, dict) or "contentBlockIndex" not in event:
        return []
    channel: Channel = ("block", event["contentBlockIndex"] if isinstance(event["contentBlockIndex"], int) else 0)
    if isinstance(delta.get("text"), str):
        return [Delta((*path, "delta", "text"), channel, delta["text"])]
    tool = delta.get("toolUse")
    if isinstance(tool, dict) and isinstance(tool.get("input"), str):
        return [Delta((*path, "delta", "toolUse", "input"), channel, tool["input"], True)]
    return []


def _converse_ends(document: Any) -> list[Channel]:
    """A block's end names its block and no more than padding; the message's end, and a failure, end all."""
    if not isinstance(document, dict) or "stopReason" in document or "message" in document or "usage" in document:
        return [()]
    index = document.get("contentBlockIndex")
    return [("block", index)] if isinstance(index, int) and "delta" not in document and "start" not in document else []


CONVERSE_DELTAS = Deltas(_converse_pieces, _converse_ends)


def _invoke_pieces(document: Any) -> list[Delta]:
    if not isinstance(document, dict):
        return []
    block = document.get("contentBlockDelta")
    if isinstance(block, dict):  # Nova, which begins a block anew for each piece of one text
        found = _block_pieces(block, ("contentBlockDelta",))
        return [one if one.arguments else replace(one, channel=("text",)) for one in found]
    outputs = document.get("outputs")
    if isinstance(outputs, list):  # Mistral
        return [Delta(("outputs", at, "text"), ("text", at), one["text"]) for at, one in enumerate(outputs)
                if isinstance(one, dict) and isinstance(one.get("text"), str)]
    if common := COMMON.pieces(document):
        return common
    name = next((name for name in _TEXTS if isinstance(document.get(name), str)), None)
    if name is None or "type" in document or document.get("event_type") in ("stream-start", "stream-end"):
        return []
    return [Delta((name,), ("text", _index(document)), document[name])]


def _invoke_ends(document: Any) -> list[Channel]:
    if not isinstance(document, dict) or document.keys() & {_METRICS, "messageStop", "contentBlockStart"}:
        return [()]
    block = document.get("contentBlockStop")
    if isinstance(block, dict):  # the text's channel is not of this block
        return _converse_ends(block)
    outputs = document.get("outputs")
    over = any(isinstance(one, dict) and one.get("stop_reason") for one in outputs) if isinstance(outputs, list) else False
    if over or any(document.get(name) for name in _OVER) or document.get("is_finished") is True:
        return [()]
    return COMMON.ends(document)


INVOKE_DELTAS = Deltas(_invoke_pieces, _invoke_ends)


def _agent_pieces(document: Any) -> list[Delta]:
    if isinstance(document, dict) and isinstance(document.get("bytes"), str) and "attribution" not in document:
        return [Delta(("bytes",), ("text",), document["bytes"])]
    return _output_pieces(document)


def _output_pieces(document: Any) -> list[Delta]:
    """Of ``retrieveAndGenerateStream``."""
    if isinstance(document, dict) and document.keys() <= {"text", "p"} and isinstance(document.get("text"), str):
        return [Delta(("text",), ("text",), document["text"])]
    return []


def _agent_ends(document: Any) -> list[Channel]:
    """Traces come between the pieces; only a failure and the stream's end are ends."""
    return [()] if isinstance(document, dict) and "message" in document else []


AGENT_DELTAS = Deltas(_agent_pieces, _agent_ends)


class AssembleConverse:
    """``converse-stream`` into the answer of ``converse``."""

    __slots__ = ("_blocks", "_role", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._role: Any = None
        self._blocks = Rows("blocks")

    def take(self, event: dict[str, Any]) -> bool:
        event.pop("p", None)  # padding against who measures the pieces
        if "contentBlockIndex" in event:
            block = self._blocks.at(_index(event, "contentBlockIndex"))
            start, delta = event.get("start"), event.get("delta")
            if isinstance(start, dict):
                merge(block, start)
            if isinstance(delta, dict):
                self._piece(block, delta)
            return True
        if "role" in event:
            self._role = event["role"]
            return True
        if event.keys() & {"stopReason", "usage", "metrics"}:
            later(self._top, event)
            return True
        return False

    def _piece(self, block: dict[str, Any], delta: dict[str, Any]) -> None:
        tool, reasoning = delta.get("toolUse"), delta.get("reasoningContent")
        if isinstance(tool, dict) and isinstance(tool.get("input"), str):
            held = block.setdefault("toolUse", {})
            if isinstance(held, dict):
                if not isinstance(held.get("input"), JsonText):
                    held["input"] = JsonText()
                held["input"].append(tool["input"])
            return
        if isinstance(reasoning, dict) and not reasoning.keys() - {"text", "signature"}:
            delta = {"reasoningContent": {"reasoningText": reasoning}}
        merge(block, delta)

    def document(self) -> dict[str, Any]:
        message = {"role": self._role, "content": self._blocks.plain()}
        return {"output": {"message": message}} | self._top


class AssembleInvoke:
    """``invoke-with-response-stream`` into the answer of ``invoke``, whichever family's the first chunk is."""

    __slots__ = ("_block", "_flat", "_inner", "_metrics", "_rows", "_text")

    def __init__(self) -> None:
        self._inner: Assembler | None = None
        self._flat: dict[str, Any] = {}
        self._rows = Rows("rows")
        self._text = ""
        self._block: Any = None
        self._metrics: Any = None

    def take(self, event: dict[str, Any]) -> bool:
        self._metrics = event.pop(_METRICS, self._metrics)
        if self._inner is None:
            self._inner = _family_of(event)
        if self._inner is not None:
            if isinstance(self._inner, AssembleConverse):
                later(self._flat, {name: value for name, value in event.items() if type(value) is not dict})
                event = self._one_text(_unwrapped(event))
            return self._inner.take(event) or not event
        outputs = event.pop("outputs", None)
        if isinstance(outputs, list):
            self._text = "outputs"
            for at, one in enumerate(outputs):
                self._row(at, one if isinstance(one, dict) else {"text": one})
        else:
            name = next((name for name in _TEXTS if isinstance(event.get(name), str)), "")
            if name in ("outputText", "text"):
                self._text = name
                self._row(_index(event), {name: event.pop(name)})
            elif name:
                merge(self._flat, {name: event.pop(name)})
        later(self._flat, event)
        return True

    def _one_text(self, event: dict[str, Any]) -> dict[str, Any]:
        """Pieces of a text that Nova tells as blocks of their own, in the block of the first."""
        delta = event.get("delta")
        if isinstance(delta, dict) and isinstance(delta.get("text"), str):
            if self._block is None:
                self._block = event.get("contentBlockIndex")
            return {**event, "contentBlockIndex": self._block}
        if "start" in event or isinstance(delta, dict):
            self._block = None
        return event

    def _row(self, at: int, piece: dict[str, Any]) -> None:
        texts = {name: piece.pop(name) for name in ("text", "outputText") if isinstance(piece.get(name), str)}
        row = self._rows.at(at)
        merge(row, texts)
        later(row, piece)

    def document(self) -> dict[str, Any]:
        metrics = {} if self._metrics is None else {_METRICS: self._metrics}
        if self._inner is not None:
            return self._inner.document() | self._flat | metrics
        name = {"outputText": "results", "outputs": "outputs", "text": "generations"}.get(self._text)
        rows = {name: self._rows.plain()} if name else {}
        return rows | self._flat | metrics


def _family_of(event: dict[str, Any]) -> Assembler | None:
    kind = event.get("type")
    if kind == "message_start" or (isinstance(kind, str) and kind.startswith("content_block")):
        return AssembleMessage()
    if isinstance(event.get("choices"), list):
        return AssembleChat()
    return AssembleConverse() if event.keys() & {"messageStart", "contentBlockStart", "contentBlockDelta"} else None


def _unwrapped(event: dict[str, Any]) -> dict[str, Any]:
    """Nova's chunks name their kind round what ``converse-stream`` would say."""
    inner = next((value for value in event.values() if isinstance(value, dict)), None)
    return event if inner is None else inner


class AssembleAgent:
    """An agent's chunks into one text; its traces stay events."""

    __slots__ = ("_top",)

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> bool:
        pieces = _agent_pieces(event)
        if pieces:
            merge(self._top, {"completion": pieces[0].text})
            return True
        if not isinstance(event.get("bytes"), str):
            return False
        merge(self._top, {"completion": event.pop("bytes")})
        later(self._top, {name: value for name, value in event.items() if name != "p"})
        return True

    def document(self) -> dict[str, Any]:
        return self._top


def _index(event: dict[str, Any], name: str = "index") -> int:
    value = event.get(name)
    return int(value) if isinstance(value, int | float) and abs(value) < 1e9 else 0
