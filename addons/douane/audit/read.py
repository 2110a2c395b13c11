"""Read the audit log: the last records, one call's, all since a time. Streams; holds one block of a file at a time.

Reading checks no hashes; :mod:`douane.audit.verify` does.
"""

import contextlib
import heapq
import time
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from douane.audit.record import timestamp
from douane.audit.verify import nodes, segments
from douane.errors import DouaneError, EnvironmentFailedError

__all__ = ["backwards", "ended_well", "last_words", "reaches_back", "records", "show", "tail"]

_STARTS = (b'{"kind":"outcome","id":"', b'{"kind":"intent","id":"')
_BLOCK = 64 * 1024
_POLL_SECONDS = 0.2
_CLOCK_SLACK = 60.0
"""Seconds by which a machine's clock may have been set back between two records."""


def records(folder: Path, since: float | None = None) -> Iterator[dict[str, Any]]:
    """Every record of every node whose ``at`` is not before *since* (seconds since the epoch), by time; within a node
    in the order written. Raises EnvironmentFailedError, and DouaneError where a line is no record."""
    bound = "" if since is None else timestamp(since)
    streams = [_forwards(node, since) for node in _nodes(folder)]
    return (one for one in heapq.merge(*streams, key=_at) if _at(one) >= bound)


def show(folder: Path, call_id: str) -> list[dict[str, Any]]:
    """The records of one call in the order written; empty where there are none. Quick for recent calls: reads from the
    end, and no further than the id's own time (its first 12 hex digits are milliseconds). Raises as :func:`records`."""
    for node in _nodes(folder):
        found = list(_backwards_of(node, call_id))
        if found:
            return found[::-1]
    return []


def last_words(folder: Path, calls: Collection[str]) -> dict[str, dict[str, Any]]:
    """The last record of each of *calls*, by id: its outcome, or its intent where there is no outcome. Reads from the end, and
    no further than the oldest of them; what cannot be read is passed over. Raises EnvironmentFailedError."""
    found: dict[str, dict[str, Any]] = {}
    bound = min(map(_before, calls), default="")
    for node in _nodes(folder) if calls else ():
        for path in reversed(segments(node)):
            with contextlib.suppress(OSError, ValueError, DouaneError):  # moved away meanwhile, or no log
                for line in backwards(path):
                    call = _call_of(line)
                    if call in calls and call not in found:
                        found[call] = _parse(line, path)
                if len(found) == len(calls) or "" < _began(path) < bound:
                    break
    return found


def reaches_back(folder: Path, at: float) -> bool:
    """Whether a log of *folder* begins before *at* (seconds since the epoch)."""
    with contextlib.suppress(OSError, DouaneError):
        begun = [_began(paths[0]) for node in _nodes(folder) if (paths := segments(node))]
        return any("" < one < timestamp(at) for one in begun)
    return False


def ended_well(node: Path) -> bool:
    """Whether a node's log ends with the event ``stop``, behind which nothing is open; also where there is none yet. Raises
    EnvironmentFailedError."""
    try:
        paths = segments(node)
        last = next(backwards(paths[-1]), b"") if paths else b""
    except OSError as error:
        raise EnvironmentFailedError(f"audit log: {node}: {error.strerror}") from error
    return not paths or last.startswith(b'{"kind":"event","event":"stop"')


def _call_of(line: bytes) -> str:
    """The call that a record is of, by its first members; empty for an event."""
    for start in _STARTS:
        if line.startswith(start):
            return line[len(start):len(start) + 32].decode("ascii", "replace")
    return ""


def tail(folder: Path, *, follow: bool = False, n: int = 10) -> Iterator[dict[str, Any]]:
    """The last *n* records of all nodes together; with *follow* then every new one as it comes, for ever. Raises as
    :func:`records`."""
    cursors = {node: _Cursor.at_end(node) for node in _nodes(folder)}
    last = [one for node, cursor in cursors.items() for one in reversed(list(islice(cursor.before(node), n)))]
    yield from sorted(last, key=_at)[-n:] if n else ()
    while follow:
        for node in _nodes(folder):
            yield from cursors.setdefault(node, _Cursor.at_start(node)).after(node)
        time.sleep(_POLL_SECONDS)


