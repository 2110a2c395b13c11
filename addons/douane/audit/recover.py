"""What stands on the disk when a node's log is opened, and how it is made ready to go on.

Law: nothing is appended to a broken chain. The last segment is checked whole, and that it follows the one before it;
the history before is ``douane audit verify``'s to check. Only the very last line may be unfinished, as a crash leaves
it: it was never acknowledged, and is set aside with its bytes.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from douane.audit.read import backwards
from douane.audit.verify import START, LineError, check_line, segments
from douane.errors import EnvironmentFailedError

__all__ = ["Recovered", "recover", "sync_folder"]


@dataclass(frozen=True, slots=True)
class Recovered:
    """Where the chain goes on."""

    seq: int
    prev: str
    orphans: tuple[dict[str, Any], ...]
    """The intents without an outcome."""
    torn: dict[str, Any] | None
    """What was set aside: ``segment`` (its name), ``bytes``."""


def recover(folder: Path) -> Recovered:
    """Read a node's *folder*, and set a torn last line aside. Raises OSError, EnvironmentFailedError."""
    paths = segments(folder)
    scan, torn = _Scan(), None
    while paths:
        path = paths.pop()
        scan = _scan(path, torn_allowed=torn is None)
        if scan.torn:
            _set_aside(path, scan.size, scan.torn)
            torn = {"segment": path.name, "bytes": len(scan.torn)}
        if scan.first is not None:
            _check_seam(paths, path, scan.first)
            break
    return Recovered(scan.seq, scan.prev, tuple(_fetch(scan.open, paths)), torn)


@dataclass(slots=True)
class _Scan:
    """What one segment holds."""

    size: int = 0
    """Bytes of whole, valid records."""
    seq: int = 0
    prev: str = START
    first: tuple[int, str] | None = None
    """(seq, prev) of its first record."""
    open: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Id → the intent that waits for its outcome; None where it stands in an earlier segment."""
    torn: bytes = b""

    def take(self, line: bytes) -> None:
        """The next line. Raises LineError."""
        said, prev, digest = check_line(line)
        if self.first is None:
            self.first = (said["seq"], prev)
        elif prev != self.prev or said["seq"] != self.seq + 1:
            raise LineError(f"does not follow record {self.seq}")
        self.seq, self.prev, self.size = said["seq"], digest, self.size + len(line)
        kind = said["kind"]
        if kind == "intent":
            self.open[said["id"]] = said
        elif kind == "outcome" or (said["event"] == "late" and said["record"] == "intent"):
            self.open.pop(said["id"], None)
        elif said["event"] == "segment":
            self.open = dict.fromkeys(said["open"])


def _scan(path: Path, *, torn_allowed: bool) -> _Scan:
    """Read and check one segment. Raises EnvironmentFailedError where a line is broken, other than a torn last one."""
    scan = _Scan()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                scan.take(line)
            except (LineError, KeyError, TypeError) as error:
                if torn_allowed and not file.read(1):
                    scan.torn = line
                    break
                raise _broken(path, number, error) from error
    return scan


def _check_seam(earlier: list[Path], path: Path, first: tuple[int, str]) -> None:
    """The first record of *path* must follow the last of the segments before it."""
    for before in reversed(earlier):
        for line in backwards(before):
            try:
                said, _, digest = check_line(line)
                if first != (said["seq"] + 1, digest):
                    raise LineError(f"does not follow the last record of {before.name}")
            except (LineError, KeyError, TypeError) as error:
                raise _broken(path, 1, error) from error
            return
    if first != (1, START):
        raise _broken(path, 1, LineError("is not the first of its chain, but nothing stands before it"))


def _broken(path: Path, number: int, why: Exception) -> EnvironmentFailedError:
    reason = str(why) if isinstance(why, LineError) else "lacks a member that every record has"
    return EnvironmentFailedError(f"audit log: {path}:{number}: {reason}; nothing is appended to a broken chain. See: "
                                  f"douane audit verify; to go on, move {path.parent} away and keep it")


def _fetch(wanted: dict[str, dict[str, Any] | None], earlier: list[Path]) -> list[dict[str, Any]]:
    """The intents of *wanted*; those of earlier segments are looked for there, backwards."""
    missing = {call_id for call_id, intent in wanted.items() if intent is None}
    found = {call_id: intent for call_id, intent in wanted.items() if intent is not None}
    for path in reversed(earlier):
        if not missing:
            break
        for line in backwards(path):
            said = orjson.loads(line) if b'"kind":"intent"' in line else {}
            if said.get("id") in missing:
                missing.discard(said["id"])
                found[said["id"]] = said
    return [found[call_id] for call_id in wanted if call_id in found]


def _set_aside(path: Path, size: int, torn: bytes) -> None:
    """Keep the *torn* bytes in ``NNNNNN.torn``, durably, then cut them off the segment."""
    fd = os.open(path.with_suffix(".torn"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, torn + b"\n" * (not torn.endswith(b"\n")))
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make names created in *folder* durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
