"""A throw-away certificate authority for providers that live on this machine.

Law: nothing made here outlives its folder, and nobody but the one who is told trusts it. It has nothing to do with
Douane's own CA, and lives a few days at most.
"""

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority"]

_SKEW = timedelta(minutes=5)
"""Certificates begin a little in the past: clocks of containers differ."""
_LIFETIME = timedelta(days=7)


class Authority:
    """A P-256 root made at this moment, its key only in memory; the certificate is at *certificate* (PEM)."""

    def __init__(self, folder: Path, *, name: str = "Douane demo CA (throw-away)") -> None:
        """Make *folder* (0700) where it is missing, and write ``ca.pem`` into it."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._folder = folder
        self.certificate = folder / "ca.pem"
        root = self._builder(self._name, self._key.public_key(), _LIFETIME)
        root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        root = root.add_extension(_usage(signs=True), critical=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.certificate.write_bytes(root.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, names: Sequence[str], *, file: str = "provider.pem", lifetime: timedelta = _LIFETIME) -> Path:
        """A leaf for DNS names and IP addresses: key and certificate in one PEM file (0600), as servers load it.

        A negative *lifetime* makes one that has expired. Raises ValueError for no names."""
        if not names:
            raise ValueError("a certificate needs at least one name")
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._builder(x509.Name([]), key.public_key(), lifetime)
        leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        leaf = leaf.add_extension(_usage(signs=False), critical=True)
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # The subject is empty, so the names are critical (RFC 5280 §4.2.1.6).
        leaf = leaf.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=True)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
        pem += leaf.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        path = self._folder / file
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey,
                 lifetime: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        begin = min(now, now + lifetime) - _SKEW
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        # Both identifiers: Python 3.13 verifies with VERIFY_X509_STRICT, which asks for them.
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
                .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(now + lifetime)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
                         key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                         decipher_only=False)
