"""The audit log as the gateway holds it: an append returns when its record is durable.

Law 2: *durable* is a write and a sync that returned. Whatever else happens is AuditUnavailableError within ``limit``
seconds. A record whose append failed is not in the log; where it came to stand there after all, because the disk
answered too late, an event ``late`` says so.

One thread writes. Who comes while it commits forms the next batch: one write and one sync for all of them, one wake-up
of the event loop. A disk that failed is tried again by the next append, and each second without one; the first record
after an outage is an event ``resumed``.
"""

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

import orjson

from douane.audit import record as records
from douane.audit.journal import OS_DISK, SEGMENT_BYTES, Disk, Item, Journal
from douane.background import give_way
from douane.errors import AuditUnavailableError, ConfigError

__all__ = ["AuditLog"]

_QUEUE_BYTES = 32 * 1024 * 1024
"""What may wait while a commit runs; appends beyond fail at once."""
_PATIENCE = 0.9
"""The part of ``limit`` after which an append is given up, so that the refusal itself is in time."""
_RETRY_SECONDS = 1.0
_OURS = frozenset(("seq", "node", "prev", "hash"))
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger("douane.audit")


class _Entry:
    """A record on its way, and who waits for it: an event loop's future, or a thread's where *loop* is None."""

    __slots__ = ("deadline", "future", "item", "late", "loop")

    def __init__(self, item: Item, deadline: float, loop: asyncio.AbstractEventLoop | None) -> None:
        self.item = item
        self.deadline = deadline
        self.loop = loop
        self.future: Any = Future() if loop is None else loop.create_future()
        self.late = False
        """Given up while it was being written."""


