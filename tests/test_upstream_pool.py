"""Who gets which connection: reuse, stale ones, what is sent twice, the cap and its queue, the end."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from douane.errors import UpstreamError
from douane.upstream import Answer, Limits, Pool, Timeouts
from tests.upstream_server import LOOPS, Script, Served, Stream, echoing, run, saying, serving, until, whole

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

type Call = Callable[[Pool, Served], Coroutine[Any, Any, Any]]


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def play(script: Script, call: Call, loop: str = "uvloop", **options: Any) -> Any:
    async def scene() -> Any:
        async with serving(script) as served:
            pool = Pool(**options)
            try:
                return await call(pool, served)
            finally:
                await pool.aclose()

    return run(scene(), loop)


async def fetch(pool: Pool, served: Served, method: bytes = b"POST", headers: tuple[tuple[bytes, bytes], ...] = (),
                body: Any = b"{}", **target: Any) -> bytes:
    answer = await pool.request(served.target(**target), method, b"/", headers, body)
    return await whole(answer)


def test_calls_one_after_another_share_a_connection(loop: str) -> None:
    async def call(pool: Pool, served: Served) -> None:
        for number in range(20):
            assert await fetch(pool, served, body=b"%d" % number) == b"%d" % number
        assert served.connections == 1

    play(echoing(), call, loop)


@pytest.mark.parametrize("change", [{"host": "other.test"}, {"address": ""}, {"ca": "/some/ca.pem"}])
def test_another_name_address_or_trust_is_another_connection(change: dict[str, Any]) -> None:
    async def call(pool: Pool, served: Served) -> None:
        for _ in range(2):
            await fetch(pool, served)
            await fetch(pool, served, **change)
            await fetch(pool, served, base_path="/v1")  # the same place
        assert served.connections == 2

    play(echoing(), call)


def test_the_connection_used_last_is_used_first() -> None:
    """So that those a burst left over grow old and go."""

    async def script(stream: Stream) -> None:
        number = len(served_streams)
        served_streams.append(stream)
        while True:
            _, body = await stream.request()
            if body == b"hold":
                await gate.wait()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)

    async def call(pool: Pool, served: Served) -> None:
        holding = [asyncio.create_task(fetch(pool, served, body=b"hold")) for _ in range(3)]
        await until(lambda: served.connections == 3)
        gate.set()
        await asyncio.gather(*holding)
        assert len({await fetch(pool, served) for _ in range(5)}) == 1

    served_streams: list[Stream] = []
    gate = asyncio.Event()
    play(script, call)


def test_two_hundred_calls_at_once_get_their_own_answers(loop: str) -> None:
    async def call(pool: Pool, served: Served) -> None:
        bodies = [b"%d" % number * (number + 1) for number in range(200)]
        for _ in range(3):
            assert await asyncio.gather(*[fetch(pool, served, body=body) for body in bodies]) == bodies
        assert served.connections <= 200

    play(echoing(), call, loop, limits=Limits(idle_per_target=200))


def test_idle_connections_are_bounded_in_number_and_age(loop: str) -> None:
    async def call(pool: Pool, served: Served) -> None:
        await asyncio.gather(*[fetch(pool, served) for _ in range(10)])
        await until(lambda: served.open == 3)
        assert await fetch(pool, served) == b"{}"
        assert served.connections == 10
        await until(lambda: served.open == 0)
        assert await fetch(pool, served) == b"{}"
        assert served.connections == 11

    play(echoing(), call, loop, limits=Limits(idle_per_target=3, keep_alive=0.15))


# Stale connections and sending twice


@pytest.mark.parametrize("how", ["close", "speak"])
@pytest.mark.parametrize("seen", [True, False], ids=["loop ran", "loop did not run"])
def test_a_connection_that_went_bad_while_idle_is_never_handed_out(loop: str, how: str, seen: bool) -> None:
    """Even when the event loop has had no chance to hear of it: the kernel is asked."""

    async def script(stream: Stream) -> None:
        while True:
            await stream.request()
            await stream.send(OK)

    async def call(pool: Pool, served: Served) -> None:
        for number in range(1, 4):
            assert await fetch(pool, served) == b"ok"
            await asyncio.sleep(0.03)  # longer than connection.FRESH, within which the kernel is not asked
            stream = served.streams[-1]
            with socket.socket(fileno=os.dup(stream.writer.get_extra_info("socket").fileno())) as twin:
                if how == "speak":
                    twin.sendall(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
                else:
                    twin.shutdown(socket.SHUT_WR)
            time.sleep(0.005)  # the loop must not run
            if seen:
                await asyncio.sleep(0.02)
            assert served.connections == number

    play(script, call, loop)


def dying(*, after: int) -> Script:
    """Answer *after* requests on a connection; take one more, and close without a byte."""

    async def script(stream: Stream) -> None:
        for _ in range(after):
            await stream.request()
            await stream.send(OK)
        await stream.request()
        stream.writer.close()

    return script


@pytest.mark.parametrize(("method", "headers", "body", "again"), [
    (b"GET", (), b"", True), (b"DELETE", (), b"", True), (b"PUT", (), b"x", True), (b"POST", (), b"x", False),
    (b"POST", ((b"Idempotency-Key", b"k"),), b"x", True), (b"PATCH", (), b"x", False)])
def test_what_is_sent_twice(loop: str, method: bytes, headers: tuple[tuple[bytes, bytes], ...], body: bytes,
                            again: bool) -> None:
    """A kept connection that dies under a request: only what may be processed twice is sent twice."""

    async def call(pool: Pool, served: Served) -> None:
        assert await fetch(pool, served) == b"ok"
        if again:
            assert await fetch(pool, served, method, headers, body) == b"ok"
            assert served.connections == 2
        else:
            with pytest.raises(UpstreamError, match="not known whether the call was processed"):
                await fetch(pool, served, method, headers, body)
            assert served.connections == 1

    play(dying(after=1), call, loop)


def test_a_body_that_cannot_be_had_twice_is_not_sent_twice() -> None:
    async def pieces() -> Any:
        yield b"x"

    async def call(pool: Pool, served: Served) -> None:
        await fetch(pool, served)
        with pytest.raises(UpstreamError, match="closed a kept connection"):
            await fetch(pool, served, b"PUT", body=pieces())
        assert served.connections == 1

    play(dying(after=1), call)


def test_a_fresh_connection_that_dies_is_not_tried_again() -> None:
    async def call(pool: Pool, served: Served) -> None:
        for number in (1, 2):
            with pytest.raises(UpstreamError, match="closed the connection without an answer"):
                await fetch(pool, served, b"GET", body=b"")
            assert served.connections == number

    play(dying(after=0), call)


@pytest.mark.parametrize("said", [b"H", OK[:20]])
def test_one_byte_of_an_answer_ends_the_right_to_a_second_try(said: bytes) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK)
        await stream.request()
        await stream.send(said)

    async def call(pool: Pool, served: Served) -> None:
        await fetch(pool, served, b"GET", body=b"")
        with pytest.raises(UpstreamError, match="broke off in the head"):
            await fetch(pool, served, b"GET", body=b"")
        assert served.connections == 1

    play(script, call)


def test_a_time_out_on_a_kept_connection_is_not_tried_again() -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK)
        await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        await fetch(pool, served, b"GET", body=b"")
        with pytest.raises(UpstreamError) as caught:
            await fetch(pool, served, b"GET", body=b"")
        assert (caught.value.code, served.connections) == ("upstream_timeout", 1)

    play(script, call, timeouts=Timeouts(first_byte=0.05))


def test_the_second_try_is_on_a_fresh_connection_even_at_the_cap() -> None:
    """All kept connections may be dying; one of them gives up its place."""

    async def call(pool: Pool, served: Served) -> None:
        await asyncio.gather(fetch(pool, served), fetch(pool, served))
        assert served.connections == 2
        assert await fetch(pool, served, b"GET", body=b"") == b"ok"
        assert served.connections == 3

    play(dying(after=1), call, limits=Limits(per_target=2))


# The cap


@pytest.mark.parametrize("cap", [1, 3])
def test_calls_beyond_the_cap_wait_their_turn(loop: str, cap: int) -> None:
    async def call(pool: Pool, served: Served) -> None:
        order: list[int] = []

        async def one(number: int) -> None:
            await fetch(pool, served, body=b"%d" % number)
            order.append(number)

        await asyncio.gather(*[one(number) for number in range(30)])
        assert served.connections == cap
        assert (order if cap == 1 else sorted(order)) == list(range(30))

    play(echoing(), call, loop, limits=Limits(per_target=cap))


def test_the_queue_moves_on_when_connections_die_fail_or_are_given_up(loop: str) -> None:
    """One connection allowed; every third call is cancelled, every answer spends its connection, some calls fail."""

    async def script(stream: Stream) -> None:
        _, body = await stream.request()
        if body == b"die":
            return
        if body == b"hold":
            await stream.gone()
        await stream.send(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        kinds = [b"ok", b"die", b"hold"] * 8
        tasks = [asyncio.create_task(fetch(pool, served, body=kind)) for kind in kinds]
        queued = asyncio.create_task(fetch(pool, served, body=b"ok"))
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it dials
        tasks[9].cancel()  # while it waits
        queued.cancel()
        for kind, task in zip(kinds, tasks, strict=True):
            if kind == b"hold":
                held = served.connections
                await until(lambda: served.connections > held or task.done())  # noqa: B023 - awaited here
                await asyncio.sleep(0.002)
                task.cancel()
            await asyncio.wait([task])
            if task in (tasks[0], tasks[9]) or kind == b"hold":
                assert task.cancelled()
            elif kind == b"die":
                assert isinstance(task.exception(), UpstreamError)
            else:
                assert task.result() == b"ok"
        assert queued.cancelled() or queued.done()
        assert await fetch(pool, served, body=b"ok") == b"ok"

    play(script, call, loop, limits=Limits(per_target=1))


def test_a_call_cancelled_just_as_its_turn_comes_passes_it_on() -> None:
    """The connection was handed over, the caller had not run yet."""

    async def call(pool: Pool, served: Served) -> None:
        for turns in range(6):
            first = await pool.request(served.target(), b"POST", b"/", (), b"hold")
            waiting = asyncio.create_task(fetch(pool, served))
            after = asyncio.create_task(fetch(pool, served, body=b"after"))
            await asyncio.sleep(0)
            first.close() if turns % 2 else gate.set()
            for _ in range(turns // 2 + 1):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert await after == b"after"
            first.close()
            gate.clear()

    async def script(stream: Stream) -> None:
        while True:
            _, body = await stream.request()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            if body == b"hold":
                await gate.wait()
            await stream.send(body)

    gate = asyncio.Event()
    play(script, call, limits=Limits(per_target=1))


def test_a_dial_that_fails_gives_its_place_back() -> None:
    async def call(pool: Pool, served: Served) -> None:
        served.port, port = 1, served.port
        results = await asyncio.gather(*[fetch(pool, served) for _ in range(20)], return_exceptions=True)
        assert all(isinstance(result, UpstreamError) for result in results)
        served.port = port
        assert await fetch(pool, served) == b"{}"

    play(echoing(), call, limits=Limits(per_target=2))


# The end


def test_closing_the_pool_ends_calls_queue_and_sockets(loop: str) -> None:
    async def script(stream: Stream) -> None:
        while (await stream.request())[1] == b"whole":
            await stream.send(OK)
        await stream.send(OK[:-1])
        await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        assert await fetch(pool, served, body=b"whole") == b"ok"
        half: Answer = await pool.request(served.target(), b"POST", b"/", (), b"half")
        await half.read()
        calls = [asyncio.create_task(fetch(pool, served)) for _ in range(5)]
        reading = asyncio.create_task(half.read())
        await asyncio.sleep(0.02)
        await pool.aclose()
        await pool.aclose()
        for ended in (*calls, reading):
            with pytest.raises(UpstreamError, match="shutting down"):
                await ended
        with pytest.raises(UpstreamError, match="shutting down"):
            await fetch(pool, served)
        await until(lambda: served.open == 0)

    play(script, call, loop, limits=Limits(per_target=3))


def sockets() -> int:
    """How many this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def test_nothing_is_left_behind(loop: str) -> None:
    """No socket and no task, whatever the calls came to."""

    async def scene() -> None:
        before = sockets()
        for number in range(3):
            async with serving(saying(OK, OK[:-1], b"nonsense\r\n\r\n")) as served:
                pool = Pool(Timeouts(first_byte=0.03, idle=0.03), Limits(per_target=5))
                calls = [asyncio.create_task(fetch(pool, served)) for _ in range(40)]
                calls += [asyncio.create_task(fetch(pool, served, port=1)) for _ in range(5)]
                await asyncio.sleep(0.004 * number)
                for task in calls[::3]:
                    task.cancel()
                await asyncio.wait(calls)
                for task in calls:
                    if not task.cancelled():
                        task.exception()
                await pool.aclose()
        await until(lambda: sockets() == before)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scene(), loop)
