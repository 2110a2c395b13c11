"""One exchange over a real socket: what a caller gets however the provider behaves, and what becomes of it."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from douane.errors import UpstreamError
from douane.upstream import Answer, Limits, Pool, Timeouts
from douane.upstream.connection import Connection
from tests.upstream_server import (
    LOOPS,
    Certificate,
    Script,
    Served,
    Stream,
    certify,
    echoing,
    run,
    saying,
    serving,
    until,
    whole,
)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"content-length: 12\r\n\r\nhello, world"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nx-trailer: 1\r\n\r\n"
CLOSE = OK + b"connection: close\r\n\r\nhello, world"
MIB = 1024 * 1024

type Call = Callable[[Pool, Served], Coroutine[Any, Any, Any]]


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("certs"), "localhost")


def play(script: Script, call: Call, loop: str = "uvloop", certificate: Certificate | None = None,
         timeouts: Timeouts = Timeouts(), limits: Limits = Limits()) -> Any:  # noqa: B008 - frozen
    """The result of *call* against *script*; the pool is closed, and every socket with it, before the server goes."""

    async def scene() -> Any:
        async with serving(script, certificate) as served:
            pool = Pool(timeouts, limits)
            try:
                return await call(pool, served)
            finally:
                await pool.aclose()

    return run(scene(), loop)


async def post(pool: Pool, served: Served, body: Any = b"{}", method: bytes = b"POST", **target: Any) -> Answer:
    return await pool.request(served.target(**target), method, b"/v1/x", [(b"x-key", b"secret")], body)


async def fetch(pool: Pool, served: Served, **options: Any) -> tuple[int, bytes]:
    answer = await post(pool, served, **options)
    return answer.status, await whole(answer)


async def outcome(pool: Pool, served: Served) -> tuple[bytes, str]:
    """What was read before the end, and the code of the error that ended it ("" for a proper end)."""
    got, ended = await ending(pool, served)
    if ended is None:
        return got, ""
    assert "secret" not in str(ended)
    assert "localhost:" in ended.reason
    assert "\n" not in ended.reason
    return got, ended.code


async def ending(pool: Pool, served: Served) -> tuple[bytes, UpstreamError | None]:
    got = b""
    try:
        answer = await post(pool, served)
        while piece := await answer.read():
            got += piece
    except UpstreamError as error:
        return got, error
    return got, None


# Framing on the wire


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, CLOSE], ids=["length", "chunked", "close"])
@pytest.mark.parametrize("cut", ["close", "reset"])
def test_an_answer_cut_at_any_byte_is_an_error_after_what_came(loop: str, raw: bytes, cut: str) -> None:
    """Read-until-close ends in order with a FIN, and only with that."""
    head = raw.index(b"\r\n\r\n") + 4

    async def call(pool: Pool, served: Served) -> None:
        for length in range(len(raw) + 1):
            lengths.append(length)
            got, code = await outcome(pool, served)
            in_order = raw is CLOSE and length >= head and cut == "close"
            assert code == ("" if in_order or (length == len(raw) and raw is not CLOSE) else "upstream_error"), length
            if cut == "close":  # a reset may overtake what was sent
                assert got == b"hello, world"[:len(got)]
                assert raw is not CLOSE or len(got) == max(0, length - head)
        assert served.connections >= len(raw)

    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(raw[:lengths[-1]])
        if cut == "reset":
            sock = stream.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if lengths[-1] == len(raw) and raw is not CLOSE:
                await stream.gone()
            stream.reset()

    lengths: list[int] = []
    play(script, call, loop)


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, CLOSE], ids=["length", "chunked", "close"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_byte_by_byte_is_the_same_answer(loop: str, raw: bytes, secure: bool, certificate: Certificate) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(*[raw[at:at + 1] for at in range(len(raw))], pause=0.0002)

    assert play(script, fetch, loop, certificate if secure else None) == (200, b"hello, world")


def test_head_and_body_that_came_together_are_read_without_waiting() -> None:
    async def call(pool: Pool, served: Served) -> None:
        answer = await post(pool, served)
        reading = answer.read()
        with pytest.raises(StopIteration) as done:
            reading.send(None)
        assert done.value.value == b"hello, world"
        assert await answer.read() == b""

    play(saying(LENGTH), call)


def test_events_are_handed_over_as_they_come() -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK + b"transfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            await stream.reader.readexactly(0)
            await stream.send(b"2\r\n%02d\r\n" % number)
            await turn.wait()
            turn.clear()
        await stream.send(b"0\r\n\r\n")

    async def call(pool: Pool, served: Served) -> list[bytes]:
        answer = await post(pool, served)
        events = []
        while piece := await answer.read():
            events.append(piece)
            turn.set()
        return events

    turn = asyncio.Event()
    assert play(script, call) == [b"00", b"01", b"02", b"03", b"04"]


def test_interim_answers_are_skipped(loop: str) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"

    async def call(pool: Pool, served: Served) -> None:
        for _ in range(3):
            answer = await post(pool, served)
            assert (answer.status, await whole(answer)) == (200, b"hello, world")
            assert answer.headers == [(b"content-length", b"12")]
        assert served.connections == 1

    play(saying(interim + LENGTH), call, loop)


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x00",
    OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nhi",
    OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi",
    OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n", OK + b"a: b\rc\r\ncontent-length: 0\r\n\r\n",
    b"220 smtp.example ESMTP\r\n",
    OK + b"x: " + b"a" * 70_000], ids=["101", "cl+te", "cl cl", "fold", "bare cr", "smtp", "huge head"])
def test_what_is_no_answer_is_an_upstream_error(loop: str, raw: bytes) -> None:
    async def call(pool: Pool, served: Served) -> None:
        with pytest.raises(UpstreamError, match=r"^upstream_error: localhost:\d+ does not answer in HTTP/1.1: "):
            await post(pool, served)
        await until(lambda: served.open == 0)

    play(saying(raw), call, loop)


def test_a_flaw_in_the_body_comes_after_what_was_good(loop: str) -> None:
    """And whether head and flaw came together makes no difference."""
    head, good = CHUNKED[:CHUNKED.index(b"5")], CHUNKED[CHUNKED.index(b"5"):CHUNKED.index(b"7;")]
    for pieces in [(head + good + b"zz\r\n",), (head, good + b"zz\r\n")]:
        async def script(stream: Stream, pieces: tuple[bytes, ...] = pieces) -> None:
            await stream.request()
            await stream.send(*pieces, pause=0.01)
            await stream.gone()

        assert play(script, outcome, loop) == (b"hello", "upstream_error")


@pytest.mark.parametrize(("method", "raw"), [
    (b"HEAD", OK + b"content-length: 12\r\n\r\n"), (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n"),
    (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n")])
def test_answers_without_a_body_keep_the_connection(loop: str, method: bytes, raw: bytes) -> None:
    async def call(pool: Pool, served: Served) -> None:
        for _ in range(3):
            assert (await fetch(pool, served, method=method, body=b""))[1] == b""
            assert await fetch(pool, served) == (200, b"hello, world")
        assert served.connections == 1

    play(saying(raw, LENGTH), call, loop)


@pytest.mark.parametrize("raw", [LENGTH + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", LENGTH + b"x", CLOSE,
                                 LENGTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")])
def test_a_connection_in_doubt_is_not_used_again(loop: str, raw: bytes) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(raw)
        if raw is not CLOSE:
            await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        for number in range(1, 4):
            assert await fetch(pool, served) == (200, b"hello, world")
            assert served.connections == number

    play(script, call, loop)


# TLS ends


def answering_abruptly(certificate: Certificate, raw: bytes, notify: bool) -> tuple[socket.socket, Callable[[], None]]:
    """A listener, and a function for a thread: one answer over TLS, close_notify or not, and a FIN at once. (asyncio's
    own server waits for the client's close_notify.)"""
    context = certificate.context()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as secure:
            secure.settimeout(10)
            secure.recv(65536)
            secure.sendall(raw)
            with contextlib.suppress(OSError):  # the client may have read all and gone
                if notify:
                    secure.setblocking(False)
                    with contextlib.suppress(ssl.SSLWantReadError):
                        secure.unwrap()
                secure.shutdown(socket.SHUT_WR)
            done.wait(10)

    done = threading.Event()
    serve.done = done  # type: ignore[attr-defined]
    return listener, serve


async def against(listener: socket.socket, serve: Any, certificate: Certificate,
                  call: Callable[[Pool, Served], Coroutine[Any, Any, Any]]) -> Any:
    thread = asyncio.get_running_loop().run_in_executor(None, serve)
    pool = Pool()
    try:
        return await call(pool, Served(port=listener.getsockname()[1], ca=str(certificate.ca)))
    finally:
        await pool.aclose()
        serve.done.set()
        await thread
        listener.close()


@pytest.mark.parametrize("notify", [False, True], ids=["bare FIN", "close_notify"])
def test_over_tls_only_close_notify_ends_an_answer_that_has_no_length(loop: str, notify: bool,
                                                                      certificate: Certificate) -> None:
    """A bare FIN can come from anybody on the way: a cut."""
    listener, serve = answering_abruptly(certificate, CLOSE, notify)
    result = run(against(listener, serve, certificate, outcome), loop)
    assert result == (b"hello, world", "" if notify else "upstream_error")


@pytest.mark.parametrize("size", [200_000, 2_000_000])
@pytest.mark.parametrize("notify", [False, True], ids=["bare FIN", "close_notify"])
def test_a_tail_that_waits_behind_a_slow_reader_survives_the_providers_close(loop: str, notify: bool, size: int,
                                                                            certificate: Certificate) -> None:
    """The provider is done and gone while much of its answer is still unread here."""

    async def call(pool: Pool, served: Served) -> int:
        answer = await post(pool, served)
        await asyncio.sleep(0.05)
        got = 0
        while piece := await answer.read():
            got += len(piece)
            await asyncio.sleep(0.01)
        return got

    raw = OK + b"connection: close\r\ncontent-length: %d\r\n\r\n" % size + b"z" * size
    listener, serve = answering_abruptly(certificate, raw, notify)
    assert run(against(listener, serve, certificate, call), loop) == size


# Sending


async def slowly(*pieces: bytes, pause: float = 0.001) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(pause)
        yield piece


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_ten_megabytes_both_ways(loop: str, secure: bool, certificate: Certificate) -> None:
    sent = bytes(range(256)) * (10 * MIB // 256)

    async def call(pool: Pool, served: Served) -> None:
        for body in (sent, slowly(*[sent[at:at + MIB] for at in range(0, len(sent), MIB)], b"")):
            status, got = await fetch(pool, served, body=body)
            assert (status, got == sent) == (200, True)
        assert served.connections == 1

    play(echoing(), call, loop, certificate if secure else None)


def test_empty_pieces_do_not_end_a_body() -> None:
    async def call(pool: Pool, served: Served) -> None:
        assert await fetch(pool, served, body=slowly(b"", b"a", b"", b"b", b"")) == (200, b"ab")
        assert await fetch(pool, served, body=slowly()) == (200, b"")

    play(echoing(), call)


def test_a_small_request_is_one_segment() -> None:
    async def script(stream: Stream) -> None:
        first = await stream.reader.read(1_000_000)
        await stream.send(OK + b"content-length: %d\r\n\r\n" % len(first.partition(b"\r\n\r\n")[2]))
        await stream.gone()

    async def call(pool: Pool, served: Served) -> bytes:
        answer = await post(pool, served, body=b"b" * 20_000)
        answer.close()
        return dict(answer.headers)[b"content-length"]

    assert play(script, call) == b"20000"


@pytest.mark.parametrize("kind", ["bytes", "pieces", "stalled"])
def test_an_early_answer_ends_the_sending_and_spends_the_connection(loop: str, kind: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.reader.readuntil(b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        closed.append(stream)
        await stream.reader.read(10)
        await asyncio.sleep(0.05)
        await stream.gone()

    async def endless() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"x" * (10 if kind == "stalled" else 100_000)
                if kind == "stalled":
                    await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def call(pool: Pool, served: Served) -> None:
        pieces = endless()
        body = b"x" * 20 * MIB if kind == "bytes" else pieces
        assert await fetch(pool, served, body=body) == (413, b"big")
        await until(lambda: served.open == 0)
        if body is pieces:
            await pieces.aclose()
            assert ended == [True]
        assert await fetch(pool, served) == (413, b"big")
        assert served.connections == 2

    closed: list[Stream] = []
    ended: list[bool] = []
    play(script, call, loop)


def test_an_early_head_ends_the_sending_though_its_body_is_yet_to_come(loop: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.reader.readuntil(b"\r\n\r\n")
        await stream.send(LENGTH[:-1])
        await gate.wait()
        await stream.send(LENGTH[-1:])
        await stream.gone()

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            given.append(1)
            yield b"x"
            await asyncio.sleep(0)

    async def call(pool: Pool, served: Served) -> None:
        answer = await post(pool, served, body=pieces())
        await asyncio.sleep(0)
        sent = len(given)
        await asyncio.sleep(0.02)
        assert len(given) == sent
        gate.set()
        assert await whole(answer) == b"hello, world"
        await until(lambda: served.open == 0)

    gate = asyncio.Event()
    given: list[int] = []
    play(script, call, loop)


def test_a_body_that_fails_fails_the_call_and_closes_the_connection(loop: str) -> None:
    class GoneError(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise GoneError

    async def cancelled() -> AsyncIterator[bytes]:
        yield b"x"
        raise asyncio.CancelledError

    async def call(pool: Pool, served: Served) -> None:
        with pytest.raises(GoneError):
            await post(pool, served, body=broken())
        with pytest.raises(UpstreamError, match="cancelled"):
            await post(pool, served, body=cancelled())
        await until(lambda: served.open == 0 and served.connections == 2)

    play(echoing(), call, loop)


# Back-pressure


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("ends", ["length", "close"])
def test_a_slow_reader_stops_the_provider_and_still_gets_all(loop: str, secure: bool, ends: str,
                                                            certificate: Certificate) -> None:
    size = 24 * MIB
    framing = b"content-length: %d" % size if ends == "length" else b"connection: close"

    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK + framing + b"\r\n\r\n")
        for _ in range(size // 65536):
            await stream.send(b"z" * 65536)
            sent.append(65536)

    async def call(pool: Pool, served: Served) -> None:
        answer = await post(pool, served)
        await asyncio.sleep(0.1)
        await until(lambda: sent)
        stalled = sum(sent)
        await asyncio.sleep(0.1)
        assert sum(sent) == stalled < size  # what the kernels hold, no more
        assert len(await answer.read()) <= 512 * 1024
        got = 0
        while piece := await answer.read():
            got += len(piece)
            await asyncio.sleep(0)
        assert got > size - 512 * 1024

    sent: list[int] = []
    play(script, call, loop, certificate if secure else None)


def test_a_slow_provider_stops_the_body() -> None:
    async def script(stream: Stream) -> None:
        await stream.reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        await stream.send(LENGTH)
        await stream.gone()

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            given.append(65536)
            yield b"x" * 65536

    async def call(pool: Pool, served: Served) -> None:
        calling = asyncio.create_task(fetch(pool, served, body=pieces()))
        await asyncio.sleep(0.15)
        stalled = sum(given)
        await asyncio.sleep(0.1)
        assert 0 < sum(given) == stalled < 16 * MIB
        gate.set()
        assert await calling == (200, b"hello, world")

    gate = asyncio.Event()
    given: list[int] = []
    play(script, call)


# Time


def held(*pieces: bytes) -> Script:
    """Say this and fall silent."""

    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(*pieces)
        await stream.gone()

    return script


@pytest.mark.parametrize(("sent", "reason", "got"), [
    (b"", "did not answer within 0.05 s", b""), (LENGTH[:20], "did not answer within 0.05 s", b""),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "did not answer within 0.05 s", b""),
    (LENGTH[:-3], "fell silent for 0.08 s", b"hello, wo"), (CLOSE, "fell silent for 0.08 s", b"hello, world")])
def test_silence_is_a_time_out(loop: str, sent: bytes, reason: str, got: bytes) -> None:
    async def call(pool: Pool, served: Served) -> None:
        begun = asyncio.get_running_loop().time()
        read, ended = await ending(pool, served)
        assert ended is not None
        assert (ended.code, read) == ("upstream_timeout", got)
        assert reason in ended.reason
        assert 0.04 < asyncio.get_running_loop().time() - begun < 1
        await until(lambda: served.open == 0)

    play(held(sent), call, loop, timeouts=Timeouts(first_byte=0.05, idle=0.08))


def test_a_head_that_drips_does_not_put_off_the_time_out() -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK, *[b"x: y\r\n"] * 1000, pause=0.01)

    async def call(pool: Pool, served: Served) -> None:
        with pytest.raises(UpstreamError, match=r"did not answer within 0\.1 s"):
            await post(pool, served)

    play(script, call, timeouts=Timeouts(first_byte=0.1))


def test_a_body_that_keeps_coming_and_a_reader_that_takes_its_time_are_no_silence(loop: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK + b"content-length: 1000010\r\n\r\n")
        await stream.send(*[b"x"] * 10, pause=0.03)
        await stream.send(b"y" * 1_000_000)
        await stream.gone()

    async def call(pool: Pool, served: Served) -> int:
        answer = await post(pool, served)
        got = 0
        while got < 10:
            got += len(await answer.read())
        await asyncio.sleep(0.3)
        return got + len(await whole(answer))

    assert play(script, call, loop, timeouts=Timeouts(first_byte=0.1, idle=0.1)) == 1_000_010


# Leaving


@pytest.mark.parametrize("sent", [b"", LENGTH[:20], LENGTH[:-3]], ids=["no answer", "half a head", "half a body"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_cancelled_call_closes_its_connection(loop: str, sent: bytes, secure: bool, certificate: Certificate) -> None:
    async def call(pool: Pool, served: Served) -> None:
        for body in (b"{}", b"x" * 200_000, slowly(b"a", b"b")):
            calling = asyncio.create_task(fetch(pool, served, body=body))
            before = served.connections
            await until(lambda: served.connections > before)  # noqa: B023 - awaited here
            await asyncio.sleep(0.03)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await until(lambda: served.open == 0)
        assert served.connections == 3

    play(held(sent), call, loop, certificate if secure else None)


def test_a_call_cancelled_while_its_body_is_sent_closes_its_connection(loop: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        for body in (b"x" * 20 * MIB, slowly(*[b"x" * MIB] * 20), slowly(b"x", b"y", pause=0.08)):
            gate.clear()
            calling = asyncio.create_task(fetch(pool, served, body=body))
            await until(lambda: served.open == 1)
            await asyncio.sleep(0.05)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            gate.set()
            await until(lambda: served.open == 0)

    gate = asyncio.Event()
    play(script, call, loop)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("raw", [LENGTH, LENGTH[:-1]], ids=["whole", "begun"])
def test_cancelled_in_the_turn_in_which_the_answer_comes(loop: str, when: str, raw: bytes,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller was waiting when the head came, and gone before it could take it: the connection is not left over."""
    begin = Connection._begin
    calling: list[asyncio.Task[Any]] = []

    def begin_and_cancel(connection: Connection) -> bool:
        if when == "before":
            calling[-1].cancel()
        begun = begin(connection)
        calling[-1].cancel()
        return begun

    async def call(pool: Pool, served: Served) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_begin", begin_and_cancel)
            calling.append(asyncio.create_task(fetch(pool, served)))
            with pytest.raises(asyncio.CancelledError):
                await calling[-1]
        kept = when == "after" and raw is LENGTH  # it had gone back before the caller left
        await until(lambda: served.open == int(kept))
        if raw is LENGTH:
            assert await fetch(pool, served) == (200, b"hello, world")
            assert served.connections == (1 if kept else 2)

    play(saying(raw), call, loop)


def test_cancelled_when_the_answer_is_already_here_harms_no_other_call() -> None:
    """The answer came whole and its connection went to the next in the queue before the cancelled caller ran again."""

    async def call(pool: Pool, served: Served) -> None:
        for wait in (0, 1, 2, 3):
            async def canceller(victim: "asyncio.Task[Any]", ready: asyncio.Event, turns: int = wait) -> None:
                await ready.wait()
                for _ in range(turns):
                    await asyncio.sleep(0)
                victim.cancel()

            calling = asyncio.create_task(fetch(pool, served))
            following = asyncio.create_task(fetch(pool, served))
            answered.clear()
            await asyncio.gather(canceller(calling, answered), calling, return_exceptions=True)
            assert await following == (200, b"hello, world")

    async def script(stream: Stream) -> None:
        while True:
            await stream.request()
            await stream.send(LENGTH)
            answered.set()

    answered = asyncio.Event()
    play(script, call, limits=Limits(per_target=1))


def test_closing_an_answer_stops_the_provider_at_once_and_only_then(loop: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await stream.gone()

    async def call(pool: Pool, served: Served) -> None:
        answer = await post(pool, served)
        assert await answer.read() == b"hi"
        assert served.open == 1
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        answer.close()
        answer.close()
        with pytest.raises(UpstreamError, match="closed before its end"):
            await reading
        with pytest.raises(UpstreamError, match="closed before its end"):
            await answer.read()
        await until(lambda: served.open == 0)

    play(script, call, loop)


def test_closing_an_answer_that_is_whole_keeps_the_connection_and_what_was_not_read() -> None:
    async def call(pool: Pool, served: Served) -> None:
        for _ in range(3):
            answer = await post(pool, served)
            answer.close()
            assert await whole(answer) == b"hello, world"
            answer.close()
        assert served.connections == 1

    play(saying(LENGTH), call)


def test_an_answer_has_one_reader() -> None:
    async def call(pool: Pool, served: Served) -> None:
        answer = await post(pool, served)
        first = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await answer.read()
        answer.close()
        with pytest.raises(UpstreamError):
            await first

    play(held(LENGTH[:LENGTH.index(b"hello")]), call)


def test_nothing_shows_headers() -> None:
    async def call(pool: Pool, served: Served) -> str:
        answer = await post(pool, served)
        return repr((pool, answer, vars(pool)))

    shown = play(saying(LENGTH.replace(b"\r\n\r\n", b"\r\nset-cookie: secret\r\n\r\n")), call)
    assert "secret" not in shown
    assert "content-length" not in shown
