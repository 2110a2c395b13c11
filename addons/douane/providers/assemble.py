"""A stream of events put together: the JSON document that the provider would have answered with, had it not streamed.

Laws: an event that has no place in the document stands whole in its ``events``, so that nothing is left out in silence. Where
the provider itself gives the whole (``response.completed``, ``….done``) the whole stands, else the sum of its pieces; pieces
belong together by what the format says (index, id, type), never by their order alone. Whatever comes, nothing is raised.
Formats: notes/wire.md §1, the recordings of ``shared/wire``.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

import orjson

from douane.errors import RefusedError
from douane.providers.framing import SSE, Frame, Framing
from douane.providers.merge import JsonText, Rows, later, merge, plain, read, rows_of
from douane.providers.sse import Splitter, parse

__all__ = ["AssembleChat", "AssembleMessage", "AssembleResponse", "Assembler", "Unread", "assemble", "events_of", "lengthen"]

_BOOKKEEPING = frozenset({"type", "sequence_number", "index", "item_id", "output_index", "content_index", "summary_index",
                          "obfuscation"})
"""Members that tell nothing by themselves: an event of nothing else (a ping, a stop) is not kept."""

_ERROR = frozenset({"type", "error", "sequence_number"})
"""What an event that reports a failure is made of. The Responses API has it flat: its other members are the error."""


class Assembler(Protocol):
    """One format's rules, for one answer. :func:`assemble` feeds it."""

    def take(self, event: dict[str, Any]) -> bool:
        """Whether *event* had its place; it is the assembler's own then. Never raises."""
        ...

    def document(self) -> dict[str, Any]:
        """What the events so far amount to. Call it once."""
        ...


def assemble(assembler: Assembler, events: Iterable[Any]) -> dict[str, Any] | None:
    """The document of *events* (as :func:`events_of` gives them); an error among them stands as its ``error``. None where
    none of them is JSON."""
    errors: list[Any] = []
    rest = []
    seen = False
    for event in events:
        if type(event) is not dict:
            seen = seen or type(event) is not Unread
            rest.append(str(event) if type(event) is Unread else event)
            continue
        seen = True
        if event.get("error") or event.get("type") == "error":
            error = event.get("error") or {name: value for name, value in event.items() if name not in _ERROR}
            errors.append(error)
            if event.get("error") is not error or event.keys() <= _ERROR:
                continue
        if not assembler.take(event) and not event.keys() <= _BOOKKEEPING:
            rest.append(event)
    if not seen:
        return None
    document: dict[str, Any] = plain(assembler.document())
    if errors:
        document["error"] = errors[0]
        rest += [{"error": error} for error in errors[1:]]
    if rest:
        document["events"] = rest
    return document


class Unread(str):
    """The data of an event that is no JSON, or none that we read (half a surrogate pair, ``NaN``)."""

    __slots__ = ()


def events_of(stream: bytes, framing: Framing = SSE) -> Iterator[Any]:
    """The JSON of each frame, or :class:`Unread`; without ``[DONE]`` and the torn last event of a cut stream."""
    if framing is not SSE:
        yield from _frames(stream, framing)
        return
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    splitter = Splitter(max(len(stream), 1))
    whole = splitter.blocks(stream)
    last = [event.raw for event in splitter.close()]
    for block in chain(whole, last):
        data = _data(block) if b"data" in block else b""
        if data and not data.startswith(b"[DONE]"):
            try:
                yield read(data)
            except orjson.JSONDecodeError:
                if block not in last:
                    yield Unread(data.decode("utf-8", "replace"))


def _frames(stream: bytes, framing: Framing) -> Iterator[Any]:
    splitter = framing.splitter()
    found: list[Frame] = []
    with contextlib.suppress(RefusedError):  # a broken checksum: what came before it stands
        found += splitter.feed(stream)
        torn = len(found)
        found += splitter.close()
        for at, frame in enumerate(found):
            try:
                if frame.data:
                    yield read(frame.data)
            except orjson.JSONDecodeError:
                if at < torn:
                    yield Unread(frame.data.decode("utf-8", "replace"))


