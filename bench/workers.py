"""What another worker adds: ``douane serve`` with one process and with several, in one run.

    python -m bench.workers                     1 and 2 workers, about a minute
    python -m bench.workers --counts 1,2,4 --rounds 5

All targets run at once on all cores, and so do mock and load, which take their share: the rate that several workers reach is
bounded by what is left of the machine. So beside the calls a second stands what they would be with cores enough for
everybody: workers / (CPU a call), which needs no free core to be seen. ``lean`` has no ``redact`` and no ``budget``;
``budget`` writes to the SQLite ledger, which the workers share, twice a call.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import load
from bench.bodies import Bodies
from bench.load import BenchError
from bench.measure import cpu_seconds, median, percentile, rss_bytes
from bench.targets import Target, Yard, direct, workers

CONNECTIONS = 64
"""Enough that the kernel, which spreads connections by chance, gives each worker a like number."""
_BURST = 1.5
"""Seconds."""
_WARM = 0.3
_SIZE = 1500


@dataclass(frozen=True, slots=True)
class Burst:
    rate: float
    """Calls a second."""
    cpu: float
    """Seconds of the gateway a call, all its processes together …"""
    beside: float
    """… and of mock and load."""
    p99: float


async def burst(target: Target, mock: Target) -> Burst:
    clients = [await asyncio.wait_for(load.connect(target.door), 30) for _ in range(CONNECTIONS)]
    bodies = Bodies(target.door, _SIZE)
    try:
        await load.closed_loop(clients, bodies, _WARM)
        before, beside = cpu_seconds(target.pid), cpu_seconds(mock.pid) + time.process_time()
        sample = await load.closed_loop(clients, bodies, _BURST)
        cpu, beside = cpu_seconds(target.pid) - before, cpu_seconds(mock.pid) + time.process_time() - beside
    except (BenchError, OSError) as failure:
        raise BenchError(f"{target.name}: {failure}") from failure
    finally:
        for client in clients:
            client.transport.close()
    return Burst(sample.calls / sample.seconds, cpu / sample.calls, beside / sample.calls, percentile(sample.latency, 0.99))


async def measure(targets: Sequence[Target], mock: Target, rounds: int) -> dict[str, list[Burst]]:
    found: dict[str, list[Burst]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            found[target.name].append(await burst(target, mock))
            await asyncio.sleep(0.2)
    return found


def table(found: dict[str, list[Burst]], counts: Sequence[int], memory: dict[str, int], cores: int) -> str:
    """Medians of the rounds; ratios are taken within a round."""
    heads = (("calls/s", 8), ("ratio", 6), ("CPU-ms/call", 12), ("beside", 7), ("p99 ms", 7), ("cores enough", 13),
             ("ratio", 6), ("at most here", 13), ("MB", 5))
    lines = [f"{'':10} " + " ".join(f"{head:>{width}}" for head, width in heads)]
    for name, bursts in found.items():
        kind, _, count = name.rpartition("-")
        base = found[f"{kind}-{counts[0]}"]
        free = [int(count) / one.cpu for one in bursts]
        first = [counts[0] / one.cpu for one in base]
        here = [_most(one, int(count), cores) / _most(zero, counts[0], cores) for one, zero in zip(bursts, base, strict=True)]
        lines.append(
            f"{name:10} {median(one.rate for one in bursts):8.0f} "
            f"{median(one.rate / zero.rate for one, zero in zip(bursts, base, strict=True)):6.2f} "
            f"{median(1000 * one.cpu for one in bursts):12.3f} {median(1000 * one.beside for one in bursts):7.3f} "
            f"{median(1000 * one.p99 for one in bursts):7.1f} {median(free):13.0f} "
            f"{median(one / zero for one, zero in zip(free, first, strict=True)):6.2f} {median(here):13.2f} "
            f"{memory[name] / 1e6:5.0f}")
    return "\n".join(lines)


def _most(one: Burst, count: int, cores: int) -> float:
    """Calls a second where nothing but CPU bounds: the workers' own cores, and all cores with what runs beside."""
    return min(min(count, cores) / one.cpu, cores / (one.cpu + one.beside))


def run(counts: Sequence[int], rounds: int) -> str:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="douane-bench-") as folder, Yard(Path(folder), (cores[0], cores[-1])) as yard:
        yard.cores = tuple(cores)
        mock = direct(yard)
        targets = [workers(yard, count, budget=budget) for budget in (False, True) for count in counts]
        os.sched_setaffinity(mock.pid, cores)
        found = uvloop.run(measure(targets, mock, rounds))
        memory = {target.name: rss_bytes(target.pid) for target in targets}
    return table(found, counts, memory, len(cores))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1,2", metavar="N,N…", help="numbers of workers; ratios are to the first")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    try:
        print(run([int(count) for count in asked.counts.split(",")], asked.rounds))
    except BenchError as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
