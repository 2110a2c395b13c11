"""One node's segments on disk: ``FOLDER/NODE/NNNNNN.jsonl``. Synchronous, for one thread; ``log.py`` puts it to work.

Law: a byte that was durable is never written again, and nothing is written behind a byte that is not. So after a failed
write the segment is cut back to its last durable offset first. After a failed sync, when the kernel may have dropped
the pages it could not write and call them clean, the rest goes to a new segment.

Every segment begins with an event ``segment`` that lists the intents open at that point: whoever starts after a crash
finds the calls without an outcome by reading the last segment alone.
"""

import errno
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Buffer, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from douane.audit import record
from douane.audit.recover import recover, sync_folder
from douane.audit.verify import segments
from douane.errors import EnvironmentFailedError

__all__ = ["OS_DISK", "SEGMENT_BYTES", "Disk", "Item", "Journal"]

SEGMENT_BYTES = 32 * 1024 * 1024
"""A segment that has grown to this gets a successor. A start reads one whole: half a second at this size."""


class Disk(Protocol):
    """What the journal asks of the operating system; each raises OSError."""

    def write(self, fd: int, data: Buffer) -> int: ...
    def sync(self, fd: int) -> None: ...
    def truncate(self, fd: int, size: int) -> None: ...


class _OsDisk:
    def write(self, fd: int, data: Buffer) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there leaves the data in the drive's cache
        else:
            os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)


OS_DISK: Disk = _OsDisk()


class Item(NamedTuple):
    """A record to write: its JSON object, and what is tracked of it."""

    body: bytes
    kind: str
    id: str

    @classmethod
    def of(cls, said: dict[str, Any]) -> "Item":
        """Raises orjson.JSONEncodeError."""
        return cls(orjson.dumps(said), said.get("kind", ""), said.get("id", ""))


class Journal:
    """Holds the node's folder by an exclusive lock until :meth:`close`.

    Raises EnvironmentFailedError where the folder is not ours to write or its last segment is broken before its end."""

    def __init__(self, folder: Path, node: str, disk: Disk = OS_DISK, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder / node
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._node = node.encode()
        self._fd = -1
        self._dirty = False
        """Bytes may stand behind the durable offset."""
        self._suspect = False
        """A sync failed: what the page cache shows of this segment is no proof."""
        try:
            _make_folders(folder, self.folder)
            self._lock = _lock(self.folder)
        except OSError as error:
            raise _failed(self.folder, error) from error
        try:
            found = recover(self.folder)
            self.orphans = found.orphans
            self._seq, self._prev = found.seq, found.prev.encode()
            self._open: dict[str, None] = dict.fromkeys(one["id"] for one in found.orphans)
            self._go_on(segments(self.folder), found.torn)
        except OSError as error:
            self.close()
            raise _failed(self.folder, error) from error
        except EnvironmentFailedError:
            self.close()
            raise

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, items: Sequence[Item]) -> None:
        """Return when all *items* are durable. Raises OSError; then none of them counts, and the next call repairs."""
        self._prepare()
        if self._durable == 0:
            begin = record.event("segment", time.time(), open=list(self._open))
            items = [Item.of(begin), *items]
        seq, prev, lines = self._seq, self._prev, []
        for item in items:
            seq += 1
            head = b'%b,"node":"%b","seq":%d,"prev":"%b"' % (item.body[:-1], self._node, seq, prev)
            prev = hashlib.sha256(head).hexdigest().encode()
            lines.append(b'%b,"hash":"%b"}\n' % (head, prev))
        data = b"".join(lines)
        self._dirty = True
        self._write_all(data)
        self._sync()
        self._dirty = False
        self._durable += len(data)
        self._seq, self._prev = seq, prev
        for item in items:
            if item.kind == "intent":
                self._open[item.id] = None
            elif item.kind == "outcome":
                self._open.pop(item.id, None)

    def forget(self, call_id: str) -> None:
        """The intent *call_id* led to no call: it waits for no outcome."""
        self._open.pop(call_id, None)

    def close(self) -> None:
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._disk.write(self._fd, rest)
            if written <= 0:
                raise OSError(errno.EIO, "the disk took no bytes", str(self._path))
            rest = rest[written:]

    def _sync(self) -> None:
        try:
            self._disk.sync(self._fd)
        except OSError:
            self._suspect = True
            raise

    def _prepare(self) -> None:
        """Make the end of the segment a place to write at."""
        if self._dirty:
            self._disk.truncate(self._fd, self._durable)
            self._sync()
            self._dirty = False
        there = os.fstat(self._fd)
        # Deleted or changed under our hands: leave it as it is, as evidence; records go where they can be found.
        foreign = there.st_nlink == 0 or there.st_size != self._durable
        if foreign or (self._durable > 0 and (self._suspect or self._durable >= self._segment_bytes)):
            self._open_segment(self._number + 1)
        self._suspect = False

    def _open_segment(self, number: int) -> None:
        """An empty one: new, or left behind by an attempt that failed."""
        path = self.folder / f"{number:06d}.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size:
                raise OSError(errno.EEXIST, "is not empty, but should be the next segment", str(path))
            sync_folder(self.folder)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path, self._number, self._durable = fd, path, number, 0

    # -- opening -------------------------------------------------------------------------------------------------

    def _go_on(self, begun: list[Path], torn: dict[str, Any] | None) -> None:
        """Open the last segment, and prove that the disk takes a record: one that says what was found."""
        if begun:
            self._path, self._number = begun[-1], int(begun[-1].stem)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            self._durable = os.fstat(self._fd).st_size
        else:
            self._open_segment(1)
        said: dict[str, Any] = {"orphans": len(self.orphans)}
        if torn is not None:
            said["torn"] = torn
        # Records that a killed process left were read above, but maybe from the page cache only: this syncs them too.
        self.write([Item.of(record.event("opened", time.time(), **said))])


def _failed(folder: Path, error: OSError) -> EnvironmentFailedError:
    return EnvironmentFailedError(f"audit log: {error.filename or folder}: {error.strerror}; the gateway must be able "
                                  "to write there, and does not start without its log")


def _make_folders(folder: Path, node: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    node.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
    sync_folder(folder)


def _lock(folder: Path) -> int:
    path = folder / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise EnvironmentFailedError(f"audit log: {folder} is in use by another process; stop it, or give this one "
                                     "another data folder") from error
    return fd


