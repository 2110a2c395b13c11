"""The CA, verified by those who must believe it: OpenSSL through Python's ssl, the openssl command, keytool."""

import errno
import ipaddress
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from douane import ca
from douane.ca import certificates, files
from douane.ca.certificates import Pair
from douane.ca.names import Names
from douane.ca.standing import utc_now
from douane.errors import ConfigError, DouaneError, EnvironmentFailedError, RefusedError

NAMES = ["api.openai.com", "api.anthropic.com:443", "*.openai.azure.com"]
ADDONS = Path(files.__file__).parents[2]


class Clock:
    def __init__(self) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **delta: float) -> None:
        self.at += timedelta(**delta)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    return tmp_path / "certs"


def handshake(trusted: Path, chain: bytes, key: bytes, host: str, place: Path) -> None:
    """A TLS handshake in memory, client trusting *trusted* only; raises SSLCertVerificationError."""
    (place / "chain").write_bytes(chain + key)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(place / "chain")
    client_side = ssl.create_default_context(cafile=str(trusted))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=host)
    server = server_side.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(8):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
        if len(done) == 2:
            return
    raise AssertionError("the handshake did not end")


def stolen(certs: Path) -> Pair:
    return Pair.read((certs / "intermediate.key").read_bytes())


def forged(intermediate: Pair, subject: str, names: list[x509.GeneralName], *, ca: bool = False) -> tuple[bytes, bytes]:
    """(chain, key) of a leaf that a thief of the intermediate's key signs."""
    key, now = certificates.new_key(), utc_now()
    builder = (x509.CertificateBuilder()
               .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
               .issuer_name(intermediate.certificate.subject).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(now).not_valid_after(now + timedelta(hours=1))
               .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
               .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(intermediate.key.public_key()),
                              critical=False))
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pair = Pair(builder.sign(intermediate.key, hashes.SHA256()), key)
    return certificates.pem(pair.certificate) + certificates.pem(intermediate.certificate), pair.pem()


# --- what clients believe


@pytest.mark.parametrize("host", ["api.openai.com", "api.anthropic.com", "we.openai.azure.com",
                                  "a." * 35 + "openai.azure.com"])
def test_a_client_that_trusts_the_root_believes_a_leaf(certs: Path, tmp_path: Path, host: str) -> None:
    leaf = ca.Authority.open(certs, NAMES).leaf(host)
    handshake(certs / "ca.pem", leaf.chain_pem, leaf.key_pem, host, tmp_path)
    names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(host)]
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certs / "ca.pem", leaf.chain_pem, leaf.key_pem, "other.example", tmp_path)


def test_a_stolen_intermediate_speaks_for_governed_names_only(certs: Path, tmp_path: Path) -> None:
    ca.Authority.open(certs, NAMES)
    thief = stolen(certs)

    def tried(subject: str, names: list[x509.GeneralName], host: str) -> None:
        chain, key = forged(thief, subject, names)
        handshake(certs / "ca.pem", chain, key, host, tmp_path)

    tried("x", [x509.DNSName("api.openai.com")], "api.openai.com")
    tried("x", [x509.DNSName("below.api.openai.com")], "below.api.openai.com")  # what a constraint cannot tell apart
    cases: list[tuple[str, list[x509.GeneralName], str]] = [
            ("x", [x509.DNSName("bank.example")], "bank.example"),
            ("x", [x509.DNSName("api.openai.com"), x509.DNSName("bank.example")], "api.openai.com"),
            ("x", [x509.DNSName("openai.com")], "openai.com"),
            ("x", [x509.DNSName("xapi.openai.com")], "xapi.openai.com"),
            ("x", [x509.DNSName("*.com")], "bank.com"),
            ("x", [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], "127.0.0.1"),
            ("x", [x509.IPAddress(ipaddress.ip_address("2001:db8::1"))], "2001:db8::1"),
            ("bank.example", [], "bank.example")]
    for subject, names, host in cases:
        with pytest.raises(ssl.SSLCertVerificationError):
            tried(subject, names, host)


