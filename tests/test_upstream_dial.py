"""Who is dialled is who was meant: trust, names, addresses, the proxy; and errors that say what to do."""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import certifi
import pytest

from douane.call import Target
from douane.errors import UpstreamError
from douane.upstream import Pool, Timeouts, dial
from douane.upstream.tls import Contexts
from tests.upstream_server import LOOPS, Certificate, Served, Stream, certify, echoing, run, serving, whole


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certs")


@pytest.fixture(scope="module")
def good(folder: Path) -> Certificate:
    return certify(folder / "good", "localhost", "127.0.0.1")


async def ask(pool: Pool, target: Target) -> bytes:
    return await whole(await pool.request(target, b"POST", b"/", [(b"authorization", b"secret")], b"hello"))


async def refusal(target: Target, timeouts: Timeouts = Timeouts(), **options: Any) -> UpstreamError:  # noqa: B008 - frozen
    pool = Pool(timeouts, **options)
    with pytest.raises(UpstreamError) as caught:
        await ask(pool, target)
    await pool.aclose()
    assert "\n" not in caught.value.reason
    assert "secret" not in caught.value.reason
    return caught.value


# Trust


def test_a_good_certificate_is_accepted_by_name_and_by_address(loop: str, good: Certificate) -> None:
    async def scene() -> None:
        async with serving(echoing(), good) as served:
            pool = Pool()
            assert await ask(pool, served.target()) == b"hello"
            assert await ask(pool, served.target("127.0.0.1", address="")) == b"hello"
            await pool.aclose()

    run(scene(), loop)


@pytest.mark.parametrize(("kind", "reason"), [
    ("wrong name", "Hostname mismatch"), ("expired", "certificate has expired"),
    ("self-signed", "self.signed certificate"),
    ("unknown CA", "unable to get local issuer certificate"),
    ("system's roots only", "unable to get local issuer certificate")])
def test_a_bad_certificate_is_refused_before_a_byte_is_sent(loop: str, kind: str, reason: str, folder: Path,
                                                            good: Certificate) -> None:
    heard: list[bytes] = []

    async def script(stream: Stream) -> None:
        heard.append(await stream.reader.read(10))

    async def scene() -> UpstreamError:
        shown = good
        if kind in ("expired", "self-signed"):
            shown = certify(folder / kind, "localhost", expired=kind == "expired", self_signed=kind == "self-signed")
        ca = certify(folder / "other", "localhost").ca if kind == "unknown CA" else shown.ca
        async with serving(script, shown, str(ca)) as served:
            changes = {"host": "api.example.test"} if kind == "wrong name" else {}
            changes |= {"ca": ""} if kind == "system's roots only" else {}
            return await refusal(served.target(**changes))

    error = run(scene(), loop)
    assert error.code == "upstream_error"
    assert error.reason.startswith("the certificate of ")
    assert reason.replace(".", " ") in error.reason.replace("-", " ")
    assert "check `upstream` and `ca:`" in error.reason
    assert [got for got in heard if got] == []


def test_a_certificate_given_as_ca_is_trusted_even_if_it_signed_itself(folder: Path) -> None:
    made = certify(folder / "pinned", "localhost", self_signed=True)

    async def scene() -> bytes:
        async with serving(echoing(), made, str(made.chain)) as served:
            pool = Pool()
            try:
                return await ask(pool, served.target())
            finally:
                await pool.aclose()

    assert run(scene()) == b"hello"


def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch, good: Certificate, tmp_path: Path) -> None:
    """A CA, a proxy or a key log in our own variables neither adds trust, nor a way, nor a reader."""
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(good.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(good.ca.parent))
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")

    async def scene() -> None:
        async with serving(echoing(), good) as served:
            assert "unable to get local issuer" in (await refusal(served.target(ca=""))).reason
            pool = Pool()
            assert await ask(pool, served.target()) == b"hello"
            await pool.aclose()

    run(scene())
    assert not keys.exists()
    naive = ssl.create_default_context()  # the control: here the variables do count
    assert naive.keylog_filename == str(keys)
    assert Contexts().get("").keylog_filename is None


def test_what_a_context_demands(good: Certificate) -> None:
    for context in (Contexts().get(""), Contexts().get(str(good.ca))):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(Contexts().get(str(good.ca)).get_ca_certs()) == 1


