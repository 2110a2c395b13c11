"""Operations whose requests are forms: files, sound, pictures with words to them; and files of JSON lines.

Laws: every field and every file name is a text, and so is a file that reads as UTF-8, whatever it calls itself; what does not
is :class:`~douane.providers.base.Unseen`. JSON lines are walked as JSON, and the lines of a batch by the grammar of the
operation that each names.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from douane.providers.base import Position, Unseen, UnseenKind
from douane.providers.edit import Path, Place, rewrite_bytes
from douane.providers.multipart import Part, parts, replaced
from douane.providers.walk import ANSWER, walk
from douane.providers.wires import JsonWire, read_json

__all__ = ["FORM", "FormWire"]

FORM = (b"multipart/form-data",)
_LINE = re.compile(rb"[^\r\n]+")
_KINDS: dict[str, UnseenKind] = {"audio": "audio", "image": "image", "video": "video"}
_LINES = (".jsonl", ".ndjson")
_NO = frozenset({"", "false", "0"})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}(?:\[[a-z0-9_]*\])*")
_QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "%5C"})

type LineWire = Callable[[Any], JsonWire | None]
"""Of a line of JSON: how its ``body`` is read; None where it is no line of a batch."""


def _no_batch(_: Any) -> JsonWire | None:
    return None


@dataclass(frozen=True, slots=True)
class FormWire(JsonWire):
    """The document is ``{"parts": [{"name", "filename"?, "content_type"?, then "text", "lines": [JSON …] or, of what is no
    text, "bytes", "sha256"}]}``. ``grammar.top`` says the role of a field by its name, ``grammar.tokens`` which are none."""

    media: tuple[bytes, ...] = FORM
    line: LineWire = _no_batch
    batches: bool = False
    """Files of ``purpose`` batch are lines of JSON, or refused."""

    def read(self, body: bytes, content_type: bytes) -> Any:
        found = parts(body, content_type)
        purpose = next((body[one.start:one.end] for one in found if one.name == "purpose"), b"")
        return {"parts": [_read(body, one, lines=self.batches and purpose == b"batch") for one in found]}

    def rewrite(self, body: bytes, content_type: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any]:
        found = parts(body, content_type)
        pieces: dict[tuple[int, int], bytes] = {}
        lines: dict[tuple[int, int], dict[Place, str]] = {}
        for (path, key), new in changes.items():
            one, member = found[int(path[1])], path[2]
            if member == "filename" and one.named is not None:
                pieces[one.named] = new.translate(_QUOTED).encode()
            elif member == "text":
                pieces[one.start, one.end] = new.encode()
            elif member == "lines":
                lines.setdefault(_spans(body, one)[int(path[3])], {})[path[4:], key] = new
            else:
                raise ValueError("a place to be rewritten is not in the form")
        pieces |= {span: rewrite_bytes(body[slice(*span)], of) for span, of in lines.items()}
        after = replaced(body, pieces)
        again = self.read(after, content_type)
        if len(again["parts"]) != len(found):
            raise ValueError("a text that was put in holds the form's boundary")
        return after, again

    def model(self, document: Any) -> str:
        return next((one.get("text", "") for one in document["parts"] if one["name"] == "model"), "")

    def stream(self, document: Any) -> bool:
        return next((one.get("text", "").lower() not in _NO for one in document["parts"] if one["name"] == "stream"), False)

    def walk(self, document: Any) -> Iterator[Position]:
        for at, one in enumerate(document["parts"]):
            path: Path = ("parts", at)
            name = one["name"]
            role = self.grammar.top.get(name.partition("[")[0], "unknown")
            if not _FIELD.fullmatch(name):
                yield Position((*path, "name"), role, name, sealed=True)
            if one.get("filename"):
                yield Position((*path, "filename"), "metadata", one["filename"])
            text = one.get("text")
            if text and not (name.partition("[")[0] in self.grammar.tokens and _WORD.fullmatch(text)):
                yield Position((*path, "text"), role, text)
            for number, line in enumerate(one.get("lines", ())):
                yield from self._line((*path, "lines", number), line)

    def _line(self, path: Path, line: Any) -> Iterator[Position]:
        inner = self.line(line)
        if inner is not None:
            yield from _below((*path, "body"), inner.walk(line["body"]))
            line = {name: value for name, value in line.items() if name != "body"}
        yield from _below(path, walk(ANSWER if inner is not None else self.grammar, line))

    def unseen(self, document: Any) -> Iterator[Unseen]:
        for at, one in enumerate(document["parts"]):
            if "bytes" in one:
                yield Unseen(("parts", at), _KINDS.get(one.get("content_type", "").partition("/")[0], "file"),
                             one.get("content_type", ""))
            for number, line in enumerate(one.get("lines", ())):
                inner, below = self.line(line), ("parts", at, "lines", number)
                found = JsonWire.unseen(self, line) if inner is None else inner.unseen(line["body"])
                for each in found:
                    yield Unseen((*below, *(() if inner is None else ("body",)), *each.path), each.kind, each.name)


def _below(path: Path, found: Iterator[Position]) -> Iterator[Position]:
    return (one._replace(path=(*path, *one.path)) for one in found)


def _read(body: bytes, part: Part, *, lines: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"name": part.name}
    if part.filename is not None:
        said["filename"] = part.filename
    if part.content_type:
        said["content_type"] = part.content_type
    content = body[part.start:part.end]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        if part.filename is None:
            raise ValueError("a field of the form is no text in UTF-8")
        return said | {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if part.filename is not None and (content.startswith(b"{") or lines):
        read = _lines(body, part, strict=lines or part.filename.lower().endswith(_LINES))
        if read is not None:
            return said | {"lines": read}
    return said | {"text": text}


def _spans(body: bytes, part: Part) -> list[tuple[int, int]]:
    """Of the lines that hold something."""
    found = (match.span() for match in _LINE.finditer(body, part.start, part.end))
    return [(start, end) for start, end in found if body[start:end].strip()]


def _lines(body: bytes, part: Part, *, strict: bool) -> list[Any] | None:
    """JSON objects, one a line; None where it is something else. Raises ValueError where that must not be."""
    read = []
    for start, end in _spans(body, part):
        try:
            read.append(read_json(body[start:end]))
        except ValueError:
            if strict:
                raise
            return None
    if all(type(one) is dict for one in read):
        return read
    if strict:
        raise ValueError("a line of the form's file is no JSON object")
    return None