def _data(block: bytes) -> bytes:
    """The data of one event. The two forms that providers write are read at a quarter of the cost."""
    at = block.find(b"\n") + 1 if block.startswith(b"event: ") else 0
    if block.startswith(b"data: ", at) and block.find(b"\n", at) == len(block) - 2 and b"\r" not in block:
        return block[at + 6:-2]
    return parse(block).data


def _number(event: dict[str, Any], name: str, otherwise: int = 0) -> int:
    value = event.get(name)
    return value if type(value) is int else otherwise


class AssembleChat:
    """``chat.completion.chunk`` into ``chat.completion``; legacy completions too."""

    __slots__ = ("_choices", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._choices = Rows("choices")

    def take(self, event: dict[str, Any]) -> bool:
        choices = event.get("choices")
        if type(choices) is not list:
            return False
        for choice in choices:
            if type(choice) is not dict:
                return False
        del event["choices"]
        event.pop("obfuscation", None)  # padding against who measures the pieces
        later(self._top, event)
        for place, choice in enumerate(choices):
            self._choice(self._choices.at(_number(choice, "index", place)), choice)
        return True

    def _choice(self, held: dict[str, Any], choice: dict[str, Any]) -> None:
        """Texts are joined, lists of ``logprobs`` too; what else a choice holds is said whole."""
        delta = choice.pop("delta", None)
        if delta is not None:
            choice.pop("message", None)  # Writer's, the same once more
        if type(delta) is dict and type(held.get("delta")) is dict:
            merge(held["delta"], delta)
        elif delta is not None:
            merge(held, {"delta": delta})
        if "text" in choice:
            merge(held, {"text": choice.pop("text")})
        logprobs = choice.get("logprobs")
        if type(logprobs) is dict and type(held.get("logprobs")) is dict:
            del choice["logprobs"]
            lengthen(held["logprobs"], logprobs)
        later(held, choice)

    def document(self) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for choice in self._choices.plain():
            message = choice.pop("delta", None)
            begun = {"index": choice.get("index", len(choices))} | ({} if message is None else {"message": message})
            choices.append(begun | choice)
        kind = self._top.get("object")
        if type(kind) is str:
            self._top["object"] = kind.removesuffix(".chunk")
        return self._top | {"choices": choices}


def lengthen(held: dict[str, Any], more: dict[str, Any]) -> None:
    """Lists of whole elements, continued."""
    for name, value in more.items():
        before = held.get(name)
        if type(before) is list and type(value) is list:
            before.extend(value)
        else:
            later(held, {name: value})


class AssembleMessage:
    """Anthropic's events into a ``message``."""

    __slots__ = ("_blocks", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._blocks = Rows("blocks")

    def take(self, event: dict[str, Any]) -> bool:
        kind, message, delta = event.get("type"), event.get("message"), event.get("delta")
        if kind == "content_block_delta" and type(delta) is dict:
            return self._piece(self._blocks.at(_number(event, "index")), delta)
        if kind == "content_block_start" and type(event.get("content_block")) is dict:
            self._blocks.put(_number(event, "index"), event["content_block"])
            return True
        if kind == "message_start" and type(message) is dict and not self._top:
            self._top = message
            return True
        if kind == "message_delta" and type(delta) is dict:
            later(self._top, delta)
            later(self._top, {name: value for name, value in event.items() if name not in ("type", "delta")})
            return True
        return False

    def _piece(self, block: dict[str, Any], delta: dict[str, Any]) -> bool:
        """``text``, ``thinking`` and what is to come continue the block's member of that name."""
        delta.pop("type", None)
        citation, partial = delta.pop("citation", None), delta.pop("partial_json", None)
        if citation is not None:
            rows_of(block, "citations").extend([citation])
        if type(partial) is str and partial:
            if type(block.get("input")) is not JsonText:
                block["input"] = JsonText()
            block["input"].append(partial)
        elif partial:
            delta["partial_json"] = partial
        merge(block, delta)
        return True

    def document(self) -> dict[str, Any]:
        before = self._top.get("content")
        content = before if type(before) is list else [] if before is None else [before]
        return self._top | {"content": content + self._blocks.plain()}


_PLACES = {
    "output_text": ("content", "content_index", "output_text", "text"),
    "refusal": ("content", "content_index", "refusal", "refusal"),
    "reasoning_text": ("content", "content_index", "reasoning_text", "text"),
    "reasoning_summary_text": ("summary", "summary_index", "summary_text", "text"),
    "content_part": ("content", "content_index", "", ""),
    "reasoning_summary_part": ("summary", "summary_index", "", ""),
    "function_call_arguments": ("", "", "", "arguments"),
    "mcp_call_arguments": ("", "", "", "arguments"),
    "code_interpreter_call_code": ("", "", "", "code"),
    "custom_tool_call_input": ("", "", "", "input"),
}
"""What stands before ``.delta`` in an event's type → the list in the output item, the event's member that is the index in it,
the type of such a part, and its member that holds the text."""


class AssembleResponse:
    """The Responses API's events into a ``response``."""

    __slots__ = ("_begun", "_items", "_whole")

    def __init__(self) -> None:
        self._begun: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}
        self._items = Rows("output")

    def take(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if type(kind) is not str or not kind.startswith("response."):
            return False
        name, _, step = kind[9:].rpartition(".")
        index = _number(event, "output_index")
        if step == "delta" and event.get("delta") is not None:
            return self._delta(name, self._items.at(index), event)
        response, item = event.get("response"), event.get("item")
        if type(response) is dict:
            if step in ("completed", "incomplete", "failed"):
                self._whole = response
            else:
                self._begun = response
            return True
        if name == "output_item" and type(item) is dict:
            (self._items.put if step == "added" else self._items.set)(index, item)
            return True
        if step == "partial_image" and type(event.get("partial_image_b64")) is str:
            self._items.at(index)["result"] = event["partial_image_b64"]
            return True
        if name in _PLACES:
            return self._said(name, self._items.at(index), event)
        if name == "output_text.annotation" and type(event.get("annotation")) is dict:
            part = self._part("output_text", self._items.at(index), event)
            rows_of(part, "annotations").set(_number(event, "annotation_index"), event["annotation"])
            return True
        return False

    def _part(self, name: str, item: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        """Where in *item* the text of *event* stands."""
        members, index, kind, _ = _PLACES.get(name, ("", "", "", ""))
        if not members:
            return item
        part = rows_of(item, members).at(_number(event, index))
        if not part and kind:
            part["type"] = kind
        return part

    def _delta(self, name: str, item: dict[str, Any], event: dict[str, Any]) -> bool:
        """The text of a kind nobody heard of is a member of that name."""
        part = self._part(name, item, event)
        merge(part, {_PLACES[name][3] if name in _PLACES else name: event["delta"]})
        logprobs = event.get("logprobs")
        if type(logprobs) is list and logprobs:
            lengthen(part, {"logprobs": logprobs})
        return True

    def _said(self, name: str, item: dict[str, Any], event: dict[str, Any]) -> bool:
        """A text or a part as a whole."""
        members, index, _, member = _PLACES[name]
        if not member:
            if type(event.get("part")) is not dict:
                return False
            rows_of(item, members).set(_number(event, index), event["part"])
            return True
        if type(event.get(member)) is not str:
            return False
        part = self._part(name, item, event)
        part[member] = event[member]
        if event.get("logprobs"):
            part["logprobs"] = event["logprobs"]
        return True

    def document(self) -> dict[str, Any]:
        whole = self._whole or self._begun
        if (self._whole and whole.get("output")) or not len(self._items):
            return whole
        return whole | {"output": self._items.plain()}
