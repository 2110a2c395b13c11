"""The verifier finds every change to a log, names the record, and needs nothing but the standard library."""

import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from douane.audit import verify as verifier
from douane.audit.log import AuditLog
from douane.audit.verify import Report, verify

NODE = "n1"


def intent(number: int) -> dict[str, object]:
    return {"kind": "intent", "id": f"{number:032x}", "at": f"2026-01-01T00:00:{number:02d}.000Z", "model": "gpt-4o"}


def outcome(number: int, action: str = "allow") -> dict[str, object]:
    return {**intent(number), "kind": "outcome", "verdict": {"action": action}, "usage": {"input": 3, "output": 5}}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a log of 30 records."""
    folder = tmp_path_factory.mktemp("good")
    log = AuditLog.open(folder, NODE)
    for number in range(9):
        log.append_blocking(intent(number))
        log.append_blocking(outcome(number))
        log.append_blocking(outcome(100 + number, "deny"))
    log.append_blocking({"kind": "event", "event": "stop", "at": "2026-01-01T00:01:00.000Z"})
    log.close()
    lines = (folder / NODE / "000001.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 30
    return lines


def judge(folder: Path, lines: list[bytes] | bytes, expect: str | None = None) -> Report:
    node = folder / NODE
    node.mkdir(exist_ok=True)
    (node / "000001.jsonl").write_bytes(lines if isinstance(lines, bytes) else b"".join(lines))
    return verify(folder, expect)


def line_of(report: Report) -> int:
    assert report.first_bad is not None
    return report.first_bad.line


def chained(records: list[dict[str, object]]) -> list[bytes]:
    """A log made by hand from the format's description, apart from the code that writes it."""
    lines, prev = [], "0" * 64
    for seq, record in enumerate(records, 1):
        head = json.dumps({**record, "node": NODE, "seq": seq, "prev": prev}, separators=(",", ":"))[:-1]
        prev = hashlib.sha256(head.encode()).hexdigest()
        lines.append(f'{head},"hash":"{prev}"}}\n'.encode())
    return lines


def test_a_good_log(good: list[bytes], tmp_path: Path) -> None:
    report = judge(tmp_path, good)
    assert report.ok
    assert (report.records, report.segments, report.nodes, report.open) == (30, 1, (NODE,), 0)
    assert report.heads == {NODE: json.loads(good[-1])["hash"]}
    assert report.last == "2026-01-01T00:01:00.000Z"


