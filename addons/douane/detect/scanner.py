"""The scanner: what is known is remembered, what cannot hold anything is let by, the rest goes to a worker process.

Law: every text is answered for, or :class:`ScanFailedError` is raised for all. The event loop is held for a hash and one
look at a short text."""

import asyncio
from collections.abc import Sequence

from douane.detect.disguise import may_be_disguised
from douane.detect.memory import Keys, shared
from douane.detect.namelists import lists
from douane.detect.names import CAPITALS, find_names
from douane.detect.pool import Pool, pool
from douane.detect.prefilter import SEED, SEED_SIGNS
from douane.detect.spans import CHUNK, cut, joined, resolve
from douane.detect.values import ScanFailedError, Span, Wanted

__all__ = ["Scanner", "cannot_hold_any"]

_ASK_SECONDS = 1.0
"""A worker has this long for one question, which holds at most ``CHUNK`` characters."""
_CALL_SECONDS, _SECONDS_A_MILLION = 2.0, 1.0
"""All questions of one call, from when the first worker has begun: two seconds and one more for a million characters."""

_SIGNS = SEED_SIGNS + b"&"
"""Some escapes (``&commat;``) have none of the others."""

type _Chunk = tuple[int, int, int]
"""Index of a text, start and end in it."""


_FIRST = 4096
"""Characters at which is looked first: a long text that holds nothing in them is rare."""
_NAMES_HERE = 8192
"""Characters of a text in which names are looked for in this process (0.5 ms) …"""
_CAPITALS_HERE = 400
"""… if it has no more capitals: where each of them begins a name, that takes 3 ms."""


def cannot_hold_any(text: str, signs: bytes = _SIGNS) -> bool:
    """Whether *text* has none of *signs*, one of which stands in all that is looked for: by its characters alone, a few ns
    each, and most short texts. Patterns find nothing without one of these."""
    return text.isascii() and len(text.encode().translate(None, signs)) == len(text)


