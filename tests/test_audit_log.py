"""The log's promises under concurrency, crashes and failing disks, and its reader."""

import asyncio
import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Buffer, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from douane.audit import read
from douane.audit.journal import OS_DISK
from douane.audit.log import AuditLog
from douane.audit.record import timestamp
from douane.audit.verify import verify
from douane.errors import AuditUnavailableError, ConfigError, DouaneError, EnvironmentFailedError

NODE = "n1"


def call_id(number: int) -> str:
    return f"{int(time.time() * 1000):012x}{number:020x}"


def intent(one: str) -> dict[str, Any]:
    return {"kind": "intent", "id": one, "at": "2026-01-01T00:00:00.000Z", "model": "gpt-4o"}


def outcome(one: str, action: str = "allow") -> dict[str, Any]:
    return {**intent(one), "kind": "outcome", "verdict": {"action": action}}


def event(name: str) -> dict[str, Any]:
    return {"kind": "event", "event": name, "at": "2026-01-01T00:00:00.000Z"}


class FaultyDisk:
    """The real disk, but for the faults asked for."""

    def __init__(self) -> None:
        self.fail: dict[str, int] = {}
        """Operation → errno."""
        self.short = 0
        """A failing write takes this many bytes first."""
        self.gate = threading.Event()
        self.gate.set()
        self.synced = 0

    def _fault(self, operation: str) -> None:
        if operation in self.fail:
            number = self.fail[operation]
            raise OSError(number, os.strerror(number))

    def write(self, fd: int, data: Buffer) -> int:
        if "write" in self.fail and self.short:
            taken, self.short = OS_DISK.write(fd, memoryview(data)[:self.short]), 0
            return taken
        self._fault("write")
        return OS_DISK.write(fd, data)

    def sync(self, fd: int) -> None:
        self.gate.wait(10)
        self._fault("sync")
        OS_DISK.sync(fd)
        self.synced += 1

    def truncate(self, fd: int, size: int) -> None:
        self._fault("truncate")
        OS_DISK.truncate(fd, size)


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[AuditLog]:
    log = AuditLog.open(folder, NODE, **options)
    try:
        yield log
    finally:
        log.close()


def content(folder: Path) -> list[dict[str, Any]]:
    return list(read.records(folder))


def repeat(times: int, what: Callable[[], object]) -> None:
    for _ in range(times):
        what()