def test_a_stolen_intermediate_makes_no_further_ca(certs: Path, tmp_path: Path) -> None:
    ca.Authority.open(certs, NAMES)
    thief = stolen(certs)
    limits = thief.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.path_length) == (True, 0)
    assert thief.certificate.extensions.get_extension_for_class(x509.NameConstraints).critical
    chain, key = forged(thief, "sub", [], ca=True)
    sub = Pair.read(key, certificates.read_certificate(chain))
    end, end_key = forged(sub, "x", [x509.DNSName("api.openai.com")])
    with pytest.raises(ssl.SSLCertVerificationError, match="path length"):
        handshake(certs / "ca.pem", end + certificates.pem(thief.certificate), end_key, "api.openai.com", tmp_path)


def test_where_no_name_is_governed_nothing_is_believed(certs: Path, tmp_path: Path) -> None:
    authority = ca.Authority.open(certs, ["127.0.0.1:8000", "localhost"])
    chain, key = forged(stolen(certs), "x", [x509.DNSName("bank.example")])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certs / "ca.pem", chain, key, "bank.example", tmp_path)
    with pytest.raises(RefusedError):
        authority.leaf("localhost")
    assert not authority.renew()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_verify_agrees(certs: Path, tmp_path: Path) -> None:
    leaf = ca.Authority.open(certs, NAMES).leaf("api.openai.com")
    (tmp_path / "between.pem").write_bytes(certificates.pem(leaf.intermediate))

    def verify(pem: bytes) -> str:
        (tmp_path / "leaf.pem").write_bytes(pem)
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", certs / "ca.pem", "-untrusted",
             tmp_path / "between.pem", tmp_path / "leaf.pem"], capture_output=True, text=True, timeout=10)
        return done.stdout + done.stderr

    assert "leaf.pem: OK" in verify(certificates.pem(leaf.certificate))
    assert "permitted subtree violation" in verify(forged(stolen(certs), "x", [x509.DNSName("bank.example")])[0])
    address = x509.IPAddress(ipaddress.ip_address("10.0.0.1"))
    assert "excluded subtree violation" in verify(forged(stolen(certs), "x", [address])[0])


# --- names


def test_names_are_read_strictly() -> None:
    names = Names.of(["API.OpenAI.com.", "llm.internal:8000", "[::1]:443", "10.0.0.1", "::1", "localhost:1",
                      ".a.example"])
    assert names.exact == {"api.openai.com", "llm.internal"}
    assert names.suffixes == {"a.example"}
    assert "x.y.a.example" in names
    assert "a.example" not in names
    assert "below.api.openai.com" not in names


@pytest.mark.parametrize("bad", ["", "a b", "*.com", "a.*.com", "-a.example", "127.1", "bücher.example", "a..b",
                                 "http://x", "x" * 64 + ".example", "a.example:http", "*"])
def test_what_is_no_name_is_refused(bad: str, certs: Path) -> None:
    with pytest.raises(ConfigError, match=r"DNS name|too wide"):
        ca.Authority.open(certs, [bad])
    assert not certs.exists()


@pytest.mark.parametrize("host", ["bank.example", "below.api.openai.com", "openai.azure.com", "API.openai.com", "",
                                  "127.0.0.1"])
def test_no_leaf_for_a_host_that_is_not_governed(certs: Path, host: str) -> None:
    with pytest.raises(RefusedError, match="host_not_allowed"):
        ca.Authority.open(certs, NAMES).leaf(host)


# --- leaves


