"""The worker process: texts in on one socket, spans out. ``python -m douane.detect.worker FD``.

A frame is four bytes of length and that much JSON. First comes ``{"ready": true}`` or ``{"broken": WHY}``; then for each
``{"id": N, "wanted": {...} or null, "texts": [...], "seconds": S}`` either ``{"spans": [[[type, start, end, score] ...] ...]}``
or ``{"failed": WHY}``. ``wanted`` comes with the first question of that id, and ``"prefilter"`` (base64) with its answer.

Law: no question takes longer than its seconds (an alarm breaks into a running pattern), no connection is ever opened (an
audit hook forbids it), and nothing of a text is written anywhere but into the answer. Ends when its parent does."""

import base64
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import orjson

from douane.background import give_way
from douane.detect.values import ScanFailedError, Wanted

__all__ = ["LENGTH", "main", "stay_home"]

LENGTH = struct.Struct("!I")

_OUTWARD = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind", "subprocess.Popen")


_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What a recognizer's own code may raise on a strange text. Whatever else it raises ends the process: the parent denies."""


class _LateError(BaseException):
    """The alarm. Not an Exception, so that no library takes it for one of its own."""


def _late(number: int, frame: FrameType | None) -> None:
    raise _LateError


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _OUTWARD:
        raise PermissionError(f"{event}: a detector opens no connection")


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(fd: int, message: dict[str, Any]) -> None:
    raw = orjson.dumps(message)
    rest = memoryview(LENGTH.pack(len(raw)) + raw)
    while rest:
        rest = rest[os.write(fd, rest):]


def _asked(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:  # a lone surrogate
        return json.loads(raw)


def stay_home() -> None:
    """From now on no connection can be opened, and nothing started."""
    sys.addaudithook(_forbid)


def _serve(fd: int) -> None:
    from douane.detect.engine import Engine, prepare

    prepare()
    common = Wanted()
    engines = {0: Engine(common)}
    engines[0].scan("a@example.com, 212-555-0123, 4111 1111 1111 1111, Ann Lee")  # compiles what it needs
    stay_home()
    _write(fd, {"ready": True})
    while True:
        asked = _asked(_read(fd, LENGTH.unpack(_read(fd, LENGTH.size))[0]))
        try:
            with _within(asked["seconds"]):
                if asked["wanted"] is not None:
                    wanted = Wanted.read(asked["wanted"])
                    if wanted != common:
                        engines[asked["id"]] = Engine(wanted)
                engine = engines[asked["id"]]
                said: dict[str, Any] = {}
                if asked["wanted"] is not None and engine.prefilter is not None and engine.sees_all:
                    said["prefilter"] = base64.b64encode(engine.prefilter.dump()).decode()
                said["spans"] = [[(one.type, one.start, one.end, one.score) for one in engine.scan(text)]
                                 for text in asked["texts"]]
        except _LateError:
            _write(fd, {"failed": "a detector ran out of time"})
        except ScanFailedError as error:
            _write(fd, {"failed": str(error)})
        except _FAILURES as error:
            _write(fd, {"failed": f"a detector failed with {type(error).__name__}"})
        else:
            _write(fd, said)


def main() -> int:
    fd = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which ends its workers
    signal.signal(signal.SIGALRM, _late)
    give_way()
    try:
        _serve(fd)
    except ImportError as error:
        _write(fd, {"broken": str(error)})
        return 3
    except (EOFError, OSError):
        return 0  # the parent is gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
