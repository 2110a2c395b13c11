"""Providers that misbehave to order: raw asyncio servers, scripted byte by byte, and the certificates they show."""

import asyncio
import datetime
import gc
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from douane.call import Target
from douane.upstream import Answer

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def run[T](coroutine: Coroutine[Any, Any, T], loop: str = "uvloop", seconds: float = 20) -> T:
    """Run on a loop of that kind. What the loop would only log (an exception nobody got) is a failure."""
    complaints: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(seconds):
            result = await coroutine
            await asyncio.sleep(0)
            return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(bounded())
        gc.collect(0)
    if complaints:
        raise AssertionError(complaints)
    return result


class Stream:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head, and body by its content-length or chunks. Raises IncompleteReadError at the end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return head, body
        length = lowered.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        return head, await self.reader.readexactly(int(length or b"0"))

    async def send(self, *pieces: bytes, pause: float = 0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if pause:
                await asyncio.sleep(pause)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass

    def reset(self) -> None:
        if not self.writer.is_closing():  # asyncio's transport cannot be aborted once it is closed and let go
            self.writer.transport.abort()


@dataclass
class Served:
    port: int = 0
    ca: str = ""
    connections: int = 0
    open: int = 0
    streams: list[Stream] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    def target(self, host: str = "localhost", **changes: Any) -> Target:
        scheme = "https" if self.ca else "http"
        said = {"scheme": scheme, "host": host, "port": self.port, "ca": self.ca, "address": "127.0.0.1"}
        return Target(**{**said, **changes})


type Script = Callable[[Stream], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, certificate: "Certificate | None" = None, ca: str = "") -> AsyncIterator[Served]:
    """A server on loopback that plays *script* on each connection; ends with every connection closed."""
    served = Served(ca=ca or (str(certificate.ca) if certificate else ""))
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        served.connections += 1
        served.open += 1
        stream = Stream(reader, writer)
        served.streams.append(stream)
        try:
            await script(stream)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            served.open -= 1
            writer.close()
            tasks.discard(task)

    context = certificate.context() if certificate else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024, ssl=context)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0)
        for stream in served.streams:
            stream.reset()
        for _ in range(3):
            await asyncio.sleep(0)


def saying(*answers: bytes) -> Script:
    """Answer one request a time, with these answers over and over, and keep the connection."""

    async def script(stream: Stream) -> None:
        number = 0
        while True:
            await stream.request()
            await stream.send(answers[number % len(answers)])
            number += 1

    return script


def echoing() -> Script:
    """Answer each request with its own body."""

    async def script(stream: Stream) -> None:
        while True:
            _, body = await stream.request()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    return script


async def whole(answer: Answer) -> bytes:
    """All of a body."""
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Certificate:
    chain: Path
    key: Path
    ca: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def certify(folder: Path, *names: str, expired: bool = False, self_signed: bool = False) -> Certificate:
    """A certificate for *names* with a CA of its own, in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name(f"Root of {folder.name}"), _name("Test Leaf")

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey, issuer: x509.Name,
              signer: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType,
              days: tuple[int, int]) -> x509.Certificate:
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now + datetime.timedelta(days[0])).not_valid_after(now + datetime.timedelta(days[1]))
                .add_extension(extension, critical=True).sign(signer, hashes.SHA256()))

    alternatives = x509.SubjectAlternativeName([_alternative(text) for text in names])
    days = (-9, -2) if expired else (-1, 9)
    authority = x509.BasicConstraints(ca=True, path_length=None)
    root = build(root_name, root_key.public_key(), root_name, root_key, authority, (-9, 9))
    signer, issuer = (key, name) if self_signed else (root_key, root_name)
    leaf = build(name, key.public_key(), issuer, signer, alternatives, days)
    made = Certificate(folder / "leaf.pem", folder / "key.pem", folder / "ca.pem")
    made.chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.ca.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
