"""``env:NAME`` and ``file:PATH``: where a policy file says a secret is, never what it is.

Law 7: no message here holds a value, whether of the secret or of what stands in a reference's place (it may be a key).
"""

from collections.abc import Mapping
from pathlib import Path

from douane.errors import ConfigError
from douane.secrets import Secret

__all__ = ["MIN_CHARACTERS", "resolve"]

MIN_CHARACTERS = 8
"""Shorter is no key: it can be guessed, and masking it in answers would mask half of them."""
_MAX_BYTES = 64 * 1024


def resolve(reference: str, environ: Mapping[str, str], folder: Path) -> Secret:
    """The secret that *reference* names; a relative path starts at *folder*, a last line break is no part of it.

    Raises ConfigError: no reference, nothing there, or nothing that could be sent in a header (printable ASCII without
    blanks, at least 8 characters)."""
    scheme, colon, name = reference.partition(":")
    if scheme == "env" and name:
        value, source = environ.get(name), f"the environment variable {name}"
        if value is None:
            raise ConfigError(f"{source} is not set")
    elif scheme == "file" and name:
        path = folder / name
        value, source = _contents(path), f"the file {path}"
    elif colon and scheme in ("vault", "keyring"):
        raise ConfigError(f"{scheme}: is not in this version; allowed: env:NAME, file:PATH")
    else:
        raise ConfigError("a key does not stand in a policy file; allowed: env:NAME, file:PATH")
    if not value:
        raise ConfigError(f"{source} is empty")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ConfigError(f"{source} holds no key: it has blanks, line breaks or characters beyond ASCII")
    if len(value) < MIN_CHARACTERS:
        raise ConfigError(f"{source} holds no key: it has fewer than {MIN_CHARACTERS} characters")
    return Secret(value)


def _contents(path: Path) -> str:
    try:
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"the file {path} holds no key: it is larger than {_MAX_BYTES // 1024} KB")
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"the file {path} is not text") from None
