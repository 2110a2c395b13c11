"""What ``douane ca`` does: init, show, issue, rotate.

Each returns an :class:`Overview` to print, and raises ConfigError (wrong use, damaged files) or EnvironmentFailedError.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from douane.ca import certificates
from douane.ca.files import Folder
from douane.ca.names import Names
from douane.ca.standing import DAYS, Clock, issue_now, root_pair, utc_now
from douane.errors import ConfigError

__all__ = ["Facts", "Overview", "init", "issue", "rotate", "show"]

MAX_DAYS = 366


@dataclass(frozen=True, slots=True)
class Facts:
    """One certificate, for a person."""

    subject: str
    sha256: str
    """Of the certificate's DER, lower-case hex: what ``openssl x509 -fingerprint -sha256`` shows."""
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    folder: str
    root: Facts
    root_key_here: bool
    intermediate: Facts | None
    names: tuple[str, ...]
    """What the intermediate may speak for, each with all names below it."""
    notes: tuple[str, ...]
    """What a person should know or do, a line each."""

    def __str__(self) -> str:
        lines = [f"root          {self.root.subject}", *_lines(self.root),
                 f"  key         {'here' if self.root_key_here else 'not here (kept elsewhere)'}"]
        if self.intermediate is not None:
            lines += [f"intermediate  {self.intermediate.subject}", *_lines(self.intermediate),
                      f"  speaks for  {', '.join(self.names) or 'no name'} (and names below); no IP addresses"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def init(folder: Path, names: Iterable[str], *, days: int = DAYS, now: Clock = utc_now) -> Overview:
    """A new root, and its first intermediate for *names*. Refuses a folder that has one."""
    files, governed, life = Folder(folder), Names.of(names), _life(days)
    with files.locked():
        for path in (files.ca, files.root, files.intermediate):
            if files.read(path) is not None:
                raise ConfigError(f"{path}: there is a CA already; `douane ca rotate` makes a new root")
        _new_root(files, governed, now(), life)
    return show(folder, now=now)


def issue(folder: Path, names: Iterable[str], days: int = DAYS, *, now: Clock = utc_now) -> Overview:
    """A new intermediate for *names*, good for *days* (1 to 366, never longer than the root). Needs the root key.

    Makes ``ca.pem`` again where only that is missing."""
    files, governed, life = Folder(folder), Names.of(names), _life(days)
    if files.read(files.ca) is None and files.read(files.root) is None:
        raise ConfigError(f"{folder}: no CA here; `douane ca init` makes one")
    with files.locked():
        root = root_pair(files)
        if files.read(files.ca) is None:
            files.write(files.ca, certificates.pem(root.certificate))
        issue_now(files, root, governed, now(), life)
    return show(folder, now=now)


def rotate(folder: Path, names: Iterable[str], *, days: int = DAYS, now: Clock = utc_now) -> Overview:
    """A new root and intermediate; the old root's files are kept beside them under a dated name. Needs the root key:
    where that is not, a new one does not belong either. Interrupted, it may be run again."""
    files, governed, life = Folder(folder), Names.of(names), _life(days)
    with files.locked():
        if files.read(files.root) is None:
            raise ConfigError(f"{files.root}: the root key is not here; run `douane ca rotate` where it is, then copy "
                              f"{files.ca.name} and {files.intermediate.name} from there")
        stamp = f"{now():%Y%m%dT%H%M%SZ}"
        kept = [path.with_name(f"{path.stem}-{stamp}{path.suffix}") for path in (files.ca, files.root)]
        for path, aside in zip((files.ca, files.root), kept, strict=True):
            content = files.read(path)
            if content is not None:
                files.write(aside, content)
        _new_root(files, governed, now(), life)
    note = (f"every client must now trust the new {files.ca}; the old root is kept as {kept[0].name}, its key as "
            f"{kept[1].name}: remove that key when no client trusts it any more")
    shown = show(folder, now=now)
    return replace(shown, notes=(note, *shown.notes))


def show(folder: Path, *, now: Clock = utc_now) -> Overview:
    """What is in *folder*. Changes nothing."""
    files = Folder(folder)
    content = files.read(files.ca)
    if content is None:
        remedy = "`douane ca init` makes one" if files.read(files.root) is None else "`douane ca issue` restores it"
        raise ConfigError(f"{files.ca}: no CA here; {remedy}")
    try:
        root = certificates.read_certificate(content)
    except ValueError as error:
        raise ConfigError(f"{files.ca}: {error}") from None
    intermediate, names, notes = _intermediate(files, root, now())
    here = files.read(files.root) is not None
    if here and intermediate is not None:
        notes.append("root key and intermediate are on one disk: whoever reads it can speak for any name, and the "
                     "constraint protects nothing (docs/ca.md: keeping the root elsewhere)")
    notes += _rights(files)
    return Overview(str(folder), _facts(root), here, intermediate, names, tuple(notes))


def _new_root(files: Folder, names: Names, now: datetime, life: timedelta) -> None:
    root = certificates.make_root(now)
    files.write(files.root, root.pem())
    issue_now(files, root, names, now, life)
    files.write(files.ca, certificates.pem(root.certificate))


def _intermediate(files: Folder, root: x509.Certificate, now: datetime,
                  ) -> tuple[Facts | None, tuple[str, ...], list[str]]:
    content = files.read(files.intermediate)
    if content is None:
        return None, (), ["there is no intermediate: `douane ca issue` makes one"]
    try:
        certificate = certificates.Pair.read(content).certificate
        names = tuple(sorted(certificates.permitted(certificate)))
    except ValueError as error:
        return None, (), [f"{files.intermediate}: {error}; `douane ca issue` makes a new one"]
    notes = []
    if not certificates.issued_by(certificate, root):
        notes.append(f"{files.intermediate}: issued by another root than {files.ca.name}; clients will refuse it")
    if now >= certificate.not_valid_after_utc:
        notes.append(f"{files.intermediate}: expired; `douane ca issue` makes a new one")
    return _facts(certificate), names, notes


def _rights(files: Folder) -> list[str]:
    keys = [path for path in (files.root, files.intermediate) if path.exists() and path.stat().st_mode & 0o077]
    return [f"{path}: others may read it (chmod 600)" for path in keys]


def _life(days: int) -> timedelta:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"--days {days}: an intermediate lives 1 to {MAX_DAYS} days")
    return timedelta(days=days)


def _facts(certificate: x509.Certificate) -> Facts:
    return Facts(certificate.subject.rfc4514_string(), certificate.fingerprint(hashes.SHA256()).hex(),
                 certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _lines(facts: Facts) -> list[str]:
    return [f"  sha256      {facts.sha256}",
            f"  valid       {facts.not_before:%Y-%m-%d %H:%M} to {facts.not_after:%Y-%m-%d %H:%M} UTC"]
