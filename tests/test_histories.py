"""Histories that the provider keeps: what placeholders of earlier turns stand for comes back, sealed on the way; the store
alone, the policy in front of it, and a real gateway with the openai SDK."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from douane.call import Outcome, Principal
from douane.control import Client
from douane.demo.answers import default_script
from douane.demo.echo import ident
from douane.demo.provider import LocalProvider, Reply, Seen
from douane.errors import EnvironmentFailedError
from douane.histories.base import NOTHING, History, HistoryTooLargeError, HistoryUnavailableError, Name, Shelf, durable
from douane.histories.sqlite import FILE, LARGEST, SqliteHistories
from douane.placeholders import LOOKS_LIKE, DataKey, Minter
from douane.policies.redact import Redact, _Redact, parse_remember
from douane.providers.kept import answer_names, conversations, goes_on_from, in_lines, is_kept
from douane.rehydrate import Restorer
from douane.remember import Remembering
from douane.restore import RestoreFilter
from douane.secrets import Originals
from douane.verdict import ALLOW, Rewrite
from tests import house
from tests.gateway import ADDONS, BOT_KEY, Gateway, answering, forms, policy, running_gateway, wait_for
from tests.test_redact import KEY, MAIL, Plain, ask, wire_of

MONTH = 30 * 86400
ONE = Name("openai", "acme", "resp_1")
ANN = "<EMAIL_ADDRESS_aaaaaaaa>"
BOB = "<EMAIL_ADDRESS_bbbbbbbb>"


def history(hosts: Sequence[str] = (), **values: str) -> History:
    """By the eight digits of each placeholder."""
    return History(Originals({f"<EMAIL_ADDRESS_{digits}>": value for digits, value in values.items()}), frozenset(hosts))


class Clock:
    def __init__(self) -> None:
        self.now = house.AT

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteHistories]:
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY, clock=clock)) as opened:
        yield opened


async def save(store: SqliteHistories, kept: History, *names: Name, seconds: float = MONTH) -> None:
    await durable(store.save(names or (ONE,), kept, house.AT + seconds))


def raises(error: type[Exception], work: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(error):
        house.run(work)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_what_was_saved_is_there_for_its_name_alone(store: SqliteHistories) -> None:
    kept = history(["crm.example"], aaaaaaaa='Zoë "Q"\n\ud800', bbbbbbbb=MAIL)
    others = [replace(ONE, tenant="other"), replace(ONE, provider="azure"), replace(ONE, id="resp_2"),
              Name("openai", "acm", "eresp_1")]

    async def work() -> None:
        await save(store, kept)
        assert await store.load([ONE]) == kept
        assert [*(await store.load([ONE])).originals] == [*kept.originals]
        for other in others:
            assert await store.load([other]) == NOTHING

    house.run(work())
    assert MAIL not in repr(kept)
    assert "crm" not in repr(kept)


def test_a_history_outlives_the_process_and_only_its_key_opens_it(tmp_path: Path) -> None:
    for key, found in ((KEY, True), (KEY, True), (DataKey(b"x" * 32), False)):
        with contextlib.closing(SqliteHistories.open(tmp_path, key, clock=lambda: house.AT)) as store:
            if not (tmp_path / "saved").exists():
                house.run(save(store, history(aaaaaaaa=MAIL)))
                (tmp_path / "saved").touch()
            assert bool(house.run(store.load([ONE]))) is found


def test_turns_add_up(store: SqliteHistories) -> None:
    """Two turns of a conversation at once: neither undoes the other, and a placeholder of both means neither's value."""
    async def work() -> History:
        await asyncio.gather(save(store, history(["a.example"], aaaaaaaa="1", cccccccc="3")),
                             save(store, history(["b.example"], bbbbbbbb="2", cccccccc="4")))
        return await store.load([ONE, replace(ONE, id="none")])

    assert house.run(work()) == history(["a.example", "b.example"], aaaaaaaa="1", bbbbbbbb="2")


def rows(folder: Path) -> list[tuple[bytes, int, bytes]]:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        return connection.execute("SELECT name, expires_at, sealed FROM history ORDER BY expires_at").fetchall()


def test_it_ends_at_its_time(store: SqliteHistories, clock: Clock, tmp_path: Path) -> None:
    async def work() -> None:
        await save(store, history(aaaaaaaa=MAIL), seconds=60)
        await save(store, history(bbbbbbbb=MAIL), replace(ONE, id="resp_2"), seconds=120)
        clock.now += 59
        assert await store.load([ONE])
        clock.now += 2
        assert not await store.load([ONE])
        await save(store, history(cccccccc="new"))  # what ended does not come to life again
        assert (await store.load([ONE])) == history(cccccccc="new")
        clock.now += 60
        store.sweep()
        await store.load([])

    house.run(work())
    assert len(rows(tmp_path)) == 1


