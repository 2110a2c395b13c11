"""TLS contexts that trust what was configured, and nothing the environment says.

Law: **no variable of our environment decides whom we trust or who can read along.** So neither
``ssl.create_default_context`` (honours ``SSLKEYLOGFILE``) nor ``load_default_certs`` (honours ``SSL_CERT_FILE`` and
``SSL_CERT_DIR``) is used: the context is built by hand, from the roots' own paths.
"""

import ssl
from pathlib import Path

import certifi

__all__ = ["Contexts"]


class Contexts:
    """One context for each file of roots; a file that was replaced is read again."""

    def __init__(self) -> None:
        self._built: dict[str, tuple[int, ssl.SSLContext]] = {}

    def get(self, ca: str) -> ssl.SSLContext:
        """The context that trusts only the roots in the PEM file *ca*; the system's (or certifi's) for an empty name.

        Raises OSError (of which ssl.SSLError is one) when the file cannot be read or holds no certificate."""
        changed = Path(ca).stat().st_mtime_ns if ca else 0
        built = self._built.get(ca)
        if built is None or built[0] != changed:
            built = self._built[ca] = (changed, _context(ca))
        return built[1]


def _context(ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    # A certificate given as `ca` is an anchor even where it is not self-signed. (VERIFY_X509_STRICT, which Python
    # 3.13 sets and 3.12 does not, is left out: it refuses private CAs that every other client accepts, and makes no
    # chain safer.)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])
    if ca:
        context.load_verify_locations(cafile=ca)
    else:
        cafile, capath = _system_roots()
        context.load_verify_locations(cafile=cafile, capath=capath)
    return context


def _system_roots() -> tuple[str | None, str | None]:
    """Where OpenSSL was built to look (``openssl_cafile``, not ``cafile``: that one follows the environment); certifi's
    bundle where the system keeps none."""
    paths = ssl.get_default_verify_paths()
    cafile, capath = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if cafile.is_file():
        return str(cafile), None
    if capath.is_dir() and any(capath.iterdir()):
        return None, str(capath)
    return certifi.where(), None