def test_the_format_is_the_one_described(tmp_path: Path) -> None:
    assert judge(tmp_path, chained([intent(1), outcome(1)])).ok


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No writer is at work: an unfinished last line will not be finished."""
    monkeypatch.setattr("douane.audit.verify.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_flipped_bytes_all_of_some_records_and_some_of_all(good: list[bytes], tmp_path: Path) -> None:
    missed = []
    for number, line in enumerate(good, 1):
        for place in range(0, len(line), 1 if number in (1, 15, 30) else 23):
            for change in (0x01, 0x20, 0xFF):
                flipped = bytearray(line)
                flipped[place] ^= change
                report = judge(tmp_path, [*good[:number - 1], bytes(flipped), *good[number:]])
                if report.first_bad is None or report.first_bad.line != number:
                    missed.append((number, place, change))
                if number not in (1, 15, 30):
                    break
    assert missed == []


def test_deletion_duplication_swap(good: list[bytes], tmp_path: Path) -> None:
    for number in range(1, 30):
        at = number - 1
        assert line_of(judge(tmp_path, good[:at] + good[at + 1:])) == number, "deleted"
        assert line_of(judge(tmp_path, [*good[:at], good[at + 1], good[at], *good[at + 2:]])) == number, "swapped"
    for number in range(1, 31):
        assert line_of(judge(tmp_path, good[:number] + good[number - 1:])) == number + 1, "doubled"


@pytest.mark.usefixtures("no_waiting")
def test_truncation_inside_a_record_is_seen_and_at_its_end_only_by_the_head(good: list[bytes], tmp_path: Path) -> None:
    head = json.loads(good[-1])["hash"]
    data, ends = b"".join(good), set()
    for number in range(1, 31):
        ends.add(sum(map(len, good[:number])))
    for length in [*range(1, len(data), 37), *ends]:
        report = judge(tmp_path, data[:length], head)
        if length in ends:
            assert verify(tmp_path).ok, "the stated limit"
            assert report.ok is (length == len(data))
        else:
            assert line_of(report) == data[:length].count(b"\n") + 1


def test_a_chain_computed_anew_passes_but_not_with_a_head_noted_before(tmp_path: Path) -> None:
    noted = json.loads(chained([intent(1), outcome(1), intent(2)])[-1])["hash"]
    forged = chained([intent(1), {**outcome(1), "model": "other"}, intent(2), outcome(2)])
    assert judge(tmp_path, forged).ok
    report = judge(tmp_path, forged, noted)
    assert report.first_bad is not None
    assert noted in report.first_bad.reason
    assert judge(tmp_path, chained([intent(1), outcome(1), intent(2), outcome(2)]), noted).ok


def test_one_record_changed_with_its_own_hash_made_right(tmp_path: Path) -> None:
    """The next record gives it away."""
    true = chained([intent(1), outcome(1), intent(2)])
    other = chained([intent(1), {**outcome(1), "model": "other"}])
    assert line_of(judge(tmp_path, [true[0], other[1], true[2]])) == 3


@pytest.mark.parametrize(("records", "line", "word"), [
    ([intent(1), outcome(1), outcome(1)], 3, "second outcome"),
    ([intent(1), intent(1)], 2, "second intent"),
    ([intent(1), outcome(1), intent(1)], 3, "second intent"),
    ([outcome(1)], 1, "no intent"),
    ([outcome(1, "deny"), outcome(1, "deny")], 2, "second outcome"),
    ([{**outcome(1), "verdict": ["deny"]}], 1, "no intent"),
    ([{"kind": "other"}], 1, "unknown kind"),
    ([{}], 1, "unknown kind"),
])
def test_pairing(records: list[dict[str, object]], line: int, word: str, tmp_path: Path) -> None:
    report = judge(tmp_path, chained(records))
    assert report.first_bad is not None
    assert report.first_bad.line == line
    assert word in report.first_bad.reason


def test_a_late_intent_waits_for_no_outcome(tmp_path: Path) -> None:
    late = {"kind": "event", "event": "late", "id": intent(1)["id"], "record": "intent"}
    assert judge(tmp_path, chained([intent(1)])).open == 1
    assert judge(tmp_path, chained([intent(1), late])).open == 0
    assert judge(tmp_path, chained([intent(1), late, outcome(1, "deny")])).ok


def test_segments_swapped_removed_and_copied_to_another_node(good: list[bytes], tmp_path: Path) -> None:
    node = tmp_path / NODE
    node.mkdir()
    parts = {"000001": good[:10], "000002": good[10:20], "000003": good[20:]}

    def lay(**names: str) -> Report:
        for old in node.glob("*.jsonl"):
            old.unlink()
        for name, part in names.items():
            (node / f"{name.removeprefix('s')}.jsonl").write_bytes(b"".join(parts[part]))
        return verify(tmp_path)

    assert lay(s000001="000001", s000002="000002", s000003="000003").ok
    for wrong, place in ((lay(s000001="000001", s000002="000003", s000003="000002"), "000002"),
                         (lay(s000001="000001", s000003="000003"), "000003"),
                         (lay(s000002="000002", s000003="000003"), "000002"),
                         (lay(s000001="000001", s000002="000001", s000003="000002"), "000002")):
        assert wrong.first_bad is not None
        assert (wrong.first_bad.file.stem, wrong.first_bad.line) == (place, 1)
    lay(s000001="000001")
    (tmp_path / "n2").mkdir()
    (tmp_path / "n2" / "000001.jsonl").write_bytes(b"".join(parts["000001"]))
    copied = verify(tmp_path)
    assert copied.first_bad is not None
    assert "belongs to node" in copied.first_bad.reason


def test_a_line_that_a_writer_is_about_to_finish_is_waited_for(good: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / NODE / "000001.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"".join(good[:29]) + good[29][:50])

    def finish() -> None:
        with path.open("ab") as file:
            file.write(good[29][50:])

    timer = threading.Timer(0.15, finish)
    timer.start()
    assert verify(tmp_path).ok
    timer.join()


def test_no_records_is_not_fine(tmp_path: Path) -> None:
    assert not verify(tmp_path).ok
    (tmp_path / NODE).mkdir()
    (tmp_path / NODE / "000001.jsonl").touch()
    assert not verify(tmp_path).ok


def test_runs_alone_with_exit_codes(good: list[bytes], tmp_path: Path) -> None:
    """In isolated mode, without site-packages: the standard library is enough."""
    source = Path(verifier.__file__)
    assert len(source.read_text().splitlines()) <= 200

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-I", "-S", str(source), *arguments], capture_output=True, text=True,
                              timeout=30)

    judge(tmp_path, good)
    head = json.loads(good[-1])["hash"]
    fine = run(str(tmp_path), "--head", head)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert f"head: {NODE} {head}" in fine.stdout
    assert run(str(tmp_path), "--head", "0" * 64).returncode == 1
    judge(tmp_path, good[:4] + good[5:])
    bad = run(str(tmp_path))
    assert bad.returncode == 1
    assert "000001.jsonl:5:" in bad.stdout
    missing = run(str(tmp_path / "nowhere"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nowhere" in missing.stderr