def test_nothing_readable_is_on_the_disk(store: SqliteHistories, tmp_path: Path) -> None:
    name = Name("openai", "tenant-canary-7f", "resp_canary_0123456789")
    kept = history(["host-canary.example"], aaaaaaaa=MAIL, bbbbbbbb='Zoë "Q"')

    async def work() -> None:
        await save(store, kept, name)
        await save(store, history(cccccccc="later@example.com"), name)
        assert len((await store.load([name])).originals) == 3

    house.run(work())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".sqlite", ".sqlite-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    words = [MAIL, 'Zoë "Q"', "later@example.com", name.tenant, name.id, "host-canary.example", "EMAIL_ADDRESS", "aaaaaaaa"]
    for path in files:
        data = path.read_bytes()
        assert not [form for word in words for form in forms(word) if form in data]


@pytest.mark.parametrize("change", [
    "UPDATE history SET sealed=:flipped WHERE name=:one",
    "UPDATE history SET sealed=x'00' WHERE name=:one",
    "UPDATE history SET expires_at=expires_at + 1 WHERE name=:one",
    "UPDATE history SET sealed=(SELECT sealed FROM history WHERE name!=:one) WHERE name=:one"])
def test_a_row_that_was_changed_does_not_open(store: SqliteHistories, tmp_path: Path, change: str) -> None:
    async def work() -> None:
        other = replace(ONE, id="resp_2")
        await save(store, history(aaaaaaaa=MAIL))
        await save(store, history(bbbbbbbb=MAIL), other)
        row = KEY.digest("history", ONE.provider, ONE.tenant, ONE.id)
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
            (sealed,) = connection.execute("SELECT sealed FROM history WHERE name=?", (row,)).fetchone()
            flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
            assert connection.execute(change, {"one": row, "flipped": flipped}).rowcount == 1
        with pytest.raises(HistoryUnavailableError):
            await store.load([ONE])
        with pytest.raises(HistoryUnavailableError):
            await save(store, history(cccccccc="x"), ONE)
        assert await store.load([other]), "the others do"
        assert not store.failure, "the store is not broken"

    house.run(work())


def test_what_cannot_be_saved_now_is_owed(store: SqliteHistories, tmp_path: Path) -> None:
    async def work() -> None:
        await save(store, history(aaaaaaaa="1"))
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(HistoryUnavailableError):
                await save(store, history(bbbbbbbb="2"))
            assert "locked" in store.failure
            assert await store.load([ONE]) == history(aaaaaaaa="1", bbbbbbbb="2"), "it is read all the same"
            other.execute("ROLLBACK")
        store.sweep()
        await store.load([])
        assert not store.failure

    house.run(work())
    store.close()
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY, clock=lambda: house.AT)) as again:
        assert house.run(again.load([ONE])) == history(aaaaaaaa="1", bbbbbbbb="2")


@pytest.mark.parametrize("break_it", [
    lambda path: path.rename(path.with_suffix(".away")),
    lambda path: path.unlink()])
def test_a_file_that_went_is_told(store: SqliteHistories, tmp_path: Path, break_it: Callable[[Path], object]) -> None:
    break_it(tmp_path / FILE)
    raises(HistoryUnavailableError, save(store, history(aaaaaaaa=MAIL)))
    assert "moved or deleted" in store.failure


def test_a_damaged_file_is_no_empty_one(store: SqliteHistories, tmp_path: Path) -> None:
    house.run(save(store, history(aaaaaaaa=MAIL)))
    with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("DROP TABLE history")
    raises(HistoryUnavailableError, store.load([ONE]))
    assert store.failure


def test_a_history_keeps_its_newest_values(store: SqliteHistories) -> None:
    many = {f"a{number:07d}".translate(str.maketrans("0189", "wxyz")): f"{number}@example.com" for number in range(40_000)}
    kept = history(["crm.example"], **many)
    raises(HistoryTooLargeError, save(store, kept))
    found = house.run(store.load([ONE]))
    assert 10_000 < len(found.originals) < 40_000
    assert [*found.originals] == [*kept.originals][-len(found.originals):]
    assert len(json.dumps(dict(found.originals), separators=(",", ":"))) <= LARGEST
    assert found.hosts == {"crm.example"}