def test_leaves_are_cached_and_made_again_in_time(certs: Path) -> None:
    clock = Clock()
    authority = ca.Authority.open(certs, NAMES, now=clock)
    first = authority.leaf("api.openai.com")
    clock.forward(hours=47)
    assert authority.leaf("api.openai.com") is first
    clock.forward(hours=2)
    second = authority.leaf("api.openai.com")
    assert second is not first
    assert first.not_after > clock()
    assert second.not_after <= authority.not_after
    issuer = stolen(certs)
    assert first.key.public_key() != issuer.key.public_key()
    assert "PrivateKey" not in repr(first) + repr(issuer)


def test_the_cache_is_bounded_and_leaves_are_cheap(certs: Path) -> None:
    authority = ca.Authority.open(certs, NAMES)
    hosts = [f"n{number}.openai.azure.com" for number in range(1100)]
    first = authority.leaf(hosts[0])
    begin = time.process_time()
    for host in hosts:
        authority.leaf(host)
    assert (time.process_time() - begin) / len(hosts) < 0.001
    assert authority.leaf(hosts[-1]) is authority.leaf(hosts[-1])
    assert authority.leaf(hosts[0]) is not first


# --- renewal


def test_the_intermediate_is_renewed_at_half_life(certs: Path) -> None:
    clock = Clock()
    authority = ca.Authority.open(certs, NAMES, now=clock)
    before, leaf = stolen(certs), authority.leaf("api.openai.com")
    clock.forward(days=3)
    assert not authority.renew()
    assert authority.leaf("api.openai.com").intermediate == before.certificate
    clock.forward(hours=13)
    assert authority.renew()
    after = stolen(certs)
    assert after.certificate != before.certificate
    assert after.key.public_key() != before.key.public_key()
    assert authority.not_after == clock() + timedelta(days=7)
    assert authority.leaf("api.openai.com") is not leaf
    assert not authority.renew()


def test_another_set_of_names_means_another_intermediate(certs: Path) -> None:
    authority = ca.Authority.open(certs, ["a.example"])
    assert not authority.renew(["A.example:443", "127.0.0.1"])
    assert authority.renew(["a.example", "b.example"])
    assert authority.leaf("b.example")
    assert authority.renew(["b.example"])
    with pytest.raises(RefusedError):
        authority.leaf("a.example")
    assert certificates.permitted(stolen(certs).certificate) == {"b.example"}


def test_what_another_process_renewed_is_taken_over(certs: Path) -> None:
    one, two = ca.Authority.open(certs, NAMES), ca.Authority.open(certs, NAMES)
    ca.issue(certs, NAMES, 30)
    assert one.renew()
    assert two.renew()
    assert one.leaf("api.openai.com").intermediate == two.leaf("api.openai.com").intermediate


def test_a_process_that_slept_past_the_end_renews_at_the_next_leaf(certs: Path) -> None:
    clock = Clock()
    authority = ca.Authority.open(certs, NAMES, now=clock)
    clock.forward(days=10)
    assert authority.leaf("api.openai.com").not_after > clock()


def test_the_intermediate_never_outlives_the_root(certs: Path) -> None:
    clock = Clock()
    ca.Authority.open(certs, NAMES, now=clock)
    clock.forward(days=5 * 365 - 2)
    authority = ca.Authority.open(certs, NAMES, now=clock)
    assert authority.not_after == certificates.read_certificate((certs / "ca.pem").read_bytes()).not_valid_after_utc
    assert any("the root expires in 2 days" in note for note in authority.notes)
    clock.forward(days=3)
    with pytest.raises(ConfigError, match=r"the root expired.*rotate"):
        ca.Authority.open(certs, NAMES, now=clock)


# --- the root key elsewhere


