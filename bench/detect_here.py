"""What the gateway's own process does while texts are scanned: the second half of :mod:`bench.detect`.

CPU of a conversation of 200 KB that has been seen but for its last message; and for how long the event loop is held at once,
by any one callback, while a call of a single text goes through all of ``redact``. Workers are other processes and count for
nothing here."""

import asyncio
import gc
import random
import time
from asyncio import Handle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import Any

import orjson

from bench import goods
from bench.people import labelled
from douane.call import Call, Caller, Principal, Walked
from douane.detect import ScanFailedError, Scanner, Wanted
from douane.detect.byrole import Eyes
from douane.detect.memory import Keys
from douane.placeholders import DataKey
from douane.policies.redact import _Redact
from douane.providers.table import builtin

__all__ = ["conversation", "held"]

_WIRE = next(row.wire for row in builtin()["openai"].operations if row.name == "chat")
SIZES = (1500, 8000, 20_000, 32_000, 200_000, 1_000_000)


def people(rng: random.Random, size: int) -> str:
    """Little but names."""
    return " ".join(text for text, _ in islice(labelled(rng), size // 30))[:size]


def foreign(rng: random.Random, size: int) -> str:
    """Chat in which every tenth word is in another script."""
    return " ".join("Привет" if at % 10 == 0 else word for at, word in enumerate(goods.prose(rng, size).split(" ")))[:size]


KINDS: dict[str, Callable[[random.Random, int], str]] = {
    "chat": goods.prose, "code": goods.code, "mixed": goods.mixed, "dense": goods.dense, "names": people, "foreign": foreign}


async def conversation(seed: int) -> dict[str, float]:
    """CPU-ms in this process for a call of 61 messages, 200 KB, of which the last is new: by the scanner, and by all of
    ``redact`` (walk, scan, rewritten body). Medians of 15."""
    eyes = Eyes(Scanner(Wanted()))
    redact = _redact(eyes)
    said: dict[str, float] = {}
    for kind in ("chat", "mixed"):
        rng = random.Random(seed)
        talk = [KINDS[kind](rng, 3300) for _ in range(60)]
        roles = ["user", "assistant"] * 30
        await eyes.scan(Keys("t"), talk, roles)
        await redact.admit(_call(talk))
        scans, calls = [], []
        for _ in range(15):
            texts = [*talk, KINDS[kind](rng, 1500)]
            scans.append(await _cpu(eyes.scan(Keys("t"), texts, [*roles, "user"])))
            texts[-1] = KINDS[kind](rng, 1500)
            calls.append(await _cpu(redact.admit(_call(texts))))
        said[f"{kind}, the scanner"], said[f"{kind}, all of redact"] = median(scans), median(calls)
    await eyes.common.aclose()
    return said


def _redact(eyes: Eyes) -> _Redact:
    return _Redact(eyes, lambda _: _WIRE, DataKey(b"k" * 32), "placeholder", restore=True)


def _call(texts: list[str]) -> Call:
    document = {"model": "gpt-4o-mini", "messages": [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]}
    body = orjson.dumps(document)
    return Call(id="0" * 32, at=0.0, provider="openai", operation="chat", method="POST", host="api.openai.com",
                path="/v1/chat/completions", query="", headers=((b"content-type", b"application/json"),),
                caller=Caller("127.0.0.1"), model="gpt-4o-mini", body=body, document=document,
                principal=Principal("bench", org="t"))


async def _cpu(work: Any) -> float:
    began = time.process_time()
    await work
    return (time.process_time() - began) * 1e3


async def held(seed: int) -> list[tuple[str, int, float, float]]:
    """Kind, characters, and for how long at most one callback held the loop (CPU-ms): the first time, and when it was seen."""
    scanner = Scanner(Wanted())
    scanner.warm()
    redact = _redact(Eyes(scanner))
    await redact.admit(_call(["warm@example.com"]))
    gc.collect()
    gc.freeze()  # as the gateway does
    rows = []
    for kind, make in KINDS.items():
        for size in SIZES:
            rng = random.Random(seed)
            calls = [_call([make(rng, size)]) for _ in range(2 if size > 100_000 else 5)]
            first: list[float] = []
            again: list[float] = []
            for times in (first, again):
                for call in calls:
                    with _longest() as longest, suppress(ScanFailedError):  # too slow a machine: it was held all the same
                        await asyncio.create_task(redact.admit(replace(call, walked=Walked())))
                    times.append(longest[0] * 1e3)
            rows.append((kind, size, max(first), max(again)))
    await scanner.aclose()
    return rows


@contextmanager
def _longest() -> Iterator[list[float]]:
    """The CPU-seconds of the longest callback of asyncio's own loop, begun within."""
    longest, run = [0.0], Handle._run

    def timed(self: Handle) -> None:
        began = time.thread_time()
        run(self)
        longest[0] = max(longest[0], time.thread_time() - began)

    Handle._run = timed  # type: ignore[method-assign]
    try:
        yield longest
    finally:
        Handle._run = run  # type: ignore[method-assign]
