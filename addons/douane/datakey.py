"""``DATA/secret.key``: 32 random bytes, the gateway's own, for its owner alone.

Law: the file is there whole or not at all, whoever else starts at the same time; a file that others may read is not used.
"""

import contextlib
import os
import secrets
from pathlib import Path

from douane.errors import EnvironmentFailedError

__all__ = ["open_data_key"]

_SIZE = 32


def open_data_key(path: Path) -> bytes:
    """The key, made 0600 where there is none. Raises EnvironmentFailedError."""
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise EnvironmentFailedError(f"{path}: others may read this key; make it 0600")
        key = path.read_bytes()
    except OSError as error:
        raise EnvironmentFailedError(f"{path}: {error.strerror or error}") from None
    if len(key) != _SIZE:
        raise EnvironmentFailedError(f"{path}: is no key of {_SIZE} bytes; put the right one back, or remove it: placeholders "
                                     "are others then")
    return key


def _make(path: Path) -> None:
    """Written aside, then linked: of two processes one wins, and neither sees half a key."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
