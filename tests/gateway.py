"""A real gateway process with a local provider behind it, and a client that sends any bytes whatever.

Addresses come from the control socket (the ports are free ones), records from the files the audit log wrote.
"""

import atexit
import base64
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

from douane.control import Client
from douane.demo.provider import LocalProvider, Script
from douane.errors import EnvironmentFailedError
from douane.pricebook import open_books
from tests.nursery import Hatched, nursery

__all__ = ["BOT_KEY", "CHAT", "REAL_KEY", "Gateway", "Got", "Wire", "answering", "chat", "command", "environ", "forms", "hello",
           "lend_prices", "policy", "ran", "request", "running_gateway", "untouched", "wait_for"]

ADDONS = Path(__file__).parents[1] / "addons"
REAL_KEY = "sk-" + "real/0123456789+abcdef"
"""What the provider gets: made up, with the characters that JSON and URLs write in two ways."""
BOT_KEY = "bot-" + "0123456789abcdef"
"""By which the principal ``bot`` is known."""
CHAT = "/v1/chat/completions"


def policy(provider: LocalProvider, *, chain: str = "", more: str = "", upstream: str = "", level: str = "metadata") -> str:
    """A policy file: loopback is ``local``, openai has a credential, anthropic keeps the app's own key. *level*: of the
    audit log; the default one starts a detector, which costs two seconds of CPU."""
    where = f'{{upstream: "{upstream or provider.url}", ca: "{provider.ca}"}}'
    chain = chain or "\n".join(("  - authenticate: {unknown: deny}", "  - allow_models: {models: [gpt-4*, claude-*]}",
                                "  - swap_key: {missing: keep}"))
    return f"""version: 1
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8, "::1/128"]}}
  - {{name: bot, team: bots, key: env:BOT_KEY}}
providers:
  openai: {where}
  anthropic: {where}
credentials:
  openai: env:REAL_KEY
audit: {{level: {level}}}
{more}
chain:
{chain}
"""


def environ(**more: str) -> dict[str, str]:
    """Ours, without the variables that would lead elsewhere."""
    kept = {name: value for name, value in os.environ.items()
            if not re.fullmatch(r"(?i)(https?|all|no|grpc)_proxy|DOUANE_.*|(OPENAI|ANTHROPIC)_.*", name)}
    return {**kept, "PYTHONPATH": str(ADDONS), "REAL_KEY": REAL_KEY, "BOT_KEY": BOT_KEY, "DOUANE_NODE": "test", **more}


def command(base: Path, *words: str) -> list[str]:
    """``douane WORDS…`` on the folders below *base*; what follows a ``--`` stays last."""
    at = words.index("--") if "--" in words else len(words)
    folders = [f"--{name}={base / name}" for name in ("policies", "data", "certs")]
    return [sys.executable, "-m", "douane", *words[:at], *folders, *words[at:]]


def ran(words: Sequence[str], env: Mapping[str, str], seconds: float = 30.0, *,
        fresh: bool = False) -> "subprocess.CompletedProcess[str]":
    """A :func:`command` to its end, in a process of its own, which the nursery forks unless it is to be *fresh*."""
    if fresh or sys.platform != "linux":
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=seconds)
    return nursery(str(ADDONS)).run(words[3:], env, seconds)


