"""The CA in a running process: leaves for governed hosts, from memory.

Law: whoever asks for a host that is not governed gets no certificate. Leaves have a key of their own that lives in this
process only, so that nothing a client can reach is signed for by the CA's key at handshake time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from douane.ca import certificates
from douane.ca.files import Folder
from douane.ca.names import Names
from douane.ca.standing import Clock, Standing, ensure, read_only, utc_now
from douane.errors import EnvironmentFailedError, RefusedError

__all__ = ["Authority", "Leaf"]

LEAF_LIFE = timedelta(hours=72)
CACHED = 1024
"""Leaves in memory. Suffixes are unbounded, and whoever connects picks the name."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a TLS server needs for one host. The same object comes back until it is replaced, so a caller may keep an
    SSL context beside it and drop that when ``authority.leaf(host) is not leaf``."""

    host: str
    certificate: x509.Certificate
    intermediate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    replace_at: datetime
    """When another will be made: after two thirds of its life."""

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def chain_pem(self) -> bytes:
        """The leaf, then the intermediate: what a server sends."""
        return certificates.pem(self.certificate) + certificates.pem(self.intermediate)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True, slots=True)
class _State:
    """Swapped whole, so that ``leaf`` on the loop and ``renew`` in a thread never mix two intermediates."""

    names: Names
    standing: Standing
    leaves: dict[str, Leaf] = field(default_factory=dict)


type _Look = Callable[[Folder, Names, datetime], Standing]


class Authority:
    """One a process. ``leaf`` is cheap (about 0.1 ms for a new host, else a dictionary look-up) and belongs to one
    thread; ``renew`` reads files and may wait for a lock up to 10 s, so call it from another."""

    def __init__(self, folder: Folder, state: _State, now: Clock, look: _Look) -> None:
        self._folder = folder
        self._look = look
        self._state = state
        self._now = now
        self._key = certificates.new_key()

    @classmethod
    def open(cls, folder: Path, names: Iterable[str], *, now: Clock = utc_now, keeps: bool = True) -> "Authority":
        """The authority of *folder* for *names* (``host``, ``host:port``, ``*.suffix``); root and intermediate are made
        or renewed where need be. *keeps* False: by another process, and only read here.

        Raises ConfigError (a name that is none, a damaged file, a root key that is needed and not here) and
        EnvironmentFailedError (disk, rights, a lock held too long)."""
        governed = Names.of(names)
        files = Folder(folder)
        look = ensure if keeps else read_only
        return cls(files, _State(governed, look(files, governed, now())), now, look)

    @property
    def ca_pem(self) -> Path:
        """The file clients trust."""
        return self._folder.ca

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, a line each: a renewal that failed, a root near its end, loose rights."""
        return self._state.standing.notes

    @property
    def not_after(self) -> datetime:
        """Until when the intermediate serves."""
        return self._state.standing.intermediate.certificate.not_valid_after_utc

    def leaf(self, host: str) -> Leaf:
        """The leaf for *host* (lower case, no trailing dot, no port).

        Raises RefusedError ``host_not_allowed`` where it is not governed, and EnvironmentFailedError or ConfigError
        where the intermediate has expired (a machine that slept) and cannot be renewed."""
        state, now = self._state, self._now()
        if host not in state.names:
            raise RefusedError("host_not_allowed", f"{host!r} is not a governed host: no certificate is made for it")
        held = state.leaves.get(host)
        if held is not None and now < held.replace_at:
            return held
        if now >= self.not_after:
            self.renew()
            state = self._state
        made = self._make(state, host, now)
        while len(state.leaves) >= CACHED:
            del state.leaves[next(iter(state.leaves))]
        state.leaves[host] = made
        return made

    def renew(self, names: Iterable[str] | None = None) -> bool:
        """Look at the folder again, for new *names* or the same: renew where due, take over what another process or a
        person put there. True where the intermediate changed. Call it hourly and at each reload.

        Raises as ``open`` does; what served before then serves on."""
        before = self._state
        governed = before.names if names is None else Names.of(names)
        standing = self._look(self._folder, governed, self._now())
        changed = standing.intermediate.certificate != before.standing.intermediate.certificate
        self._state = _State(governed, standing, {} if changed else before.leaves)
        return changed

    def _make(self, state: _State, host: str, now: datetime) -> Leaf:
        issuer = state.standing.intermediate
        end = min(now + LEAF_LIFE, issuer.certificate.not_valid_after_utc)
        if end <= now:
            raise EnvironmentFailedError(f"{self._folder.intermediate}: expired at {end:%Y-%m-%d %H:%M} UTC")
        certificate = certificates.make_leaf(issuer, self._key, host, now, end)
        return Leaf(host, certificate, issuer.certificate, self._key, now + (end - now) * 2 / 3)
