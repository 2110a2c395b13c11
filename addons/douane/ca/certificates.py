"""How the three kinds of certificate are made and read: root, intermediate, leaf. No files here.

Profile: RFC 5280, and what OpenSSL's ``X509_V_FLAG_X509_STRICT`` (Python's default since 3.13) asks for: key
identifiers on both ends, key usage on every CA. EC P-256 with SHA-256 throughout: every TLS client of the last ten
years takes it, and it signs in 0.1 ms.
"""

import ipaddress
import socket
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from douane.ca.names import Names

__all__ = ["SKEW", "Pair", "SigningKey", "issued_by", "make_intermediate", "make_leaf", "make_root", "new_key", "pem",
           "permitted", "read_certificate"]

type SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SKEW = timedelta(hours=1)
"""Every certificate begins this much earlier, for clients whose clock is behind."""
ROOT_LIFE = timedelta(days=5 * 365)
"""Every client has to be touched when the root changes, so not shorter; ten years, as others take, outlives the people
who know where its key is."""
_NOBODY = "none.invalid"
"""Permitted where no name is governed: a constraint that permits nothing listed would permit everything."""
_ALL_ADDRESSES = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)

    def pem(self) -> bytes:
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return key + pem(self.certificate)

    @classmethod
    def read(cls, content: bytes, certificate: x509.Certificate | None = None) -> "Pair":
        """From PEM with a key and a certificate (or a key alone, and the *certificate* beside it).

        Raises ValueError, saying what is wrong: no key, an encrypted one, no certificate, or two that do not match."""
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:
            raise ValueError("the private key is encrypted") from None
        except ValueError:
            raise ValueError("no private key in it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("the private key is neither EC nor RSA")
        if certificate is None:
            certificate = read_certificate(content)
        if certificate.public_key() != key.public_key():
            raise ValueError("key and certificate do not belong together")
        return cls(certificate, key)


def read_certificate(content: bytes) -> x509.Certificate:
    """The first certificate in a PEM text; ValueError where there is none."""
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise ValueError("no certificate in it") from None


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_root(now: datetime) -> Pair:
    """A new self-signed root, named after this machine and its own serial, so that two never look alike."""
    key, serial = new_key(), x509.random_serial_number()
    subject = _name(f"Douane root ({socket.gethostname()[:30]} {serial % 16**8:08x})")
    builder = (_builder(subject, key.public_key(), serial, now, now + ROOT_LIFE)
               .issuer_name(subject)
               .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
               .add_extension(_usage(ca=True), critical=True))
    return Pair(builder.sign(key, hashes.SHA256()), key)


def make_intermediate(root: Pair, names: Names, now: datetime, life: timedelta) -> Pair:
    """A new intermediate that can speak, as a TLS server, for *names* and what is below them, and for no address."""
    key, serial = new_key(), x509.random_serial_number()
    until = min(now + life, root.certificate.not_valid_after_utc)
    subject = _name(f"Douane intermediate ({serial % 16**8:08x})")
    constraints = x509.NameConstraints(
        [x509.DNSName(base) for base in sorted(names.bases) or [_NOBODY]],
        [x509.IPAddress(network) for network in _ALL_ADDRESSES])
    builder = (_builder(subject, key.public_key(), serial, now, until)
               .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
               .add_extension(_usage(ca=True), critical=True)
               .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
               .add_extension(constraints, critical=True))
    return Pair(_signed(builder, root), key)


def make_leaf(issuer: Pair, key: ec.EllipticCurvePrivateKey, host: str, now: datetime,
              until: datetime) -> x509.Certificate:
    """The certificate a client sees for *host*; *key* is the leaf's own, never the CA's."""
    # X.520 bounds a common name at 64 characters; clients read the SAN, so a longer host goes without.
    subject = _name(host) if len(host) <= 64 else x509.Name([])
    builder = (_builder(subject, key.public_key(), x509.random_serial_number(), now, until)
               .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
               .add_extension(_usage(ca=False), critical=True)
               .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
               .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=not subject.rdns))
    return _signed(builder, issuer)


def permitted(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names an intermediate may speak for. ValueError where it is not constrained as ours are."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("it has no name constraints") from None
    excluded = {network.value for network in constraints.excluded_subtrees or ()}
    bases = {name.value for name in constraints.permitted_subtrees or () if isinstance(name, x509.DNSName)}
    if not bases or not excluded.issuperset(_ALL_ADDRESSES):
        raise ValueError("its name constraints leave names or addresses open")
    return frozenset(bases) - {_NOBODY}


def issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


type _PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def _builder(subject: x509.Name, own: _PublicKey, serial: int, now: datetime, until: datetime,
             ) -> x509.CertificateBuilder:
    return (x509.CertificateBuilder().subject_name(subject).public_key(own).serial_number(serial)
            .not_valid_before(now - SKEW).not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False))


def _signed(builder: x509.CertificateBuilder, issuer: Pair) -> x509.Certificate:
    try:
        identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    except x509.ExtensionNotFound:  # a root someone brought along; ours has one
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return (builder.issuer_name(issuer.certificate.subject).add_extension(authority, critical=False)
            .sign(issuer.key, hashes.SHA256()))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False)
