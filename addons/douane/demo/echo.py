"""What the providers' imitations share: they say back what they were told, the same each time.

Law: an answer follows from the request alone; no clock, no chance. So a test can name it beforehand.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from douane.demo.wire import Reply, Seen, Step

__all__ = ["CREATED", "Said", "ident", "json_reply", "pieces", "stream_reply", "tokens"]

CREATED = 1_750_000_000
"""Seconds since the epoch: the moment at which everything here was made."""
_SAMPLES: Mapping[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}


@dataclass(frozen=True, slots=True)
class Said:
    """What is answered: a text, or a call of *tool* with *arguments*."""

    text: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] | None = None

    @classmethod
    def to(cls, last: str, *, from_tool: bool, tool: str, schema: Any) -> "Said":
        """The answer to the last message: a tool's result is reported, a user's text goes to the first tool offered, or is
        echoed. Every string of the tool's *schema* gets what the text says of it (``name: what, …``), else the text."""
        if from_tool:
            return cls(f"The tool said: {last}")
        if not tool:
            return cls(f"You said: {last}")
        properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
        return cls("", tool, {name: _sample(kind, _said_of(name, last)) for name, kind in properties.items()})

    @property
    def json(self) -> str:
        """The arguments as the JSON text in which models write them."""
        return orjson.dumps(self.arguments or {}).decode()

    @property
    def tokens(self) -> int:
        return tokens(self.text) + tokens(self.json) if self.tool else tokens(self.text)


def tokens(value: Any) -> int:
    """A plausible count over every string in a JSON value: a token for each four bytes begun."""
    return sum(-(-len(text.encode("utf-8", "surrogatepass")) // 4) for text in _strings(value))


def ident(prefix: str, seen: Seen) -> str:
    """An id for the answer to *seen*: another for each request, the same in each run."""
    digest = hashlib.sha256(b"%d %s %b" % (seen.number, seen.target.encode("latin-1"), seen.body))
    return prefix + digest.hexdigest()[:24]


def pieces(text: str) -> list[str]:
    """The text as a model sends it, some characters at a time: nothing that is longer comes whole."""
    return re.findall(r"\s*\S{1,8}(?:\s+\Z)?", text) or [text]


def json_reply(status: int, value: Any, headers: Sequence[tuple[str, str]]) -> Reply:
    return Reply(status=status, headers=[("content-type", "application/json"), *headers], body=orjson.dumps(value))


def stream_reply(events: Sequence[bytes], headers: Sequence[tuple[str, str]], pause: float) -> Reply:
    """Server-sent events, one a chunk, *pause* seconds between two of them."""
    steps: list[Step] = []
    for event in events:
        steps += [pause, event] if steps and pause else [event]
    return Reply(headers=[("content-type", "text/event-stream; charset=utf-8"), *headers], body=steps)


def _said_of(name: str, text: str) -> str:
    found = re.search(rf"\b{re.escape(name)}: ([^,;\n]+)", text)
    return found[1] if found else text


def _sample(schema: Any, text: str) -> Any:
    kind = schema.get("type", "string") if isinstance(schema, dict) else "string"
    return _SAMPLES.get(kind, text) if isinstance(kind, str) else text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