class AuditLog:
    """Open with :meth:`open`. Any number of threads and event loops may append."""

    @classmethod
    def open(cls, folder: Path, node: str, *, limit: float = 1.0, disk: Disk = OS_DISK,
             segment_bytes: int = SEGMENT_BYTES) -> "AuditLog":
        """*folder*: ``DATA/audit``; *node*: one path component that names this process's chain. *limit*: seconds.

        Raises ConfigError for a wrong name, EnvironmentFailedError where the folder cannot be written, another process
        holds it, the disk is full, or the last segment is broken."""
        if not _NODE.fullmatch(node):
            raise ConfigError(f"audit log: node name {node!r}: up to 64 of A-Z a-z 0-9 . _ -, beginning with one of the"
                              " first three")
        return cls(Journal(folder, node, disk, segment_bytes), limit)

    def __init__(self, journal: Journal, limit: float) -> None:
        self.orphans: tuple[dict[str, Any], ...] = journal.orphans
        """The intents that had no outcome when the log was opened; whoever opened it appends their outcomes."""
        self._journal = journal
        self._limit = limit
        self._lock = threading.Lock()
        """Held for what follows, never during I/O."""
        self._queue: deque[_Entry] = deque()
        self._queued = 0
        self._batch: Sequence[_Entry] = ()
        """What is being written."""
        self._sleeping = False
        self._closing = False
        self._stopped = False
        self._busy = False
        """The writer is at the disk …"""
        self._hung = False
        """… for longer than an append may take."""
        self._failure: str | None = None
        self._outage: dict[str, Any] | None = None
        """What the event ``resumed`` will say."""
        self._wake = threading.Lock()
        self._wake.acquire()
        self._armed: set[asyncio.AbstractEventLoop] = set()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    @property
    def node(self) -> str:
        """The name of this process's chain."""
        return self._journal.folder.name

    @property
    def folder(self) -> Path:
        """``DATA/audit``."""
        return self._journal.folder.parent

    @property
    def failure(self) -> str | None:
        """Why no record can be taken now; None where all is well."""
        return self._failure

    async def append(self, record: dict[str, Any]) -> None:
        """Return when *record* is durable. Do not give ``seq``, ``node``, ``prev``, ``hash``: they are added.

        Raises AuditUnavailableError within ``limit`` seconds. Cancelling the caller does not take the record back."""
        loop = asyncio.get_running_loop()
        entry = _Entry(_item(record), time.monotonic() + self._limit * _PATIENCE, loop)
        self._enqueue(entry)
        if loop not in self._armed:
            self._armed.add(loop)
            loop.call_later(self._limit * _PATIENCE, self._watch, loop)
        await entry.future

    def append_blocking(self, record: dict[str, Any]) -> None:
        """:meth:`append`, from a thread that runs no event loop."""
        entry = _Entry(_item(record), time.monotonic() + self._limit * _PATIENCE, None)
        self._enqueue(entry)
        try:
            entry.future.result(self._limit * _PATIENCE)
        except FutureTimeoutError:
            self._expire(time.monotonic())
            entry.future.result()  # given up by that, or the writer is about to say what came of it

    def close(self) -> None:
        """Write what waits, stop, release the folder. A disk that hangs keeps both until the process ends."""
        with self._lock:
            self._closing = True
            self._rouse()
        self._thread.join(timeout=self._limit)

    # -- the callers' side ---------------------------------------------------------------------------------------

    def _enqueue(self, entry: _Entry) -> None:
        with self._lock:
            why = None
            if self._closing or self._stopped:
                why = self._failure or "the audit log is closed"
            elif self._hung:
                why = self._failure
            elif self._queued > _QUEUE_BYTES:
                why = "too many records wait to be written"
            if why is None:
                self._queue.append(entry)
                self._queued += len(entry.item.body)
                self._rouse()
                return
            if self._outage is not None:
                self._outage["refused"] += 1
        raise AuditUnavailableError(why)

    def _rouse(self) -> None:
        if self._sleeping:
            self._sleeping = False
            self._wake.release()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer a loop, set for the oldest entry's deadline, stands for a time-out an append."""
        now = time.monotonic()
        following = self._expire(now)
        if following is None:
            self._armed.discard(loop)
        else:
            loop.call_later(max(0.001, following - now), self._watch, loop)

    def _expire(self, now: float) -> float | None:
        """Give up what is past its deadline; return the next deadline, None where nothing waits."""
        given_up = []
        with self._lock:
            while self._queue and self._queue[0].deadline <= now:
                entry = self._queue.popleft()
                self._queued -= len(entry.item.body)
                given_up.append(entry)
            for entry in self._batch:
                if entry.deadline <= now and not entry.late:
                    entry.late = True
                    given_up.append(entry)
            if given_up:
                self._hung = self._busy
                self._fail(f"the disk has not taken a record for {self._limit * _PATIENCE:g} s", len(given_up))
            waiting = [entry.deadline for entry in self._batch if not entry.late]
            waiting += [entry.deadline for entry in self._queue]
        _settle(given_up, "the audit log did not answer in time")
        return min(waiting, default=None)

    def _fail(self, why: str, refused: int) -> None:
        """Note an outage; with the lock held. Logged once an outage."""
        if self._outage is None:
            self._outage = {"reason": why, "since": records.timestamp(time.time()), "refused": 0}
        if self._failure is None:
            _log.error("audit log: %s; calls are refused until it writes again", why)
        self._outage["refused"] += refused
        self._failure = why

    # -- the writer's side ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        give_way()
        why = "the audit log is closed"
        try:
            late: list[Item] = []
            while (batch := self._take(bool(late))) is not None:
                late = self._commit(batch, late)
        except BaseException as error:
            why = f"the audit log's writer died: {type(error).__name__}"
            raise
        finally:
            with self._lock:
                self._stopped = True
                self._failure = why
                left = [entry for entry in (*self._batch, *self._queue) if not entry.late]
                self._queue.clear()
            _settle(left, why)
            self._journal.close()

    def _take(self, more: bool) -> Sequence[_Entry] | None:
        """The next batch; empty for events alone (*more*: some wait, or an outage to report); None to stop."""
        while True:
            with self._lock:
                well = self._failure is None
                if self._queue or (well and (more or self._outage is not None)):
                    return self._grab()
                if self._closing:
                    return None
                self._sleeping = True
            woken = self._wake.acquire(timeout=-1 if well else _RETRY_SECONDS)
            if not woken:
                with self._lock:
                    if not self._sleeping:
                        self._wake.acquire()  # roused in this very moment: use the token up
                    self._sleeping = False
                    return self._grab()

    def _grab(self) -> Sequence[_Entry]:
        """All that waits; with the lock held."""
        self._batch = tuple(self._queue)
        self._queue.clear()
        self._queued = 0
        self._busy = True
        return self._batch

    def _commit(self, batch: Sequence[_Entry], events: list[Item]) -> list[Item]:
        """Write one batch behind the *events* that wait; return the events that then wait."""
        with self._lock:
            outage = None if self._outage is None else dict(self._outage)
        resumed = [] if outage is None else [_event("resumed", **outage)]
        try:
            self._journal.write([*resumed, *events, *(entry.item for entry in batch)])
            why = None
        except OSError as error:
            why = f"{error.filename or self._journal.folder}: {error.strerror or error}"
        with self._lock:
            self._batch = ()
            self._busy = self._hung = False
            if why is not None:
                self._fail(why, sum(not entry.late for entry in batch))
            elif self._failure is not None:
                self._failure = None
                _log.warning("audit log: writes again")
            if why is None and self._outage == outage:
                self._outage = None  # else more was refused meanwhile, which the next event will say
        _settle([entry for entry in batch if not entry.late], why)
        if why is not None:
            return events
        return [self._late(entry.item) for entry in batch if entry.late]

    def _late(self, item: Item) -> Item:
        if item.kind == "intent":
            self._journal.forget(item.id)
        return _event("late", id=item.id, record=item.kind)


def _event(name: str, **said: Any) -> Item:
    return Item.of(records.event(name, time.time(), **said))


def _item(record: dict[str, Any]) -> Item:
    """Raises AuditUnavailableError: what cannot be written cannot be made durable."""
    if not _OURS.isdisjoint(record):
        raise AuditUnavailableError("a record names seq, node, prev or hash, which the log adds")
    try:
        return Item.of(record)
    except orjson.JSONEncodeError as error:
        raise AuditUnavailableError("a record cannot be written as JSON") from error


def _settle(entries: Sequence[_Entry], why: str | None) -> None:
    """Tell who waits: one wake-up for each event loop. From any thread."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[_Entry]] = {}
    for entry in entries:
        by_loop.setdefault(entry.loop, []).append(entry)
    for loop, own in by_loop.items():
        if loop is None:
            _tell(own, why)
            continue
        try:
            loop.call_soon_threadsafe(_tell, own, why)
        except RuntimeError:
            _log.debug("audit log: an event loop closed before its records were answered")


def _tell(entries: Sequence[_Entry], why: str | None) -> None:
    for entry in entries:
        if entry.future.done():
            continue
        if why is None:
            entry.future.set_result(None)
        else:
            entry.future.set_exception(AuditUnavailableError(why))
