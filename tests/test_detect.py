"""The scanner from outside: its processes, its deadlines, what it remembers."""

import asyncio
import gc
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop

from douane.detect import ScanFailedError, Scanner, Span, Wanted
from douane.detect.custom import Custom
from douane.detect.memory import Keys, Memory
from douane.detect.pool import _Worker, pool
from douane.detect.spans import CHUNK, cut, join, resolve
from tests import house

MAIL = "write to ada@example.com today"
FOUND = (Span("EMAIL_ADDRESS", 9, 24, 1.0),)
CRAFTED = {"dots": "a." * 30_000 + "@", "ones": "1.1." * 10_000, "dashes": "1-" * 30_000, "colons": "a:" * 30_000 + ":",
           "ats": "a@" * 30_000, "bangs": "!" * 60_000 + "@a", "digits": "1" * 60_000, "groups": "12 " * 20_000,
           "letters": "a" * 60_000 + "1", "blanks": "1" + " " * 60_000, "iban": "GB82 " * 12_000, "plus": "+1" * 30_000}


@pytest.fixture(autouse=True, scope="module")
def _none_left() -> Iterator[None]:
    """And all are started where a key is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        pool().close()
        patch.setenv("OPENAI_API_KEY", "made-up")
        yield
    pool().close()


_own = itertools.count(50_000)


def scanner_of(wanted: Wanted, **more: Any) -> Scanner:
    """One with a memory of its own: scanners that look for the same share theirs, while one of them lives."""
    return Scanner(wanted, remembered=next(_own), **more)


def seen[T](work: Callable[[Scanner], Awaitable[T]], wanted: Wanted | None = None) -> T:
    """What *work* makes of a scanner; the workers stay for the next test."""
    async def main() -> T:
        return await work(scanner_of(wanted or Wanted()))

    return house.run(main(), 40)


def scan(*texts: str, wanted: Wanted | None = None) -> list[tuple[Span, ...]]:
    return seen(lambda scanner: scanner.scan("acme", texts), wanted)


def test_a_worker_has_none_of_our_secrets_and_is_small() -> None:
    scan(MAIL)
    process = Path(f"/proc/{pool().pids[0]}")
    assert b"REGEX_TIMEOUT_SECONDS=1" in (process / "environ").read_bytes()
    assert b"made-up" not in (process / "environ").read_bytes()
    size = next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    assert size < 200_000


def test_spans_come_in_the_order_of_the_texts() -> None:
    assert scan("nothing", MAIL, "", MAIL, "call 212-555-0123 or 10.0.0.1") == [
        (), FOUND, (), FOUND, (Span("PHONE_NUMBER", 5, 17, 0.4), Span("IP_ADDRESS", 21, 29, 0.6))]


def test_offsets_count_characters() -> None:
    text = "𝔘𝔫𝔦 – ünïcode 🎉 \ud800 ada@example.com"
    (span,), = scan(text)
    assert text[span.start:span.end] == "ada@example.com"


def test_names_are_found_by_list_as_whole_words() -> None:
    text = "ADA lovelace met Adam; Ada Lovelaces did not, Zoë did"
    wanted = Wanted(names=("Ada Lovelace", "Zoë"), by_rule=False)
    assert [text[one.start:one.end] for one in scan(text, wanted=wanted)[0]] == ["ADA lovelace", "Zoë"]
    assert scan(text, wanted=Wanted(entities=("EMAIL_ADDRESS",), names=("Zoë",))) == [()]


def test_what_is_not_wanted_is_not_found() -> None:
    text = "see https://example.com/a, self.com on 2026-01-02"
    assert scan(text) == [()]
    (url,), = scan(text, wanted=Wanted(entities=("URL",)))
    assert text[url.start:url.end].startswith("https://example.com")


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Wanted(entities=("EMAIL",)), "EMAIL is not known; allowed: ABA_ROUTING_NUMBER"),
    (lambda: Wanted(threshold=1.5), "threshold: 1.5"), (lambda: Wanted(names=(" ",)), "names:"),
    (lambda: Wanted(names=("a",) * 1001), "names: at most 1000")])
def test_what_cannot_be_meant_is_refused(make: Callable[[], Wanted], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_text_ends_in_time_and_holds_nobody(name: str) -> None:
    async def work(scanner: Scanner) -> tuple[float, float]:
        await scanner.scan("acme", [MAIL])
        workers = pool().pids
        gaps = [0.0]

        async def watch() -> None:
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - before)

        watching = asyncio.create_task(watch())
        began = time.perf_counter()
        with suppress(ScanFailedError):
            await scanner.scan("acme", [CRAFTED[name]])
        took = time.perf_counter() - began
        watching.cancel()
        assert await scanner.scan("acme", [f"and {MAIL}"]) == [(Span("EMAIL_ADDRESS", 13, 28, 1.0),)]
        assert pool().pids == workers, "an alarm ended it, nobody had to be killed"
        return took, max(gaps)

    took, gap = seen(work)
    assert took < 3
    assert gap < 0.25


def test_the_classic_ends_and_hides_nothing() -> None:
    """Stock presidio's pattern takes minutes over it."""
    dots = CRAFTED["dots"]
    assert [one.start for one in scan(f"{dots} {MAIL}")[0]] == [len(dots) + 10]


