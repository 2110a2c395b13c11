"""Real Redis servers for tests, and a road to them that can be broken.

Where there is none, tests skip and say so; where ``DOUANE_CI`` is set they fail. ``DOUANE_REDIS_SERVER`` names another program
(``valkey-server``).
"""

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

__all__ = ["Road", "Server", "free_port", "program", "running", "shared"]


class Server:
    """One redis-server; nothing is saved."""

    def __init__(self, folder: Path, *options: str, port: int = 0, sentinel: str = "") -> None:
        self.folder, self.port, self._options, self._sentinel = folder, port or free_port(), options, sentinel
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "s"
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--loglevel", "warning"]
        if self._sentinel:
            file = self.folder / "sentinel.conf"
            file.write_text(self._sentinel)
            command = [program(), str(file), "--sentinel", *common]
        else:
            command = [program(), *common, "--save", "", "--appendonly", "no", "--unixsocket", str(self.socket), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                with contextlib.suppress(redis.AuthenticationError):
                    client.ping()
                return
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.01)

    def client(self, **more: str) -> "redis.Redis":
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=5, **more)  # type: ignore[arg-type]

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program() -> str:
    return shutil.which(os.environ.get("DOUANE_REDIS_SERVER", "redis-server")) or ""


@contextlib.contextmanager
def running(folder: Path, *options: str, port: int = 0, sentinel: str = "") -> Iterator[Server]:
    if not program():
        (pytest.fail if os.environ.get("DOUANE_CI") else pytest.skip)("no redis-server on PATH (apt-get install redis-server)")
    server = Server(folder, *options, port=port, sentinel=sentinel)
    try:
        yield server
    finally:
        server.kill()


@functools.cache
def shared() -> Server:
    """One for this process and those it starts, which no test breaks."""
    folder = tempfile.TemporaryDirectory()
    stack = contextlib.ExitStack()
    stack.callback(folder.cleanup)
    atexit.register(stack.close)
    return stack.enter_context(running(Path(folder.name)))


class Road:
    """Forwards 127.0.0.1:port to a server. *state*: ``open``; ``down``: refuses; ``reset``: resets what comes and what is;
    ``hole``: swallows everything, both ways. *delay*: seconds that an answer takes."""

    def __init__(self, to: int) -> None:
        self.port, self._to = free_port(), to
        self.state, self.delay = "open", 0.0
        self.connections = 0
        """How many were opened."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> "Road":
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, state: str, delay: float = 0.0) -> None:
        before, self.state, self.delay = self.state, state, delay
        if before == "down" != state:
            self._do(self._listen())
        elif state == "down":
            self._do(self._end())
        elif state == "reset":
            self._do(self._reset())

    def reset_once(self) -> None:
        """What is connected now; whoever comes next is let through."""
        self._do(self._reset())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _end(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.state == "reset":
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, far_writer}
        for one in (self._pump(reader, far_writer, False), self._pump(far_reader, writer, True)):
            task = asyncio.ensure_future(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while self.state == "hole":
                    await asyncio.sleep(0.01)
                if answers and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
        writer.transport.abort()
        self._writers.discard(writer)
