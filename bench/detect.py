"""What finding PII costs: ours beside stock presidio, in this process, by CPU time. ``python -m bench.detect``.

First-seen texts of :mod:`bench.goods`; every text is scanned once by each side, in turns, so that what else the machine does
falls on both. Texts seen before are asked of the whole scanner. No network, about a minute."""

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("REGEX_TIMEOUT_SECONDS", "5")  # read by presidio when it is imported
sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from bench import goods
from bench.detect_here import conversation, held
from bench.measure import rss_bytes
from douane.detect import DEFAULT_ENTITIES, ENTITIES, Scanner, Wanted
from douane.detect.pool import pool
from douane.detect.spans import cut, join, resolve

KINDS: dict[str, Callable[[random.Random, int], str]] = {
    "chat": goods.prose, "code": goods.code, "mixed": goods.mixed, "dense": goods.dense}
SIZES = {200: 40, 1500: 40, 20_000: 8}
"""Characters → texts."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.detect", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    print("CPU-ms a first-seen text, median\n")
    print(f"{'':8}{'chars':>8}{'ours':>9}{'stock':>9}{'ratio':>8}")
    for kind, size, ours, stock in costs(seed):
        print(f"{kind:8}{size:8}{ours:9.2f}{stock:9.2f}{stock / ours:7.1f}×")
    asyncio.run(the_scanner(seed))
    asyncio.run(here(seed))
    alarms()
    return 0


def costs(seed: int) -> list[tuple[str, int, float, float]]:
    from presidio_analyzer import predefined_recognizers

    from bench import stock as presidio
    from douane.detect.engine import Engine, prepare

    prepare()
    analyzer = presidio.analyzer(getattr(predefined_recognizers, ENTITIES[name])(supported_language="en")
                                 for name in filter(ENTITIES.get, DEFAULT_ENTITIES))
    engine = Engine(Wanted())
    rows = []
    for kind, make in KINDS.items():
        for size, count in SIZES.items():
            rng = random.Random(seed)
            engine.scan(warm := make(rng, size))
            analyzer.analyze(warm, "en")
            ours, stock = [], []
            for text in [make(rng, size) for _ in range(count)]:
                ours.append(_cpu(engine.scan, text))
                stock.append(_cpu(lambda text: analyzer.analyze(text, "en", score_threshold=0.4), text))
            rows.append((kind, size, median(ours), median(stock)))
    return rows


def _cpu(work: Callable[[str], object], text: str) -> float:
    before = time.process_time()
    work(text)
    return (time.process_time() - before) * 1e3


async def the_scanner(seed: int) -> None:
    scanner = Scanner(Wanted())
    await scanner.scan("t", ["warm@example.com"])
    print("\nthe whole scanner, wall clock\n")
    for size in SIZES:
        rng = random.Random(seed)
        texts = [goods.mixed(rng, size) for _ in range(20)]
        first: list[float] = []
        again: list[float] = []
        for times in (first, again):
            for text in texts:
                before = time.perf_counter()
                await scanner.scan("t", [text])
                times.append((time.perf_counter() - before) * 1e3)
        print(f"mixed{size:11} first {median(first):8.2f} ms   seen before {median(again) * 1e3:8.1f} µs")
    print(f"one worker, idle: {rss_bytes(pool().pids[0]) / 1e6:.0f} MB resident")
    await scanner.aclose()


async def here(seed: int) -> None:
    print("\nCPU-ms of this process for a conversation of 200 KB, all seen but the last message\n")
    for what, cost in (await conversation(seed)).items():
        print(f"{what:28}{cost:8.2f}")
    print("\nthe event loop held at once by all of redact for a single text, CPU-ms at most: first seen, seen before\n")
    for kind, size, first, again in await held(seed):
        print(f"{kind:8}{size:9}{first:9.2f}{again:9.2f}")


def alarms() -> None:
    """Findings in source code, by type, a megabyte."""
    from douane.detect.engine import Engine

    engine, counts, size = Engine(Wanted()), dict.fromkeys(DEFAULT_ENTITIES, 0), 0
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        text = path.read_text(errors="replace")
        size += len(text)
        chunks = cut(len(text))
        for one in resolve(join(chunks, [engine.scan(text[start:end]) for start, end in chunks])):
            counts[one.type] += 1
    found = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    rate = sum(counts.values()) / size * 1e6
    print(f"\n{size / 1e6:.1f} MB of Python's standard library: {rate:.0f} findings a MB ({found})")


if __name__ == "__main__":
    sys.exit(main())