def test_a_full_store_gives_up_its_oldest(tmp_path: Path) -> None:
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY, clock=lambda: house.AT, limit=1 << 20)) as store:
        async def work() -> None:
            for number in range(300):
                name = Name("openai", "acme", f"resp_{number}")
                await save(store, history(aaaaaaaa="x" * 10_000), name, seconds=MONTH + number)

        house.run(work())
        assert not store.failure
    left = rows(tmp_path)
    assert 10 < len(left) < 110
    assert left[-1][1] == int(house.AT + MONTH + 299)
    assert (tmp_path / FILE).stat().st_size < 2 << 20


def test_closed(store: SqliteHistories) -> None:
    store.close()
    store.close()
    raises(HistoryUnavailableError, store.load([ONE]))
    raises(HistoryUnavailableError, save(store, history(aaaaaaaa="1")))
    raises(HistoryUnavailableError, Shelf().histories.load([ONE]))


@pytest.mark.parametrize("content", [b"not a database at all, by any means" * 40, b""])
def test_what_is_no_store_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    if content:
        with pytest.raises(EnvironmentFailedError, match="move the file away"):
            SqliteHistories.open(tmp_path, KEY)
        return
    SqliteHistories.open(tmp_path, KEY).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA user_version=7")
    with pytest.raises(EnvironmentFailedError, match="version 7"):
        SqliteHistories.open(tmp_path, KEY)


SAVING = """
import asyncio, sys
from pathlib import Path
from douane.histories.base import History, Name, durable
from douane.histories.sqlite import SqliteHistories
from douane.placeholders import DataKey
from douane.secrets import Originals

async def main():
    store = SqliteHistories.open(Path(sys.argv[1]), DataKey(b"k" * 32))
    for number in range(100_000):
        kept = History(Originals({"<A_aaaaaaaa>": str(number)}))
        await durable(store.save([Name("openai", "acme", f"resp_{number}")], kept, 1e11))
        print(number, flush=True)

asyncio.run(main())
"""


def test_killed_in_the_middle_it_has_all_it_said_it_has(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SAVING, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ADDONS)})
    said = [int(process.stdout.readline()) for _ in range(40)]  # type: ignore[union-attr]
    process.kill()
    process.communicate()
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY)) as store:
        for number in said:
            found = house.run(store.load([Name("openai", "acme", f"resp_{number}")]))
            assert [*found.originals.values()] == [str(number)]


# -- what requests and answers say ---------------------------------------------------------------------------------------

MADE = "/v1/responses"


@pytest.mark.parametrize(("path", "document", "read", "grown", "kept"), [
    (MADE, {"input": "x"}, (), (), True),
    (MADE, {"previous_response_id": "resp_1"}, ("resp_1",), (), True),
    (MADE, {"previous_response_id": None, "conversation": None, "store": None}, (), (), True),
    (MADE, {"conversation": "conv_1"}, ("conv_1",), ("conv_1",), True),
    (MADE, {"conversation": {"id": "conv_1"}, "store": True}, ("conv_1",), ("conv_1",), True),
    (MADE, {"previous_response_id": "resp_1", "store": False}, ("resp_1",), (), False),
    (MADE, {"previous_response_id": 7, "conversation": ["x"]}, (), (), True),
    (MADE, {"previous_response_id": "r" * 257}, (), (), True),
    (MADE, ["x"], (), (), False),
    ("/openai/v1/responses", {"input": "x"}, (), (), True),
    ("/v1/responses/compact", {"previous_response_id": "resp_1"}, ("resp_1",), (), True),
    ("/v1/responses/input_tokens", {"input": "x"}, (), (), False),
    ("/v1/responses/resp_1", None, ("resp_1",), (), False),
    ("/v1/responses/resp_1/input_items", None, ("resp_1",), (), False),
    ("/v1/responses/resp_1/cancel", None, ("resp_1",), (), False),
    ("/v1/conversations", {"items": []}, (), (), True),
    ("/v1/conversations/conv_1/items", {"items": []}, ("conv_1",), ("conv_1",), True),
    ("/v1/conversations/conv_1/items", None, ("conv_1",), (), False),
    ("/v1/responses/%2e%2e", None, (), (), False),
    ("/v1/chat/completions", {"messages": [], "store": True}, (), (), True),
    ("/v1/chat/completions", {"messages": []}, (), (), False)])
def test_which_histories_a_request_names(path: str, document: Any, read: Any, grown: Any, kept: bool) -> None:
    assert goes_on_from(path, document) == read
    assert conversations(path, document) == grown
    assert is_kept(path, document) is kept


