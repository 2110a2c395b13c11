"""What parent and worker say to each other: JSON lines over a socketpair that nobody else holds.

Law: who asks is answered, refused, or told that the other is gone; lines are acted on in the order they were sent, as far as
each is done at once. Nothing secret is said here: tokens as their sha256, of policy files what stands in them (keys do not).

``{"op": NAME, "n": 7, …}`` asks, ``{"n": 7, "ok": …}`` answers; without ``n`` nobody waits for an answer.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from douane.errors import ConfigError, DouaneError, EnvironmentFailedError
from douane.logs import where

__all__ = ["Channel", "GoneError", "Operation"]

log = logging.getLogger("douane.gateway")

_MAX_LINE = 256 * 1024 * 1024
"""Bytes: all policy files of a folder in one line."""

type Operation = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class GoneError(EnvironmentFailedError):
    """The other end is closed."""


class Channel:
    """One end. *operations*: what the other may ask of us."""

    def __init__(self, ours: socket.socket, operations: Mapping[str, Operation]) -> None:
        self._socket = ours
        self._operations = operations
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()
        """Set when the other end has closed: its process has ended, or will."""

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=_MAX_LINE)

    async def run(self) -> None:
        """After :meth:`open`: hear the other end until it closes."""
        try:
            while self._reader is not None and (line := await self._reader.readline()):
                self._hear(line)
        except ConnectionError:
            pass  # it was killed, with something of ours unread
        except (OSError, ValueError) as error:
            log.error("the line between parent and worker broke: %s", where(error))
        finally:
            self.gone.set()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(GoneError("a worker ended while it was asked"))

    def tell(self, op: str, **more: Any) -> None:
        """Say something that wants no answer. Nobody may be there to hear it."""
        self._send({"op": op, **more})

    async def ask(self, op: str, seconds: float, **more: Any) -> dict[str, Any]:
        """The answer. Raises what the other refused with (DouaneError by its kind), GoneError where it is gone, and
        EnvironmentFailedError where it does not answer within *seconds*."""
        if self.gone.is_set() or self._writer is None:
            raise GoneError("a worker is gone")
        self._last += 1
        number = self._last
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send({"op": op, "n": number, **more})
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise EnvironmentFailedError(f"a worker did not answer `{op}` within {seconds:g} s") from None
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise {1: DouaneError, 2: ConfigError}.get(answer["exit"], EnvironmentFailedError)(answer["error"])
        return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _send(self, said: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write(json.dumps(said).encode() + b"\n")

    def _hear(self, line: bytes) -> None:
        said = json.loads(line)
        if "op" not in said:
            future = self._waiting.get(said.pop("n"))
            if future is not None and not future.done():
                future.set_result(said)
            return
        task = asyncio.get_running_loop().create_task(self._act(said))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _act(self, said: dict[str, Any]) -> None:
        try:
            answer = await self._operations[said["op"]](said)
        except DouaneError as error:
            answer = {"error": str(error), "exit": error.exit_code}
        except Exception as error:  # noqa: BLE001 - the outermost guard of a process: who asked must be told
            log.error("%s failed: %s", said["op"], where(error))
            answer = {"error": f"{said['op']} failed: {where(error)}", "exit": EnvironmentFailedError.exit_code}
        if "n" in said:
            self._send({"n": said["n"], **answer})
