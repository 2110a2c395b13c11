"""The road, measured: what a call through Douane costs beside bare mitmdump, haproxy and no proxy at all.

    python -m bench.road                        all of it, about ten minutes
    python -m bench.road --quick                the figures of the goals alone, about three
    python -m bench.road --only direct,mitmdump --scenario json-1.5k-c32 --json out.jsonl

Every target runs at once on the first core, mock and load on the second; bursts of 0.8 s go round the targets, so that
what else the machine does falls on all of them. CPU figures drift by a third from run to run: read the ratio, which is
the median over the rounds of (target / bare mitmdump in the same round). Method and words: bench/README.md.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench import goods, load, report
from bench.bodies import Bodies, Talk
from bench.load import BenchError, Client, Sample
from bench.measure import cpu_seconds, rss_bytes
from bench.targets import STARTERS, Target, Yard

BURST = 0.8
"""Seconds."""
_WARM = 0.15
_SETTLE = 1.0
"""Seconds before memory is read: what a start leaves behind has gone by then …"""
_STILL, _STILL_MOST = 0.02, 30.0
"""… and, of all targets together, no more than so much CPU in the last of them: the detector's worker has begun. At most."""
type Burst = Callable[[Target, Sequence[Client], Bodies], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of each target, and how."""

    name: str
    connections: int
    size: int
    burst: Burst
    stream: bool = False
    pace: bool = False
    goal: bool = False
    """Whether ``--quick`` measures it."""
    talk: Talk | None = None
    targets: tuple[str, ...] = ()
    """Only these; empty: all."""


async def _closed(target: Target, clients: Sequence[Client], bodies: Bodies) -> Sample:
    return await load.closed_loop(clients, bodies, BURST)


async def _rate(target: Target, clients: Sequence[Client], bodies: Bodies) -> Sample:
    return await load.at_rate(clients, bodies, 300, 3 * BURST)


async def _paced(target: Target, clients: Sequence[Client], bodies: Bodies) -> Sample:
    return await load.paced_streams(clients, bodies, aligned=False)


async def _aligned(target: Target, clients: Sequence[Client], bodies: Bodies) -> Sample:
    return await load.paced_streams(clients, bodies, aligned=True)


async def _new(target: Target, clients: Sequence[Client], bodies: Bodies) -> Sample:
    return await load.new_connections(target.door, bodies, 8, BURST)


def _plain(rng: random.Random, size: int) -> str:
    """Chat with a number, a date or a version here and there, and nothing that is anybody's."""
    words = goods.text(rng, size // 3, found=0.0, noise=0.0).split(" ")
    for at in range(3, len(words), 20):
        words[at] = rng.choice((f"{rng.randrange(99)}", "2026-03-14", "12:30", f"v3.{rng.randrange(20)}", "#417"))
    return " ".join(words)[:size]


_INSPECTED = ("mitmdump", "lean", "douane")
SCENARIOS = (
    Scenario("json-1.5k-c1", 1, 1500, _closed), Scenario("json-1.5k-c32", 32, 1500, _closed, goal=True),
    Scenario("json-20k-c1", 1, 20_000, _closed), Scenario("json-20k-c32", 32, 20_000, _closed),
    Scenario("sse-1.5k-c1", 1, 1500, _closed, stream=True), Scenario("sse-1.5k-c32", 32, 1500, _closed, stream=True),
    Scenario("sse-20k-c1", 1, 20_000, _closed, stream=True), Scenario("sse-20k-c32", 32, 20_000, _closed, stream=True),
    Scenario("paced-c1", 1, 1500, _paced, stream=True, pace=True),
    Scenario("paced-c32", 32, 1500, _paced, stream=True, pace=True, goal=True),
    Scenario("paced-aligned-c32", 32, 1500, _aligned, stream=True, pace=True),
    Scenario("rate-300", 32, 1500, _rate, goal=True), Scenario("new-c8", 0, 1500, _new, goal=True),
    Scenario("seen-plain-c32", 32, 1500, _closed, goal=True, talk=Talk(_plain), targets=_INSPECTED),
    Scenario("seen-pii-c32", 32, 1500, _closed, goal=True, talk=Talk(goods.prose, echo=True), targets=_INSPECTED),
    Scenario("first-chat-c32", 32, 1500, _closed, goal=True, talk=Talk(goods.prose, first=True, echo=True), targets=_INSPECTED),
    Scenario("seen-mixed-20k-c8", 8, 20_000, _closed, goal=True, talk=Talk(goods.mixed, echo=True), targets=_INSPECTED),
    Scenario("first-mixed-20k-c8", 8, 20_000, _closed, goal=True, talk=Talk(goods.mixed, first=True, echo=True),
             targets=_INSPECTED),
    Scenario("paced-restore-c32", 32, 1500, _paced, stream=True, pace=True, goal=True, talk=Talk(goods.prose, echo=True),
             targets=("direct", *_INSPECTED)),
)


@dataclass(slots=True)
class Results:
    """*samples*: scenario → target → one sample a round. *memory*: target → bytes (idle, at the end)."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)


async def measure(scenario: Scenario, target: Target) -> Sample:
    """One burst: connections opened and warmed first, CPU read just before and just after it."""
    bodies = Bodies(target.door, scenario.size, stream=scenario.stream, pace=scenario.pace, talk=scenario.talk,
                    seen=max(1, scenario.connections))
    warm = bodies if scenario.talk and not scenario.pace else Bodies(target.door, scenario.size)
    clients = [await asyncio.wait_for(load.connect(target.door), 30) for _ in range(scenario.connections)]
    try:
        if clients:
            await load.closed_loop(clients, warm, _WARM)
        before = cpu_seconds(target.pid)
        sample = await scenario.burst(target, clients, bodies)
        sample.cpu = cpu_seconds(target.pid) - before
    except (BenchError, OSError) as failure:
        raise BenchError(f"{target.name}, {scenario.name}: {failure}") from failure
    finally:
        for client in clients:
            client.transport.close()
    await asyncio.sleep(0.05)
    return sample


async def measure_all(targets: Sequence[Target], scenarios: Iterable[Scenario], rounds: int) -> Results:
    """Round robin over the targets, *rounds* times for each scenario."""
    results = Results()
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await _still(targets)
    idle = {target.name: rss_bytes(target.pid) for target in targets}
    for scenario in scenarios:
        asked = [target for target in targets if not scenario.targets or target.name in scenario.targets]
        of = results.samples[scenario.name] = {target.name: [] for target in asked}
        for number in range(rounds):
            _progress(f"{scenario.name}: round {number + 1} of {rounds}")
            for target in asked:
                of[target.name].append(await measure(scenario, target))
        _progress("")
        print(report.table(scenario.name, of), flush=True)
    results.memory = {target.name: (idle[target.name], rss_bytes(target.pid)) for target in targets}
    return results


async def _still(targets: Sequence[Target]) -> None:
    """Wait until the targets have nothing left to do. Raises BenchError."""
    deadline = load.clock() + _STILL_MOST
    used = -1.0
    while (now := sum(cpu_seconds(target.pid) for target in targets if target.name != "direct")) - used > _STILL:
        if load.clock() > deadline:
            raise BenchError(f"the targets are still at work after {_STILL_MOST:.0f} s")
        used = now
        await asyncio.sleep(_SETTLE)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def run(names: Sequence[str], scenarios: Sequence[Scenario], rounds: int, cores: tuple[int, int]) -> Results:
    with tempfile.TemporaryDirectory(prefix="douane-bench-") as folder, Yard(Path(folder), cores) as yard:
        started = [STARTERS[name](yard) for name in ["direct", *[name for name in names if name != "direct"]]]
        os.sched_setaffinity(0, {cores[1]})
        return uvloop.run(measure_all([each for each in started if each], scenarios, rounds))


def _asked(known: Mapping[str, Any], given: str | None) -> list[str]:
    names = given.split(",") if given else list(known)
    for name in names:
        if name not in known:
            raise BenchError(f"no {name!r}: there are {', '.join(known)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.road", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the scenarios the goals speak of, 4 rounds")
    parser.add_argument("--only", metavar="TARGETS", help=f"of {','.join(STARTERS)}; direct always runs")
    parser.add_argument("--scenario", metavar="NAMES", help="of " + ",".join(each.name for each in SCENARIOS))
    parser.add_argument("--rounds", type=int, help="7, or 4 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the figures, a line a scenario and target")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # the targets end with us
    try:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise BenchError("two cores are needed: one for the targets, one for mock and load")
        known = {each.name: each for each in SCENARIOS}
        quick = [each.name for each in SCENARIOS if each.goal or not asked.quick]
        scenarios = [known[name] for name in (_asked(known, asked.scenario) if asked.scenario else quick)]
        rounds = asked.rounds or (4 if asked.quick else 7)
        results = run(_asked(STARTERS, asked.only), scenarios, rounds, (cores[0], cores[1]))
    except BenchError as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(report.memory(results.memory))
    print(report.goals(results.samples, results.memory))
    if asked.json:
        with asked.json.open("a") as out:
            out.writelines(json.dumps(row) + "\n" for row in report.rows(results.samples, results.memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
