"""What reading costs, in one process, by CPU time: ``python -m bench.walk``.

Prints each figure with its target; the exit code is 1 where one is missed. A body's figure is walk and rewrite *beyond* the
one parse that any gateway needs; a stream's is that of an event that tells nothing and in which nothing is restored.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from douane.providers.anthropic import MESSAGES
from douane.providers.base import Wire
from douane.providers.framing import SSE
from douane.providers.openai import CHAT
from douane.rehydrate import Restorer
from douane.restore import RestoreFilter
from douane.secrets import Originals

__all__ = ["main"]

_ROUNDS = 15
_BODY_MICROS = 150.0
_EVENT_MICROS = 3.0
_SIZE = 20_000
_EVENTS = 500
_PLACEHOLDER = "<EMAIL_ADDRESS_k3v7q2ma>"


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    micros: float
    target: float | None

    def line(self) -> str:
        goal = "" if self.target is None else f"  target < {self.target:g}  {'ok' if self.micros < self.target else 'MISSED'}"
        return f"{self.name:<58}{self.micros:9.2f} µs{goal}"


def _micros(step: Callable[[], object], times: int) -> float:
    """CPU microseconds of one step: the best of several rounds, for what else runs only ever adds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.process_time()
        for _ in range(times):
            step()
        best = min(best, (time.process_time() - start) / times)
    return best * 1e6


def _chat(chance: random.Random, size: int) -> dict[str, Any]:
    words = [f"w{chance.randrange(10**6)}ord" for _ in range(500)]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You help the people of a shop with their letters."}]
    while len(json.dumps(messages)) < size:
        text = " ".join(chance.choice(words) for _ in range(chance.randrange(20, 150)))
        messages.append({"role": "user", "content": [{"type": "text", "text": text}]} if len(messages) % 4 == 0 else
                        {"role": ("user", "assistant")[len(messages) % 2], "content": text})
    return {"model": "gpt-4o", "messages": messages, "temperature": 0.2, "max_tokens": 500}


def _tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"tool_{at}", "description": "Looks a thing up. " * 6, "parameters": {
        "type": "object", "properties": {f"field_{one}": {"type": "string", "description": "What is looked for"}
                                         for one in range(4)}, "required": ["field_1"]}}} for at in range(count)]


def _body(name: str, wire: Wire, document: Any, target: float | None) -> list[_Figure]:
    """A third of the texts that are longer than a word are rewritten, each wherever it stands, as ``redact`` would."""
    body = json.dumps(document).encode()
    parse = _micros(lambda: orjson.loads(body), 200)
    read = wire.read(body, b"application/json")
    positions = list(wire.walk(read))
    chosen = set(sorted({one.text for one in positions if " " in one.text})[::3])
    changes = {(one.path, False): f"{one.text} {_PLACEHOLDER}" for one in positions if one.text in chosen and not one.key}
    walk = _micros(lambda: list(wire.walk(read)), 200)
    rewrite = _micros(lambda: wire.rewrite(body, b"application/json", read, changes), 200)
    print(f"{name}: {len(body)} bytes, {len(positions)} positions, {len(changes)} rewritten, one orjson parse {parse:.1f} µs, "
          f"walk {walk:.1f}, rewrite and its parse {rewrite:.1f}")
    return [_Figure(f"{name}: walk + rewrite beyond one parse", walk + rewrite - parse, target)]


def _event(name: str, wire: Wire, event: bytes) -> list[_Figure]:
    """The chunk is one event, as providers send them: what is measured is the whole way through meter and filter."""
    chunks = [event] * _EVENTS

    def metered() -> None:
        meter = wire.meter(SSE, ())
        for chunk in chunks:
            meter.feed(chunk)

    def restored() -> None:
        one = RestoreFilter(Restorer(Originals({_PLACEHOLDER: "ann@example.com"}), frozenset), deltas=wire.deltas)
        one.headers(((b"content-type", b"text/event-stream"),))
        for chunk in chunks:
            one.feed(chunk)

    return [_Figure(f"{name}: an event through the meter", _micros(metered, 5) / _EVENTS, _EVENT_MICROS),
            _Figure(f"{name}: an event through restore", _micros(restored, 5) / _EVENTS, _EVENT_MICROS)]


def main() -> int:
    chance = random.Random(4)
    plain = _chat(chance, _SIZE)
    heavy = {**_chat(chance, _SIZE - 7000), "tools": _tools(12)}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [
        {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}]}
    block = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " word"}}
    figures = [
        *_body("chat 20 KB", CHAT, plain, _BODY_MICROS),
        *_body("messages 20 KB", MESSAGES, plain, _BODY_MICROS),
        *_body("chat 20 KB, a third of it tools", CHAT, heavy, None),
        *_event("chat", CHAT, b"data: %b\n\n" % orjson.dumps(chunk)),
        *_event("messages", MESSAGES, b"event: content_block_delta\ndata: %b\n\n" % orjson.dumps(block))]
    print("\n".join(figure.line() for figure in figures))
    return int(any(one.target is not None and one.micros >= one.target for one in figures))


if __name__ == "__main__":
    sys.exit(main())