def eventually(true: Callable[[], bool], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def events(folder: Path) -> list[str]:
    return [one["event"] for one in content(folder) if one["kind"] == "event"]


# -- what an append promises ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_500_concurrent_appends(factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    """Durable when the append returns, in the order in which each caller appended, few syncs for many records."""
    disk = FaultyDisk()

    async def caller(log: AuditLog, one: str) -> None:
        await log.append(intent(one))
        written = (tmp_path / NODE / "000001.jsonl").read_bytes()
        assert one.encode() in written
        assert disk.synced > 0
        await log.append(outcome(one))

    async def main(log: AuditLog) -> None:
        await asyncio.gather(*(caller(log, call_id(number)) for number in range(500)))

    with opened(tmp_path, disk=disk) as log, asyncio.Runner(loop_factory=factory) as runner:
        before = disk.synced
        runner.run(main(log))
        assert disk.synced - before < 500
        assert log.failure is None
    report = verify(tmp_path)
    assert report.ok
    assert (report.records, report.open) == (1002, 0)


def test_nothing_is_acknowledged_before_its_sync_returned(tmp_path: Path) -> None:
    disk = FaultyDisk()

    async def main(log: AuditLog) -> None:
        disk.gate.clear()
        waiting = asyncio.ensure_future(log.append(event("a")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        disk.gate.set()
        await waiting

    with opened(tmp_path, disk=disk) as log:
        asyncio.run(main(log))


def test_appends_from_threads_and_a_loop_together(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        def work(base: int) -> None:
            for number in range(50):
                log.append_blocking(event(f"t{base + number}"))

        threads = [threading.Thread(target=work, args=(1000 * base,)) for base in range(4)]
        for thread in threads:
            thread.start()

        async def main() -> None:
            for number in range(50):
                await log.append(event(f"l{number}"))

        asyncio.run(main())
        for thread in threads:
            thread.join()
    assert verify(tmp_path).ok
    assert len(set(events(tmp_path))) == 252


def test_a_cancelled_append_stays_written(tmp_path: Path) -> None:
    async def main(log: AuditLog) -> None:
        task = asyncio.ensure_future(log.append(event("cancelled")))
        await asyncio.sleep(0)
        task.cancel()
        await log.append(event("after"))

    with opened(tmp_path) as log:
        asyncio.run(main(log))
    assert events(tmp_path)[-2:] == ["cancelled", "after"]


def test_records_that_cannot_be_written(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for wrong in ({"kind": "event", "event": object()}, {"kind": "event", "seq": 1}):
            with pytest.raises(AuditUnavailableError):
                log.append_blocking(wrong)
        log.append_blocking(event("fine"))
    with pytest.raises(AuditUnavailableError, match="closed"):
        log.append_blocking(event("closed"))
    assert log.failure == "the audit log is closed"
    assert verify(tmp_path).ok


def test_modes_and_node_names(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "audit"
    opened_log = AuditLog.open(folder, NODE)
    opened_log.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert modes == {"audit": 0o700, NODE: 0o700, "000001.jsonl": 0o600, "lock": 0o600}
    for name in ("", "..", "a/b", "-x", "x" * 65):
        with pytest.raises(ConfigError):
            AuditLog.open(folder, name)


# -- segments and recovery -----------------------------------------------------------------------------------------

def test_rotation_keeps_one_chain_and_finds_orphans_of_earlier_segments(tmp_path: Path) -> None:
    first, second = call_id(1), call_id(2)
    with opened(tmp_path, segment_bytes=4000) as log:
        log.append_blocking(intent(first))
        for number in range(60):
            log.append_blocking(event(f"e{number}"))
        log.append_blocking(intent(second))
        log.append_blocking(outcome(second))
    assert len(list((tmp_path / NODE).glob("*.jsonl"))) > 3
    report = verify(tmp_path)
    assert report.ok
    assert report.open == 1
    with opened(tmp_path, segment_bytes=4000) as log:
        assert [one["id"] for one in log.orphans] == [first]
        assert log.orphans[0]["model"] == "gpt-4o"
        log.append_blocking(outcome(first))
    with opened(tmp_path) as log:
        assert log.orphans == ()
    assert verify(tmp_path).ok


def test_two_opens_on_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(EnvironmentFailedError, match="in use by another process"):
        AuditLog.open(tmp_path, NODE)
    AuditLog.open(tmp_path, NODE).close()


@pytest.mark.parametrize("keep", [1, 60, -1])
def test_a_torn_last_line_is_set_aside(keep: int, tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append_blocking(event("kept"))
        log.append_blocking(event("torn"))
    path = tmp_path / NODE / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[-1][:keep]
    path.write_bytes(b"".join(lines[:-1]) + torn)
    with opened(tmp_path) as log:
        log.append_blocking(event("after"))
    assert (tmp_path / NODE / "000001.torn").read_bytes() == torn + b"\n"
    said = content(tmp_path)
    assert [one.get("event") for one in said] == ["segment", "opened", "kept", "opened", "after"]
    assert said[3]["torn"] == {"segment": "000001.jsonl", "bytes": len(torn)}
    report = verify(tmp_path)
    assert report.ok
    assert [one.name for one in report.torn] == ["000001.torn"]


def test_a_last_line_with_a_wrong_hash_is_set_aside_and_a_torn_first_one_too(tmp_path: Path) -> None:
    node = tmp_path / NODE
    with opened(tmp_path) as log:
        log.append_blocking(event("last"))
    data = (node / "000001.jsonl").read_bytes()
    (node / "000001.jsonl").write_bytes(data.replace(b'"last"', b'"lost"'))
    AuditLog.open(tmp_path, NODE).close()
    assert events(tmp_path) == ["segment", "opened", "opened"]
    (node / "000002.jsonl").write_bytes(b'{"kind":"ev')
    AuditLog.open(tmp_path, NODE).close()
    assert events(tmp_path)[3:] == ["segment", "opened"]
    assert verify(tmp_path).ok


@pytest.mark.parametrize("segment", [1, 2])
def test_a_chain_broken_further_back_is_not_gone_on_with(segment: int, tmp_path: Path) -> None:
    """The last segment whole, and the seam to the one before."""
    with opened(tmp_path, segment_bytes=1000) as log:
        while len(list((tmp_path / NODE).glob("*.jsonl"))) < 2:
            log.append_blocking(event("x"))
        log.append_blocking(event("y"))
    path = tmp_path / NODE / f"{segment:06d}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1] if segment == 1 else lines[1:]))
    with pytest.raises(EnvironmentFailedError, match=r"000002\.jsonl:1: does not follow") as told:
        AuditLog.open(tmp_path, NODE)
    assert "douane audit verify" in str(told.value)
    assert "\n" not in str(told.value)


def test_missing_segments_and_records_without_members(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append_blocking(event("x"))
    node = tmp_path / NODE
    lines = (node / "000001.jsonl").read_bytes().splitlines(keepends=True)
    (node / "000001.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(EnvironmentFailedError, match="nothing stands before it"):
        AuditLog.open(tmp_path, NODE)


CRASHER = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from douane.audit.log import AuditLog

async def caller(log, number):
    turn = 0
    while True:
        turn += 1
        one = f"{int(time.time() * 1000):012x}{number:010x}{turn:010x}"
        call = {"id": one, "at": "2026-01-01T00:00:00.000Z"}
        for record in ({"kind": "intent", **call}, {"kind": "outcome", **call, "verdict": {"action": "allow"}}):
            await log.append(record)
            sys.stdout.write(f"{record['kind']} {one}\\n")
            sys.stdout.flush()

async def main():
    log = AuditLog.open(Path(sys.argv[2]), "n1", segment_bytes=40_000)
    for orphan in log.orphans:
        await log.append({"kind": "outcome", "id": orphan["id"], "ended": "unknown", "at": orphan["at"],
                          "verdict": {"action": "allow"}})
        print("outcome", orphan["id"])
    await asyncio.gather(*(caller(log, number) for number in range(20)))

asyncio.run(main())
"""


def test_kill_9_at_full_speed_loses_no_acknowledged_record(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    addons = Path(read.__file__).parents[2]
    for turn in range(10):
        child = subprocess.Popen([sys.executable, "-c", CRASHER, str(addons), str(tmp_path)], stdout=subprocess.PIPE,
                                 text=True)
        assert child.stdout is not None
        with child.stdout:
            acknowledged.update(child.stdout.readline().strip() for _ in range(50 + turn * 13))
            child.send_signal(signal.SIGKILL)
            acknowledged.update(line.strip() for line in child.stdout if line.endswith("\n"))
        child.wait(timeout=10)
    with opened(tmp_path) as log:
        orphans = {one["id"] for one in log.orphans}
    report = verify(tmp_path)
    assert report.first_bad is None
    assert report.open == len(orphans)
    said = content(tmp_path)
    assert "" not in acknowledged
    assert acknowledged <= {f"{one['kind']} {one.get('id')}" for one in said}
    assert {one["id"] for one in said if one["kind"] == "intent"} == orphans | {
        one["id"] for one in said if one["kind"] == "outcome"}


# -- failing disks -------------------------------------------------------------------------------------------------

FAULTS = [({"write": errno.ENOSPC}, 0), ({"write": errno.EIO}, 40), ({"write": errno.EROFS}, 0),
          ({"sync": errno.EIO}, 0),
          ({"write": errno.ENOSPC, "truncate": errno.EIO}, 25), ({"sync": errno.ENOSPC, "truncate": errno.EROFS}, 0)]


@pytest.mark.parametrize(("fault", "short"), FAULTS)
def test_a_fault_refuses_at_once_leaves_no_trace_and_heals(fault: dict[str, int], short: int, tmp_path: Path,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyDisk()

    async def main(log: AuditLog) -> None:
        await log.append(event("before"))
        disk.fail, disk.short = fault, short
        began = time.monotonic()
        for _ in range(3):
            results = await asyncio.gather(*(log.append(event("refused")) for _ in range(10)), return_exceptions=True)
            assert all(isinstance(one, AuditUnavailableError) for one in results)
        assert time.monotonic() - began < 1
        assert log.failure is not None
        disk.fail = {}
        await log.append(event("after"))
        assert log.failure is None

    with opened(tmp_path, disk=disk) as log:
        asyncio.run(main(log))
    assert events(tmp_path) == [*["segment", "opened", "before"], *(["segment"] if "sync" in fault else []), "resumed",
                                "after"]
    assert next(one for one in content(tmp_path) if one.get("event") == "resumed")["refused"] == 30
    assert verify(tmp_path).ok
    assert len(caplog.records) == 2, "one line for the outage, one for its end"


def test_a_torn_write_that_cannot_be_cut_back_is_set_aside_by_the_next_start(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        disk.fail, disk.short = {"write": errno.EIO, "truncate": errno.EIO}, 30
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("torn"))
    AuditLog.open(tmp_path, NODE).close()
    assert verify(tmp_path).ok
    assert events(tmp_path) == ["segment", "opened", "opened"]


def test_without_appends_it_heals_within_seconds(tmp_path: Path) -> None:
    """Or a gateway that reports not ready would get no calls and stay so."""
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk) as log:
        disk.fail = {"sync": errno.EIO}
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("refused"))
        disk.fail = {}
        assert eventually(lambda: log.failure is None)
    assert events(tmp_path) == ["segment", "opened", "segment", "resumed"]
    assert verify(tmp_path).ok


def test_a_hang_refuses_within_the_limit_then_at_once_and_late_records_are_named(tmp_path: Path) -> None:
    disk = FaultyDisk()
    written, waiting = call_id(1), call_id(2)

    async def main(log: AuditLog) -> None:
        disk.gate.clear()
        began = time.monotonic()
        first = asyncio.ensure_future(log.append(intent(written)))
        await asyncio.sleep(0.2)
        second = asyncio.ensure_future(log.append(intent(waiting)))
        for task in (first, second):
            with pytest.raises(AuditUnavailableError):
                await task
        assert 0.5 < time.monotonic() - began < 1.2, "each within a second of its own append"
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(AuditUnavailableError, match="has not taken"):
                await log.append(intent(call_id(3)))
        assert time.monotonic() - began < 0.1
        assert log.failure is not None
        disk.gate.set()
        while log.failure:
            await asyncio.sleep(0.01)
        await log.append(event("after"))

    with opened(tmp_path, disk=disk, segment_bytes=1200) as log:
        asyncio.run(main(log))
    said = content(tmp_path)
    assert [one.get("event", one["kind"]) for one in said] == ["segment", "opened", "intent", "resumed", "late",
                                                               "segment", "after"]
    assert said[5]["open"] == []
    assert [one["id"] for one in said if "id" in one] == [written, written], "what was still in the queue was dropped"
    assert next(one for one in said if one.get("event") == "resumed")["refused"] == 102
    report = verify(tmp_path)
    assert report.ok
    assert report.open == 0
    with opened(tmp_path) as log:
        assert log.orphans == ()


def test_a_hang_ends_a_blocking_append_and_close_within_the_limit(tmp_path: Path) -> None:
    disk = FaultyDisk()
    log = AuditLog.open(tmp_path, NODE, disk=disk)
    disk.gate.clear()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("hangs"))
        assert time.monotonic() - began < 1.0
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < 1.2
    disk.gate.set()
    assert eventually(lambda: log.failure == "the audit log is closed")
    assert verify(tmp_path).ok


def test_a_probe_that_hangs_refuses_like_an_append_that_does(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with opened(tmp_path, disk=disk, limit=0.3) as log:
        disk.fail = {"sync": errno.EIO}
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("refused"))
        disk.gate.clear()
        time.sleep(1.2)
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("dropped"))
        began = time.monotonic()
        with pytest.raises(AuditUnavailableError):
            log.append_blocking(event("at once"))
        assert time.monotonic() - began < 0.1
        disk.fail = {}
        disk.gate.set()
        assert eventually(lambda: log.failure is None)
        log.append_blocking(event("after"))
    assert "after" in events(tmp_path)
    assert not {"refused", "dropped", "at once"} & set(events(tmp_path))


def test_the_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("douane.audit.log._QUEUE_BYTES", 1000)
    disk = FaultyDisk()

    async def main(log: AuditLog) -> None:
        disk.gate.clear()
        tasks = [asyncio.ensure_future(log.append(event("x"))) for _ in range(100)]
        await asyncio.sleep(0.1)
        refused = [task for task in tasks if task.done()]
        assert 50 < len(refused) < 100
        assert all(isinstance(task.exception(), AuditUnavailableError) for task in refused)
        disk.gate.set()
        await asyncio.gather(*(task for task in tasks if task not in refused))

    with opened(tmp_path, disk=disk) as log:
        asyncio.run(main(log))


def test_a_file_size_limit_for_real(tmp_path: Path) -> None:
    """EFBIG by the kernel, after a write that took a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with opened(tmp_path) as log:
            path = tmp_path / NODE / "000001.jsonl"
            size = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
            with pytest.raises(AuditUnavailableError, match="too large"):
                log.append_blocking(event("refused"))
            assert log.failure is not None
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            log.append_blocking(event("after"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert events(tmp_path) == ["segment", "opened", "resumed", "after"]
    assert verify(tmp_path).ok


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True,
                             text=True)
    if mounted.returncode:
        pytest.skip(f"no mount here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_for_real(tiny: Path) -> None:
    ballast = tiny / "ballast"
    with opened(tiny / "audit") as log:
        ballast.write_bytes(b"x" * 40_000)
        with pytest.raises(AuditUnavailableError, match="No space left"):
            repeat(500, lambda: log.append_blocking(event("x")))
        ballast.unlink()
        log.append_blocking(event("after"))
    assert events(tiny / "audit")[-2:] == ["resumed", "after"]
    assert verify(tiny / "audit").ok
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"x" * 65_536)
    with pytest.raises(EnvironmentFailedError, match="No space left"):  # once the segment's last page is full
        repeat(50, lambda: AuditLog.open(tiny / "audit", NODE).close())


def test_read_only_for_real(tiny: Path) -> None:
    AuditLog.open(tiny / "audit", NODE).close()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    with pytest.raises(EnvironmentFailedError, match="Read-only"):
        AuditLog.open(tiny / "audit", NODE)


def test_a_log_deleted_under_our_hands_refuses(tmp_path: Path) -> None:
    """A record in a file without a name is in no log."""
    folder = tmp_path / "audit"
    with opened(folder) as log:
        for path in (folder / NODE).iterdir():
            path.unlink()
        (folder / NODE).rmdir()
        with pytest.raises(AuditUnavailableError, match="No such file"):
            log.append_blocking(event("x"))


def test_a_segment_changed_under_our_hands_is_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        path = tmp_path / NODE / "000001.jsonl"
        with path.open("ab") as file:
            file.write(b"not ours\n")
        log.append_blocking(event("after"))
    assert path.read_bytes().endswith(b"not ours\n")
    report = verify(tmp_path)
    assert report.first_bad is not None
    assert (report.first_bad.file.name, report.first_bad.line) == ("000001.jsonl", 3)


@pytest.mark.parametrize("broken", ["file in the way", "read-only"])
def test_a_folder_that_cannot_be_written(broken: str, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    if broken == "file in the way":
        folder.touch()
    else:
        folder = Path("/proc/audit")
    with pytest.raises(EnvironmentFailedError) as told:
        AuditLog.open(folder, NODE)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


# -- reading -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"a\nb", b"\n", b"\n\n", b"a\n\nb\nrest", b"x" * 9 + b"\nyyyyy"])
@pytest.mark.parametrize("block", [1, 2, 3, 64])
def test_backwards_at_every_block_size(text: bytes, block: int, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("douane.audit.read._BLOCK", block)
    path = tmp_path / "file"
    path.write_bytes(text)
    whole = [line for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
    assert list(read.backwards(path)) == whole[::-1]


def test_show_tail_and_records(tmp_path: Path) -> None:
    ids = [call_id(number) for number in range(40)]
    with opened(tmp_path, segment_bytes=3000) as log:
        for one in ids:
            log.append_blocking(intent(one))
        for one in ids:
            log.append_blocking(outcome(one))
        log.append_blocking(outcome("f" * 32, "deny"))
    assert len(list((tmp_path / NODE).glob("*.jsonl"))) > 4
    for one in (ids[0], ids[39]):
        assert [each["kind"] for each in read.show(tmp_path, one)] == ["intent", "outcome"]
    assert [each["kind"] for each in read.show(tmp_path, "f" * 32)] == ["outcome"]
    for unknown in ("0" * 32, "short", "z" * 32, "é"):
        assert read.show(tmp_path, unknown) == []
    everything = content(tmp_path)
    assert [one["seq"] for one in sorted(everything, key=lambda one: one["seq"])] == list(range(1, len(everything) + 1))
    calls = [one for one in everything if one["kind"] != "event"]
    assert len(calls) == 81
    recent = list(read.records(tmp_path, since=time.time() - 300))
    assert {one["event"] for one in recent} == {"segment", "opened"}
    assert list(read.records(tmp_path, since=time.time() + 300)) == []


def test_since_reads_no_segment_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, segment_bytes=500) as log:
        start = time.time()
        for number in range(10):
            now = start + number * 1000
            monkeypatch.setattr("douane.audit.journal.time.time", lambda now=now: now)
            log.append_blocking({**event("x"), "at": timestamp(now)})
    monkeypatch.undo()
    (tmp_path / NODE / "000001.jsonl").write_bytes(
        (tmp_path / NODE / "000001.jsonl").read_bytes().split(b"\n")[0] + b"\nbroken\n")
    with pytest.raises(DouaneError, match="no record"):
        content(tmp_path)
    found = [one for one in read.records(tmp_path, since=start + 6500) if one["event"] == "x"]
    assert len(found) == 3


def test_tail_gives_the_last_of_all_nodes_and_follows_over_segments(tmp_path: Path) -> None:
    got: list[str] = []
    enough = threading.Event()

    def follow() -> None:
        for one in read.tail(tmp_path, follow=True, n=2):
            got.append(one["event"])
            if got[-1] == "last":
                enough.set()
                return

    with opened(tmp_path, segment_bytes=900) as log:
        log.append_blocking({**event("one"), "at": "2099-01-01T00:00:00.000Z"})
        log.append_blocking({**event("two"), "at": "2099-01-01T00:00:01.000Z"})
        assert [one["event"] for one in read.tail(tmp_path, n=2)] == ["one", "two"]
        assert list(read.tail(tmp_path, n=0)) == []
        assert len(list(read.tail(tmp_path, n=99))) == 4
        thread = threading.Thread(target=follow)
        thread.start()
        assert eventually(lambda: len(got) == 2)
        for number in range(12):
            log.append_blocking(event(f"e{number}"))
        other = AuditLog.open(tmp_path, "n2")
        other.append_blocking(event("last"))
        other.close()
        assert enough.wait(5)
        thread.join()
    assert [name for name in got if name not in ("segment", "opened")] == [
        "one", "two", *(f"e{number}" for number in range(12)), "last"]


def test_reading_what_is_not_there_or_no_record(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError, match="nowhere"):
        read.show(tmp_path / "nowhere", "0" * 32)
    (tmp_path / NODE).mkdir()
    (tmp_path / NODE / "000001.jsonl").write_bytes(b"[1]\n")
    with pytest.raises(DouaneError, match="000001"):
        content(tmp_path)


def test_lines_are_the_records_given(tmp_path: Path) -> None:
    one = call_id(7)
    with opened(tmp_path) as log:
        log.append_blocking(outcome(one, "deny"))
    line = (tmp_path / NODE / "000001.jsonl").read_bytes().splitlines()[-1]
    said = json.loads(line)
    assert list(said)[-4:] == ["node", "seq", "prev", "hash"]
    assert {name: said[name] for name in outcome(one)} == outcome(one, "deny")
