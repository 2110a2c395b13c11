"""A worker process, as its parent knows it."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from douane.hosts.channel import Channel
from douane.hosts.http import DRAIN_SECONDS
from douane.hosts.slots import Slot

__all__ = ["END_SECONDS", "HELD_BACK", "Hand"]

HELD_BACK = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Blocked in a worker until it can answer them: what comes before waits, and does not kill it."""
END_SECONDS = 2 * DRAIN_SECONDS
"""After which a worker that was told to end, or has closed its line, is killed."""
_LOOK_SECONDS = 0.01


class Hand:
    """One worker. ``start``; *watch* its line; ``ended`` when the process is no more."""

    def __init__(self, slot: Slot, process: "subprocess.Popen[bytes]", ours: socket.socket) -> None:
        self.slot = slot
        self.pid = process.pid
        self.chain = ""
        """Its log; empty before it is open."""
        self.counts: Mapping[str, Any] | None = None
        """The last it told."""
        self.may_serve = False
        """It was told to open: from now on whatever all workers must know, it must have acknowledged."""
        self.asked_to_end = False
        self.opened_at = 0.0
        """By the monotonic clock."""
        self.how = ""
        """How it ended."""
        self.ended = asyncio.Event()
        self.channel = Channel(ours, {"counted": self._counted})
        self._process = process

    @classmethod
    async def start(cls, slot: Slot) -> "Hand":
        """Raises OSError."""
        hand = cls(slot, *_spawn(slot))
        await hand.channel.open()
        return hand

    async def watch(self) -> None:
        """Until the process has ended."""
        await self.channel.run()
        self.channel.close()
        deadline = time.monotonic() + END_SECONDS
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(_LOOK_SECONDS)
        self.how = _how(self._process.returncode)
        self.ended.set()

    @property
    def failed(self) -> bool:
        """Whether it has ended otherwise than in order."""
        return self._process.returncode != 0

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _counted(self, said: Mapping[str, Any]) -> dict[str, Any]:
        self.counts = said["counts"]
        return {}


def _spawn(slot: Slot) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """A process, and our end of the line to it. It inherits the other end and the sockets of its place, nothing else."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fds = (theirs.fileno(), *(one.fileno() for one in slot.sockets))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        with theirs:
            process = subprocess.Popen([sys.executable, "-m", "douane.hosts.worker", str(fds[0])],  # noqa: S603 - ourselves
                                       pass_fds=fds, stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process, ours


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