@functools.cache
def price_list() -> Path:
    """As a gateway builds it; one for this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_books(folder)
    (made,) = folder.glob("prices-*.jsonl")
    return made


def lend_prices(data: Path) -> None:
    """The price list, which every new data folder would else build anew for half a second of CPU."""
    lent = price_list()
    if not (data / lent.name).exists():
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(lent, data)


def wait_for[T](what: Callable[[], T], seconds: float = 10.0) -> T:
    """The first true value of *what*; the last one after *seconds*: many, for a machine that has other work as well."""
    deadline = time.monotonic() + seconds
    while not (value := what()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


class Gateway:
    """``douane serve`` on free ports. *base* holds ``policies``, ``data`` and ``certs``. *patch*: Python that runs in the
    process before: for limits that tests cannot wait for. *workers*: how many processes govern. *fresh*: started by its
    command and not by the nursery."""

    process: "subprocess.Popen[bytes] | Hatched"

    def __init__(self, base: Path, policy_text: str, *, env: Mapping[str, str] | None = None, patch: str = "",
                 http: str = "127.0.0.1:0", workers: int = 1, fresh: bool = False) -> None:
        self._fresh = fresh or bool(patch) or workers > 1 or sys.platform != "linux"
        self._workers = workers
        self._patch = patch
        self._http = http
        self.base = base
        self.data = base / "data"
        self.policy_file = base / "policies" / "p.yaml"
        self.policy_file.parent.mkdir(parents=True, exist_ok=True)
        self.policy_file.write_text(policy_text)
        self.environ = environ(**(env or {}))
        self.start()

    def start(self) -> None:
        lend_prices(self.data)
        self.log_file = self.base / "gateway.log"
        with self.log_file.open("ab") as log:
            words = [*command(self.base, "serve"), "--proxy=127.0.0.1:0", f"--http={self._http}", "--admin=127.0.0.1:0"]
            if self._workers > 1:
                words.append(f"--workers={self._workers}")
            if self._patch:
                words[1:3] = ["-c", f"{self._patch}\nimport sys\nfrom douane.cli import main\nsys.exit(main())"]
            if self._fresh:
                self.process = subprocess.Popen(words, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            else:
                self.process = nursery(str(ADDONS)).start(words[3:], self.environ, log)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with Client(self.data / "control.sock") as client:
                    status = client.ask("status")
            except EnvironmentFailedError:
                time.sleep(0.02)
                continue
            self.proxy: tuple[str, int] = tuple(status["proxy"])
            self.admin: tuple[str, int] = tuple(status["admin"])
            self.http: tuple[str, int] = tuple(status["http"])
            return
        self.stop()
        raise AssertionError(f"the gateway did not start:\n{self.log()}")

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.proxy)

    @property
    def ca(self) -> Path:
        return self.base / "certs" / "ca.pem"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def records(self) -> list[dict[str, Any]]:
        """What is in the audit log, in the order written."""
        files = sorted((self.data / "audit").glob("*/*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines(keepends=True)
                if line.endswith(b"\n")]

    def outcome(self, call_id: str, seconds: float = 10.0) -> dict[str, Any]:
        """The outcome of a call; waits for it."""
        def found() -> dict[str, Any]:
            return next((one for one in self.records() if one.get("id") == call_id and one["kind"] == "outcome"), {})

        return wait_for(found, seconds)

    def last_outcome(self) -> dict[str, Any]:
        return next(one for one in reversed(self.records()) if one["kind"] == "outcome")

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        with contextlib.closing(Wire.to(self.admin)) as wire:
            wire.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            lines = wire.answer().body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line))

    def peak(self, *, reset: bool = False) -> int:
        """Bytes of memory at most held since the last reset (Linux)."""
        if reset:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def running_gateway(base: Path, policy_text: str, *, env: Mapping[str, str] | None = None,
                    patch: str = "", http: str = "127.0.0.1:0", workers: int = 1,
                    fresh: bool = False) -> Iterator[Gateway]:
    gateway = Gateway(base, policy_text, env=env, patch=patch, http=http, workers=workers, fresh=fresh)
    try:
        yield gateway
    finally:
        gateway.stop()


# -- the client ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Got:
    """An answer. *status* 0: the connection ended before a status line."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = False
    """Whether the framing said that the body is complete."""
    interim: tuple[int, ...] = ()
    """Statuses of the 1xx answers before."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def code(self) -> str:
        return self.header("x-douane-code")

    @property
    def id(self) -> str:
        return self.header("x-douane-id")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One client connection; nothing it sends is tidied."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read = b""

    @classmethod
    def to(cls, address: tuple[str, int], seconds: float = 15.0) -> Self:
        return cls(socket.create_connection(address, seconds))

    @classmethod
    def tunnel(cls, gateway: Gateway, authority: str, head: bytes = b"") -> tuple[Self, Got]:
        """A CONNECT, and the answer to it. *head*: more header lines."""
        wire = cls.to(gateway.proxy)
        wire.send(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (authority.encode(), authority.encode(), head))
        return wire, wire.answer("CONNECT")

    @classmethod
    def tls(cls, gateway: Gateway, host: str = "api.openai.com", *, sni: str | None = "", head: bytes = b"",
            ca: Path | None = None, alpn: Sequence[str] = ()) -> Self:
        """Inside the tunnel to *host*; *sni* None sends no name, empty sends *host*."""
        wire, got = cls.tunnel(gateway, f"{host}:443", head)
        assert got.status == 200, got
        context = ssl.create_default_context(cafile=str(ca or gateway.ca))
        context.check_hostname = sni == ""
        if alpn:
            context.set_alpn_protocols(alpn)
        wire.sock = context.wrap_socket(wire.sock, server_hostname=host if sni == "" else sni)
        return wire

    def send(self, data: bytes) -> None:
        """A peer that has hung up in the meantime is no error: what it said before can be read."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.sock.sendall(data)

    def more(self) -> bool:
        """Read some; False at the end."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return False
        self._read += data
        return bool(data)

    def answer(self, method: str = "POST") -> Got:
        """The next answer, as far as it comes. Raises TimeoutError."""
        interim: list[int] = []
        while True:
            while b"\r\n\r\n" not in self._read:
                if not self.more():
                    return Got(body=self._read, interim=tuple(interim))
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            status = int(line.split(" ")[1])
            if status >= 200:
                break
            interim.append(status)
        headers = tuple((name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in fields))
        named = dict(headers)
        if status in (204, 304) or method == "HEAD" or (method == "CONNECT" and status == 200):
            body, whole = b"", True
        elif named.get("transfer-encoding") == "chunked":
            body, whole = self._chunks()
        elif "content-length" in named:
            body, whole = self._exactly(int(named["content-length"]))
        else:
            while self.more():
                pass
            body, whole, self._read = self._read, True, b""
        return Got(status, headers, body, whole, tuple(interim))

    def _exactly(self, size: int) -> tuple[bytes, bool]:
        while len(self._read) < size and self.more():
            pass
        body, self._read = self._read[:size], self._read[size:]
        return body, len(body) == size

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            while b"\r\n" not in self._read:
                if not self.more():
                    return body, False
            line, _, self._read = self._read.partition(b"\r\n")
            size = int(line, 16)
            piece, whole = self._exactly(size + 2)
            body += piece[:size]
            if size == 0 or not whole:
                return body, whole

    def ended(self, seconds: float = 3.0) -> bool:
        """Whether the other side closes, and sends nothing more before."""
        self.sock.settimeout(seconds)
        try:
            return not self.more()
        except TimeoutError:
            return False

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def request(body: bytes | None = None, *, method: str = "POST", target: str = CHAT, host: str | None = "api.openai.com",
            headers: Sequence[tuple[str, str]] = (), framing: bool = True) -> bytes:
    """A request's bytes. *host* None: no Host; *framing* False: no Content-Length."""
    lines = [f"{method} {target} HTTP/1.1"] + ([] if host is None else [f"Host: {host}"])
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None and framing:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chat(text: str = "hello", *, stream: bool = False, model: str = "gpt-4o-mini") -> bytes:
    """The body of a call that is allowed."""
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


