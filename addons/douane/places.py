"""Where the gateway lives: folders and addresses, from the command line and ``DOUANE_*``."""

import fcntl
import os
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from douane.errors import ConfigError, EnvironmentFailedError

__all__ = ["Listen", "Places", "chain_names", "guard_process", "node_name", "one_at_a_time", "private_folder"]


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, what: str) -> "Listen":
        """``HOST:PORT`` or ``[IPv6]:PORT``. Raises ConfigError naming *what*."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigError(f"{what}: {text!r} is not HOST:PORT (for example 127.0.0.1:8080)")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Places:
    policies: Path
    data: Path
    certs: Path
    proxy: Listen
    admin: Listen
    http: Listen = Listen("127.0.0.1", 0)

    @classmethod
    def of(cls, given: Mapping[str, str | None], environ: Mapping[str, str], home: Path) -> "Places":
        """*given*: option name → value or None; then ``DOUANE_NAME``, then the default below *home*. Raises ConfigError."""

        def pick(name: str, default: str) -> str:
            return given.get(name) or environ.get(f"DOUANE_{name.upper()}") or default

        return cls(
            policies=Path(pick("policies", str(home / "policies"))).absolute(),
            data=Path(pick("data", str(home / "data"))).absolute(),
            certs=Path(pick("certs", str(home / "certs"))).absolute(),
            proxy=Listen.parse(pick("proxy", "127.0.0.1:8080"), "--proxy"),
            admin=Listen.parse(pick("admin", "127.0.0.1:8082"), "--admin"),
            http=Listen.parse(pick("http", "127.0.0.1:8081"), "--http"),
        )

    @property
    def control(self) -> Path:
        """The control socket."""
        return self.data / "control.sock"

    @property
    def audit(self) -> Path:
        return self.data / "audit"


def node_name(environ: Mapping[str, str]) -> str:
    """``DOUANE_NODE``, else the host's name, reduced to what makes a folder name."""
    name = environ.get("DOUANE_NODE") or socket.gethostname() or "node"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:64].lstrip(".") or "node"


def chain_names(node: str, worker: int) -> tuple[str, str]:
    """The two logs of a worker (from 1) of *node*: a successor takes the one that its predecessor does not still hold."""
    return node if worker == 1 else f"{node[:50]}.worker-{worker}", f"{node[:50]}.worker-{worker}b"


def private_folder(folder: Path) -> Path:
    """*folder*, made where it is missing, 0700 in any case. Raises EnvironmentFailedError where it cannot be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise EnvironmentFailedError(f"{folder}: {error.strerror or error}; choose another folder or mend its rights") from None
    return folder


@contextmanager
def one_at_a_time(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """Hold the lock file *path*, which goes with the process that holds it. Raises EnvironmentFailedError where another has it
    for *seconds*, or it cannot be made."""
    deadline = time.monotonic() + seconds
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EnvironmentFailedError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentFailedError(f"{path}: held by another process for {seconds:g} s") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def guard_process() -> None:
    """umask 077 and no core dumps: what holds keys writes for its owner alone and leaves no image of its memory."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
