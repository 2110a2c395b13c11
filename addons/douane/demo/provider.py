"""A TLS provider on this machine: it plays OpenAI and Anthropic for the demo, and anything at all for the tests.

Law: it listens on loopback only, and what it answers is what its script says, byte for byte. As a process::

    python -m douane.demo.provider --folder DIR [--port N] [--pause SECONDS] [--log FILE]

prints ``{"port": …, "ca": …}`` on one line once it listens, and ends at SIGTERM or SIGINT.
"""

import argparse
import asyncio
import contextlib
import itertools
import signal
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from douane.demo.answers import default_script
from douane.demo.certificate import Authority
from douane.demo.wire import Answer, Ending, Raw, Reply, Script, Seen, Step, Talk, read_body, read_head

__all__ = ["NAMES", "Answer", "LocalProvider", "Raw", "Reply", "Script", "Seen", "Step", "Talk", "running_provider"]

NAMES = ("api.openai.com", "api.anthropic.com", "localhost", "127.0.0.1")
"""What the certificate says by default: the providers' names, and the ones by which it can be dialled."""
_HEAD_LIMIT = 1 << 20
_GONE = (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, TimeoutError)
_BAD = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class LocalProvider:
    """``async with LocalProvider(folder) as provider``: listens on 127.0.0.1 until the block ends.

    *names*: exactly those of the certificate. *early* is asked with the head alone, before the body is read (None reads
    on); its answer ends the connection. *lifetime*: a negative one makes an expired certificate. *tls*: False speaks
    plain HTTP, where a peer's going is noticed only at the next write. Raises OSError where the port is taken or
    *folder* cannot be written; leaving the block raises what scripts raised, as an ExceptionGroup."""

    def __init__(self, folder: Path, *, names: Sequence[str] = NAMES, script: Script | None = None,
                 early: Callable[[Seen], Answer | None] | None = None, port: int = 0,
                 lifetime: timedelta = timedelta(days=7), tls: bool = True) -> None:
        self.script: Script = script or default_script()
        """May be replaced while it runs; without one, it behaves as the providers do."""
        self.seen: list[Seen] = []
        """Every request, in the order in which they were complete (or broke off)."""
        self.connections = 0
        """Connections whose TLS handshake was done."""
        self.port = port
        authority = Authority(folder)
        self.ca = authority.certificate
        """PEM file to trust."""
        self._early = early
        self._numbers = itertools.count(1)
        self._running: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._failures: list[BaseException] = []
        self._sni: weakref.WeakKeyDictionary[ssl.SSLObject, str] = weakref.WeakKeyDictionary()
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(authority.issue(names, lifetime=lifetime))
            self._context.set_alpn_protocols(["http/1.1"])
            self._context.sni_callback = self._named

    @property
    def url(self) -> str:
        """By which it can be dialled on this machine: no trailing slash."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        patience = {"ssl_handshake_timeout": 5.0, "ssl_shutdown_timeout": 1.0} if self._context else {}
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_HEAD_LIMIT,
                                                  ssl=self._context, **patience)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        traceback: TracebackType | None) -> None:
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open)
        if sys.version_info >= (3, 13):
            self._server.abort_clients()  # those still in their handshake; 3.12 waits for their time-out
        await self._server.wait_closed()
        if self._failures:
            raise BaseExceptionGroup("the provider's script failed", self._failures)

    def _named(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        if isinstance(connection, ssl.SSLObject):
            self._sni[connection] = name or ""

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer, self.connections))
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            self._failures.append(failure)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        gone = asyncio.create_task(_closed(writer))
        self._open[gone] = writer
        gone.add_done_callback(self._open.pop)
        sni = self._sni.get(writer.get_extra_info("ssl_object"), "") if self._context else ""
        try:
            while not gone.done() and await self._exchange(reader, writer, Seen(connection=connection, sni=sni), gone):
                pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen,
                        gone: asyncio.Task[None]) -> bool:
        """One request and its answer; whether another may follow."""
        early: Answer | None = None
        try:
            await read_head(reader, seen)
            seen.number, seen.at = next(self._numbers), time.time()
            early = self._early(seen) if self._early else None
            if early is None:
                if seen.header("expect").lower() == "100-continue":
                    writer.write(_CONTINUE)
                await read_body(reader, seen)
        except _GONE:
            if seen.head:
                self._record(seen, "client_gone")
            return False
        except (ValueError, asyncio.LimitOverrunError):
            self._record(seen, "malformed")
            writer.write(_BAD)
            return False
        self._record(seen, "open")
        answering = asyncio.create_task(_answer(seen, early or self.script(seen), reader, writer))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answering.done():
                answering.cancel()
                seen.ended = "client_gone"
        return answering.done() and answering.result() and early is None

    def _record(self, seen: Seen, ended: Ending) -> None:
        if not seen.number:
            seen.number, seen.at = next(self._numbers), time.time()
        seen.ended = ended
        self.seen.append(seen)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """Returns when the connection is gone, however it went."""
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _answer(seen: Seen, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Write one answer; whether the connection may be kept."""
    try:
        if isinstance(answer, Raw):
            return await _write(seen, answer.steps, None, writer) and answer.keep
        if not isinstance(answer, Reply):
            await answer(reader, writer)
            seen.ended = "answered"
            return False
        whole = await _write(seen, answer.steps(seen.method), answer.cut_after, writer)
    except (ConnectionError, ssl.SSLError):
        seen.ended = "client_gone"
        return False
    if not whole and answer.ragged:
        writer.transport.abort()
    closing = {value.lower() for name, value in answer.headers if name.lower() == "connection"}
    return whole and "close" not in closing | {seen.header("connection").lower()}


