"""What an app must trust so that nothing else changes for it: the CAs it trusted before, and our root.

Law: nothing that was trusted is lost, and nothing is added but our root. Variables that *replace* a client's CAs get
the bundle made here; Java, which reads no PEM, gets the same certificates as a PKCS #12 file.
"""

import base64
import binascii
import hashlib
import os
import re
import ssl
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning

from douane.ca.files import Folder
from douane.errors import ConfigError, EnvironmentFailedError

__all__ = ["ADDITIVE", "REPLACING", "TRUSTSTORE_PASSWORD", "bundle", "truststore"]

_BASE = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Where one of these is set, its file stands for the system's CAs, as it does for the app."""
REPLACING = (*_BASE, "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE", "CODEX_CA_CERTIFICATE",
             "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS",
             "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "NIX_SSL_CERT_FILE", "npm_config_cafile", "BUNDLE_SSL_CA_CERT")
"""Variables by which clients take a CA file in place of their own (notes/interception.md §2: each tried)."""
ADDITIVE = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""Variables by which clients take a CA file besides their own."""
TRUSTSTORE_PASSWORD = "changeit"  # noqa: S105 - Java's own default; the file holds nothing secret
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_MAX_FILE = 16 * 1024 * 1024


def bundle(folder: Path, inherited: Mapping[str, str]) -> Path:
    """Write ``bundle.pem``: the CAs an app with the environment *inherited* trusts, without doubles, and our root.

    An environment that brings CA files of its own gets a file of its own (``bundle-HASH.pem``, by their paths), so that
    two runs do not take each other's CAs away. Rewritten only where the content differs. Raises ConfigError where there
    is no root yet, EnvironmentFailedError for disk and rights."""
    files = Folder(folder)
    ours = files.read(files.ca)
    root = list(_certificates(ours or b""))
    if not root:
        raise ConfigError(f"{files.ca}: no CA here; `douane ca init` makes one")
    brought = _brought(inherited)
    every_root = {der for path in folder.glob("ca*.pem") for der in _certificates(_read(path))}
    sources = dict.fromkeys(path.resolve() for path in _sources(inherited, brought))
    wanted = dict.fromkeys(der for path in sources for der in _certificates(_read(path)))
    content = b"".join(_pem(der) for der in [*(der for der in wanted if der not in every_root), *root])
    target = _target(folder, brought)
    if files.read(target) != content:
        with files.locked():
            files.write(target, content)
    return target


def truststore(bundle_pem: Path) -> Path:
    """The certificates of *bundle_pem* as a PKCS #12 trust store for Java 8u301 and later, beside it (``.p12``).

    Its entries carry Oracle's trustedKeyUsage attribute, without which Java takes none for trusted. Rewritten only
    where the bundle has changed."""
    files = Folder(bundle_pem.parent)
    target = bundle_pem.with_suffix(".p12")
    content = files.read(bundle_pem)
    if content is None:
        raise EnvironmentFailedError(f"{bundle_pem}: not there")
    wanted = _parsed(_certificates(content))
    if _stored(files.read(target)) != wanted:
        entries = [pkcs12.PKCS12Certificate(certificate, f"ca{index:03d}".encode())
                   for index, certificate in enumerate(wanted)]
        made = pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode()))
        with files.locked():
            files.write(target, made)
    return target


def _brought(inherited: Mapping[str, str]) -> dict[str, Path]:
    """Variable → file, of those that are set and whose file exists (clients ignore the others, too)."""
    named = ((name, Path(inherited[name]).absolute()) for name in (*REPLACING, *ADDITIVE) if inherited.get(name))
    return {name: path for name, path in named if path.is_file()}


def _sources(inherited: Mapping[str, str], brought: Mapping[str, Path]) -> Iterator[Path]:
    base = [brought[name] for name in _BASE if name in brought]
    system = ssl.get_default_verify_paths().openssl_cafile
    yield from base or (Path(certifi.where()), Path(system), *map(Path, _SYSTEM_FILES))
    yield from brought.values()
    for folder in filter(None, inherited.get("SSL_CERT_DIR", "").split(os.pathsep)):
        if Path(folder).is_dir():
            yield from sorted(Path(folder).iterdir())


_SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Debian; Fedora; Alpine, macOS: where the Python in use was built with another path than the system's."""


def _target(folder: Path, brought: Mapping[str, Path]) -> Path:
    """One of ours again where the environment is already governed (``run`` inside ``run``), else by what it brought."""
    home = folder.absolute()
    for path in brought.values():
        if path.parent == home and path.name.startswith("bundle"):
            return folder / path.name
    foreign = {str(path) for path in brought.values() if path.parent != home}
    if not foreign:
        return folder / "bundle.pem"
    return folder / f"bundle-{hashlib.sha256(os.fsencode(':'.join(sorted(foreign)))).hexdigest()[:8]}.pem"


def _read(path: Path) -> bytes:
    """A file of someone else's: unreadable, absent or huge is none at all, as for the clients that would read it."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MAX_FILE else b""
    except OSError:
        return b""


def _certificates(content: bytes) -> Iterator[bytes]:
    """The DER of each certificate in a PEM text, comments and keys left out."""
    for block in _BLOCK.finditer(content):
        try:
            yield base64.b64decode(b"".join(block[1].split()), validate=True)
        except binascii.Error:
            continue


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _parsed(ders: Iterable[bytes]) -> list[x509.Certificate]:
    """Those that can be read; Java would refuse the whole file for one that cannot."""
    parsed = []
    with warnings.catch_warnings():
        # Old public roots break today's rules for serial numbers; that is their keepers' affair.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for der in ders:
            try:
                parsed.append(x509.load_der_x509_certificate(der))
            except ValueError:
                continue
    return parsed


def _stored(content: bytes | None) -> list[x509.Certificate] | None:
    """What a trust store holds; None where there is none, or it cannot be read."""
    if content is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            store = pkcs12.load_pkcs12(content, TRUSTSTORE_PASSWORD.encode())
        except ValueError:
            return None
    return [entry.certificate for entry in store.additional_certs]
