"""Check the audit log, with nothing but the standard library: ``python verify.py FOLDER [--head HASH]``.

The log: ``FOLDER/NODE/NNNNNN.jsonl``, one JSON object a line, whose last members are ``"prev":"HEX","hash":"HEX"``.
*hash* is the sha256 of the line's bytes from its ``{`` up to, and without, ``,"hash":``. *prev* is the hash of the
record before it, over the segments of the node in the order of their numbers; 64 zeros at first. *seq* counts from 1.

Found: every byte changed, every record removed, doubled, moved or cut, other than at the end. Found too: a second
intent or outcome of one call, and an outcome with no intent before it (but a denial, which has none).

Not found without a hash noted elsewhere (``--head``): records missing from the end (whole segments and nodes too), and
a chain computed anew by someone who may write the files. So note the heads this prints, off the machine.
Memory: about 150 bytes a call.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["START", "Bad", "LineError", "Report", "check_line", "main", "nodes", "segments", "verify"]

START = "0" * 64
"""*prev* of a node's first record."""
_SEGMENT = re.compile(r"[0-9]{6,}\.jsonl")
_PREV = re.compile(rb',"prev":"([0-9a-f]{64})"')
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}')


class LineError(ValueError):
    """A line that is no record, or not the next; says why."""


class Bad(NamedTuple):
    file: Path
    line: int  # from 1; 0 where no line is to blame
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked. Of a node that is bad, only what stands before the bad record is counted."""

    records: int
    segments: int
    nodes: tuple[str, ...]
    first_bad: Bad | None
    torn: tuple[Path, ...]
    """What crashes left unfinished and later starts set aside: never acknowledged, part of no chain."""
    first: str | None
    last: str | None
    """Earliest ``at`` of the nodes' first records, latest of their last ones."""
    heads: dict[str, str]
    """Node → hash of its last good record."""
    open: int
    """Intents without an outcome: calls that run now, or that a crash ended."""

    @property
    def ok(self) -> bool:
        return self.first_bad is None


def segments(node: Path) -> list[Path]:
    """A node's segments in order. Raises OSError."""
    return sorted((path for path in node.iterdir() if _SEGMENT.fullmatch(path.name)), key=lambda path: int(path.stem))


def nodes(folder: Path) -> list[Path]:
    """The node folders of a log; *folder* itself where it is one. Raises OSError."""
    if segments(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and segments(path))


def check_line(line: bytes) -> tuple[dict[str, Any], str, str]:
    """(record, prev, hash) of a line with its newline, its hash checked. Raises LineError."""
    if not line.endswith(b"\n"):
        raise LineError("ends without a newline: cut off, or left by a crash that no start has cleared up yet")
    head, tail = line[:-76], line[-76:-1]
    prev, digest = _PREV.fullmatch(head[-74:]), _HASH.fullmatch(tail)
    if prev is None or digest is None:
        raise LineError('does not end in "prev" and "hash"')
    if hashlib.sha256(head).hexdigest().encode() != digest[1]:
        raise LineError("changed: its hash does not fit its bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError("is no JSON") from error
    return record, prev[1].decode(), digest[1].decode()


def _lines(paths: list[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """Every (file, number, line). A writer may be in the middle of the very last, which gets two seconds."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                waited = 0
                while path == paths[-1] and not line.endswith(b"\n") and waited < 20:
                    time.sleep(0.1)
                    line, waited = line + file.readline(), waited + 1  # noqa: PLW2901
                yield path, number, line


class _Node:
    """The state of one chain as it is read."""

    def __init__(self, name: str) -> None:
        self.name, self.seq, self.prev = name, 0, START
        self.first = self.last = ""
        self.open, self.ended = set[str](), set[str]()

    def take(self, line: bytes) -> None:
        """The next line. Raises LineError."""
        record, prev, digest = check_line(line)
        if prev != self.prev or record.get("seq") != self.seq + 1:
            raise LineError(f"does not follow record {self.seq}: removed, added or moved (seq {record.get('seq')})")
        if record.get("node") != self.name:
            raise LineError(f"belongs to node {record.get('node')!r}, stands in {self.name!r}")
        self._pair(record)
        self.seq, self.prev, self.last = self.seq + 1, digest, str(record.get("at"))
        self.first = self.first or self.last

    def _pair(self, record: dict[str, Any]) -> None:
        kind, call = record.get("kind"), str(record.get("id"))
        if kind not in ("intent", "outcome", "event"):
            raise LineError(f"is of unknown kind {kind!r}")
        if kind == "event":
            if record.get("event") == "late" and record.get("record") == "intent":
                self.open.discard(call)  # it landed after its call had been refused
            return
        if call in self.ended or (kind == "intent" and call in self.open):
            raise LineError(f"is a second {kind} of call {call}")
        if kind == "intent":
            self.open.add(call)
            return
        verdict = record.get("verdict")
        if call not in self.open and not (isinstance(verdict, dict) and verdict.get("action") == "deny"):
            raise LineError(f"is the outcome of call {call}, which has no intent and was not denied")
        self.open.discard(call)
        self.ended.add(call)


def verify(folder: Path, expect: str | None = None) -> Report:
    """Check every record under *folder* (``DATA/audit``, or one node's). *expect*: a hash noted earlier, which must be
    in one of the chains. Raises OSError where a file cannot be read."""
    read: list[_Node] = []
    count, found, bad, torn = 0, expect is None, None, list[Path]()
    for place in nodes(folder):
        node, paths = _Node(place.resolve().name), segments(place)
        read.append(node)
        torn += sorted(place.glob("*.torn"))
        count += len(paths)
        for path, number, line in _lines(paths):
            try:
                node.take(line)
            except LineError as error:
                bad = bad or Bad(path, number, str(error))
                break
            found = found or node.prev == expect
    total = sum(node.seq for node in read)
    if bad is None and total == 0:
        bad = Bad(folder, 0, "there are no records here")
    if bad is None and not found:
        bad = Bad(folder, 0, f"no record has the hash {expect}: records are missing, or the chain was computed anew")
    return Report(total, count, tuple(node.name for node in read), bad, tuple(torn),
                  min((node.first for node in read if node.first), default=None),
                  max((node.last for node in read if node.last), default=None),
                  {node.name: node.prev for node in read if node.seq}, sum(len(node.open) for node in read))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a Douane audit log.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--head", metavar="HASH", help="a hash noted earlier, which must be in the chain")
    asked = parser.parse_args(arguments)
    try:
        report = verify(asked.folder, asked.head)
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 1
    print(f"{report.records} records, {report.segments} segments, {len(report.nodes)} nodes, {report.first} to "
          f"{report.last}; {report.open} calls without an outcome")
    for path in report.torn:
        print(f"torn: {path}: never acknowledged, set aside after a crash")
    for node, head in report.heads.items():
        print(f"head: {node} {head}" + ("" if report.ok else " (last good)"))
    print("ok" if report.ok else f"BAD: {report.first_bad}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