async def _write(seen: Seen, steps: Sequence[Step], limit: int | None, writer: asyncio.StreamWriter) -> bool:
    """Write and wait as told, up to *limit* bytes; False when that cut it short."""
    for step in steps:
        if not isinstance(step, bytes):
            await asyncio.sleep(step)
            continue
        piece = step if limit is None else step[:limit - seen.sent]
        writer.write(piece)
        await writer.drain()
        seen.sent += len(piece)
        if len(piece) < len(step):
            seen.ended = "cut"
            return False
    seen.ended = "answered"
    return True


@contextlib.contextmanager
def running_provider(folder: Path, *, names: Sequence[str] = NAMES, script: Script | None = None,
                     early: Callable[[Seen], Answer | None] | None = None, port: int = 0,
                     lifetime: timedelta = timedelta(days=7), tls: bool = True) -> Iterator[LocalProvider]:
    """A :class:`LocalProvider` in a thread with a loop of its own. Scripts run in that thread."""
    provider = LocalProvider(folder, names=names, script=script, early=early, port=port, lifetime=lifetime, tls=tls)
    started: Future[Callable[[], object]] = Future()
    ended: Future[None] = Future()

    async def live() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with provider:
            started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except (OSError, BaseExceptionGroup) as failure:
            (ended if started.done() else started).set_exception(failure)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name="local-provider", daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield provider
    finally:
        stop()
        thread.join()
    ended.result()


def _logged(script: Script, log: IO[bytes]) -> Script:
    def wrapped(seen: Seen) -> Answer:
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in seen.headers]
        line = {"number": seen.number, "connection": seen.connection, "at": seen.at, "sni": seen.sni,
                "method": seen.method, "target": seen.target, "headers": headers,
                "body": seen.body.decode("utf-8", "backslashreplace")}
        log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return script(seen)
    return wrapped


async def _main(folder: Path, port: int, script: Script) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with LocalProvider(folder, port=port, script=script) as provider:
        sys.stdout.buffer.write(orjson.dumps({"port": provider.port, "ca": str(provider.ca)}) + b"\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """The command of the module's head."""
    parser = argparse.ArgumentParser(prog="python -m douane.demo.provider", description="A local TLS provider")
    parser.add_argument("--folder", type=Path, required=True, help="where its certificates go")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two events of a stream")
    parser.add_argument("--log", type=Path, help="append each answered request as a line of JSON, its keys too")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        script = default_script(pause=asked.pause)
        if asked.log:
            script = _logged(script, stack.enter_context(asked.log.open("ab", buffering=0)))
        asyncio.run(_main(asked.folder, asked.port, script))


if __name__ == "__main__":
    main()