@pytest.mark.parametrize(("document", "names"), [
    ({"id": "resp_1", "object": "response"}, ("resp_1",)), ({"id": "conv_1", "object": "conversation"}, ("conv_1",)),
    ({"type": "response.created", "response": {"id": "resp_1", "object": "response"}}, ("resp_1",)),
    ({"id": "chatcmpl-1", "object": "chat.completion"}, ("chatcmpl-1",)), ({"error": {"message": "x"}}, ()), ([], ()),
    ({"id": 7, "object": "response"}, ()), ({"type": "response.output_text.delta", "delta": "x"}, ()),
    ({"id": "file-1", "object": "file"}, ("file-1",)), ({"id": "msgbatch_1", "type": "message_batch"}, ("msgbatch_1",)),
    ({"id": "up", "object": "upload", "file": {"id": "file-1", "object": "file"}}, ("file-1",)),
    ({"id": "batch_1", "object": "batch", "output_file_id": "file-2", "error_file_id": None}, ("batch_1", "file-2")),
    ({"name": "batches/b1", "metadata": {}}, ("b1",))])
def test_what_an_answer_is_called(document: Any, names: tuple[str, ...]) -> None:
    assert answer_names(document) == names


@pytest.mark.parametrize(("path", "document", "read", "kept", "lines"), [
    ("/v1/files", {"file": "x"}, (), True, False), ("/v1/files/file-1", None, ("file-1",), False, False),
    ("/v1/files/file-1/content", None, ("file-1",), False, True),
    ("/v1/batches", {"input_file_id": "file-1"}, ("file-1",), True, False),
    ("/v1/batch/jobs", {"input_files": ["f1", 7, "f2"]}, ("f1", "f2"), True, False),
    ("/v1/batches/batch_1", None, ("batch_1",), True, False), ("/v1/batch/jobs/j1", None, ("j1",), True, False),
    ("/v1/messages/batches", {"requests": []}, (), True, False),
    ("/v1/messages/batches/mb_1/results", None, ("mb_1",), False, True),
    ("/v1/uploads/up_1/parts", {"data": "x"}, ("up_1",), True, False),
    ("/v1/chat/completions", {"store": True}, (), True, False), ("/v1/chat/completions", {}, (), False, False),
    ("/v1/chat/completions/chatcmpl-1/messages", None, ("chatcmpl-1",), False, False),
    ("/v1/uploads/up_1/complete", {"part_ids": []}, ("up_1",), True, False),
    ("/v1beta/models/g:batchGenerateContent", {"batch": {}}, (), True, False),
    ("/v1beta/batches/b1", None, ("b1",), True, False), ("/v1beta/batches/b1:cancel", {}, ("b1",), True, False)])
def test_which_batches_and_files_a_request_names(path: str, document: Any, read: Any, kept: bool, lines: bool) -> None:
    assert (goes_on_from(path, document), is_kept(path, document), in_lines(path)) == (read, kept, lines)


def streamed(text: str) -> bytes:
    body = json.dumps({"model": "m", "input": text, "stream": True}).encode()
    steps = default_script()(Seen(connection=1, number=5, method="POST", target=MADE, body=body,
                                  headers=((b"authorization", b"Bearer k"),)))
    assert isinstance(steps, Reply)
    return b"".join(step for step in steps.body if isinstance(step, bytes))


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_however_it_is_cut_the_name_is_told_once_and_early(size: int) -> None:
    data = streamed(f"to {ANN} and {ANN}")
    told: list[tuple[tuple[str, ...], int]] = []
    seen = 0
    plain, one = (RestoreFilter(Restorer({ANN: MAIL}, frozenset)) for _ in "ab")
    tells = Remembering(one, lambda names: told.append((names, seen)))
    head = ((b"content-type", b"text/event-stream; charset=utf-8"),)
    plain.headers(head)
    assert tells.headers(head) == head
    wanted, out = b"", b""
    for start in range(0, len(data), size):
        seen = start
        out += tells.feed(data[start:start + size])
        wanted += plain.feed(data[start:start + size])
    assert out + tells.close() == wanted + plain.close()
    assert MAIL.encode() in out
    (((name,), at),) = told
    assert name.startswith("resp_")
    assert at <= len(data) // 3


# -- the policy ----------------------------------------------------------------------------------------------------------


class Tripwire:
    """A store that must not be asked."""

    async def load(self, names: Sequence[Name]) -> History:
        raise AssertionError("asked")

    def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
        raise AssertionError("asked")


def redact(histories: Any, *, remember: int = MONTH) -> _Redact:
    shelf = Shelf()
    shelf.histories = histories
    return _Redact(Plain(), wire_of, KEY, "placeholder", True, shelf, remember)  # type: ignore[arg-type]


def responses(document: Any, **more: Any) -> Any:
    return ask({"model": "gpt-4o", **document}, operation="responses", path=MADE, **more)


