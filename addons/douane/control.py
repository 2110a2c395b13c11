"""The control socket: ``DATA/control.sock``, 0600, JSON lines.

Law: who can open the socket is the gateway's own user. A one-run token lives exactly as long as the connection that asked
for it: when ``douane run`` ends, however it ends, the token is dead. One gateway serves a data folder: it holds the lock
``DATA/control.lock`` for as long as it lives.

Requests: ``{"op": "issue", "principal": NAME|null, "tags": {…}}``, ``reload``, ``stop``, ``status``. Answers: one object,
``{"ok": true, …}`` or ``{"ok": false, "error": LINE}``.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from douane.errors import DouaneError, EnvironmentFailedError

__all__ = ["Client", "ControlServer", "Operation"]

MAX_LINE = 64 * 1024
MAX_PATH = 100
"""Bytes; Linux allows 108 for a Unix socket's path, macOS 104."""

type Operation = Callable[[Mapping[str, Any], contextlib.AsyncExitStack], Awaitable[dict[str, Any]]]
"""(request, what is to be undone when the connection ends) → answer."""


class _short:  # noqa: N801 - a context manager used like a function
    """*path* as a Unix socket can bear it: a deep data folder is reached through ``/proc/self/fd``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= MAX_PATH:
            return str(self._path)
        self._fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            os.close(self._fd)


class ControlServer:
    """Serves *operations* until closed."""

    def __init__(self, path: Path, operations: Mapping[str, Operation]) -> None:
        self._path = path
        self._operations = operations
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._lock = -1

    def claim(self) -> None:
        """Take the data folder, unless done. Raises EnvironmentFailedError where another gateway has it."""
        if self._lock >= 0:
            return
        path = self._path.with_suffix(".lock")
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._let_go()
            why = "another gateway serves this data folder; stop it, or give this one another" \
                if isinstance(error, BlockingIOError) else f"the control socket cannot be made: {error.strerror or error}"
            raise EnvironmentFailedError(f"{self._path.parent if isinstance(error, BlockingIOError) else self._path}: {why}"
                                         ) from None

    def _let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def start(self) -> None:
        """Raises EnvironmentFailedError where the socket cannot be made, or another gateway has the folder."""
        self.claim()
        listening = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)  # nobody serves it: the lock is ours
            with _short(self._path) as name:
                listening.bind(name)
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE)
        except OSError as error:
            listening.close()
            self._let_go()
            why = error.strerror or error
            raise EnvironmentFailedError(f"{self._path}: the control socket cannot be made: {why}") from None

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._lock >= 0:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self._let_go()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            if _peer_uid(writer) not in (os.getuid(), 0):
                return
            async with contextlib.AsyncExitStack() as undo:
                while line := await reader.readline():
                    answer = await self._answer(line, undo)
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()
        except (OSError, ValueError):
            pass  # the peer is gone, or sent a line without end
        except asyncio.CancelledError:
            pass  # close()
        finally:
            writer.close()

    async def _answer(self, line: bytes, undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = self._operations[request["op"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": "not a known request"}
        try:
            return {"ok": True, **await operation(request, undo)}
        except DouaneError as error:
            return {"ok": False, "error": str(error)}


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    sock: socket.socket = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()  # 0600 on the socket is the guard there
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


class Client:
    """A blocking connection to a running gateway. What was issued to it dies when it is closed."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        """Raises EnvironmentFailedError where no gateway answers."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        try:
            with _short(path) as name:
                self._socket.connect(name)
        except OSError:
            self._socket.close()
            raise EnvironmentFailedError(f"no gateway answers at {path}; start one with ./run.sh") from None
        self._file = self._socket.makefile("rb")

    def ask(self, op: str, **more: Any) -> dict[str, Any]:
        """One request. Raises DouaneError with the gateway's line where it says no."""
        try:
            self._socket.sendall(json.dumps({"op": op, **more}).encode() + b"\n")
            line = self._file.readline()
        except OSError:
            line = b""
        if not line:
            raise EnvironmentFailedError("the gateway closed the control connection")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise DouaneError(answer["error"])
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
