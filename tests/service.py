"""A service of somebody's own in this process: a thread with an event loop of its own, and uvicorn in it."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.gateway import environ, wait_for

__all__ = ["Book", "Service", "running_service"]


class Book:
    """The audit log of a data folder as it grows; what was read once is not read again."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "audit"
        self.records: list[dict[str, Any]] = []
        self._read: dict[Path, int] = {}

    def turn(self) -> list[dict[str, Any]]:
        """All that stands there now, file by file."""
        for file in sorted(self.folder.glob("*/*.jsonl")):
            with file.open("rb") as opened:
                opened.seek(self._read.get(file, 0))
                lines = [line for line in opened.readlines() if line.endswith(b"\n")]
            self._read[file] = self._read.get(file, 0) + sum(map(len, lines))
            self.records += map(json.loads, lines)
        return self.records

    def of(self, call_id: str) -> list[dict[str, Any]]:
        """The records of a call; waits for its outcome."""
        def whole() -> list[dict[str, Any]]:
            found = [one for one in self.turn()[-200:] if one.get("id") == call_id]
            return found if found and found[-1]["kind"] == "outcome" else []

        return wait_for(whole)


class Service:
    """Where it listens, and its audit log."""

    def __init__(self, address: tuple[str, int], data: Path) -> None:
        self.address = address
        self.book = Book(data)

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)


@contextlib.contextmanager
def running_service(app: Any, data: Path, env: Mapping[str, str] | None = None, **settings: Any) -> Iterator[Service]:
    """*app* under uvicorn on a free port of loopback. *env*: what its policies find, beside what a gateway gets."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, server_header=False, date_header=False, **settings))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ(**(env or {})).items():
            patch.setenv(name, value)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive(), 15)
            assert server.started, "the service did not start"
            yield Service(server.servers[0].sockets[0].getsockname()[:2], data)
        finally:
            server.should_exit = True
            thread.join(15)
