"""What stands in the folder: is it good, for how long, and making it good again.

Law: nothing that still serves is thrown away. An intermediate past half its life, or made for another set of names
that covers ours, is replaced where the root key is at hand and used on where it is not; one that cannot serve is
replaced, or the start fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509

from douane.ca import certificates
from douane.ca.certificates import Pair
from douane.ca.files import Folder
from douane.ca.names import Names
from douane.errors import ConfigError, DouaneError, EnvironmentFailedError

__all__ = ["DAYS", "Clock", "Standing", "ensure", "issue_now", "read_only", "root_pair", "utc_now"]

DAYS = 7
"""An intermediate's life: long enough for a week without the root key, short enough that a stolen one soon dies."""

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """A root and the intermediate it signed. *notes*: what a person should know, a line each."""

    root: x509.Certificate
    intermediate: Pair
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why an intermediate should be replaced; *usable*: it may serve until then."""

    why: str
    usable: bool = False


def ensure(folder: Folder, names: Names, now: datetime) -> Standing:
    """The standing for *names*, made or renewed where need be.

    Raises ConfigError (the root key is needed and elsewhere, a file is damaged, the root has expired) and
    EnvironmentFailedError (disk, rights)."""
    notes = folder.tighten()
    found = _find(folder, names, now)
    if isinstance(found, Standing):
        return replace(found, notes=notes + found.notes)
    try:
        with folder.locked():
            # Another process may have done it while we waited for the lock.
            found = _find(folder, names, now)
            if not isinstance(found, Standing):
                root = _root_or_new(folder, now)
                found = issue_now(folder, root, names, now, timedelta(days=DAYS))
        return replace(found, notes=notes + folder.tighten() + found.notes)
    except DouaneError as error:
        served = _find(folder, names, now, serve_on=True)
        if not isinstance(served, Standing):
            raise
        return replace(served, notes=(*notes, *served.notes, f"the intermediate could not be renewed: {error}"))


def read_only(folder: Folder, names: Names, now: datetime) -> Standing:
    """The standing for *names* as another process keeps it; nothing is written.

    Raises ConfigError (a damaged file) and EnvironmentFailedError (it is not there, or cannot serve)."""
    found = _find(folder, names, now, serve_on=True)
    if isinstance(found, Standing):
        return found
    raise EnvironmentFailedError(f"{folder.intermediate}: cannot serve: {found.why}")


def issue_now(folder: Folder, root: Pair, names: Names, now: datetime, life: timedelta) -> Standing:
    """Sign and store a new intermediate. Call it with the lock held."""
    if now >= root.certificate.not_valid_after_utc:
        raise ConfigError(f"{folder.ca}: the root expired on {root.certificate.not_valid_after_utc:%Y-%m-%d}; "
                          "run `douane ca rotate` where its key is, and have every client trust the new one")
    intermediate = certificates.make_intermediate(root, names, now, life)
    folder.write(folder.intermediate, intermediate.pem())
    return Standing(root.certificate, intermediate, _root_notes(root.certificate, now))


def root_pair(folder: Folder) -> Pair:
    """The root with its key, which must be that of ``ca.pem``. Raises ConfigError where it is not here or damaged."""
    content = folder.read(folder.root)
    if content is None:
        raise ConfigError(f"{folder.root}: the root key is not here; run `douane ca issue` where it is, then copy "
                          f"{folder.intermediate.name} from there")
    trusted = _trusted(folder)
    try:
        return Pair.read(content, trusted)
    except ValueError as error:
        raise ConfigError(f"{folder.root}: {error}; if `douane ca rotate` was interrupted, run it again") from None


def _root_or_new(folder: Folder, now: datetime) -> Pair:
    """The root, made where the folder holds none. Call it with the lock held."""
    if folder.read(folder.ca) is not None:
        return root_pair(folder)
    content = folder.read(folder.root)
    if content is not None:  # the certificate's public copy is missing
        pair = root_pair(folder)
    elif folder.read(folder.intermediate) is not None:
        raise ConfigError(f"{folder.ca} is missing: copy it from where the root key is (or remove "
                          f"{folder.intermediate.name} to begin with a new root)")
    else:
        pair = certificates.make_root(now)
        folder.write(folder.root, pair.pem())
    folder.write(folder.ca, certificates.pem(pair.certificate))
    return pair


def _find(folder: Folder, names: Names, now: datetime, *, serve_on: bool = False) -> Standing | _Fault:
    """What stands there, or what is wrong with it. *serve_on*: content with what is merely due for renewal."""
    root = _trusted(folder)
    content = folder.read(folder.intermediate)
    if root is None or content is None:
        return _Fault("not there")
    try:
        pair = Pair.read(content)
        fault = _fault(root, pair, names, now)
    except ValueError as error:
        return _Fault(str(error))
    if fault is not None and not (serve_on and fault.usable):
        return fault
    return Standing(root, pair, _root_notes(root, now))


def _fault(root: x509.Certificate, pair: Pair, names: Names, now: datetime) -> _Fault | None:
    certificate = pair.certificate
    bases = certificates.permitted(certificate)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not certificates.issued_by(certificate, root):
        return _Fault("it was issued by another root")
    if not begin <= now < end:
        return _Fault(f"it is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC only")
    if not names.covered_by(bases):
        return _Fault("it may not speak for every governed name")
    if bases != names.bases:
        return _Fault("it may speak for names no longer governed", usable=True)
    issued = begin + certificates.SKEW
    if now >= issued + (end - issued) / 2 and end < root.not_valid_after_utc:
        return _Fault("half its life is over", usable=True)
    return None


def _root_notes(root: x509.Certificate, now: datetime) -> tuple[str, ...]:
    left = root.not_valid_after_utc - now
    if left > timedelta(days=90):
        return ()
    return (f"the root expires in {left.days} days: run `douane ca rotate` and have every client trust the new one",)


def _trusted(folder: Folder) -> x509.Certificate | None:
    content = folder.read(folder.ca)
    if content is None:
        return None
    try:
        return certificates.read_certificate(content)
    except ValueError as error:
        raise ConfigError(f"{folder.ca}: {error}; copy it again from where the root key is") from None