class Scanner:
    """Finds what is *wanted*. Workers start with the first text that needs one, or with :meth:`warm`.

    *inline_limit*: texts up to so many characters are first looked at here for anything that a pattern could take (0.3 ms at
    32 KB, where most hold nothing), and up to 8 KB for names; longer ones, and such as may be little but names, go to a worker
    unseen. *remembered*: texts whose spans are kept, about 300 bytes each."""

    def __init__(self, wanted: Wanted, *, workers: int = 1, inline_limit: int = CHUNK, remembered: int = 50_000) -> None:
        self._wanted, self._workers, self._inline_limit = wanted, workers, inline_limit
        self._memory = shared(wanted, remembered)
        person = "PERSON" in wanted.entities
        self._by_rule = wanted.by_rule and person
        self._asks_all = wanted.model is not None or (bool(wanted.names) and person)
        """Only a worker can say of a text that it holds nothing."""
        self._own = bool(wanted.custom)
        """What operators look for need not look like anything."""
        self._reading = wanted.model.seconds if wanted.model is not None else 0.0
        """What a model may take beside the patterns."""
        self._signs = _SIGNS + CAPITALS if self._by_rule else _SIGNS

    def warm(self) -> None:
        """Start the workers now; they are ready about a second later, and when they have loaded a model."""
        ours = self._pool()
        if self._by_rule:
            lists()
        if self._wanted.model is not None:
            ours.load(self._wanted)

    async def aclose(self) -> None:
        """End the workers if no other scanner uses them."""
        ours = pool()
        ours.holders.discard(self)
        if not ours.holders:
            await ours.aclose()

    async def scan(self, tenant: str, texts: Sequence[str], keys: Keys | None = None) -> list[tuple[Span, ...]]:
        """What stands in each text: sorted, nowhere overlapping. *keys*: of *tenant*'s texts, as far as they are known. Raises
        :class:`ScanFailedError`."""
        keys = Keys(tenant) if keys is None else keys
        found: list[tuple[Span, ...]] = [()] * len(texts)
        new: dict[bytes, list[int]] = {}
        memory = self._memory
        for index, text in enumerate(texts):
            if not self._asks_all and not self._own and cannot_hold_any(text[:_FIRST], self._signs) and cannot_hold_any(
                    text, self._signs):
                continue
            key = keys[text]
            known = memory.get(key)
            if known is not None:
                found[index] = known
            elif not self._asks_all and self._sees_nothing(text):
                found[index] = self._names(text)
                memory.put(key, found[index])
            else:
                new.setdefault(key, []).append(index)
        if new:
            spans = await self._scan([texts[places[0]] for places in new.values()])
            for (key, places), each in zip(new.items(), spans, strict=True):
                memory.put(key, each)
                for index in places:
                    found[index] = each
        return found

    def know(self, keys: Keys, texts: Sequence[str]) -> None:
        """*texts* are what is left of scanned ones without what was found in them: they hold nothing more."""
        for text in texts:
            self._memory.put(keys[text], ())

    def _names(self, text: str) -> tuple[Span, ...]:
        least = self._wanted.threshold_of("PERSON")
        return resolve(one for one in find_names(text) if one.score >= least) if self._by_rule else ()

    def _sees_nothing(self, text: str) -> bool:
        """Whether it can be said here that nothing but names stands in *text*, and which."""
        if len(text) > self._inline_limit or (self._by_rule and _has_many_names(text)):
            return False
        prefilter = pool().prefilter(self._wanted)
        if may_be_disguised(text) or (self._own and (prefilter is None or not text.isascii())):
            return False
        return SEED.search(text) is None if prefilter is None else not prefilter.sees(text)

    async def _scan(self, texts: list[str]) -> list[tuple[Span, ...]]:
        chunks = [cut(len(text)) for text in texts]
        questions = _questions(chunks)
        await self._pool().ready(self._wanted)
        try:
            async with asyncio.timeout(_CALL_SECONDS + self._reading + _SECONDS_A_MILLION * sum(map(len, texts)) / 1e6):
                answers = await asyncio.gather(*(self._ask(texts, question) for question in questions))
        except TimeoutError:
            raise ScanFailedError("the detectors did not come to an end in time") from None
        found: list[list[list[Span]]] = [[] for _ in texts]
        for question, answer in zip(questions, answers, strict=True):
            for (index, _, _), spans in zip(question, answer, strict=True):
                found[index].append(spans)
        return [await _joined(each, spans) for each, spans in zip(chunks, found, strict=True)]

    async def _ask(self, texts: list[str], question: list[_Chunk]) -> list[list[Span]]:
        pieces = [texts[index][start:end] for index, start, end in question]
        return await self._pool().ask(self._wanted, pieces, _ASK_SECONDS + self._reading)

    def _pool(self) -> Pool:
        ours = pool()
        ours.holders.add(self)
        ours.grow(self._workers)
        return ours


def _has_many_names(text: str) -> bool:
    """Whether to look for names in *text* could take long."""
    size = len(text)
    return size > _CAPITALS_HERE and (
        size > _NAMES_HERE or size - len(text.encode("latin-1", "replace").translate(None, CAPITALS)) > _CAPITALS_HERE)


async def _joined(chunks: list[tuple[int, int]], found: list[list[Span]]) -> tuple[Span, ...]:
    """Chunk by chunk, for a long text may hold thousands: others have their turn between."""
    spans: list[Span] = []
    for part in joined(chunks, found):
        spans += part
        if len(chunks) > 1:
            await asyncio.sleep(0)
    return tuple(spans)


def _questions(chunks: list[list[tuple[int, int]]]) -> list[list[_Chunk]]:
    """All chunks in order, put together into questions of at most ``CHUNK`` characters."""
    questions: list[list[_Chunk]] = []
    room = 0
    for index, each in enumerate(chunks):
        for start, end in each:
            if not questions or end - start > room:
                questions.append([])
                room = CHUNK
            questions[-1].append((index, start, end))
            room -= end - start
    return questions
