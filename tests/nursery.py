"""A process that has imported the gateway, and is forked for each that a test starts, and for other commands: most of what
they take are the imports.

What runs in the child is the ``douane`` command all the same, from its arguments to the end of its interpreter, in an
environment of its own. Where such a gateway starts a detector, that is forked too, from a second nursery. Gateways that must
come from nothing (``fresh``, a patch, workers) are started by their command, as users start them, and so are the detectors of
these, of the demo and of the tests' own process. This file is all ends: imported, the tests' one; run as a script, either
nursery.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from typing import IO

from douane.detect.pool import worker_environment

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
        self._socket, gateways = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking, detectors = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with gateways, asking, detectors:
            environ = {**os.environ, "PYTHONPATH": python_path}
            self._processes = (_script([gateways, asking], environ), _script([detectors], worker_environment()))
        atexit.register(self._close)

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], log: IO[bytes]) -> Hatched:
        """``douane ARGUMENTS``, which writes into *log*."""
        return Hatched(_ask(self._socket, arguments, environ, log.fileno(), log.fileno()))

    def run(self, arguments: Sequence[str], environ: Mapping[str, str], seconds: float) -> "subprocess.CompletedProcess[str]":
        """As :func:`subprocess.run`, with its output."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = Hatched(_ask(self._socket, arguments, environ, out.fileno(), err.fileno()))
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(["douane", *arguments], code, out.read(), err.read())

    def _close(self) -> None:
        self._socket.close()
        for one in self._processes:
            one.wait(10)


def _script(ends: Sequence[socket.socket], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    fds = [one.fileno() for one in ends]
    return subprocess.Popen([sys.executable, "-P", __file__, *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, env=environ)


def _ask(nursery: socket.socket, arguments: Sequence[str], environ: Mapping[str, str], *fds: int) -> socket.socket:
    """For a child that has *fds*; what comes on the line is its number, then how it ended."""
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(nursery, [json.dumps([arguments, dict(environ)]).encode()], [*fds, theirs.fileno()])
    return ours


@functools.cache
def nursery(python_path: str) -> Nursery:
    """The one of this process."""
    return Nursery(python_path)


# -- the other ends --------------------------------------------------------------------------------------------------


class _Detector:
    """What a gateway has of a detector. That may come to be only when the nursery is ready: its number is not waited for."""

    pid = 0

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    @functools.cached_property
    def _hatched(self) -> Hatched:
        return Hatched(self._line)

    def kill(self) -> None:
        self._hatched.kill()

    def wait(self) -> int:
        return self._hatched.wait()


def _reap(lines: dict[int, socket.socket]) -> None:
    """Tell of each child that has ended how it did."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with lines.pop(ended[0]) as line, contextlib.suppress(OSError):
                line.send(_NUMBER.pack(os.waitstatus_to_exitcode(ended[1])))


def _hatch(control: socket.socket) -> tuple[list[str], list[int]]:
    """Returns in every child, with its arguments and its files. The nursery ends when the tests do, with all that they left."""
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
        raw, fds, _, _ = socket.recv_fds(control, 1 << 18, 3)
        if not raw:
            for pid in lines:
                os.kill(pid, signal.SIGTERM)
            sys.exit(0)
        *given, line = fds
        arguments, environ = json.loads(raw)
        pid = os.fork()
        if pid:
            lines[pid] = socket.socket(fileno=line)
            with contextlib.suppress(OSError):  # who has asked may be gone
                lines[pid].send(_NUMBER.pack(pid))
            for fd in given:
                os.close(fd)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(line)
        for one in (control, woken, wake, *lines.values()):
            one.close()
        os.environ.clear()
        os.environ.update(environ)
        return list(arguments), given


def _gateways(control: socket.socket, detectors: socket.socket) -> int:
    import uvloop  # noqa: F401

    import douane.hosts.main  # noqa: F401
    from douane.cli import main
    from douane.detect import pool
    from douane.detect.namelists import lists
    from douane.policy import registry
    from douane.providers.table import builtin

    for each in (lists, registry, builtin):
        each()

    def popen(command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str], **_: object) -> _Detector:
        assert command[1:3] == ["-m", "douane.detect.worker"]
        return _Detector(_ask(detectors, [], env, *pass_fds))

    setattr(pool, "subprocess", types.SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))  # noqa: B010
    gc.freeze()
    arguments, given = _hatch(control)
    for fd, own in enumerate(given, 1):
        os.dup2(own, fd)
        os.close(own)
    gc.enable()
    return main(arguments)


def _detectors(control: socket.socket) -> int:
    if not control.recv(1, socket.MSG_PEEK):  # to be ready takes two seconds of CPU: not before the first one is asked for
        return 0
    from douane.detect.engine import Engine, prepare
    from douane.detect.values import Wanted
    from douane.detect.worker import main

    prepare()
    Engine(Wanted()).scan("a@example.com, 212-555-0123, 4111 1111 1111 1111, Ann Lee")  # as each of them does
    gc.freeze()
    _, (fd,) = _hatch(control)
    gc.enable()
    sys.argv[1:] = [str(fd)]
    return main()


if __name__ == "__main__":
    gc.disable()
    sys.exit((_gateways if len(sys.argv) > 2 else _detectors)(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:])))