def test_roots_are_read_once_and_again_when_the_file_is_replaced(tmp_path: Path, good: Certificate) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(good.ca.read_bytes())
    contexts = Contexts()
    first = contexts.get(str(ca))
    assert contexts.get(str(ca)) is first
    os.utime(ca, ns=(1, 1))
    assert contexts.get(str(ca)) is not first


def test_certifis_bundle_stands_in_for_a_system_without_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def paths(cafile: Path, capath: Path) -> ssl.DefaultVerifyPaths:
        return ssl.DefaultVerifyPaths(None, None, "", str(cafile), "", str(capath))  # type: ignore[arg-type]

    missing, empty, bundle = tmp_path / "missing", tmp_path / "empty", tmp_path / "bundle.pem"
    empty.mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths(missing, empty))
    assert len(Contexts().get("").get_ca_certs()) == Path(certifi.where()).read_text().count("BEGIN CERTIFICATE")
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths(bundle, empty))
    assert Contexts().get("").get_ca_certs()
    (empty / "some.0").write_text("")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths(missing, empty))
    assert Contexts().get("").get_ca_certs() == []  # read by hash when a certificate asks for it


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_roots_that_cannot_be_read_are_named(content: str | None, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)

    async def scene() -> UpstreamError:
        async with serving(echoing()) as served:
            return await refusal(served.target(scheme="https", ca=str(ca)))

    assert run(scene()).reason.startswith(f"cannot read the roots for localhost from {ca}: ")


# Errors


@pytest.mark.parametrize(("target", "reason"), [
    (Target("http", "localhost", 1, address="127.0.0.1"), "localhost:1 refuses connections; check `upstream`"),
    (Target("https", "localhost", 1, address="127.0.0.1"), "localhost:1 refuses connections; check `upstream`"),
    (Target("http", "no-such-host.invalid", 80), "the name no-such-host.invalid cannot be resolved ("),
    (Target("http", "localhost", 80, address="not-an-address"), "the name localhost cannot be resolved ("),
])
def test_what_cannot_be_reached_is_said_in_one_line(loop: str, target: Target, reason: str) -> None:
    error = run(refusal(target), loop)
    assert error.code == "upstream_error"
    assert error.reason.startswith(reason)


@pytest.mark.parametrize(("says", "closes"), [
    (b"SSH-2.0-OpenSSH_9.6\r\n", False), (b"HTTP/1.1 400 Bad\r\n\r\n", True), (b"", True)])
def test_a_server_that_speaks_no_tls_is_an_upstream_error(loop: str, says: bytes, closes: bool) -> None:
    async def script(stream: Stream) -> None:
        await stream.send(says)
        await (stream.reader.read(10) if closes else stream.gone())

    async def scene() -> UpstreamError:
        async with serving(script) as served:
            return await refusal(served.target(scheme="https"))

    error = run(scene(), loop)
    assert error.code == "upstream_error"
    assert error.reason.startswith(("no TLS with localhost:", "no connection to localhost:", "localhost:"))


@pytest.mark.parametrize("phase", ["tls", "proxy"])
def test_a_dial_that_hangs_is_a_time_out(loop: str, phase: str) -> None:
    async def scene() -> None:
        async with serving(Stream.gone) as served:
            options = {"proxy": served.target(scheme="http")} if phase == "proxy" else {}
            error = await refusal(served.target(scheme="https"), Timeouts(connect=0.05), **options)
            assert error.code == "upstream_timeout"
            assert "no connection to localhost:" in error.reason
            assert "within 0.05 s" in error.reason

    run(scene(), loop)


@pytest.mark.parametrize("phase", ["tls", "proxy", "queue of the listener"])
def test_a_dial_that_is_cancelled_closes_its_socket(loop: str, phase: str) -> None:
    async def scene() -> None:
        async with serving(Stream.gone) as served:
            pool = Pool(proxy=served.target(scheme="http") if phase == "proxy" else None)
            asking = asyncio.create_task(ask(pool, served.target(scheme="https")))
            await asyncio.sleep(0 if phase == "queue of the listener" else 0.03)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.sleep(0.03)
            assert served.open == 0
            await pool.aclose()

    run(scene(), loop)