def test_a_pattern_without_an_end_is_a_failure_and_no_skip() -> None:
    slow = Custom("X", r"\p{L}*\p{L}*\p{L}*\p{L}*\d")
    with pytest.raises(ScanFailedError, match="ran out of time"):
        scan(MAIL, "a" * 5000, wanted=Wanted(custom=(slow,)))


def test_a_worker_that_died_is_replaced() -> None:
    async def work(scanner: Scanner) -> None:
        await scanner.scan("acme", [MAIL])
        before, = pool().pids
        os.kill(before, signal.SIGKILL)
        with pytest.raises(ScanFailedError, match="died"):
            await scanner.scan("acme", ["1 " + MAIL])
        assert len(await scanner.scan("acme", ["1 " + MAIL])) == 1
        assert pool().pids != [before]

    seen(work)


def test_a_worker_that_does_not_answer_is_replaced() -> None:
    async def work(scanner: Scanner) -> None:
        await scanner.scan("acme", [MAIL])
        before, = pool().pids
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(ScanFailedError, match="in time"):
            await scanner.scan("acme", ["2 " + MAIL])
        assert len((await scanner.scan("acme", ["2 " + MAIL]))[0]) == 1
        assert pool().pids != [before]

    seen(work)


def test_who_goes_away_leaves_the_worker_whole() -> None:
    async def work(scanner: Scanner) -> None:
        await scanner.scan("acme", [MAIL])
        before = pool().pids
        for delay in (0, 0.001, 0.003, 0.01):
            going = asyncio.create_task(scanner.scan("acme", [f"{delay} {MAIL} " * 500]))
            await asyncio.sleep(delay)
            going.cancel()
        calls = [scanner.scan("acme", [f"{number} {MAIL}"]) for number in range(10, 60)]
        assert [found[0][0].start for found in await asyncio.gather(*calls)] == [12] * 50
        assert pool().pids == before

    seen(work)


# -- what is kept, and by whom -----------------------------------------------------------------------------------------


