"""A process that has imported the gateway, and is forked for each one that a test starts: most of a start are the imports.

What runs in the child is ``douane serve`` all the same, from its arguments to the end of its interpreter, in an environment of
its own. Where such a gateway starts a detector, that is forked too, from a second nursery. Gateways that must come from nothing
(``fresh``, a patch, workers) are started by their command, as users start them, and so are the detectors of these, of the demo
and of the tests' own process. This file is all ends: imported, the tests' one; run as a script, either nursery.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

__all__ = ["Hatched", "nursery"]

_NUMBER = struct.Struct("!i")


class Hatched:
    """A child of the nursery; has of :class:`subprocess.Popen` what tests use."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(60)  # the first one waits for the nursery
        self._line = line
        self.pid: int = _NUMBER.unpack(line.recv(_NUMBER.size))[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                said = self._line.recv(_NUMBER.size)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("douane serve", timeout or 0) from None
            self.returncode = _NUMBER.unpack(said)[0]
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    def __init__(self, python_path: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": python_path})
        atexit.register(self._close)

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], log: IO[bytes]) -> Hatched:
        """``douane ARGUMENTS``, which writes into *log*."""
        ours, theirs = socket.socketpair()
        with theirs:
            raw = json.dumps([arguments, dict(environ)]).encode()
            socket.send_fds(self._socket, [raw], [log.fileno(), theirs.fileno()])
        return Hatched(ours)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(10)


@functools.cache
def nursery(python_path: str) -> Nursery:
    """The one of this process."""
    return Nursery(python_path)


# -- the other end ---------------------------------------------------------------------------------------------------


def _reap(lines: dict[int, socket.socket]) -> None:
    """Tell of each child that has ended how it did."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with lines.pop(ended[0]) as line, contextlib.suppress(OSError):
                line.send(_NUMBER.pack(os.waitstatus_to_exitcode(ended[1])))


def _hatch(control: socket.socket) -> list[str]:
    """Returns in every child, with its arguments. The nursery itself ends when the tests do, with all that they left."""
    lines: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _reap(lines)
        if control not in ready:
            continue
        raw, (*fds,), _, _ = socket.recv_fds(control, 1 << 18, 2)
        if not raw:
            for pid in lines:
                os.kill(pid, signal.SIGTERM)
            sys.exit(0)
        log, line = fds
        arguments, environ = json.loads(raw)
        pid = os.fork()
        if pid:
            lines[pid] = socket.socket(fileno=line)
            lines[pid].send(_NUMBER.pack(pid))
            os.close(log)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for fd in (log, line):
            os.close(fd)
        for one in (control, woken, wake, *lines.values()):
            one.close()
        os.environ.clear()
        os.environ.update(environ)
        return list(arguments)


if __name__ == "__main__":
    import gc

    gc.disable()
    import uvloop  # noqa: F401

    import douane.hosts.main  # noqa: F401
    from douane.cli import main

    gc.freeze()
    sys.exit(main(_hatch(socket.socket(fileno=int(sys.argv[1])))))