async def turn(policy: _Redact, call: Any, answer: Any, status: int = 200) -> str:
    """What the app gets of the JSON *answer*."""
    verdict = await policy.admit(call)
    call = verdict.call if isinstance(verdict, Rewrite) else call
    one = policy.filter(call)
    if one is None:
        out = json.dumps(answer)
    else:
        one.headers(((b"content-type", b"application/json"),))
        out = (one.feed(json.dumps(answer).encode()) + one.close()).decode()
    await policy.settle(call, Outcome("complete", status))
    assert not policy.open
    return out


def said(text: str, number: int = 1) -> dict[str, Any]:
    return {"id": f"resp_{number}", "object": "response", "output": [{"type": "message", "content": [
        {"type": "output_text", "text": text}]}]}


def placeholder(value: str = MAIL, tenant: str = "acme") -> str:
    return Minter(KEY, tenant, {}).placeholder("EMAIL_ADDRESS", value)


@pytest.mark.parametrize("call", [
    responses({"input": "hello"}), responses({"input": MAIL, "store": False}),
    ask({"model": "m", "messages": [{"role": "user", "content": MAIL}]}),
    house.call(method="GET", path="/v1/models", operation="models", principal=Principal("bot", "t", "acme"))])
def test_the_store_is_not_asked_without_need(call: Any) -> None:
    house.run(turn(redact(Tripwire()), call, said("x")))


def test_never_remembers_nothing() -> None:
    policy = redact(Tripwire(), remember=0)
    house.run(turn(policy, responses({"input": MAIL, "previous_response_id": "resp_1", "conversation": "conv_1"}), said("x")))
    assert Redact().remember == MONTH