def backwards(path: Path, end: int | None = None) -> Iterator[bytes]:
    """The whole lines of a file before offset *end*, from the last to the first, each with its newline; an unfinished
    last one is left out. Raises OSError."""
    with path.open("rb") as file:
        place = file.seek(0, 2) if end is None else end
        pieces: list[bytes] = []
        """What is known of the line that is being read, its end first."""
        while place:
            size = min(_BLOCK, place)
            place -= size
            file.seek(place)
            *ends, piece = reversed(file.read(size).split(b"\n"))
            for part in ends:
                line = b"".join(reversed([*pieces, part]))
                if pieces and pieces[0] == b"\n":
                    yield line
                pieces = [b"\n"]
            pieces.append(piece)
        if pieces and pieces[0] == b"\n":
            yield b"".join(reversed(pieces))


class _Cursor:
    """A place in one node's chain, between two lines."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path, self.offset = path, offset

    @classmethod
    def at_start(cls, node: Path) -> "_Cursor":
        return cls(segments(node)[0], 0)

    @classmethod
    def at_end(cls, node: Path) -> "_Cursor":
        path = segments(node)[-1]
        size = path.stat().st_size
        with path.open("rb") as file:
            place = size
            while place:
                start = max(0, place - _BLOCK)
                file.seek(start)
                found = file.read(place - start).rfind(b"\n")
                if found >= 0:
                    return cls(path, start + found + 1)
                place = start
        return cls(path, 0)

    def before(self, node: Path) -> Iterator[dict[str, Any]]:
        """From here back."""
        for path in reversed(segments(node)):
            if int(path.stem) <= int(self.path.stem):
                for line in backwards(path, self.offset if path == self.path else None):
                    yield _parse(line, path)

    def after(self, node: Path) -> Iterator[dict[str, Any]]:
        """The whole lines from here on; moves behind them."""
        for path in segments(node):
            if int(path.stem) < int(self.path.stem):
                continue
            if path != self.path:
                self.path, self.offset = path, 0
            with path.open("rb") as file:
                file.seek(self.offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self.offset += len(line)
                    yield _parse(line, path)


def _nodes(folder: Path) -> list[Path]:
    try:
        return nodes(folder)
    except OSError as error:
        raise EnvironmentFailedError(f"audit log: {folder}: {error.strerror}") from error


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        one = orjson.loads(line)
    except orjson.JSONDecodeError:
        one = None
    if not isinstance(one, dict):
        raise DouaneError(f"audit log: {path}: a line is no record ({line[:40]!r}…); run: douane audit verify")
    return one


def _at(one: dict[str, Any]) -> str:
    return str(one.get("at", ""))


def _began(path: Path) -> str:
    """``at`` of a segment's first record; empty where there is none yet."""
    with path.open("rb") as file:
        line = file.readline()
    return _at(_parse(line, path)) if line.endswith(b"\n") else ""


def _forwards(node: Path, since: float | None) -> Iterator[dict[str, Any]]:
    paths = segments(node)
    if since is not None:
        # Records are written after their ``at``: what stands in segments before the last that began before *since* is
        # older than *since*.
        bound = timestamp(since - _CLOCK_SLACK)
        begun = [index for index, path in enumerate(paths) if "" < _began(path) < bound]
        paths = paths[begun[-1] if begun else 0:]
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield _parse(line, path)


def _before(call_id: str) -> str:
    """A time before which nothing of the call is recorded; empty where its id tells none."""
    try:
        return timestamp(int(call_id[:12], 16) / 1000 - _CLOCK_SLACK) if len(call_id) == 32 else ""
    except (ValueError, OverflowError, OSError):
        return ""


def _backwards_of(node: Path, call_id: str) -> Iterator[dict[str, Any]]:
    """One call's records from its last to its intent."""
    needle = b'"' + call_id.encode() + b'"'
    bound = _before(call_id)
    for path in reversed(segments(node)):
        for line in backwards(path):
            one = _parse(line, path) if needle in line else {}
            if one.get("id") == call_id:
                yield one
                if one.get("kind") == "intent":
                    return
        if "" < _began(path) < bound:
            return
