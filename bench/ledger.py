"""What a reservation and its booking cost, on both ledgers in one run: ``python -m bench.ledger`` (about 20 seconds).

*CPU µs/pair*: of the gateway's process, all threads, for one reserve (two accounts) and one capture, 32 calls at once.
*pairs/s*: of four such processes on one budget. The Redis server is this machine's, without ``appendonly``, and
its own CPU is said apart; SQLite syncs each transaction.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import cpu_seconds, median
from bench.targets import free_port
from douane.ledger.base import NOTHING_SPENT, Account, Demand, Held, LedgerUnavailableError, Spent, Store, Unit
from douane.ledger.redis import RedisLedger
from douane.ledger.sqlite import SqliteLedger
from douane.ledger.windows import Period, window
from douane.secrets import Secret

KINDS = ("sqlite", "redis")
AT_ONCE = 32
GOALS = {"sqlite": {"cpu_us": 120.0, "rate": 3000.0}, "redis": {"cpu_us": 150.0, "rate": 3000.0}}
_PLENTY = 2**50
_COUNTED: tuple[tuple[Unit, Period], ...] = (("usd", "day"), ("tokens", "month"))


def opened(kind: str, place: str, owner: str) -> Store:
    return SqliteLedger(Path(place), owner) if kind == "sqlite" else RedisLedger(Secret(place), owner)


async def pairs(store: Store, name: str, count: int) -> int:
    """*count* reservations, each booked. Returns how many were refused because the ledger took too long."""
    at = time.time()
    accounts = [Account("acme", "", "team", "support", unit, period, *window(period, at))
                for unit, period in _COUNTED]
    demands = [Demand(one, 100, _PLENTY, alerts=(800, 1000)) for one in accounts]

    late = 0

    async def caller(number: int) -> None:
        nonlocal late
        for turn in range(count // AT_ONCE):
            call = f"{int(at * 1000):012x}{name}{number:04x}{turn:08x}"
            try:
                held = await store.reserve(call, "acme", at, demands)
            except LedgerUnavailableError:
                late += 1
                store.capture(call, "acme", NOTHING_SPENT)
                continue
            if not isinstance(held, Held):
                raise RuntimeError("refused")
            with contextlib.suppress(LedgerUnavailableError):  # it is booked all the same
                await store.capture(call, "acme", Spent(70, 60, 1))

    await asyncio.gather(*map(caller, range(AT_ONCE)))
    return late


def burst(store: Store, name: str, count: int) -> tuple[float, int]:
    """(CPU seconds of *count* pairs in this process, how many of these and of those that warmed it up came too late)."""
    async def work() -> tuple[float, int]:
        late = await pairs(store, f"w{name}", AT_ONCE)  # connected
        cpu = time.process_time()
        late += await pairs(store, name, count)
        return time.process_time() - cpu, late

    import uvloop
    return uvloop.run(work())


def worker(kind: str, place: str, name: str, count: int) -> None:
    """One of four: says when it is ready, waits for a line, says how long it took."""
    store = opened(kind, place, name)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    _, late = burst(store, name, count)
    print(json.dumps([began, time.time(), late]), flush=True)
    store.close()


def together(kind: str, place: str, turn: int, count: int) -> tuple[float, int]:
    """(pairs a second of four processes, how many came too late)."""
    started = [subprocess.Popen([sys.executable, "-m", "bench.ledger", "--worker", kind, place, f"p{turn}{number}", str(count)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for number in range(4)]
    for one in started:
        if one.stdout is None or one.stdout.readline() != "ready\n":
            raise RuntimeError("a worker does not start")
    for one in started:
        if one.stdin is not None:
            one.stdin.write("\n")
            one.stdin.flush()
    times = [json.loads(one.communicate(timeout=120)[0]) for one in started]
    late = sum(one[2] for one in times)
    return (4 * count - late) / (max(one[1] for one in times) - min(one[0] for one in times)), late


def check(store: Store, done: int, kind: str) -> None:
    """*done* pairs, each booked once: else what was measured is something else."""
    found = {one.account.unit: (one.captured, one.reserved) for one in store.balances(time.time())}
    if found != {"usd": (70 * done, 0), "tokens": (60 * done, 0)}:
        raise RuntimeError(f"{kind}: {done} pairs were asked for, and {found} stands in the books")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """(URL, pid) of a Redis of our own."""
    port = free_port()
    process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
                               stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def main() -> None:
    reader = argparse.ArgumentParser(prog="bench.ledger")
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--pairs", type=int, default=6400)
    reader.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = reader.parse_args()
    if given.worker:
        kind, place, name, count = given.worker
        worker(kind, place, name, int(count))
        return
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (url, pid):
        places = {"sqlite": folder, "redis": url}
        stores = {kind: opened(kind, places[kind], "bench") for kind in KINDS}
        cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        late = dict.fromkeys(KINDS, 0)
        of_server = []
        for turn in range(given.rounds):  # in turns: what else the machine does falls on both
            for kind in KINDS:
                before = cpu_seconds(pid)
                seconds, refused = burst(stores[kind], f"r{turn}", given.pairs)
                cpu[kind].append(1e6 * seconds / given.pairs)
                if kind == "redis":
                    of_server.append(1e6 * (cpu_seconds(pid) - before) / given.pairs)
                rate, more = together(kind, places[kind], turn, given.pairs // 4)
                rates[kind].append(rate)
                late[kind] += refused + more
        for kind, one in stores.items():
            asked = given.rounds * (given.pairs // AT_ONCE + 4 * (given.pairs // 4 // AT_ONCE) + 5) * AT_ONCE
            check(one, asked - late[kind], kind)
            one.close()
    print("ledger      CPU µs/pair                   pairs/s, four processes")
    for kind in KINDS:
        for figure, values, sign in (("cpu_us", cpu[kind], 1), ("rate", rates[kind], -1)):
            goal, found = GOALS[kind][figure], median(values)
            met = "met" if sign * found <= sign * goal else "MISSED"
            said = f"{found:8.0f}  {'at most' if sign > 0 else 'at least'} {goal:g} {met}"
            print(f"{kind if sign > 0 else '':8}{said:36}", end="" if sign > 0 else "\n")
        print(f"{'':8}refused, since the ledger took longer than 250 ms: {late[kind]}; slowest and fastest round "
              f"{min(rates[kind]):.0f}, {max(rates[kind]):.0f} pairs/s")
    print(f"the Redis server itself: {median(of_server):.0f} µs/pair")


if __name__ == "__main__":
    main()
