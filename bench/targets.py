"""What is measured: each target a process of its own, pinned to one core, with its certificates in a folder of the run.

Law: a target ends with the run, by its own pid; nothing listens beyond loopback.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.bodies import Door
from bench.load import BenchError
from douane.demo.certificate import Authority

__all__ = ["STARTERS", "Target", "Yard", "workers"]

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 30.0
_HAPROXY = """
global
    nbthread 1
    maxconn 600
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend road
    bind 127.0.0.1:{port} ssl crt {pem}
    default_backend mock
backend mock
    http-reuse always
    server mock 127.0.0.1:{mock} ssl verify required ca-file {ca} sni str(localhost) verifyhost localhost
"""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    pid: int
    door: Door


class Yard:
    """One run: its folder, its cores, the mock, and every process it started. ``with Yard(…)`` ends them all."""

    def __init__(self, folder: Path, cores: tuple[int, ...]) -> None:
        self.folder = folder
        self.cores = cores
        self._started: list[subprocess.Popen[bytes]] = []
        authority = Authority(folder / "mock")
        self.ca = authority.certificate
        self.pem = authority.issue(["localhost", "127.0.0.1", "api.openai.com"])
        self.port = free_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def spawn(self, name: str, command: Sequence[str], *cores: int) -> subprocess.Popen[bytes]:
        """Start a process on these cores: it inherits ours, which come back afterwards. Output goes to NAME.log."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        path = os.pathsep.join([str(ROOT / "addons"), str(ROOT)])
        try:
            with (self.folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                                           env=os.environ | {"PYTHONPATH": path})
        finally:
            os.sched_setaffinity(0, before)
        self._started.append(process)
        return process

    def until(self, name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        """Wait until *ready*. Raises BenchError with the end of its log where it ends or takes too long."""
        deadline = time.monotonic() + _PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise BenchError(f"{name} did not start (exit {process.poll()}): {tail}")
            time.sleep(0.05)

    def listening(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.until(name, process, lambda: _connects(port))


def direct(yard: Yard) -> Target:
    """The mock itself, on the load's core: what every other figure stands above."""
    command = [sys.executable, "-m", "bench.mock", str(yard.pem), str(yard.port)]
    process = yard.spawn("direct", command, yard.cores[1])
    yard.listening("direct", process, yard.port)
    return Target("direct", process.pid, Door(yard.port, _trusting(yard.ca)))


def mitmdump(yard: Yard) -> Target:
    """As it comes, quiet, and told to trust the mock: the measure of all ratios."""
    port, home = free_port(), yard.folder / "mitmproxy"
    program = Path(sys.executable).parent / "mitmdump"
    process = yard.spawn("mitmdump", [str(program), "-q", "--listen-host", "127.0.0.1", "-p", str(port), "--set",
                                      f"confdir={home}", "--set", "flow_detail=0", "--set",
                                      f"ssl_verify_upstream_trusted_ca={yard.ca}"], yard.cores[0])
    yard.listening("mitmdump", process, port)
    context = _trusting(home / "mitmproxy-ca-cert.pem")
    return Target("mitmdump", process.pid, Door(port, context, connect=f"127.0.0.1:{yard.port}"))


def haproxy(yard: Yard) -> Target | None:
    """TLS on both sides, connections to the mock pooled; a reverse proxy, so no CONNECT. None where not installed."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    port, config = free_port(), yard.folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, pem=yard.pem, mock=yard.port, ca=yard.ca))
    process = yard.spawn("haproxy", [program, "-db", "-f", str(config)], yard.cores[0])
    yard.listening("haproxy", process, port)
    return Target("haproxy", process.pid, Door(port, _trusting(yard.ca)))


def douane(yard: Yard) -> Target:
    """``douane serve`` with the shipped policies/default.yaml and durable audit."""
    return _douane(yard, "douane", ["-m", "douane", "serve"], restores=True)


def lean(yard: Yard) -> Target:
    """The same without ``redact`` and ``budget``, and no bodies in the log: what these add is the distance to ``douane``."""
    return _douane(yard, "lean", ["-m", "douane", "serve"], without=("detect_secrets", "redact", "budget"), level="metadata")


def empty(yard: Yard) -> Target:
    """The same hosts with no policies, and audit off."""
    return _douane(yard, "empty", ["-m", "bench.bare"])


def unaudited(yard: Yard) -> Target:
    """The shipped policies with audit off: what durable audit adds is the distance to ``douane``."""
    return _douane(yard, "unaudited", ["-m", "bench.bare", "--chain"], restores=True)


def workers(yard: Yard, count: int, *, budget: bool) -> Target:
    """``lean`` with so many workers on all cores of the yard; with *budget*, which writes to the ledger that they share."""
    name = f"{'budget' if budget else 'lean'}-{count}"
    return _douane(yard, name, ["-m", "douane", "serve", "--workers", str(count)], level="metadata", cores=yard.cores,
                   without=("detect_secrets", "redact") if budget else ("detect_secrets", "redact", "budget"))


STARTERS: Mapping[str, Callable[[Yard], Target | None]] = {
    "direct": direct, "mitmdump": mitmdump, "empty": empty, "lean": lean, "unaudited": unaudited,
    "douane": douane, "haproxy": haproxy}


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _douane(yard: Yard, name: str, command: Sequence[str], *, without: Sequence[str] = (), level: str = "redacted",
            restores: bool = False, cores: Sequence[int] = ()) -> Target:
    home = yard.folder / name
    policies = home / "policies"
    policies.mkdir(parents=True)
    shipped = (ROOT / "policies" / "default.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in shipped if not line.startswith(tuple(f"  - {name}:" for name in without))]
    if len(kept) != len(shipped) - len(without):
        raise BenchError(f"policies/default.yaml has not each of {', '.join(without)} on one line")
    text = "".join(kept)
    if text.count("level: redacted") != 1:
        raise BenchError("policies/default.yaml does not say `level: redacted` once")
    (policies / "default.yaml").write_text(text.replace("level: redacted", f"level: {level}"))
    upstream = json.dumps({"upstream": f"https://127.0.0.1:{yard.port}", "ca": str(yard.ca)})
    (policies / "bench.yaml").write_text(f"version: 1\nproviders:\n  openai: {upstream}\n")
    proxy, admin = free_port(), free_port()
    process = yard.spawn(name, [sys.executable, *command, "--policies", str(policies), "--data", str(home / "data"),
                                "--certs", str(home / "certs"), "--proxy", f"127.0.0.1:{proxy}",
                                "--http", "127.0.0.1:0", "--admin", f"127.0.0.1:{admin}"], *(cores or yard.cores[:1]))
    yard.until(name, process, lambda: _ready(admin))
    context = _trusting(home / "certs" / "ca.pem")
    return Target(name, process.pid, Door(proxy, context, name="api.openai.com", connect="api.openai.com:443",
                                          restores=restores))


def _trusting(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # mitmproxy's own CA lacks what Python 3.13 asks for
    return context


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