def test_without_the_root_key_it_serves_as_long_as_it_can(certs: Path) -> None:
    clock = Clock()
    ca.Authority.open(certs, NAMES, now=clock)
    (certs / "root.key").rename(certs.parent / "safe")
    assert ca.Authority.open(certs, NAMES, now=clock).notes == ()
    authority = ca.Authority.open(certs, NAMES, now=clock)
    clock.forward(days=5)
    assert not authority.renew()
    assert any("douane ca issue" in note for note in authority.notes)
    assert not authority.renew(["api.openai.com"])  # fewer names: the old constraint covers them
    with pytest.raises(RefusedError):
        authority.leaf("api.anthropic.com")
    with pytest.raises(ConfigError, match=r"root\.key: the root key is not here; run `douane ca issue`"):
        authority.renew(["api.openai.com", "new.example"])
    assert authority.leaf("api.openai.com")
    clock.forward(days=3)
    with pytest.raises(ConfigError, match="douane ca issue"):
        authority.leaf("api.openai.com")


def test_an_intermediate_carried_over_is_taken_up_while_running(tmp_path: Path) -> None:
    safe, gate = tmp_path / "safe", tmp_path / "gate"
    ca.init(safe, NAMES)
    gate.mkdir()
    for name in ("ca.pem", "intermediate.key"):
        shutil.copy(safe / name, gate)
    authority = ca.Authority.open(gate, NAMES)
    assert not ca.show(gate).root_key_here
    ca.issue(safe, [*NAMES, "new.example"], 30)
    shutil.copy(safe / "intermediate.key", gate)
    assert authority.renew([*NAMES, "new.example"])
    leaf = authority.leaf("new.example")
    handshake(safe / "ca.pem", leaf.chain_pem, leaf.key_pem, "new.example", tmp_path)
    assert sorted(path.name for path in gate.iterdir()) == ["ca.pem", "intermediate.key"]


