"""The thread that writes the ledger's file: what goes into one transaction, and when."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from douane.ledger import writer as writers
from douane.ledger.writer import Writer
from tests import house


class Notes:
    """What one transaction writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def add(self, word: str) -> int:
        self.connection.execute("INSERT INTO note (word) VALUES (?)", (word,))
        return int(self.connection.execute("SELECT count(*) FROM note").fetchone()[0])

    def close(self) -> None:
        """Nothing waits."""


@pytest.fixture
def begun() -> list[int]:
    """One for each transaction."""
    return []


@pytest.fixture
def writer(tmp_path: Path, begun: list[int]) -> Iterator[Writer]:
    def begin(connection: sqlite3.Connection, _: object) -> Notes:
        begun.append(1)
        return Notes(connection)

    schema = "CREATE TABLE note (word TEXT NOT NULL) STRICT;\n"
    with contextlib.closing(Writer(tmp_path / "notes.sqlite", schema, 1, begin, lambda _: None)) as made:
        yield made


def words(writer: Writer) -> list[str]:
    with contextlib.closing(sqlite3.connect(writer.path)) as connection:
        return [word for word, in connection.execute("SELECT word FROM note ORDER BY rowid")]


def test_what_nobody_waits_for_goes_with_the_next_that_somebody_does(
        writer: Writer, begun: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_GATHER_SECONDS", 60.0)

    async def work() -> None:
        for number in range(20):
            writer.owe(partial(Notes.add, word=f"owed {number}"))
        assert await writer.ask(partial(Notes.add, word="asked")) == 21
        assert words(writer) == [*(f"owed {number}" for number in range(20)), "asked"]
        assert len(begun) == 1

    house.run(work(), 20)


def test_what_is_owed_is_done_though_nobody_waits_for_anything(writer: Writer, begun: list[int]) -> None:
    async def work() -> None:
        for number in range(3):
            writer.owe(partial(Notes.add, word=f"owed {number}"))
        until = time.monotonic() + 10
        while len(words(writer)) < 3 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert len(words(writer)) == 3
        assert len(begun) <= 2

    house.run(work(), 20)


def test_who_waits_for_what_is_owed_is_not_kept_waiting(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_GATHER_SECONDS", 60.0)

    async def work() -> None:
        assert await writer.owe(partial(Notes.add, word="one")) == 1
        first, second = (writer.owe(partial(Notes.add, word=word)) for word in ("two", "three"))
        assert await second == 3
        assert await first == 2, "it was done before anybody asked"
        assert await first == 2

    house.run(work(), 20)


def test_what_is_owed_is_written_when_it_closes(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_GATHER_SECONDS", 60.0)

    async def work() -> None:
        writer.owe(partial(Notes.add, word="last"))

    house.run(work(), 20)
    writer.close()
    assert words(writer) == ["last"]