class Failing:
    """A store that knows a batch, and whose disk fails the first *failures* times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.saved: list[list[str]] = []

    async def load(self, names: Sequence[Name]) -> History:
        return History(Originals({placeholder(): MAIL}))

    def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
        self.saved.append([one.id for one in names])
        done = asyncio.get_running_loop().create_future()
        if len(self.saved) <= self.failures:
            done.set_exception(HistoryUnavailableError("no space"))
        else:
            done.set_result(None)
        return done


def test_a_batch_that_is_asked_for_again_is_saved_until_it_is_once() -> None:
    store = Failing(1)
    policy = redact(store)
    call = house.call(method="GET", path="/v1/batches/batch_1", operation="batches", principal=Principal("bot", "t", "acme"))
    batch = {"id": "batch_1", "object": "batch", "output_file_id": "file-2"}

    async def work() -> None:
        with pytest.raises(HistoryUnavailableError):
            await turn(policy, call, batch)
        for _ in range(3):
            await turn(policy, call, batch)

    house.run(work())
    assert store.saved == [["batch_1", "file-2"]] * 2


@pytest.mark.parametrize(("text", "seconds"), [
    ("90s", 90), ("15m", 900), ("12 h", 43_200), ("30d", MONTH), ("4w", 28 * 86400), ("never", 0),
    *((wrong, None) for wrong in ("0d", "30", "d", "-1d", "1.5d", "30 days", "100000d", ""))])
def test_how_long_is_spelled(text: str, seconds: int | None) -> None:
    if seconds is None:
        with pytest.raises(ValueError, match="a duration is"):
            parse_remember(text)
    else:
        assert parse_remember(text) == seconds


def test_turn_by_turn(store: SqliteHistories) -> None:
    policy = redact(store)

    async def work() -> None:
        await turn(policy, responses({"input": MAIL}), said("ok", 1))
        both = f"{placeholder()} {placeholder('bob@example.com')}"
        got = await turn(policy, responses({"input": "bob@example.com", "previous_response_id": "resp_1"}), said(both, 2))
        assert f"{MAIL} bob@example.com" in got
        got = await turn(policy, responses({"input": "and?", "previous_response_id": "resp_2"}), said(both, 3))
        assert f"{MAIL} bob@example.com" in got
        call = responses({"input": "again?", "previous_response_id": "resp_3", "store": False})
        got = await turn(policy, call, said(both, 4))
        assert f"{MAIL} bob@example.com" in got
        assert not await store.load([replace(ONE, id="resp_4")])
        got = await turn(policy, responses({"input": "and?", "previous_response_id": "resp_1"}), said(both, 5))
        assert MAIL in got
        assert "bob@" not in got, "what was said after it is not of this history"
        other = responses({"input": "and?", "previous_response_id": "resp_3"})
        assert MAIL not in await turn(policy, replace(other, principal=Principal("bot", "t", "other")), said(both, 6))

    house.run(work())


def test_a_value_that_collides_with_an_earlier_one_gets_more_digits(store: SqliteHistories) -> None:
    """Both come back as themselves."""
    async def work() -> None:
        await save(store, History(Originals({placeholder(): "other@example.com"})))
        call = responses({"input": MAIL, "previous_response_id": "resp_1"})
        verdict = await redact(store).admit(call)
        assert isinstance(verdict, Rewrite)
        assert sorted(verdict.call.originals.values()) == sorted([MAIL, "other@example.com"])
        (new,) = LOOKS_LIKE.findall(verdict.call.document["input"])
        assert len(new) == len(placeholder()) + 8
        assert verdict.call.originals[new] == MAIL

    house.run(work())


def test_urls_lead_where_a_request_of_the_history_led(store: SqliteHistories) -> None:
    policy = redact(store)
    expected = {"crm.example": True, "new.example": True, "said.example": False, "evil.example": False}
    answer = " ".join(f"https://{host}/?q={placeholder()}" for host in expected)

    async def work() -> str:
        await turn(policy, responses({"input": f"{MAIL} is at https://crm.example/x"}), said("see https://said.example/", 1))
        second = responses({"input": "at https://new.example/", "previous_response_id": "resp_1"})
        return await turn(policy, second, said(answer, 2))

    got = house.run(work())
    for host, back in expected.items():
        assert (f"https://{host}/?q={MAIL}" in got) is back, host


@pytest.mark.parametrize(("outcome", "kept"), [
    (Outcome("client_disconnected"), True), (Outcome("upstream_timeout"), True), (Outcome("complete", 200), True),
    (Outcome("denied"), False), (Outcome("complete", 400), False)])
def test_a_conversation_grows_unless_the_call_was_refused(store: SqliteHistories, outcome: Outcome, kept: bool) -> None:
    policy = redact(store)

    async def work() -> bool:
        verdict = await policy.admit(responses({"input": MAIL, "conversation": "conv_1"}))
        assert isinstance(verdict, Rewrite)
        assert policy.filter(verdict.call) is not None
        await policy.settle(verdict.call, outcome)
        assert not policy.open
        return bool(await store.load([replace(ONE, id="conv_1")]))

    assert house.run(work()) is kept


def test_the_outcome_waits_until_it_is_on_the_disk() -> None:
    class Slow(Tripwire):
        def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
            assert names == [ONE]
            self.saving = asyncio.get_running_loop().create_future()
            return self.saving

    async def work() -> None:
        slow = Slow()
        ending = asyncio.create_task(turn(redact(slow), responses({"input": MAIL}), said("ok")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not ending.done()
        slow.saving.set_result(None)
        await ending

    house.run(work())


def test_a_stream_is_kept_from_its_first_event_on(store: SqliteHistories) -> None:
    """A gateway that dies under it, or an app that goes on meanwhile, finds the values."""
    async def work() -> None:
        policy = redact(store)
        verdict = await policy.admit(responses({"input": MAIL, "stream": True, "background": True}))
        assert isinstance(verdict, Rewrite)
        one = policy.filter(verdict.call)
        assert one is not None
        one.headers(((b"content-type", b"text/event-stream"),))
        first = streamed("x").split(b"\n\n")[0] + b"\n\n"
        assert one.feed(first) == first
        name = json.loads(first.partition(b"data: ")[2])["response"]["id"]
        assert (await store.load([replace(ONE, id=name)])).originals == verdict.call.originals
        await policy.settle(verdict.call, Outcome("client_disconnected", 200))

    house.run(work())


def test_in_observe_mode_nothing_comes_back_and_nothing_stays(store: SqliteHistories) -> None:
    policy, call = redact(store), responses({"input": "and?", "previous_response_id": "resp_1"})

    async def work() -> None:
        await save(store, history(aaaaaaaa=MAIL))
        await policy.admit(call)
        assert policy.filter(call) is None, "the rewrite was suspended"
        await policy.settle(call, Outcome("complete", 200))

    house.run(work())
    assert not policy.open


def test_a_get_restores_by_the_id_in_its_path(store: SqliteHistories) -> None:
    policy = redact(store)
    call = house.call(method="GET", path="/v1/responses/resp_1", operation="unknown", principal=Principal("bot", "t", "acme"))

    async def work() -> None:
        assert await policy.admit(call) == ALLOW
        await save(store, history(aaaaaaaa=MAIL))
        assert MAIL in await turn(policy, call, said(ANN))

    house.run(work())


# -- a real gateway ------------------------------------------------------------------------------------------------------


class Keeper:
    """A provider that keeps histories: it answers with all that was said so far. ``background`` calls are done when they
    are fetched."""

    def __init__(self) -> None:
        self.heard: dict[str, str] = {}
        self.done: dict[str, bytes] = {}

    def __call__(self, seen: Seen) -> Any:
        if seen.method == "GET":
            return Reply(headers=[("content-type", "application/json")], body=self.done[seen.path.rpartition("/")[2]])
        document = json.loads(seen.body)
        before = document.get("previous_response_id") or document.get("conversation") or ""
        before = before["id"] if isinstance(before, dict) else before
        text = f"{self.heard.get(before, '')} {document['input']}".strip()
        asked = replace(seen, body=json.dumps({**document, "input": text}).encode())
        for name in (ident("resp_", asked), document.get("conversation") and before):
            if name and document.get("store") is not False:
                self.heard[name] = text
        reply = default_script()(asked)
        assert isinstance(reply, Reply)
        if not document.get("background"):
            return reply
        whole = json.loads(reply.body)  # type: ignore[arg-type]
        self.done[whole["id"]] = json.dumps({**whole, "background": True}).encode()
        return replace(reply, body=json.dumps({**whole, "status": "queued", "output": []}).encode())


CHAIN = """  - authenticate: {unknown: deny}
  - redact: {entities: [EMAIL_ADDRESS]}
  - swap_key: {missing: keep}"""
MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    """With the app's own key: a shared one is ``test_objects.py``'s matter."""
    text = policy(provider, chain=CHAIN, more="edge: {unknown_operations: allow}")
    return text.replace("credentials:\n  openai: env:REAL_KEY\n", "")


@pytest.fixture(autouse=True, scope="module")
def keeper(provider: LocalProvider) -> Iterator[Keeper]:
    with answering(provider, one := Keeper()):
        yield one


@contextlib.contextmanager
def client(gateway: Gateway, key: str = "") -> Iterator[Any]:
    """An SDK that is not bound to the process's variables: gateways come and go here. *key*: by which ``bot`` is known."""
    context = ssl.create_default_context(cafile=str(gateway.ca))
    proxy = gateway.url.replace("//", f"//bot:{key}@") if key else gateway.url
    http = openai.DefaultHttpxClient(proxy=proxy, verify=context, trust_env=False)
    with openai.OpenAI(api_key="app-key", base_url="https://api.openai.com/v1", max_retries=0, http_client=http) as one:
        yield one


