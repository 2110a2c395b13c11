"""``douane scan``: what would be found in texts and repositories.

Law: told are kind and place, never the value. A file that cannot be read as text is passed over, and so is what the repository
ignores; one that could not be searched to its end is an error, not a clean file.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from douane.detect.find_secrets import find_secrets, together
from douane.detect.values import ScanFailedError, Span
from douane.errors import ConfigError, EnvironmentFailedError

__all__ = ["Hit", "Searcher", "files", "hits", "lines", "opened", "read", "searching"]

type Searcher = Callable[[str], tuple[Span, ...]]

_MOST = 64 * 1024 * 1024
"""Bytes of a file that is looked at."""
_LOOKED_AT = 8192
_LIST = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
"""Nothing that somebody else's repository configures is run."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A finding; line and column count from 1, columns in characters."""

    file: str
    line: int
    column: int
    type: str
    score: float

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column} {self.type} {self.score:.2f}"

    def as_object(self) -> dict[str, object]:
        return {"file": self.file, "line": self.line, "column": self.column, "type": self.type, "score": round(self.score, 2)}


@contextmanager
def searching(*, secrets_only: bool) -> Iterator[Searcher]:
    """What to search each text with. The default entities take a second or two until the first answer."""
    if secrets_only:
        yield find_secrets
        return
    import asyncio

    from douane.detect import Scanner, Wanted

    loop, scanner = asyncio.new_event_loop(), Scanner(Wanted(), remembered=0)

    def search(text: str) -> tuple[Span, ...]:
        (found,) = loop.run_until_complete(scanner.scan("", [text]))
        return together(found, find_secrets(text))

    try:
        yield search
    finally:
        loop.run_until_complete(scanner.aclose())
        loop.close()


def hits(paths: Iterable[str], search: Searcher) -> Iterator[Hit]:
    """What stands in the files and folders. Raises ConfigError for one that is not there, EnvironmentFailedError for a text
    that could not be searched."""
    for path in paths:
        for name in ["-"] if path == "-" else files(path):
            text = sys.stdin.buffer.read().decode("utf-8", "replace") if name == "-" else read(Path(name))
            if text is None:
                continue
            try:
                found = search(text)
            except ScanFailedError as error:
                raise EnvironmentFailedError(f"{name}: {error}") from None
            yield from _placed(name, text, found)


def _placed(name: str, text: str, found: Sequence[Span]) -> Iterator[Hit]:
    line, at = 1, 0
    for span in found:
        line += text.count("\n", at, span.start)
        at = span.start
        yield Hit(name, line, at - text.rfind("\n", 0, at), span.type, span.score)


def files(path: str) -> Iterator[str]:
    """*path*, or the files below it: in a repository, those that are not ignored. Raises ConfigError."""
    start = Path(path)
    if not start.is_dir():
        if not start.exists():
            raise ConfigError(f"scan: there is no {path}")
        yield path
        return
    for name in _listed(start) or _walked(start):
        file = start / name
        if file.is_file() and not file.is_symlink():
            yield str(file)


def _listed(folder: Path) -> list[str]:
    """As git lists it; empty where there is no git, no repository, or one that ignores the very folder that was asked for."""
    with suppress(OSError):
        done = subprocess.run([*_GIT, "-C", str(folder), *_LIST], capture_output=True, check=False,  # noqa: S603 - git, no shell
                              stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return sorted({os.fsdecode(name) for name in done.stdout.split(b"\0") if name})
    return []


def _walked(folder: Path) -> Iterator[str]:
    for here, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if name != ".git")
        for name in sorted(names):
            yield str(Path(here, name).relative_to(folder))


def read(path: Path) -> str | None:
    """The text of a file; None where it is none. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(f"scan: {path}: {error.strerror}") from None
    if len(raw) > _MOST:
        print(f"douane: {path}: longer than {_MOST >> 20} MB, passed over", file=sys.stderr)
        return None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    return None if b"\0" in raw[:_LOOKED_AT] else raw.decode("utf-8", "replace")


def opened(path: str) -> TextIO:
    """A file of JSON lines. Raises ConfigError."""
    try:
        return Path(path).open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"scan: {path}: {error.strerror}") from None


def lines(source: TextIO, name: str, search: Searcher) -> Iterator[str]:
    """For each line ``{"text"}``, one ``{"spans"}``. Raises ConfigError, EnvironmentFailedError."""
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise ConfigError(f'scan: {name}:{number}: not a line {{"text": "…"}}')
        try:
            spans = search(text)
        except ScanFailedError as error:
            raise EnvironmentFailedError(f"{name}:{number}: {error}") from None
        yield json.dumps({"spans": [{"start": one.start, "end": one.end, "type": one.type, "score": round(one.score, 2)}
                                    for one in spans]})
