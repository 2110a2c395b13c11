"""A reload swaps whole or not at all."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from douane.errors import EnvironmentFailedError
from douane.loader import Loaded, load
from douane.reload import Reloader, Result

POLICY = "version: 1\nprincipals: [{name: local, cidr: 127.0.0.1}]\nchain:\n  - authenticate: {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(POLICY)
    return tmp_path


class House:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.adopted: list[Loaded] = []

    def load(self) -> Loaded:
        return load(self.folder, environ={})

    def reload_after(self, change: str) -> tuple[Result, Reloader]:
        async def run() -> tuple[Result, Reloader]:
            reloader = Reloader(self.load(), self.load, self.adopted.append)
            (self.folder / "a.yaml").write_text(change)
            return await reloader.reload(), reloader

        return asyncio.run(run())


def test_a_good_change_is_taken_over(folder: Path) -> None:
    house = House(folder)
    before = house.load()
    result, reloader = house.reload_after(POLICY + "  - swap_key: {missing: keep}\n")
    assert (result.ok, result.changed, result.lines) == (True, True, ())
    assert house.adopted == [reloader.loaded]
    assert result.revision == reloader.loaded.chain.revision != before.chain.revision
    assert [entry.name for entry in reloader.loaded.chain.entries] == ["authenticate", "swap_key"]
    assert [entry.name for entry in before.chain.entries] == ["authenticate"], "what is in use is never changed"


def test_a_comment_changes_nothing_but_is_taken_over(folder: Path) -> None:
    result, _ = House(folder).reload_after("# new\n" + POLICY)
    assert (result.ok, result.changed) == (True, False)


def test_a_wrong_change_leaves_the_last_good_one_and_says_every_line(folder: Path) -> None:
    house = House(folder)
    result, reloader = house.reload_after(POLICY.replace("version: 1", "version: 7") + "  - nonsense: {}\n")
    assert not result.ok
    assert [line.split(": ")[0] for line in result.lines] == [f"{folder}/a.yaml:1", f"{folder}/a.yaml:5"]
    assert house.adopted == []
    assert result.revision == reloader.loaded.chain.revision
    (folder / "a.yaml").unlink()
    assert not asyncio.run(reloader.reload()).ok
    (folder / "a.yaml").write_text(POLICY)
    assert asyncio.run(reloader.reload()).ok


def test_a_house_that_cannot_adopt_keeps_the_last_good_one(folder: Path) -> None:
    def refuse(_: Loaded) -> None:
        raise EnvironmentFailedError("certs: no space left")

    async def run() -> None:
        first = load(folder, environ={})
        reloader = Reloader(first, lambda: load(folder, environ={}), refuse)
        result = await reloader.reload()
        assert (result.ok, result.lines) == (False, ("certs: no space left",))
        assert reloader.loaded is first

    asyncio.run(run())


def test_reloads_leave_the_loop_free_and_come_one_at_a_time(folder: Path) -> None:
    running, most, threads = 0, 0, set[int]()
    first = load(folder, environ={})

    def slow() -> Loaded:
        nonlocal running, most
        running += 1
        most = max(most, running)
        threads.add(threading.get_ident())
        time.sleep(0.05)
        running -= 1
        return first

    async def run() -> int:
        adopting: list[int] = []
        reloader = Reloader(first, slow, lambda _: adopting.append(threading.get_ident()))
        ticks = 0
        tasks = [asyncio.create_task(reloader.reload()) for _ in range(3)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.005)
            ticks += 1
        assert set(adopting) == {threading.get_ident()}
        return ticks

    assert asyncio.run(run()) >= 10
    assert most == 1
    assert threading.get_ident() not in threads