@contextlib.contextmanager
def answering(provider: LocalProvider, script: Script) -> Iterator[None]:
    """While in the block, *provider* answers by *script*."""
    before, provider.script = provider.script, script
    try:
        yield
    finally:
        provider.script = before


@contextlib.contextmanager
def untouched(provider: LocalProvider) -> Iterator[None]:
    """Fails where a connection or a request reached *provider* from within the block. (A request begun and not ended on
    a kept connection shows only when that is closed: fixtures look for those when the gateway has stopped.)"""
    before = len(provider.seen), provider.connections
    yield
    time.sleep(0.01)
    assert (len(provider.seen), provider.connections) == before, provider.seen[before[0]:]


def forms(value: str) -> set[bytes]:
    """How *value* may be written somewhere: as it is, in hex, in base64 whatever stands before it (both alphabets), in a
    URL, in JSON."""
    raw = value.encode()
    coded = {base64.b64encode(b"." * shift + raw)[4 if shift else 0:-4] for shift in range(3)}
    escaped = json.dumps(value)[1:-1]
    return {raw, raw.hex().encode(), raw.hex().upper().encode(), *coded,
            *(one.translate(bytes.maketrans(b"+/", b"-_")) for one in coded),
            quote(value).encode(), quote(value, safe="").encode(), quote_plus(value).encode(),
            escaped.encode(), escaped.replace("/", "\\/").encode(), json.dumps(value, ensure_ascii=False)[1:-1].encode(),
            "".join(f"\\u{ord(char):04x}" if not char.isalnum() else char for char in value).encode()}


def hello(name: str) -> bytes:
    """The ClientHello of a TLS client that asks for *name*."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
