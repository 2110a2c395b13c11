"""A folder of policy files → one document.

Law 8: the files are read as one stable snapshot: all bytes first, and again where the folder changed meanwhile. Files
are read in name order; ``*_test.yaml`` and hidden files are not read. Named sections merge; the others stand in one
file.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from douane.errors import ConfigError
from douane.source import MAX_BYTES, Entry, Items, Node, Place, Problems, Table, kind, parse, plain, suggest

__all__ = ["Document", "read_folder", "snapshot"]

_NAMED = ("credentials", "providers", "prices", "tiers")
_SINGLE = ("mode", "edge", "chain", "audit", "upstream_proxy", "ca", "ledger", "alerts")
_SECTIONS = ("version", "principals", *_NAMED, *_SINGLE)
_TRIES = 5


@dataclass(slots=True)
class Document:
    """All files of a folder, merged."""

    files: tuple[str, ...]
    named: dict[str, dict[str, Entry]] = field(default_factory=lambda: {name: {} for name in _NAMED})
    single: dict[str, Entry] = field(default_factory=dict)
    principals: list[Node] = field(default_factory=list)

    def revision(self) -> str:
        """sha256, in hex, of the canonical source: the merged content (scalars as YAML 1.2 reads them) as JSON with
        sorted keys, no blanks and ASCII only, ``principals`` sorted by their own JSON.

        So neither comments, layout, quotes, the order of keys nor the division into files change it; the order of the
        chain does. References (``env:``, ``file:``) are part of it, what they lead to is not."""
        content: dict[str, object] = {"version": 1, "principals": sorted(map(_canonical, map(plain, self.principals)))}
        for name, entries in self.named.items():
            content[name] = {key: plain(entry.node) for key, entry in entries.items()}
        for name, entry in self.single.items():
            content[name] = plain(entry.node)
        return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_folder(folder: Path, problems: Problems, files: Mapping[str, bytes] | None = None) -> Document:
    """*files*: a :func:`snapshot` in place of what lies there now.

    Raises ConfigError where there is no folder, no file in it, or no end to its changes."""
    files = snapshot(folder, problems) if files is None else files
    if not files:
        problems.raise_any()
        raise ConfigError(f"{folder}: there is no policy file (*.yaml) here")
    document = Document(tuple(files))
    for file, data in files.items():
        before = len(problems)
        table = parse(file, data, problems)
        if table is not None:
            _merge(document, table, problems)
        elif len(problems) == before:
            problems.add(Place(file, 1), "is empty: a policy file begins with `version: 1`")
    return document


def snapshot(folder: Path, problems: Problems) -> Mapping[str, bytes]:
    """Path as shown → content, in name order. Raises ConfigError."""
    try:
        for _ in range(_TRIES):
            before = _signature(folder)
            contents = {str(folder / name): _content(folder / name) for name, *_ in before}
            if _signature(folder) == before:
                break
        else:
            raise ConfigError(f"{folder}: the files change faster than they can be read")
        misnamed = sorted(path.name for path in folder.glob("[!.]*.yml") if not path.name.endswith("_test.yml"))
    except OSError as error:
        where = f"{error.filename or folder}"
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    for name in misnamed:
        problems.add(Place(str(folder / name), 1), "is not read: policy files end in .yaml; rename or remove it")
    for file, content in list(contents.items()):
        if content is None:
            problems.add(Place(file, 1), "is no file")
    return {file: content for file, content in contents.items() if content is not None}


type _Signature = list[tuple[str, int, int, int, int]]


def _signature(folder: Path) -> _Signature:
    """Name, inode, size and times of every policy file: what changes when somebody saves one."""
    found: _Signature = []
    for path in folder.iterdir():
        name = path.name
        if name.endswith(".yaml") and not name.endswith("_test.yaml") and not name.startswith("."):
            said = path.stat()
            found.append((name, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns))
    return sorted(found)


def _content(path: Path) -> bytes | None:
    """None for what is no regular file (a pipe would never end)."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _merge(document: Document, table: Table, problems: Problems) -> None:
    _check_version(table, problems)
    for name, entry in table.entries.items():
        if name not in _SECTIONS:
            problems.add(entry.place, f"there is no section `{name}`{suggest(name, _SECTIONS)}")
        elif name == "version" or plain(entry.node) is None:
            continue
        elif name in _SINGLE:
            first = document.single.setdefault(name, entry)
            if first is not entry:
                problems.add(entry.place, f"`{name}` stands in one file only: first at {first.place}")
        elif name == "principals":
            if isinstance(entry.node, Items):
                document.principals.extend(entry.node.items)
            else:
                problems.add(entry.place, f"principals: {kind(entry.node)} is not allowed here; allowed: a list")
        elif isinstance(entry.node, Table):
            _merge_named(document.named[name], name, entry.node, problems)
        else:
            problems.add(entry.place, f"{name}: {kind(entry.node)} is not allowed here; allowed: a mapping of names")


def _merge_named(into: dict[str, Entry], section: str, table: Table, problems: Problems) -> None:
    for key, entry in table.entries.items():
        first = into.setdefault(key, entry)
        if first is not entry:
            problems.add(entry.place, f"{section}: `{key}` is given twice: first at {first.place}")


def _check_version(table: Table, problems: Problems) -> None:
    entry = table.entries.get("version")
    if entry is None:
        problems.add(table.place, "`version: 1` is missing")
    elif plain(entry.node) is not None and (plain(entry.node) != 1 or isinstance(plain(entry.node), bool)):
        problems.add(entry.place, "version: this is not a version we know; allowed: 1")
    elif plain(entry.node) is None:
        problems.add(entry.place, "version: nothing is not allowed here; allowed: 1")