def text_of(events: Any) -> str:
    events = list(events)
    text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert events[-1].response.output_text == text
    return text


def test_the_next_turn_has_the_values_of_the_last(gateway: Gateway, provider: LocalProvider) -> None:
    since = len(provider.seen)
    with client(gateway) as sdk:
        one = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.")
        two = sdk.responses.create(model=MODEL, input="Who am I?", previous_response_id=one.id)
        assert two.output_text == f"You said: I am {MAIL}. Who am I?"
        three = sdk.responses.create(model=MODEL, input="Again?", previous_response_id=two.id, stream=True)
        assert text_of(three) == f"You said: I am {MAIL}. Who am I? Again?"
    assert len(provider.seen) == since + 3
    assert MAIL.encode() not in b"".join(one.body for one in provider.seen)


def test_a_stream_is_gone_on_from_too(gateway: Gateway) -> None:
    with client(gateway) as sdk:
        events = list(sdk.responses.create(model=MODEL, input=f"I am {MAIL}.", stream=True))
        last = events[-1].response.id
        for text, before in (("1", ""), ("2 bob@example.com", "1 "), ("3", "1 2 bob@example.com ")):
            events = list(sdk.responses.create(model=MODEL, input=text, previous_response_id=last, stream=True))
            assert text_of(events) == f"You said: I am {MAIL}. {before}{text}"
            last = events[-1].response.id


@pytest.mark.parametrize("form", [str, lambda name: {"id": name}])
def test_a_conversation_has_its_values(gateway: Gateway, form: Callable[[str], Any]) -> None:
    conversation = form(f"conv_{form.__name__.strip('<>')}")
    with client(gateway) as sdk:
        sdk.responses.create(model=MODEL, input=f"I am {MAIL}.", conversation=conversation)
        sdk.responses.create(model=MODEL, input="She is bob@example.com.", conversation=conversation)
        got = sdk.responses.create(model=MODEL, input="Who?", conversation=conversation)
        assert got.output_text == f"You said: I am {MAIL}. She is bob@example.com. Who?"
        events = sdk.responses.create(model=MODEL, input="?", conversation=conversation, stream=True)
        assert text_of(events) == f"You said: I am {MAIL}. She is bob@example.com. Who? ?"