# Addresses


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> list[str]:
    """Names resolve to these (address, port); the names asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Any:
        asked.append(host)
        return [(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, address) for address in addresses]

    monkeypatch.setattr(dial, "_resolve", resolve)
    return asked


def test_a_pinned_address_is_dialled_and_never_resolved(monkeypatch: pytest.MonkeyPatch, good: Certificate) -> None:
    asked = resolving(monkeypatch)

    async def scene() -> bytes:
        async with serving(echoing(), good) as served:
            pool = Pool()
            try:
                return await ask(pool, served.target())
            finally:
                await pool.aclose()

    assert run(scene()) == b"hello"
    assert asked == []


@pytest.mark.parametrize("dead", ["refuses", "hangs"])
def test_one_dead_address_does_not_stop_the_others(loop: str, dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Happy eyeballs: the next address is tried when one fails, or beside one that hangs."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    if dead == "hangs":
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
    port = full.getsockname()[1] if dead == "hangs" else 1

    async def scene() -> bytes:
        async with serving(echoing()) as served:
            resolving(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", served.port), ("127.0.0.1", port))
            pool = Pool(Timeouts(connect=3))
            try:
                return await ask(pool, served.target("many.test", address=""))
            finally:
                await pool.aclose()

    try:
        assert run(scene(), loop) == b"hello"
    finally:
        for opened in (full, *fillers):
            opened.close()


def test_when_every_address_fails_the_first_ones_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ("127.0.0.1", 1), ("::1", 1), ("127.0.0.1", 2))
    assert run(refusal(Target("http", "many.test", 80))).reason.startswith("many.test:80 refuses connections")


def test_families_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ("::1", 1), ("::1", 2), ("::1", 3), ("127.0.0.1", 4))
    found = run(dial._addresses(Target("http", "many.test", 80)))
    assert [where[1] for _, where in found] == [1, 4, 2, 3]


# The proxy


def proxying(served: Served, asked: list[bytes]) -> Any:
    """A CONNECT proxy that leads to *served*, whatever it is asked for."""

    async def script(stream: Stream) -> None:
        asked.append(await stream.reader.readuntil(b"\r\n\r\n"))
        await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.write_eof() if sink.can_write_eof() else None

        try:
            await asyncio.gather(pump(stream.reader, writer), pump(reader, stream.writer))
        finally:
            writer.close()

    return script


@pytest.mark.parametrize("proxy_secure", [False, True], ids=["http proxy", "https proxy"])
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_calls_go_through_the_proxy_by_connect(loop: str, secure: bool, proxy_secure: bool, good: Certificate) -> None:
    async def scene() -> None:
        asked: list[bytes] = []
        async with (serving(echoing(), good if secure else None) as served,
                    serving(proxying(served, asked), good if proxy_secure else None) as proxy):
            pool = Pool(proxy=proxy.target())
            target = served.target(address="", port=4443, ca=str(good.ca) if secure else "")
            assert await ask(pool, target) == b"hello"
            assert await ask(pool, target) == b"hello"
            assert asked == [b"CONNECT localhost:4443 HTTP/1.1\r\nhost: localhost:4443\r\n\r\n"]
            assert await ask(pool, served.target(address="127.0.0.1", port=4443)) == b"hello"
            assert asked[1].startswith(b"CONNECT 127.0.0.1:4443 ")
            await pool.aclose()

    run(scene(), loop)


@pytest.mark.parametrize(("answer", "reason"), [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "refuses CONNECT with status 407"),
    (b"HTTP/1.1 200 OK\r\n\r\nextra", "does not answer CONNECT in HTTP/1.1"),
    (b"SSH-2.0\r\n\r\n", "does not answer CONNECT in HTTP/1.1"),
    (b"HTTP/1.1\r\n\r\n", "does not answer CONNECT in HTTP/1.1"),
    (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000, "does not answer CONNECT in HTTP/1.1"),
    (b"HTTP/1.1 40", "closed the connection before a tunnel was made")])
def test_a_proxy_that_refuses_is_named(loop: str, answer: bytes, reason: str) -> None:
    async def script(stream: Stream) -> None:
        await stream.reader.readuntil(b"\r\n\r\n")
        await stream.send(answer)

    async def scene() -> UpstreamError:
        async with serving(script) as proxy:
            return await refusal(Target("https", "api.example.test", 443), proxy=proxy.target())

    error = run(scene(), loop)
    assert error.reason.startswith("the upstream proxy localhost:")
    assert reason in error.reason