def test_what_nobody_waits_for_any_more_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One body of many questions that came too late holds up nobody behind it."""
    asked: list[object] = []
    real = _Worker.ask

    async def counted(self: _Worker, *given: Any) -> Any:
        asked.append(given)
        return await real(self, *given)

    async def work(scanner: Scanner) -> None:
        await scanner.scan("acme", [MAIL])
        monkeypatch.setattr(_Worker, "ask", counted)
        many = [asyncio.create_task(pool().ask(Wanted(), [MAIL], 1.0)) for _ in range(50)]
        await asyncio.sleep(0)
        for one in many:
            one.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        assert await scanner.scan("acme", ["ann@example.com"]) == [(Span("EMAIL_ADDRESS", 0, 15, 1.0),)]

    seen(work)
    assert len(asked) <= 3


def test_what_was_seen_is_not_asked_again_but_by_another_tenant() -> None:
    async def work(scanner: Scanner) -> None:
        assert await scanner.scan("acme", [MAIL]) == [FOUND]
        pool().close()
        assert await scanner.scan("acme", [MAIL, MAIL]) == [FOUND, FOUND]
        assert pool().pids == []
        assert await scanner.scan("globex", [MAIL]) == [FOUND]
        assert len(pool().pids) == 1

    seen(work)


def test_workers_serve_the_loop_of_the_gateway() -> None:
    async def main() -> None:
        scanner = scanner_of(Wanted(), workers=2)
        calls = [scanner.scan("acme", [f"{number} {MAIL}" * 40]) for number in range(20)]
        assert [len(found[0]) for found in await asyncio.gather(*calls)] == [40] * 20
        assert len(pool().pids) == 2
        going = asyncio.create_task(pool().ask(Wanted(), [MAIL], 1.0))
        await asyncio.sleep(0)  # it has asked
        await scanner.aclose()
        assert await going == [list(FOUND)]
        assert pool().pids == []

    pool().close()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pool().holders.clear()
        runner.run(main())


def test_memory_is_bounded_and_holds_no_text() -> None:
    memory, texts = Memory(6), [f"secret {number}" for number in range(9)]
    keys = [Keys("acme")[text] for text in texts]
    for key in keys:
        memory.put(key, FOUND)
        memory.get(keys[0])
        assert len(memory) <= 6
    assert memory.get(keys[0]) == memory.get(keys[8]) == FOUND
    assert [memory.get(key) for key in keys[1:5]] == [None] * 4
    assert not any(text.encode() in key for text, key in zip(texts, keys, strict=True))


def test_what_is_remembered_costs_no_collection() -> None:
    memory = Memory(100)
    for number in range(50):
        memory.put(number.to_bytes(16), [Span("EMAIL_ADDRESS", number, number + 9, 1.0)] * 3)
    gc.collect()
    assert not any(map(gc.is_tracked, memory._young.values()))
    assert memory.get((7).to_bytes(16)) == (Span("EMAIL_ADDRESS", 7, 16, 1.0),) * 3


def test_a_text_is_known_by_a_key_of_its_tenant_that_no_other_process_makes() -> None:
    assert Keys("a")["cme"] != Keys("ac")["me"]
    assert Keys("acme")[MAIL] == Keys("acme")[MAIL] != hashlib.sha256(b"\0\0\0\4acme" + MAIL.encode()).digest()[:16]
    command = [sys.executable, "-c", f"from douane.detect.memory import Keys; print(Keys('acme')[{MAIL!r}].hex())"]
    others = {subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() for _ in range(2)}
    assert len(others) == 2
    one = Keys("acme")
    for number in range(5000):
        assert one[f"{number}"] == Keys("acme")[f"{number}"]
    assert len(one) < 5000


def test_the_last_scanner_ends_the_workers() -> None:
    async def main() -> None:
        pool().close()
        pool().holders.clear()
        one, two = scanner_of(Wanted()), scanner_of(Wanted(threshold=0.5))
        await one.scan("acme", [MAIL])
        await two.scan("acme", [MAIL])
        process, = pool().pids
        await one.aclose()
        assert pool().pids == [process]
        await two.aclose()
        assert pool().pids == []
        assert not Path(f"/proc/{process}").exists()

    house.run(main(), 40)


def test_nothing_heavy_is_loaded_and_nothing_started_for_plain_text() -> None:
    code = ("import asyncio, sys\nfrom douane.detect import Scanner, Wanted\nfrom douane.detect.pool import pool\n"
            "scanner = Scanner(Wanted())\nprint(asyncio.run(scanner.scan('t', ['plain text'])), pool().pids)\n"
            "print({'presidio_analyzer', 'spacy', 'regex', 'numpy', 'phonenumbers', 'tldextract'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.stdout.splitlines() == ["[()] []", "set()"]


# -- spans -------------------------------------------------------------------------------------------------------------


def test_of_overlapping_spans_the_type_decides_then_the_length() -> None:
    card, phone = Span("CREDIT_CARD", 5, 21, 0.5), Span("PHONE_NUMBER", 0, 30, 1.0)
    assert resolve([phone, card]) == (card,)
    short, long = Span("PHONE_NUMBER", 2, 9, 1.0), Span("PHONE_NUMBER", 0, 12, 0.4)
    assert resolve([short, long, card]) == (card,)
    assert resolve([short, Span("PHONE_NUMBER", 9, 12, 0.4)]) == (short, Span("PHONE_NUMBER", 9, 12, 0.4))


def test_chunks_cover_the_text_and_overlap() -> None:
    for length in (0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77):
        chunks = cut(length)
        assert chunks[0][0] == 0
        assert chunks[-1][1] == length
        assert all(end - start <= CHUNK for start, end in chunks)
        assert all(before[1] - after[0] >= 512 for before, after in pairwise(chunks))


def test_at_a_cut_the_chunk_that_saw_all_decides() -> None:
    chunks = cut(CHUNK + 5000)
    start, end = chunks[1][0], chunks[0][1]
    piece = Span("PHONE_NUMBER", end - 8, end, 0.4)  # the first chunk sees a part of a card
    whole = Span("CREDIT_CARD", end - 8 - start, end + 8 - start, 1.0)
    assert join(chunks, [[piece], [whole]]) == (Span("CREDIT_CARD", end - 8, end + 8, 1.0),)
    assert join(chunks, [[piece], []]) == ()
