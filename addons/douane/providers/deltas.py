"""Where the events of a stream hold pieces of one text, and where such a text ends.

Law: pieces are put together by what the format says they belong to (choice, tool call, content block, output item),
never by their order alone. Signed reasoning has no pieces here: nobody may change it. Formats: notes/wire.md §1, the
recordings of ``shared/wire``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from douane.providers.edit import Path

__all__ = ["COMMON", "Channel", "Delta", "Deltas", "ends", "pieces", "sealed"]

type Channel = tuple[str | int, ...]
"""Which text a piece belongs to; what begins with the same elements belongs together (all texts of one choice)."""

_SIGNED = ("thinking", "redacted_thinking", "thinking_delta", "signature_delta")
_SIGNED_MEMBER = "reasoningContent"
"""Bedrock's: in a stream its signature comes after its text."""
_NO_TEXT = frozenset({"role", "type", "id", "object", "format"})


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a text: *path* is where it stands in the event. *arguments*: the text is the JSON of a tool call."""

    path: Path
    channel: Channel
    text: str
    arguments: bool = False


def sealed(document: Any) -> list[Path]:
    """Paths of the objects that are signed: their text stays as it came."""
    found: list[Path] = []
    tasks: list[tuple[Path, Any]] = [((), document)]
    while tasks:
        path, value = tasks.pop()
        if isinstance(value, dict):
            signature = value.get("signature")
            if value.get("type") in _SIGNED or (isinstance(signature, str) and signature) or path[-1:] == (_SIGNED_MEMBER,):
                found.append(path)
            else:
                tasks.extend(((*path, key), item) for key, item in value.items() if isinstance(item, (dict, list)))
        elif isinstance(value, list):
            tasks.extend(((*path, at), item) for at, item in enumerate(value) if isinstance(item, (dict, list)))
    return found


@dataclass(frozen=True, slots=True)
class Deltas:
    """How one format's frames tell their pieces."""

    pieces: Callable[[Any], list[Delta]]
    """Of a frame's document; none where it holds whole texts or no text."""
    ends: Callable[[Any], list[Channel]]
    """Beginnings of the channels whose texts end with this frame; ``()`` stands for all."""
    signed: Callable[[Any], list[Path]] = sealed
    """Paths of the objects, in a frame or in a whole answer, whose text stays as it came."""


def pieces(document: Any) -> list[Delta]:
    """The pieces in one event; none for an event that holds whole texts or no text."""
    if not isinstance(document, dict):
        return []
    kind = document.get("type")
    if isinstance(document.get("choices"), list):
        return [delta for at, choice in enumerate(document["choices"]) if isinstance(choice, dict)
                for delta in _of_choice(at, choice)]
    if kind == "content_block_delta":
        return _of_block(document)
    delta = document.get("delta")
    if isinstance(kind, str) and kind.startswith("response.") and kind.endswith(".delta") and isinstance(delta, str):
        inside = (document.get("content_index", 0), document.get("summary_index", 0))
        channel = ("item", document.get("output_index", 0), *inside, kind)
        return [Delta(("delta",), channel, delta, "arguments" in kind)]
    return []


def ends(document: Any) -> list[Channel]:
    """Beginnings of the channels whose texts end with this event; ``()`` stands for all."""
    if not isinstance(document, dict):
        return [()]  # [DONE]
    kind = document.get("type")
    if isinstance(document.get("choices"), list):
        return [("choice", _index(choice, at)) for at, choice in enumerate(document["choices"])
                if isinstance(choice, dict) and choice.get("finish_reason")]
    if kind == "content_block_stop":
        return [("block", document.get("index", 0))]
    if kind in ("message_stop", "error") or document.get("error"):
        return [()]
    if isinstance(kind, str) and kind.startswith("response."):
        if kind.endswith(".done"):
            return [("item", document.get("output_index", 0))]
        if kind.endswith((".completed", ".incomplete", ".failed")) and "response" in document:
            return [()]
    return []


def _of_choice(at: int, choice: dict[str, Any]) -> Iterator[Delta]:
    channel: Channel = ("choice", _index(choice, at))
    for name in ("delta", "text", "message"):  # `text`: legacy completions; `message`: Writer's, the same once more
        yield from _leaves(("choices", at, name), (*channel, name), choice.get(name))


def _leaves(path: Path, channel: Channel, value: Any) -> Iterator[Delta]:
    if isinstance(value, str):
        if value:
            yield Delta(path, channel, value, path[-1] == "arguments")
    elif isinstance(value, dict):
        if not value.get("signature"):
            for key, item in value.items():
                if key not in _NO_TEXT:
                    yield from _leaves((*path, key), (*channel, key), item)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _leaves((*path, at), (*channel, _index(item, at)), item)


def _of_block(document: dict[str, Any]) -> list[Delta]:
    delta = document.get("delta")
    if isinstance(delta, dict):
        for kind, member in (("text_delta", "text"), ("input_json_delta", "partial_json")):
            text = delta.get(member)
            if delta.get("type") == kind and isinstance(text, str):
                return [Delta(("delta", member), ("block", document.get("index", 0)), text, kind == "input_json_delta")]
    return []


def _index(value: Any, otherwise: int) -> int:
    index = value.get("index") if isinstance(value, dict) else None
    return index if isinstance(index, int) else otherwise


COMMON = Deltas(pieces, ends)
"""Chat completions, responses, Anthropic messages: told apart by their shape."""
