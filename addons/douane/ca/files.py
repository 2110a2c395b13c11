"""The CA's folder.

Law: a file is there whole or not at all (written aside, synced, renamed), and whoever writes holds the folder's lock.
A key and its certificate share one file, because two renames could be torn apart by a crash. What ends in ``.key`` is
secret; what ends in ``.pem`` or ``.p12`` may be shown to anyone.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from douane.errors import EnvironmentFailedError

__all__ = ["Folder"]

LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the files are. Every method raises EnvironmentFailedError where the disk or the rights fail."""

    path: Path

    @property
    def ca(self) -> Path:
        """The root certificate: what clients trust."""
        return self.path / "ca.pem"

    @property
    def root(self) -> Path:
        """The root's private key, and the root certificate once more. The one file to keep elsewhere."""
        return self.path / "root.key"

    @property
    def intermediate(self) -> Path:
        """The intermediate's private key and certificate."""
        return self.path / "intermediate.key"

    def read(self, path: Path) -> bytes | None:
        """The file's bytes, or None where it does not exist."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFailedError(f"{path}: cannot be read: {error.strerror}") from None

    def write(self, path: Path, content: bytes) -> None:
        """Replace *path* in one step, 0600. Call it with the lock held."""
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.douane.tmp")
        try:
            _write_synced(aside, content)
            os.replace(aside, path)
            _sync_folder(path.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise EnvironmentFailedError(f"{path}: cannot be written: {error.strerror}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The only writer among all processes; makes the folder (0700) and clears what a crashed writer left."""
        lock = self.path / ".lock"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentFailedError(f"{lock}: cannot be written: {error.strerror}") from None
        try:
            _acquire(handle, lock)
            for left in self.path.glob(".*.douane.tmp"):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def tighten(self) -> tuple[str, ...]:
        """Take group's and others' rights off the folder and the keys; one line for each that is not ours to change
        (a mounted secret)."""
        notes = []
        for path, mode in ((self.path, 0o700), (self.root, 0o600), (self.intermediate, 0o600)):
            try:
                if path.stat().st_mode & 0o077:
                    path.chmod(mode)
            except FileNotFoundError:
                continue
            except OSError as error:
                notes.append(f"{path}: others may read it, and its rights cannot be changed: {error.strerror}")
        return tuple(notes)


def _acquire(handle: int, lock: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EnvironmentFailedError(f"{lock}: held by another process for {LOCK_SECONDS:.0f} s") from None
            time.sleep(0.01)
        else:
            return


def _write_synced(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