def test_an_answer_made_in_the_background_is_fetched_with_its_values(gateway: Gateway) -> None:
    with client(gateway) as sdk:
        begun = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.", background=True)
        assert (begun.status, begun.output_text) == ("queued", "")
        assert sdk.responses.retrieve(begun.id).output_text == f"You said: I am {MAIL}."
    with client(gateway, BOT_KEY) as other:
        assert MAIL not in other.responses.retrieve(begun.id).output_text


def test_what_is_not_to_be_stored_is_not(gateway: Gateway, keeper: Keeper) -> None:
    before = len(rows(gateway.data))
    with client(gateway) as sdk:
        one = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.", store=False)
        assert one.output_text == f"You said: I am {MAIL}."
        sdk.responses.create(model=MODEL, input="nobody")
        assert len(rows(gateway.data)) == before
        keeper.heard[one.id] = placeholder()  # as though the provider had kept it all the same
        got = sdk.responses.create(model=MODEL, input="?", previous_response_id=one.id)
        assert got.output_text == f"You said: {placeholder()} ?"


def test_another_tenant_gets_nothing(gateway: Gateway) -> None:
    with client(gateway) as sdk, client(gateway, BOT_KEY) as other:
        one = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.")
        got = other.responses.create(model=MODEL, input="Who?", previous_response_id=one.id)
        assert MAIL not in got.output_text
        assert LOOKS_LIKE.search(got.output_text)


def test_a_row_that_does_not_open_refuses_the_turn(gateway: Gateway) -> None:
    with client(gateway) as sdk:
        one = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.")
        with contextlib.closing(sqlite3.connect(gateway.data / FILE, isolation_level=None)) as other:
            other.execute("UPDATE history SET expires_at=expires_at+1")
        with pytest.raises(openai.InternalServerError) as refused:
            sdk.responses.create(model=MODEL, input="Who?", previous_response_id=one.id)
        assert refused.value.response.headers["x-douane-code"] == "policy_error"
        assert sdk.responses.create(model=MODEL, input=f"I am {MAIL}.").output_text == f"You said: I am {MAIL}."


def test_the_values_stand_nowhere(gateway: Gateway) -> None:
    with client(gateway) as sdk:
        made = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.", conversation="conv_canary_0123456789")
    files = [path for path in gateway.base.rglob("*") if path.is_file()]
    assert {FILE, f"{FILE}-wal"} <= {path.name for path in files}
    for path in files:
        data = path.read_bytes()
        assert not [form for form in forms(MAIL) if form in data], path.name
        if path.name.startswith(FILE):
            assert not [form for word in (made.id, "conv_canary_0123456789") for form in forms(word) if form in data]


def test_killed_restarted_and_reloaded_it_goes_on(tmp_path: Path, provider: LocalProvider) -> None:
    with running_gateway(tmp_path, policy(provider, chain=CHAIN)) as gateway:
        with client(gateway) as sdk:
            one = sdk.responses.create(model=MODEL, input=f"I am {MAIL}.")
        gateway.stop(signal.SIGKILL)
        gateway.start()
        with client(gateway) as sdk:
            two = sdk.responses.create(model=MODEL, input="1", previous_response_id=one.id)
            assert two.output_text == f"You said: I am {MAIL}. 1"
            gateway.policy_file.write_text(gateway.policy_file.read_text() + "# more\n")
            with Client(gateway.data / "control.sock") as control:
                control.ask("reload")
            three = sdk.responses.create(model=MODEL, input="2", previous_response_id=two.id)
            assert three.output_text == f"You said: I am {MAIL}. 1 2"


def test_a_broken_store_is_named_and_no_answer_is_lost(tmp_path: Path, provider: LocalProvider) -> None:
    with running_gateway(tmp_path, policy(provider, chain=CHAIN)) as gateway, client(gateway) as sdk:
        (gateway.data / FILE).rename(gateway.data / "away")
        made = sdk.responses.with_raw_response.create(model=MODEL, input=f"I am {MAIL}.")
        one = made.parse()
        assert one.output_text == f"You said: I am {MAIL}."
        outcome = gateway.outcome(made.headers["x-douane-id"])
        assert "settle_failed:HistoryUnavailableError" in {finding["type"] for finding in outcome["findings"]}
        with Client(gateway.data / "control.sock") as control:
            (problem,) = control.ask("status")["problems"]
        assert problem == "histories: the file was moved or deleted"
        two = sdk.responses.create(model=MODEL, input="?", previous_response_id=one.id)
        assert two.output_text == f"You said: I am {MAIL}. ?", "this process knows it all the same"
        (gateway.data / "away").rename(gateway.data / FILE)

        def healed() -> bool:
            with Client(gateway.data / "control.sock") as control:
                return not control.ask("status")["problems"]

        assert wait_for(healed)
        assert len(rows(gateway.data)) == 2