def test_a_mounted_folder_that_cannot_be_written_serves(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    ca.Authority.open(certs, NAMES, now=clock)
    real = os.open

    def read_only(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    assert ca.Authority.open(certs, NAMES, now=clock).notes == ()
    clock.forward(days=5)
    assert "Read-only" in ca.Authority.open(certs, NAMES, now=clock).notes[0]
    clock.forward(days=5)
    with pytest.raises(EnvironmentFailedError, match="Read-only"):
        ca.Authority.open(certs, NAMES, now=clock)


# --- damage


def test_the_folder_and_every_file_are_private(certs: Path) -> None:
    certs.mkdir(mode=0o755)
    ca.Authority.open(certs, NAMES)
    ca.truststore(ca.bundle(certs, {}))
    assert certs.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in certs.iterdir()} == {0o600}
    (certs / "root.key").chmod(0o644)
    assert any("others may read" in note for note in ca.show(certs).notes)
    ca.Authority.open(certs, NAMES)
    assert (certs / "root.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [
    pytest.param(lambda content: b"", id="empty"),
    pytest.param(lambda content: content[: len(content) // 3], id="torn in the key"),
    pytest.param(lambda content: content[: -200], id="torn in the certificate"),
    pytest.param(lambda content: certificates.make_root(utc_now()).pem().partition(b"-----BEGIN CERT")[0]
                 + content[content.index(b"-----BEGIN CERT"):], id="another key"),
])
def test_a_damaged_intermediate_is_made_again_or_named(certs: Path, damage: Callable[[bytes], bytes]) -> None:
    ca.Authority.open(certs, NAMES)
    broken = damage((certs / "intermediate.key").read_bytes())
    (certs / "intermediate.key").write_bytes(broken)
    assert any("intermediate.key" in note for note in ca.show(certs).notes)
    assert ca.Authority.open(certs, NAMES).leaf("api.openai.com")
    (certs / "intermediate.key").write_bytes(broken)
    (certs / "root.key").unlink()
    with pytest.raises(ConfigError, match="root key is not here"):
        ca.Authority.open(certs, NAMES)


def test_each_missing_or_damaged_file_of_the_root_is_named(certs: Path) -> None:
    ca.Authority.open(certs, NAMES)
    root, trusted = (certs / "root.key").read_bytes(), (certs / "ca.pem").read_bytes()
    (certs / "ca.pem").unlink()
    with pytest.raises(ConfigError, match="`douane ca issue` restores it"):
        ca.show(certs)
    ca.Authority.open(certs, NAMES)
    assert (certs / "ca.pem").read_bytes() == trusted
    (certs / "ca.pem").write_bytes(trusted[:100])
    for function in (ca.show, lambda folder: ca.Authority.open(folder, NAMES)):
        with pytest.raises(ConfigError, match=r"ca\.pem: no certificate in it"):
            function(certs)
    (certs / "ca.pem").unlink()
    (certs / "root.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem is missing: copy it"):
        ca.Authority.open(certs, NAMES)
    (certs / "ca.pem").write_bytes(trusted)
    (certs / "root.key").write_bytes(root[:50])
    with pytest.raises(ConfigError, match=r"root\.key: no private key"):
        ca.issue(certs, NAMES)
    ca.init(certs.parent / "other", NAMES)
    shutil.copy(certs.parent / "other" / "root.key", certs)
    with pytest.raises(ConfigError, match=r"root\.key: key and certificate do not belong together.*rotate"):
        ca.issue(certs, NAMES)
    assert ca.Authority.open(certs, NAMES).leaf("api.openai.com")  # the intermediate is good all the while


def test_an_intermediate_without_constraints_is_not_used(certs: Path) -> None:
    ca.Authority.open(certs, NAMES)
    root = Pair.read((certs / "root.key").read_bytes())
    chain, key = forged(root, "free", [], ca=True)
    (certs / "intermediate.key").write_bytes(key + chain)
    (certs / "root.key").unlink()
    with pytest.raises(ConfigError):
        ca.Authority.open(certs, NAMES)
    assert any("no name constraints" in note for note in ca.show(certs).notes)


def test_a_write_that_fails_leaves_the_old_file(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = ca.Authority.open(certs, NAMES)
    before = (certs / "intermediate.key").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailedError, match=r"intermediate\.key: cannot be written: No space"):
        authority.renew(["new.example"])
    assert (certs / "intermediate.key").read_bytes() == before
    assert not list(certs.glob(".*.tmp"))
    assert authority.leaf("api.openai.com")


def test_what_a_crash_left_aside_is_cleared(certs: Path) -> None:
    certs.mkdir()
    left = certs / ".intermediate.key.0a0a0a0a.douane.tmp"
    left.write_bytes(b"half a ke")
    ca.Authority.open(certs, NAMES)
    assert not left.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailedError, match="file"):
        ca.Authority.open(tmp_path / "file" / "certs", NAMES)


# --- several at once


def test_processes_that_start_at_once_agree_on_one_root(certs: Path) -> None:
    program = ("import sys; from pathlib import Path; from douane import ca;"
               "a = ca.Authority.open(Path(sys.argv[1]), ['a.example']);"
               "print(a.leaf('a.example').intermediate.serial_number, Path(a.ca_pem).read_text())")
    running = [subprocess.Popen([sys.executable, "-c", program, certs], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "PYTHONPATH": str(ADDONS)}) for _ in range(4)]
    said = {process.communicate(timeout=30)[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(said) == 1
    assert "BEGIN CERTIFICATE" in said.pop()


def test_readers_never_see_half_a_renewal(certs: Path) -> None:
    """One thread rotates and issues, others open: each gets a chain that fits together."""
    ca.init(certs, NAMES)
    stop, reads = threading.Event(), 0
    faults: list[Exception] = []

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                leaf = ca.Authority.open(certs, NAMES).leaf("api.openai.com")
                leaf.certificate.verify_directly_issued_by(leaf.intermediate)
                reads += 1
            except (DouaneError, InvalidSignature, ValueError) as error:
                faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        ca.issue(certs, NAMES)
        ca.rotate(certs, NAMES)
    stop.set()
    for reader in readers:
        reader.join(timeout=20)
    assert faults == []
    assert reads > 5


def test_a_lock_held_too_long_is_named(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with files.Folder(certs).locked(), pytest.raises(EnvironmentFailedError, match=r"\.lock: held by another"):
        ca.Authority.open(certs, NAMES)


# --- what the command line calls


def test_init_issue_show(certs: Path) -> None:
    clock = Clock()
    with pytest.raises(ConfigError, match="douane ca init"):
        ca.show(certs)
    with pytest.raises(ConfigError, match="douane ca init"):
        ca.issue(certs, NAMES)
    assert not certs.exists()
    made = ca.init(certs, NAMES, now=clock)
    assert made.root_key_here
    assert made.names == ("api.anthropic.com", "api.openai.com", "openai.azure.com")
    assert any("the constraint protects nothing" in note for note in made.notes)
    with pytest.raises(ConfigError, match="there is a CA already"):
        ca.init(certs, NAMES)
    issued = ca.issue(certs, ["a.example"], 30, now=clock)
    assert issued.root == made.root
    assert issued.names == ("a.example",)
    assert issued.intermediate is not None
    assert issued.intermediate.not_after == clock() + timedelta(days=30)
    text = str(ca.show(certs, now=clock))
    assert issued.root.sha256 in text
    assert "a.example" in text
    for days in (0, 367):
        with pytest.raises(ConfigError, match="--days"):
            ca.issue(certs, NAMES, days)


def test_rotate_keeps_the_old_root_aside(certs: Path, tmp_path: Path) -> None:
    made = ca.init(certs, NAMES)
    old = (certs / "ca.pem").read_bytes()
    turned = ca.rotate(certs, NAMES)
    assert turned.root.sha256 != made.root.sha256
    assert "every client must now trust the new" in turned.notes[0]
    (kept,) = certs.glob("ca-*.pem")
    assert kept.read_bytes() == old
    leaf = ca.Authority.open(certs, NAMES).leaf("api.openai.com")
    handshake(certs / "ca.pem", leaf.chain_pem, leaf.key_pem, "api.openai.com", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(kept, leaf.chain_pem, leaf.key_pem, "api.openai.com", tmp_path)
    (certs / "root.key").unlink()
    with pytest.raises(ConfigError, match="the root key is not here"):
        ca.rotate(certs, NAMES)


def test_an_interrupted_rotation_is_run_again(certs: Path) -> None:
    ca.init(certs, NAMES)
    other = certs.parent / "other"
    ca.init(other, NAMES)
    shutil.copy(other / "root.key", certs)  # what a crash after the first write leaves
    ca.rotate(certs, NAMES)
    ca.issue(certs, NAMES)
    assert ca.Authority.open(certs, NAMES).leaf("api.openai.com")


def test_a_root_someone_brought_along_signs(certs: Path, tmp_path: Path) -> None:
    """RSA, key file without certificate, own key identifier."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    key, now = rsa.generate_private_key(65537, 2048), utc_now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corp root")])
    root = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(b"corp"), critical=False).sign(key, hashes.SHA256()))
    certs.mkdir()
    (certs / "ca.pem").write_bytes(certificates.pem(root))
    (certs / "root.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    leaf = ca.Authority.open(certs, NAMES).leaf("api.openai.com")
    handshake(certs / "ca.pem", leaf.chain_pem, leaf.key_pem, "api.openai.com", tmp_path)
    (certs / "root.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))
    with pytest.raises(ConfigError, match="encrypted"):
        ca.issue(certs, NAMES)


# --- what apps must trust


def ders(path: Path) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context.get_ca_certs(binary_form=True)


def test_the_bundle_adds_our_root_to_the_systems(certs: Path) -> None:
    with pytest.raises(ConfigError, match="douane ca init"):
        ca.bundle(certs, {})
    ca.init(certs, NAMES)
    path = ca.bundle(certs, {})
    assert path == certs / "bundle.pem"
    (ours,) = ders(certs / "ca.pem")
    held = ders(path)
    assert ours in held
    assert len(held) > 50
    assert path.read_bytes().count(b"BEGIN CERTIFICATE") == len(set(held))
    stamp = path.stat().st_mtime_ns, path.stat().st_ino
    ca.bundle(certs, {"SSL_CERT_FILE": "/does/not/exist"})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == stamp


def test_the_bundle_keeps_what_an_app_brought(certs: Path, tmp_path: Path) -> None:
    ca.init(certs, NAMES)
    corps = []
    for name in ("one", "two", "three"):
        ca.init(tmp_path / name, NAMES)
        corps.append(tmp_path / name / "ca.pem")
    (tmp_path / "dir").mkdir()
    shutil.copy(corps[2], tmp_path / "dir" / "0a0a0a0a.0")
    (tmp_path / "dir" / "garbage").write_bytes(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----")
    inherited = {"SSL_CERT_FILE": str(corps[0]), "NODE_EXTRA_CA_CERTS": str(corps[1]),
                 "SSL_CERT_DIR": str(tmp_path / "dir")}
    path = ca.bundle(certs, inherited)
    assert path != certs / "bundle.pem"
    # The app's own file stands for the system's, so nobody it did not trust is let in.
    assert sorted(ders(path)) == sorted(der for corp in [*corps, certs / "ca.pem"] for der in ders(corp))
    # Run inside run, and after a rotation: the same file, the old root gone.
    ca.rotate(certs, NAMES)
    assert ca.bundle(certs, {"SSL_CERT_FILE": str(path), "NODE_EXTRA_CA_CERTS": str(path)}) == path
    assert sorted(ders(path)) == sorted(der for corp in [*corps, certs / "ca.pem"] for der in ders(corp))


def test_the_truststore_follows_the_bundle(certs: Path) -> None:
    ca.init(certs, NAMES)
    bundle = ca.bundle(certs, {"SSL_CERT_FILE": str(certs / "ca.pem")})
    path = ca.truststore(bundle)
    before = path.read_bytes()
    assert ca.truststore(bundle).read_bytes() == before
    path.write_bytes(before[:40])
    assert len(ca.truststore(bundle).read_bytes()) > 500
    ca.rotate(certs, NAMES)
    rotated = ca.truststore(ca.bundle(certs, {"SSL_CERT_FILE": str(certs / "ca.pem")}))
    assert rotated == path
    assert rotated.read_bytes() != before


@pytest.mark.skipif(shutil.which("keytool") is None, reason="no Java here")
def test_java_takes_every_certificate_for_trusted(certs: Path) -> None:
    shown = ca.init(certs, NAMES)
    bundle = ca.bundle(certs, {})
    done = subprocess.run(["keytool", "-list", "-storetype", "PKCS12", "-storepass", "changeit", "-keystore",
                           ca.truststore(bundle)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("trustedCertEntry") == bundle.read_bytes().count(b"BEGIN CERTIFICATE")
    assert shown.root.sha256.upper() in done.stdout.replace(":", "")


def test_who_only_reads_writes_nothing_and_takes_over_what_is_renewed(certs: Path) -> None:
    clock = Clock()
    with pytest.raises(EnvironmentFailedError, match=r"intermediate\.key: cannot serve: not there"):
        ca.Authority.open(certs, NAMES, now=clock, keeps=False)
    assert not list(certs.glob("*"))
    keeper = ca.Authority.open(certs, NAMES, now=clock)
    reader = ca.Authority.open(certs, NAMES, now=clock, keeps=False)
    first = (certs / "intermediate.key").read_bytes()
    clock.forward(days=5)
    assert not reader.renew(), "it is due, and not the reader's to renew"
    assert (certs / "intermediate.key").read_bytes() == first
    assert keeper.renew()
    assert reader.renew()
    assert reader.leaf("api.openai.com").intermediate == keeper.leaf("api.openai.com").intermediate
